"""Texts to token ids: always a whole text at once, and then the place of a border in it.

``tokenize(a) + tokenize(b)`` is not ``tokenize(a + b)``: tokenizers join characters across the border, and some put
a mark before whatever text they are given. So a text is tokenized as it will stand, and its parts are found by the
characters that each token stands for. **A token that spans a border belongs to the part behind it**, because that is
what the model has to write there. Only between an answer and its end it is the answer's, which is compared by its
characters and ends within it.

A tokenizer that does not say which characters its tokens stand for is asked for the text up to the border as well: the
tokens that both have in common from the beginning are those before the border.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from elicitable.errors import InputError

if TYPE_CHECKING:
    from elicitable.models.model import Model

BLANK = re.compile(r"(?<=\S) (?=\S)")  # between two words
WORDS = 4  # that are read again with every label
PROBE = "Ab 1,  c\n\nd é漢字 мир"


@dataclass(frozen=True, eq=False)
class Tokens:
    """The tokens of one text. ``spans`` are the characters (first, end) of each, None where they are not known."""

    text: str
    ids: list[int]
    spans: Sequence[tuple[int, int]] | None
    tokenizer: Any

    def before(self, border: int) -> int:
        """How many tokens lie wholly before character ``border``."""
        if border >= len(self.text):
            return len(self.ids)
        if self.spans is None:
            part = plain_ids(self.tokenizer, [self.text[:border]])[0] if border else []
            return common_beginning([part, self.ids])
        behind = (i for i, (first, end) in enumerate(self.spans) if end > border or first >= border)
        return next(behind, len(self.ids))

    def taken(self, border: int) -> str:
        """The last characters before ``border`` where the first token behind it takes them in; else nothing."""
        at = self.before(border)
        if self.spans is not None:
            return self.text[self.spans[at][0] : border] if at < len(self.ids) else ""
        if at == len(plain_ids(self.tokenizer, [self.text[:border]])[0]):
            return ""
        known = self.tokenizer.decode(self.ids[:at], clean_up_tokenization_spaces=False)
        return self.text[len(known) : border] if self.text.startswith(known) else ""

    def covering(self, border: int) -> int:
        """How many tokens it takes to hold all characters before ``border``: one that goes on behind it is counted."""
        known = self.before(border)
        if border >= len(self.text) or known == len(self.ids):
            return known
        if self.spans is None:
            return known + (known < len(plain_ids(self.tokenizer, [self.text[:border]])[0]))
        return next((i for i in range(known, len(self.ids)) if self.spans[i][0] >= border), len(self.ids))

    def inside(self, first: int, end: int) -> range:
        """The tokens that lie wholly in characters ``first`` to ``end``."""
        start = self.before(first)
        if self.spans is not None:
            start += next((n for n, (at, _) in enumerate(self.spans[start:]) if at >= first), len(self.ids) - start)
        return range(start, max(start, self.before(end)))


def tails(model: Model, first: Tokens, texts: Sequence[str], border: int) -> tuple[int, list[Tokens]]:
    """Return how many of ``first``'s tokens all ``texts`` begin with, and the tokens of the rest of each.

    The texts are ``first.text`` up to character ``border`` and go on as they like. Tokenizers work word by word, so the
    words before the last few are read once: up to a blank from which on the first and the last text give the same
    tokens, whether the text before it is there or not. Where no blank does, and for tokenizers that do not say which
    characters their tokens stand for, every text is read whole.
    """
    cut, place = _blank_before(first, border)
    if place and len(texts) > 2:
        ends = tokenize(model, [text[cut:] for text in texts])
        last = tokenize(model, [texts[-1]])[0]
        if first.ids[place:] == ends[0].ids and last.ids == [*first.ids[:place], *ends[-1].ids]:
            return place, ends
    return 0, tokenize(model, texts)


def _blank_before(tokens: Tokens, border: int) -> tuple[int, int]:
    """Return the character and the token at which the last :data:`WORDS` words before ``border`` begin, or zeros."""
    if tokens.spans is None:
        return 0, 0
    starts = [found.start() for found in BLANK.finditer(tokens.text, 0, border)]
    cut = starts[-WORDS] if len(starts) >= WORDS else 0
    place = tokens.before(cut)
    clean = place and tokens.spans[place][0] >= cut and tokens.spans[place - 1][1] <= cut
    return (cut, place) if clean else (0, 0)


def tokenize(model: Model, texts: Sequence[str]) -> list[Tokens]:
    """The tokens of each whole text, without what the tokenizer puts around it.

    Raises:
        InputError: the model has no tokenizer or another model's, or a text holds half of a surrogate pair, which is no
            character.
    """
    tokenizer = model.tokenizer
    for text in texts:
        _check_characters(text)
    if tokenizer is None:
        raise InputError(
            f"{model.name} has no tokenizer, so it cannot read a text task; give it one (el.load(model, tokenizer=…)) "
            "or, with a toy, use one of the digit tasks."
        )
    bare = _bare(tokenizer, len(tokenizer))
    if bare is None:
        ids = plain_ids(tokenizer, texts)
        found = [Tokens(text, own, None, tokenizer) for text, own in zip(texts, ids, strict=True)]
    else:
        encoded = bare.encode_batch(list(texts), add_special_tokens=False)
        found = [Tokens(text, one.ids, one.offsets, tokenizer) for text, one in zip(texts, encoded, strict=True)]
    model.check_written([max(one.ids) for one in found if one.ids])
    return found


def _check_characters(text: str) -> None:
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"a text holds U+{ord(text[error.start]):04X}, half of a surrogate pair, which is no character: "
            f"{text[max(0, error.start - 20) : error.start]!r} stands before it; leave it out."
        ) from error


def plain_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """The ids of each text, without what the tokenizer puts around it."""
    ids: list[list[int]] = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return ids


@lru_cache(maxsize=8)
def _bare(tokenizer: Any, size: int) -> Any:
    """A copy of a fast tokenizer that neither pads, cuts, adds tokens, nor trims spaces off a token's characters.

    None where there is none, or where it reads a text otherwise than the tokenizer itself does.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not hasattr(backend, "to_str"):
        return None
    bare = type(backend).from_str(backend.to_str())
    bare.no_padding()
    bare.no_truncation()
    bare.post_processor = None
    bare.encode_special_tokens = backend.encode_special_tokens
    texts = [PROBE, PROBE.join(map(str, tokenizer.all_special_tokens))]
    mine = [one.ids for one in bare.encode_batch(texts, add_special_tokens=False)]
    return bare if mine == plain_ids(tokenizer, texts) else None


def common_beginning(rows: Iterable[Sequence[object]]) -> int:
    """How many ids (or characters) all ``rows`` begin with.

    >>> common_beginning([[1, 2, 3], [1, 2, 4]])
    2
    """
    count = 0
    for column in zip(*rows, strict=False):
        if len(set(column)) > 1:
            break
        count += 1
    return count
