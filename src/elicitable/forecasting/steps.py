"""The first steps of each trained arm: how much of the loss is gone after a few, and how much more each next one takes.

Two arms stand for all: free keys and values for the contexts, low-rank changes for the weights, both at the race's
budget. A run is that of a race's first look: the same optimizer, data and constant rate. Scores are validation's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from elicitable.methods.budget import default_budget
from elicitable.methods.catalog import TUNED, method_named
from elicitable.methods.lora import LoRA
from elicitable.training.loop import Plan, train

if TYPE_CHECKING:
    from elicitable.methods.base import Method
    from elicitable.models.model import Model
    from elicitable.tasks.base import Task
    from elicitable.training.checkpoint import Frozen

WARMUP = 10
NEVER = 10**9
LONGEST = 64  # virtual tokens of a context
LEAST, MOST = 1e-3, 1e2  # nats between which the loss that is left is told apart
LOST = -1.0  # the least progress that is told: where the loss doubles or worse


@dataclass(frozen=True)
class Look:
    """Hold one look at a run: after how many steps, the nats per token of the right answer, and the score."""

    steps: int
    nats: float
    score: float


@dataclass(frozen=True)
class Run:
    """Hold the first steps at one learning rate; its looks end where it diverged."""

    learning_rate: float
    looks: tuple[Look, ...]


def arms() -> dict[str, Method]:
    """Return the arm that stands for the contexts and the one for the weights."""
    return {"context": method_named(TUNED), "weights": LoRA()}


def first_steps(
    model: Model, task: Task, method: Method, looks: Sequence[int], rates: int, plan: Plan, seed: int
) -> list[Run]:
    """Train ``method`` a little at ``rates`` rates in the middle of its range; behind the second look the best goes on.

    Every run is one run, bit for bit, however many looks it has.
    """
    assert method.schedule is not None
    known = method.schedule.learning_rates
    lowest = (len(known) - rates) // 2
    running = [_Run(model, task, method, rate, seed, plan) for rate in known[lowest : lowest + rates]]
    for nth, steps in enumerate(looks):
        if nth == 2:
            going = [one for one in running if one.is_fine]
            best = min(going, key=lambda one: one.looks[-1].nats, default=None)
            for one in running:
                one.is_fine = one is best
        for one in running:
            one.go_on(steps)
    return [Run(one.plan.learning_rate, tuple(one.looks)) for one in running]


class _Run:
    """Train one rate from look to look."""

    def __init__(self, model: Model, task: Task, method: Method, rate: float, seed: int, plan: Plan) -> None:
        assert method.schedule is not None
        self.model, self.task, self.seed = model, task, seed
        self.plan = replace(
            plan,
            learning_rate=rate,
            warmup=WARMUP,
            cooldown=0.0,
            evaluate_every=NEVER,
            weight_decay=method.schedule.weight_decay,
            patience_steps=NEVER,
            solved=2.0,
            perfect=2.0,
        )
        self.adaptation = method.build(model, size_of(model, method), seed=seed, **method.start(model))
        self.end: Frozen | None = None
        self.looks: list[Look] = []
        self.is_fine = True

    def go_on(self, steps: int) -> None:
        """Train on to ``steps`` steps and look; nothing more once it has diverged."""
        if not self.is_fine:
            return
        plan = replace(self.plan, steps=steps)
        fit = train(self.model, self.adaptation, self.task, plan, self.seed, start=self.end, keeps_end=True)
        self.end = fit.end
        self.is_fine = self.end is not None and fit.latest is not None and math.isfinite(fit.latest.loss_nats)
        if self.is_fine and fit.latest is not None:
            self.looks.append(Look(steps, fit.latest.loss_nats, fit.latest.mean))


def size_of(model: Model, method: Method) -> int:
    """Return the size at which ``method`` meets a race's budget, 1 where that is too little for it."""
    budget = max(default_budget(model), method.numbers(model, 1))
    return method.fitting(model, budget, (model.anatomy.trained_positions or 2 * LONGEST) // 2).size


def step_signals(arm: str, base_nats: float, runs: Sequence[Run], looks: int) -> dict[str, float]:
    """Return, for one arm, the share of the loss that is gone after each look; what is left, and the score, at the end.

    Of several rates each look takes the best; where a run has diverged, its last look stands for the later ones.

    >>> run = Run(0.1, (Look(8, 1.5, 0.0), Look(32, 0.5, 0.5)))
    >>> {name: round(value, 3) for name, value in step_signals("arm", 2.0, [run], 2).items()}
    {'arm_gone_1': 0.25, 'arm_gone_2': 0.75, 'arm_late': 0.667, 'arm_left': -0.301, 'arm_score': 0.5}
    """
    gone = [[_gone(base_nats, run, nth) for run in runs] for nth in range(looks)]
    best = [max(own) for own in gone]
    signals = {f"{arm}_gone_{nth + 1}": value for nth, value in enumerate(best)}
    last, before = 1 - best[-1], 1 - best[-2] if looks > 1 else 1.0
    signals[f"{arm}_late"] = max(LOST, 1 - last / max(before, 1e-6))
    nats = min((run.looks[-1].nats for run in runs if run.looks), default=base_nats)
    signals[f"{arm}_left"] = math.log10(min(max(nats, LEAST), MOST))
    signals[f"{arm}_score"] = max((run.looks[-1].score for run in runs if run.looks), default=0.0)
    return signals


def _gone(base_nats: float, run: Run, nth: int) -> float:
    if not run.looks:
        return LOST
    look = run.looks[min(nth, len(run.looks) - 1)]
    return max(LOST, 1 - look.nats / max(base_nats, 1e-9))
