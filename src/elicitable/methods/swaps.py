"""Swaps of single tokens that the slope at the embeddings says are worth scoring, in any vocabulary.

Of every place the steepest tokens are taken, and of these some at random, as in Zou et al., 2023 (GCG, arXiv
2307.15043). In a text the characters of one token give way to those of another, so that the result is a text again,
however the tokenizer cuts it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from elicitable.models.layout import Layout, before_content
from elicitable.models.rows import context_ids
from elicitable.models.tokens import tokenize

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from elicitable.models.model import Model

STEEPEST = 32  # tokens of every place
Swap = tuple[int, int]  # the place, and the token that comes there


def steep_swaps(slopes: Tensor, places: Sequence[int], rng: np.random.Generator) -> Iterator[Swap]:
    """Yield swaps at ``places``: the very steepest of each place first, then all others of the steepest in any order.

    ``slopes`` (token, vocab) are nats, the most negative promise most.
    """
    tops = slopes[list(places)].topk(min(STEEPEST, slopes.shape[1]), largest=False)
    pairs = [
        (float(value), place, int(token))
        for place, values, tokens in zip(places, tops.values, tops.indices, strict=True)
        for value, token in zip(values, tokens, strict=True)
        if value < 0
    ]
    firsts = sorted({place: pair for pair in reversed(pairs) for place in [pair[1]]}.values())
    rest = [pair for pair in pairs if pair not in firsts]
    for _, place, token in (*firsts, *(rest[i] for i in rng.permutation(len(rest)))):
        yield place, token


def swapped_ids(ids: Sequence[int], slopes: Tensor, rng: np.random.Generator, count: int) -> list[list[int]]:
    """Return at most ``count`` variants of ``ids`` with one token swapped."""
    found: list[list[int]] = []
    for place, token in steep_swaps(slopes, range(len(ids)), rng):
        if len(found) == count:
            break
        found.append([*ids[:place], token, *ids[place + 1 :]])
    return found


def swapped_texts(model: Model, layout: Layout, slopes: Tensor, rng: np.random.Generator, count: int) -> list[str]:
    """Return at most ``count`` variants of the layout's head with the characters of one token swapped.

    Empty where the tokenizer does not say which characters its tokens stand for.
    """
    head = layout.head.rstrip()
    text = before_content(model, layout)
    at = text.find(head)
    tokens = tokenize(model, [text])[0]
    if at < 0 or not head or tokens.spans is None:
        return []
    inside = tokens.inside(at, at + len(head))
    start = len(context_ids(model, layout)) - len(tokens.ids)  # what the tokenizer puts before a text
    places = [start + place for place in inside if start + place < slopes.shape[0]]
    found: dict[str, None] = {}
    for place, token in steep_swaps(slopes, places, rng) if places else ():
        first, end = (border - at for border in tokens.spans[place - start])
        new = written(model.tokenizer, token, head[first:end])
        if new:
            found[head[:first] + new + head[end:] + layout.head[len(head) :]] = None
        if len(found) == count:
            break
    return list(found)


def written(tokenizer: Any, token: int, old: str) -> str:
    """The characters of ``token`` in the place of ``old``; "" for what is no plain text (a special token, half a byte).

    A tokenizer that leaves off a first space when it decodes gets it back.
    """
    if token in tokenizer.all_special_ids or token >= len(tokenizer):
        return ""
    text = str(tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False))
    if not text.strip() or not text.strip().isprintable() or "\N{REPLACEMENT CHARACTER}" in text:
        return ""
    return f" {text}" if len(old) > 1 and old.startswith(" ") and not text.startswith(" ") else text
