"""Whether a model can read a task at all, said before anything is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elicitable.errors import InputError
from elicitable.models.inject import room_in
from elicitable.models.layout import Layout
from elicitable.models.rows import label_rows, rows_of
from elicitable.training.generate import Stop

if TYPE_CHECKING:
    from elicitable.models.model import Model
    from elicitable.tasks.base import Task


def check_reading(model: Model, task: Task, layout: Layout, max_tokens: int | None = None) -> None:
    """Read one item and all labels of ``task`` as the model will.

    Raises:
        InputError: the items are not for this model, two labels are the same tokens to it, or free-form answers could
            not end, because the tokenizer has no end of text and no stop string is given.
    """
    items, labels, limit = task.held_out("validation", 1), task.labels(), room_in(model, max_tokens)
    rows_of(model, items, layout, limit=limit)
    if labels is not None:
        label_rows(model, items, labels, layout, limit=limit)
    elif model.tokenizer is not None and Stop.of(model, layout) == Stop():
        raise InputError(
            f"the tokenizer of {model.name} has no end of text, so an answer of {task.name} never ends; give a stop "
            "string (stop=, --stop), for instance a line break, or a tokenizer with an eos_token."
        )
