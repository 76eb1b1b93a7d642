"""How a race against the clock spends its time: evenly over the arms, 40 % of a share on the sweep."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from elicitable.errors import BudgetError
from elicitable.methods.catalog import method_named
from elicitable.runs.store import Record
from elicitable.runs.trial import reading_of
from elicitable.training.evaluate import evaluate
from elicitable.training.loop import Plan, prepared, train

if TYPE_CHECKING:
    from elicitable.methods.budget import Sized
    from elicitable.runs.race import Race

NEVER = 10**9


@dataclass
class Timing:
    """The share of one arm: seconds for training and validation (its test is taken off first)."""

    share: float
    deadline: float
    step_seconds: float
    validation_seconds: float

    @classmethod
    def of(cls, race: Race, sized: Sized, arms_left: int, is_rerun: bool = False) -> Timing:
        """The share of an arm of which ``arms_left`` (itself among them) still have to run.

        Raises:
            BudgetError: the share is too short for one rate and one seed; says how much would be needed.
        """
        assert race.time_limit is not None
        pace = measure(race, sized)
        left = race.left() or 0.0
        rounds = 1 if is_rerun else race.seeds
        share = left / arms_left / (1 + 0.3 * (rounds - 1)) - pace["item_seconds"] * race.pace.test_items
        timing = cls(
            share=share,
            deadline=time.monotonic() + share,
            step_seconds=pace["step_seconds"],
            validation_seconds=pace["item_seconds"] * race.pace.validation_items,
        )
        need = 2 * (8 * timing.step_seconds + timing.validation_seconds)
        if not is_rerun and share < need:
            test = pace["item_seconds"] * race.pace.test_items
            raise BudgetError(
                f"a time limit of {race.time_limit:g} s is too short: {sized.method} on {race.model.name} needs about "
                f"{need + test:.0f} s here and has {max(0.0, share + test):.0f} s; {arms_left} arms are left. "
                "Give more time, or fewer --method, --seeds or --test-items."
            )
        return timing

    @property
    def is_over(self) -> bool:
        """Whether the share is too short for anything."""
        return self.share < 8 * self.step_seconds + self.validation_seconds

    def rates(self, rates: tuple[float, ...]) -> tuple[float, ...]:
        """As many of the rates as get at least 15 steps each; those at the ends go first."""
        affordable = int(0.4 * self.share / (15 * self.step_seconds + self.validation_seconds))
        drop = max(0, len(rates) - max(1, affordable))
        return rates[drop // 2 + drop % 2 : len(rates) - drop // 2]

    def sweep(self, plan: Plan, rates: int) -> Plan:
        """The plan of one of ``rates`` sweep runs: one look at the validation split, at the end."""
        plan = self._within(plan, 0.4 * self.share / rates)
        return replace(plan, evaluate_every=NEVER, cooldown=0.0)

    def final(self, plan: Plan) -> Plan:
        """The plan of a run with all that is left of the share."""
        return self._within(plan, max(0.5, self.deadline - time.monotonic()))

    def _within(self, plan: Plan, seconds: float) -> Plan:
        steps = max(2, int(seconds / self.step_seconds))
        sparse = int(4 * self.validation_seconds / self.step_seconds)  # validation takes a fifth of the time at most
        return replace(
            plan,
            steps=max(plan.steps, steps),
            seconds=max(0.2, seconds - self.validation_seconds),
            warmup=min(plan.warmup, max(1, steps // 10)),
            evaluate_every=max(1, min(plan.evaluate_every, steps // 8), sparse),
            patience_steps=max(plan.patience_steps, steps),
        )


def measure(race: Race, sized: Sized) -> Record:
    """Seconds that a training step and a scored item take for this method here; measured once and kept."""
    spec = {
        "pace": sized.method,
        "size": sized.size,
        "batch": race.pace.batch,
        "time_limit": race.time_limit,
        "model": race.model.fingerprint,
        "task": race.task.fingerprint(),
    }
    return race.store.get(spec) or race.store.put(spec, _stopwatch(race, sized))


def _stopwatch(race: Race, sized: Sized) -> Record:
    adaptation = method_named(sized.method).build(race.model, sized.size, seed=race.seed)
    plan = Plan(
        learning_rate=1e-6,
        steps=1,
        batch=race.pace.batch,
        cooldown=0.0,
        evaluate_every=NEVER,
        validation_items=1,
        max_tokens=race.pace.max_tokens,
    )
    train(race.model, adaptation, race.task, plan, race.seed)  # the first step is slower than the rest
    started = time.monotonic()
    fit = train(race.model, adaptation, race.task, replace(plan, steps=4), race.seed)
    step = (time.monotonic() - started) / fit.steps
    items = race.task.held_out("validation", 32)
    with torch.no_grad(), prepared(race.model, adaptation) as refresh:
        refresh()
        started = time.monotonic()
        evaluate(race.model, items, race.task.labels(), reading_of(plan, adaptation))
    return {"status": "ok", "step_seconds": max(1e-5, step), "item_seconds": (time.monotonic() - started) / len(items)}
