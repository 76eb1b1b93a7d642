"""How much a forecast looks at: items, worked examples, and the first steps of each trained arm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from elicitable.models.model import Model


@dataclass(frozen=True)
class Pace:
    """How much is looked at on one kind of model; part of a shipped forecast, which knows signals of its own pace only.

    ``validation_items`` are scored, ``gradient_items`` drawn from the training data for gradients, ``train_items`` for
    the linear probes. ``prompts`` are tried on ``prompt_items``; ``examples`` are the numbers of worked examples. The
    first steps have ``batch`` items each, at ``rates`` of each method's learning rates (those in the middle of its
    range), with a look after each of ``looks``.
    """

    validation_items: int
    gradient_items: int
    train_items: int
    prompts: int
    prompt_items: int
    examples: tuple[int, ...]
    batch: int
    rates: int
    looks: tuple[int, ...]


DIGITS = Pace(128, 48, 512, 64, 32, (1, 2, 4, 8, 16), 16, 2, (8, 32, 100))
TEXT = Pace(32, 8, 48, 4, 8, (1, 2, 4), 4, 1, (2, 4, 8))


def pace_for(model: Model) -> Pace:
    """Return the pace of this kind of model: without a tokenizer, or with one, where every item costs far more."""
    return DIGITS if model.tokenizer is None else TEXT
