"""How much is run on one kind of model: batches, steps, looks at the validation split, items."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from elicitable.errors import InputError

if TYPE_CHECKING:
    from elicitable.models.model import Model


@dataclass(frozen=True)
class Pace:
    """How a race is run on one kind of task; found by the sweeps noted in docs/log.md.

    A first look gives ``first_steps`` to every learning rate; a run has ``steps`` at most, of which the way down at the
    end takes ``finish`` at least. ``sweep_steps`` are those of a tuning's sweep.
    """

    batch: int
    steps: int
    sweep_steps: int
    evaluate_every: int
    validation_items: int
    test_items: int
    patience_steps: int
    first_steps: int = 16
    finish: int = 64
    max_tokens: int | None = None  # of a text; None: as far as the model's positions reach

    @property
    def look_items(self) -> int:
        """Count the validation items of a look at the end of a leg; the way down looks at all of them."""
        return max(1, self.validation_items // 2)


DIGITS = Pace(
    batch=16,
    steps=12_000,
    sweep_steps=30,
    evaluate_every=50,
    validation_items=256,
    test_items=1_500,
    patience_steps=300,
)
TEXT = Pace(
    batch=16,
    steps=300,
    sweep_steps=40,
    evaluate_every=20,
    validation_items=128,
    test_items=500,
    patience_steps=100,
)


def check_count(name: str, number: Any) -> None:
    """Raise InputError unless ``number`` is None or a whole number of at least 1."""
    if number is None:
        return
    if isinstance(number, bool) or not isinstance(number, int):
        raise InputError(f"{name} must be a whole number, got {number!r}.")
    if number < 1:
        raise InputError(f"{name} must be at least 1, got {number}.")


def pace_for(model: Model, steps: int | None, test_items: int | None, max_tokens: int | None = None) -> Pace:
    """The pace of this kind of model, with what a person asked for."""
    pace = DIGITS if model.tokenizer is None else TEXT
    if steps is not None:
        pace = replace(pace, steps=steps, sweep_steps=min(pace.sweep_steps, max(1, steps // 4)))
    pace = replace(pace, max_tokens=max_tokens)
    return replace(pace, test_items=test_items) if test_items is not None else pace
