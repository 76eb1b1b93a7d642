"""Rows to tensors. The content is padded on the left, so that answers end together and few logits are computed.

Texts of similar length share a batch, and a batch is bounded by its tokens, padding included, and by its mask, which
grows with the square of their length: a few long texts among many short ones cost what they cost themselves, in time
and in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from elicitable.errors import InputError
from elicitable.models.inject import room_in
from elicitable.models.layout import PLAIN, Layout, layout_unsaid
from elicitable.models.rows import LabelRow, Row, rows_of
from elicitable.tasks.base import has_turns, stops_of

if TYPE_CHECKING:
    import numpy as np

    from elicitable.models.model import Model
    from elicitable.tasks.base import Task
    from elicitable.values import Item

Asked = Callable[["Model", Sequence["Item"]], Sequence["Item"]]
IGNORED = -100
CHUNK = 32  # batches drawn at once, because drawing few items is what costs
DRAWS = 16  # times that they are drawn where all are shown by the context
TOKENS_A_ROW = 256  # of a batch, on average and with padding: a batch of 16 holds 4,096 tokens at most
SHORT_ROWS = 64  # of ids at once where they are short: toy:mixed takes 0.46 ms a row so, and 0.61 by 16
LOGITS = 2**26  # logits of a batch at most: 256 MiB in float32
PADDED = 256, 1 / 8  # tokens of padding in a batch, and its share of the others, above which another pass costs less
ATTENDED = 2**24  # pairs of tokens in the masks of a batch at most, or those of one row: 80 MiB as bool and float32


def layout_without_record(model: Model, task: Task | None) -> Layout:
    """Return how the items of ``task`` are read where no record says (:func:`~elicitable.models.layout.layout_unsaid`).

    Without a task: as plain texts.
    """
    return PLAIN if task is None else layout_unsaid(model, stops_of(task), has_turns(task))


@dataclass(frozen=True, eq=False)
class Batch:
    """Teacher-forced rows: prompt and answer without its last token, and what should come next.

    ``input_ids`` (batch, token); ``attention_mask`` (batch, token), or None without padding; ``targets``
    (batch, answer): the answer's tokens, right-aligned with the last ``answer`` positions of ``input_ids`` and
    :data:`IGNORED` where a row's answer is shorter.
    """

    input_ids: Tensor
    attention_mask: Tensor | None
    targets: Tensor

    def __len__(self) -> int:
        return self.input_ids.shape[0]


@dataclass(frozen=True)
class Reading:
    """How items are read: their layout, the ids that a context in front of them holds, and how much at a time.

    ``batch`` rows at once; texts in batches of ``batch`` · :data:`TOKENS_A_ROW` tokens at most. A text longer than
    ``max_tokens``, or than the model's positions reach behind the context in use, is cut. ``asked`` says what is read
    in the place of the items, where a context differs from item to item. With a ``marker`` an answer is written out,
    ``longest`` tokens at most, and what stands behind the last marker is the answer. ``most`` tokens are written where
    the task says how many an answer may have. ``shown`` are worked examples whose answers the context shows.
    """

    batch: int = 64
    max_tokens: int | None = None
    layout: Layout = PLAIN
    held: tuple[int, ...] = ()
    asked: Asked | None = None
    marker: str = ""
    longest: int = 256
    most: int | None = None
    shown: tuple[Item, ...] = ()

    def items(self, model: Model, items: Sequence[Item]) -> Sequence[Item]:
        """Return what is read in the place of ``items``."""
        return items if self.asked is None else self.asked(model, items)


def encode(
    model: Model,
    items: Sequence[Item],
    max_tokens: int | None = None,
    layout: Layout | None = None,
    held: Sequence[int] = (),
) -> Batch:
    """All ``items`` as one batch; see :func:`elicitable.models.rows.rows_of`.

    Raises:
        InputError: the model cannot read the items.
    """
    return padded(model, rows_of(model, items, layout, held=held, limit=room_in(model, max_tokens)))


def padded(model: Model, rows: Sequence[Row]) -> Batch:
    """``rows`` as one batch."""
    texts = [[*row.content, *row.answer][:-1] for row in rows]
    answer, width = max(len(row.answer) for row in rows), max(map(len, texts))
    ids = torch.tensor([[0] * (width - len(text)) + text for text in texts], dtype=torch.long)
    targets = torch.tensor([[IGNORED] * (answer - len(row.answer)) + [*row.answer] for row in rows])
    mask = None
    if any(len(text) < width for text in texts):
        mask = torch.tensor([[0] * (width - len(text)) + [1] * len(text) for text in texts]).to(model.device)
    return Batch(ids.to(model.device), mask, targets.to(model.device))


def groups(model: Model, rows: Sequence[Row] | Sequence[LabelRow], batch: int) -> list[list[int]]:
    """Places in ``rows`` that share a batch: short ones together, bounded in tokens, padding, masks and logits.

    Rows of token ids (a model without a tokenizer) stay in their order, ``batch`` at a time; short ones up to
    :data:`SHORT_ROWS`.
    """
    most = batch * TOKENS_A_ROW
    if model.tokenizer is None:
        count = max(batch, min(SHORT_ROWS, most // max(map(len, rows), default=1)))
        return [list(range(first, min(first + count, len(rows)))) for first in range(0, len(rows), count)]
    vocab = model.hf.get_input_embeddings().weight.shape[0]
    found: list[list[int]] = []
    answer = read = 0
    for place in sorted(range(len(rows)), key=lambda place: len(rows[place])):  # so the latest is the longest
        width, longest = len(rows[place]), _written(rows[place])
        answer = max(answer, longest)
        count = len(found[-1]) + 1 if found else 1
        is_full = count * width > most or count * width**2 > ATTENDED or count * answer * vocab > LOGITS
        padding = (count - 1) * width - read
        if not found or is_full or padding > max(PADDED[0], PADDED[1] * read):
            found.append([])
            answer, read = longest, 0
        found[-1].append(place)
        read += width
    return found


def _written(row: Row | LabelRow) -> int:
    return len(row.answer) if isinstance(row, Row) else max(map(len, row.labels))


def stream(model: Model, task: Task, size: int, rng: np.random.Generator, reading: Reading) -> Iterator[list[Batch]]:
    """Training batches without end, each in as many parts as its tokens ask for.

    ``rng`` is drawn from once before every :data:`CHUNK` batches, not in between. Texts among them are put into batches
    by their length, and the batches in random order. In the place of an item that the context shows, whose answer could
    be copied, is another of those drawn.

    Raises:
        InputError: the context shows all that there is to train on.
    """
    limit = room_in(model, reading.max_tokens)
    while True:
        items = _drawn(task, size * CHUNK, rng, reading.shown)
        rows = rows_of(model, items, reading.layout, held=reading.held, limit=limit)
        batches = [rows[first : first + size] for first in range(0, len(rows), size)]
        if items[0].is_text:
            rows = sorted(rows, key=len)
            batches = [rows[first : first + size] for first in range(0, len(rows), size)]
            batches = [batches[place] for place in rng.permutation(len(batches))]
        for batch in batches:
            parts = groups(model, batch, size)
            yield [padded(model, [batch[place] for place in part]) for part in parts]


def _drawn(task: Task, count: int, rng: np.random.Generator, shown: Sequence[Item]) -> list[Item]:
    """Draw ``count`` items, others of them in the place of those that are ``shown``; again where all of them are."""
    known = {(item.prompt, item.target) for item in shown}
    for _ in range(DRAWS):
        items = task.sample(count, rng)
        others = [item for item in items if (item.prompt, item.target) not in known]
        if others:
            return list(islice(cycle(others), len(items))) if known else items
    raise InputError(
        f"every training item of {task.name} that was drawn stands among the {len(known)} worked examples of the "
        "context, where its answer could be copied; give more rows, or fewer examples."
    )
