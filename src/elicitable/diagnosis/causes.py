"""Hold why contexts fall short: the experiments that ran, the causes that follow from them, and what a cause is.

Each experiment changes one thing about a context, or about how the task is read, and is compared in pairs with the best
arm. :mod:`elicitable.diagnosis.explaining` names the cause.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from elicitable.diagnosis.sizes import SizeCurve
from elicitable.diagnosis.verdict import Comparison

Cause = Literal["reading", "data", "optimisation", "capacity", "structure", "unknown"]
Kind = Literal[
    "reading",
    "by-heart",
    "context",
    "rate",
    "longer",
    "start",
    "size",
    "unbounded",
    "frozen-patterns",
    "weights",
    "subspace",
]
REMEDIES: dict[Kind, Cause] = {
    "reading": "reading",
    "rate": "optimisation",
    "longer": "optimisation",
    "start": "optimisation",
    "size": "capacity",
}
NO_TIME = "no time was left for it"  # why an experiment did not run


@dataclass(frozen=True, slots=True)
class Experiment:
    """Hold what one change led to.

    ``of`` is the context that it is about; it is empty where it is about the task. ``behind`` is the mean of (best −
    this) with its limits, in pairs over test items; it is empty where the experiment was scored on other items
    (``by-heart``), and where it did not run: then ``reason`` says why. ``setting`` is what a person gives to get the
    same; ``closed`` is the share of the context's gap that it closes; ``stopped`` is why its training ended ("solved",
    "plateau", "steps", "time"; "behind": its curve no longer led to the best arm). ``is_exact`` says of an unbounded
    context whether its first layer holds every context exactly. ``ceiling`` is the most that can be right of rows that
    are learned by heart: less than 1 where the same text has several answers.
    """

    of: str
    kind: Kind
    what: str
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    behind: tuple[float, ...] = ()
    is_enough: bool = False
    is_worse: bool = False
    closed: float | None = None
    numbers_trained: int = 0
    steps: int = 0
    seconds: float = 0.0
    setting: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    stopped: str = ""
    is_exact: bool = False
    ceiling: float | None = None

    @property
    def had_no_time(self) -> bool:
        """Whether it did not run, or not to its end, as the time was up."""
        return self.reason == NO_TIME or self.stopped == "time"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Hold why one context falls short: the cause, how sure, what is seen, what it means, and what to do next.

    ``remedy`` is the experiment that closes the gap, where one does.
    """

    of: str
    cause: Cause
    is_sure: bool
    sentences: tuple[str, ...]
    advice: str
    remedy: Experiment | None = None


@dataclass(frozen=True, slots=True)
class Why:
    """Hold the causes of a verdict and everything that they rest on."""

    best: str
    best_mean: float
    diagnoses: tuple[Diagnosis, ...]
    experiments: tuple[Experiment, ...]
    curves: tuple[SizeCurve, ...] = ()
    seconds: float = 0.0


def experiment_of(of: str, kind: Kind, what: str, compared: Comparison, gap: float, **more: object) -> Experiment:
    """Return the experiment whose arm was compared with the best; ``gap`` is that of the context it is about."""
    arm = compared.arm
    return Experiment(
        of=of,
        kind=kind,
        what=what,
        mean=arm.mean,
        low=arm.low,
        high=arm.high,
        behind=(compared.mean, compared.low, compared.high),
        is_enough=compared.standing == "enough",
        is_worse=compared.low > 0 and compared.standing != "enough",
        closed=(gap - compared.mean) / gap if gap > 0 else None,
        numbers_trained=arm.budget.numbers_trained,
        steps=arm.steps,
        seconds=arm.seconds,
        stopped=arm.stopped,
        **more,  # type: ignore[arg-type]
    )
