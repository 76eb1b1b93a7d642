"""Items of another kind than any task, on which side effects are measured, as far as a model can read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from elicitable.tasks.passages import ITEMS
from elicitable.training.generate import text_of
from elicitable.values import Item

if TYPE_CHECKING:
    from elicitable.models.model import Model

WHOLE = 512  # positions in which every passage fits


def items_elsewhere(model: Model) -> Sequence[Item]:
    """Return plain English, or the toys' pretraining mix; for a model of few positions or tokens, what fits.

    Half of the positions are left to a context.
    """
    limit = model.anatomy.trained_positions
    if model.tokenizer is not None:
        return ITEMS if limit is None or limit >= WHOLE else [_opening(model, item, limit // 2) for item in ITEMS]
    from elicitable.tasks.catalog import task_from

    items = task_from("mixed" if model.name != "toy:ascending" else "ascending").held_out("validation", 128)
    return [_within(model, item, None if limit is None else limit // 2) for item in items]


def _opening(model: Model, item: Item, tokens: int) -> Item:
    """Return the first ``tokens`` of a passage: the first half is read, the second predicted."""
    ids = model.ids(f"{item.prompt}{item.target}")[0, :tokens].tolist()
    first, second = ids[: len(ids) // 2], ids[len(ids) // 2 :]
    return Item(text_of(model, (), first), text_of(model, first, second))


def _within(model: Model, item: Item, tokens: int | None) -> Item:
    """Return an item of token ids as it is where the model can read it; else its first ``tokens``, wrapped around."""
    vocab, ids = model.anatomy.vocab, [int(number) for number in (*item.prompt, *item.target)]
    if max(ids) < vocab and (tokens is None or len(ids) <= tokens):
        return item
    read = tuple(number % vocab for number in ids[:tokens])
    return Item(read[: len(read) // 2], read[len(read) // 2 :])
