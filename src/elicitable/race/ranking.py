"""Which of several short runs is the best: rates and starts of one method, looked at on the same validation items."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

from elicitable.race.outlook import TELLING

if TYPE_CHECKING:
    from elicitable.records.trial import TrialRecord

Run = TypeVar("Run")


def best_first(looks: Mapping[Run, tuple[float, float]], items: int) -> list[Run]:
    """Put runs in order by their ``looks`` (validation score, loss in nats a token), the best first.

    The score decides as far as so many ``items`` can tell; of the runs within one standard error √(p (1 − p) / n) of
    the best score p, that with the least loss is taken (Breiman et al., Classification and Regression Trees, 1984, take
    the simplest of them). A few items more or less are chance, while every token has its part in the loss. A score
    below :data:`~elicitable.race.outlook.TELLING` counts as none.

    >>> looks = {0.03: (0.41, 0.48), 0.1: (0.34, 0.60), 0.3: (0.44, 0.69)}
    >>> best_first(looks, items=64), best_first(looks, items=6400)
    ([0.03, 0.3, 0.1], [0.3, 0.03, 0.1])
    """
    left = {run: (score if score >= TELLING else 0.0, loss) for run, (score, loss) in looks.items()}
    order = []
    while left:
        best = max(score for score, _ in left.values())
        least = best - math.sqrt(max(0.0, best * (1 - best)) / max(1, items))
        first = min((run for run, (score, _) in left.items() if score >= least), key=lambda run: left[run][1])
        order.append(first)
        del left[first]
    return order


def look_at(record: TrialRecord) -> tuple[float, float]:
    """Return the validation score of a short run that went well, and its loss; infinite where none is known."""
    loss = record.validation_loss_nats
    return record.validation or 0.0, math.inf if loss is None else loss
