"""Lay texts out twice: as they stand behind the context, and as the compiled model reads them without it.

Where the context holds the first tokens of every text (a prompt, worked examples), the compiled model reads the same
item laid out with nothing before it. The two rows end in the same tokens, and these are what is compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from elicitable.errors import InputError
from elicitable.models.inject import room_in, use
from elicitable.models.layout import PLAIN, Layout
from elicitable.models.rows import Row, rows_of
from elicitable.tasks.base import checked_count
from elicitable.training.batches import LOGITS
from elicitable.training.generate import generate
from elicitable.values import Item

if TYPE_CHECKING:
    from elicitable.models.model import Model

MOST_WRITTEN = 32  # tokens of an answer that are compared at most
_REST = " ."  # stands for what comes after a text that is not a question


@dataclass(frozen=True, slots=True)
class Pair:
    """Hold one text: ``taught`` behind the context, ``read`` without it; their last ``shared`` tokens are the same.

    At the last ``asked`` of them the model is asked: they precede the tokens of an answer. In a text without an answer
    that is all of them.
    """

    taught: list[int]
    read: list[int]
    shared: int
    asked: int


@dataclass(frozen=True, eq=False)
class Side:
    """Hold one side of a batch: ids and mask (batch, token), padded on the left."""

    ids: Tensor
    mask: Tensor


@dataclass(frozen=True, eq=False)
class PairBatch:
    """Hold both sides of a batch, and which of their last tokens are compared: (batch, shared) bool each."""

    taught: Side
    read: Side
    shared: Tensor
    asked: Tensor


def bare(layout: Layout | None) -> Layout:
    """Return the layout without what a context puts before an item."""
    return replace(layout or PLAIN, head="", examples=())


def layout_with(context: Any, layout: Layout) -> Layout:
    """Return how items are laid out with a context: as it says itself where it is text, else in ``layout``."""
    own: Layout | None = getattr(context, "layout", None)
    return own or layout


def pairs_of_items(
    model: Model, context: Any, items: Sequence[Item], max_tokens: int | None = None, layout: Layout = PLAIN
) -> list[Pair]:
    """Lay out task items, each with the answer that the model writes behind the context (no target is read).

    Items that read alike are one pair.
    """
    layout, held, room = _reading(model, context, max_tokens, layout)
    rows = rows_of(model, items, layout, held=held, limit=room)
    read = rows_of(model, items, bare(layout), limit=room)
    sides = _distinct([row.content for row in rows], [row.content for row in read])
    most = min(MOST_WRITTEN, max(len(row.answer) for row in rows))
    with use(model, context):
        written = generate(model, [Row(taught, []) for taught, _ in sides], layout, most)
    answers = [list(answer.ids) or [0] for answer in written]
    return [_pair(*both, ids) for both, ids in zip(sides, answers, strict=True)]


def pairs_of_texts(
    model: Model,
    context: Any,
    texts: Sequence[str | Sequence[int]],
    max_tokens: int | None = None,
    layout: Layout = PLAIN,
) -> list[Pair]:
    """Lay out texts, or token ids, of which every token is compared. Texts that read alike are one pair.

    Raises:
        InputError: a text has no tokens, ``max_tokens`` leaves none, or the model cannot read texts.
    """
    layout, held, room = _reading(model, context, max_tokens, layout)
    if not all(isinstance(text, str) for text in texts):
        rows = [model.ids(text)[0].tolist()[:room] for text in texts]
        _check_tokens(rows)
        return [Pair(row, row, len(row), len(row)) for row, _ in _distinct(rows, rows)]
    _check_tokens(texts)
    items = [Item(str(text), _REST) for text in texts]
    sides = [
        [row.content for row in rows_of(model, items, one, held=own, limit=room)]
        for one, own in ((layout, held), (bare(layout), ()))
    ]
    pairs = [_pair(taught, read, []) for taught, read in _distinct(*sides)]
    return [replace(pair, asked=pair.shared) for pair in pairs]


def _check_tokens(texts: Sequence[str | Sequence[int]]) -> None:
    if any(len(text) == 0 for text in texts):
        raise InputError("every text needs at least one token, and one is empty.")


def _distinct(taught: Sequence[list[int]], read: Sequence[list[int]]) -> list[tuple[list[int], list[int]]]:
    """Return each two rows once: a text that came twice would be reported on after it was fitted to."""
    return list({(tuple(one), tuple(other)): (one, other) for one, other in zip(taught, read, strict=True)}.values())


def _reading(
    model: Model, context: Any, max_tokens: int | None, layout: Layout
) -> tuple[Layout, tuple[int, ...], int | None]:
    """Say how items are laid out with the context, which ids it holds, and how long a row may be."""
    from elicitable.models.prefixes import prefix_length

    if max_tokens is not None:
        checked_count(max_tokens, "max_tokens")
    own = layout_with(context, layout)
    if hasattr(context, "held"):
        return own, tuple(context.held()), room_in(model, max_tokens, context.keys_per_layer())
    return own, (), room_in(model, max_tokens, prefix_length(context))


def _pair(taught: list[int], read: list[int], answer: list[int]) -> Pair:
    behind = answer[:-1]
    taught, read = [*taught, *behind], [*read, *behind]
    shared = 0
    for one, other in zip(reversed(taught), reversed(read), strict=False):
        if one != other:
            break
        shared += 1
    return Pair(taught, read, max(shared, 1), max(len(answer), 1))


def batches_of(model: Model, pairs: Sequence[Pair], size: int) -> list[PairBatch]:
    """Put pairs of similar length together, at most ``size`` in a batch, and as many as its logits leave room for."""
    most = LOGITS // model.anatomy.vocab
    found: list[list[Pair]] = []
    for pair in sorted(pairs, key=lambda pair: len(pair.read)):
        count = len(found[-1]) + 1 if found else size + 1
        if count > size or count * pair.shared > most:
            found.append([])
        found[-1].append(pair)
    return [_batch(model, group) for group in found]


def _batch(model: Model, pairs: Sequence[Pair]) -> PairBatch:
    width = max(pair.shared for pair in pairs)
    shared = torch.tensor([[width - place <= pair.shared for place in range(width)] for pair in pairs])
    asked = torch.tensor([[width - place <= min(pair.asked, pair.shared) for place in range(width)] for pair in pairs])
    return PairBatch(
        _side(model, [pair.taught for pair in pairs]),
        _side(model, [pair.read for pair in pairs]),
        shared.to(model.device),
        asked.to(model.device),
    )


def _side(model: Model, rows: Sequence[list[int]]) -> Side:
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows], device=model.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=model.device)
    return Side(ids, mask)


def parts_of(pairs: Sequence[Pair], shares: Sequence[float]) -> Iterator[list[Pair]]:
    """Cut ``pairs`` into consecutive parts of these shares, at least one pair each.

    Raises:
        InputError: there are fewer pairs than parts.
    """
    if len(pairs) < len(shares):
        raise InputError(f"compile needs at least {len(shares)} different texts, got {len(pairs)}.")
    first = 0
    for nth, share in enumerate(shares):
        left = len(shares) - nth - 1
        count = len(pairs) - first if not left else max(1, min(round(share * len(pairs)), len(pairs) - first - left))
        yield list(pairs[first : first + count])
        first += count
