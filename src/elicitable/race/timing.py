"""Decide how a race against the clock spends its time.

Before the first arm the speed is measured, and test and validation items are cut down to what the limit pays for. Then
every arm gets an even share of what is left. What its test will take, by its own speed and by the latest test that ran,
is taken off first; 40 % of the rest goes to the sweep. What an arm leaves goes to those after it.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from elicitable.errors import BudgetError
from elicitable.methods.base import Adaptation
from elicitable.records.store import Record, identity
from elicitable.records.trial import TrialRecord
from elicitable.tasks.base import identity_of
from elicitable.training.evaluate import evaluate
from elicitable.training.loop import Plan, prepared, reading_of, train

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elicitable.methods.base import Sized
    from elicitable.race.entry import Race

NEVER = 10**9
FEWEST_STEPS = 4  # of a run that is worth starting
FEWEST_ITEMS = {"test": 32, "validation": 16}
TEST_SHARE, VALIDATION_SHARE = 0.3, 0.35  # of the limit, at most
SWEEP_SHARE, SWEEP_STEPS = 0.4, 10  # of an arm's share; at least so many steps per rate
OVERDRAFT = 0.05  # of the limit, for the shortest run of an arm that would get none
RERUN_SHARE = 0.3  # of a first run: most arms are not contenders and are not rerun


def reserve(limit: float) -> float:
    """Return the seconds kept back for the decision and the report.

    >>> reserve(1800)
    19.5
    """
    return 1.5 + 0.01 * limit


@dataclass
class Timing:
    """Hold the share of one arm: seconds for training and validation (its test is taken off already)."""

    share: float
    deadline: float
    step_seconds: float
    validation_seconds: float

    @classmethod
    def of(cls, race: Race, sized: Sized, arms_left: int, is_rerun: bool = False) -> Timing:
        """Return the share of an arm of which ``arms_left`` (itself among them) still have to run.

        Raises:
            BudgetError: the share is too short for one rate and one seed; says how much would be needed.
        """
        assert race.time_limit is not None
        pace = measure(race, sized)
        test = max(pace["item_seconds"] * race.pace.test_items, race.test_seconds)
        measuring = 0.0 if is_rerun else (arms_left - 1) * pace["measuring_seconds"]  # of those that come after
        whole = ((race.left() or 0.0) - measuring) / arms_left
        timing = cls(
            share=whole / (1.0 if is_rerun else rounds_of(race)) - test,
            deadline=0.0,
            step_seconds=pace["step_seconds"],
            validation_seconds=pace["item_seconds"] * race.pace.validation_items,
        )
        if timing.is_over and not is_rerun:  # the arm itself comes before reruns
            timing.share = min(whole - test + OVERDRAFT * race.time_limit, timing.fewest_seconds)
            if timing.is_over:
                raise _too_short(race, sized, timing.fewest_seconds + test, whole, arms_left)
        timing.deadline = time.monotonic() + timing.share
        return timing

    @property
    def fewest_seconds(self) -> float:
        """Return the seconds that the shortest run takes that is worth starting."""
        return FEWEST_STEPS * self.step_seconds + self.validation_seconds

    @property
    def is_over(self) -> bool:
        """Say whether the share is too short for anything."""
        return self.share < self.fewest_seconds

    def rates(self, rates: tuple[float, ...]) -> tuple[float, ...]:
        """Choose as many rates as get :data:`SWEEP_STEPS` or more each; the highest, then the lowest, go first."""
        affordable = int(SWEEP_SHARE * self.share / (SWEEP_STEPS * self.step_seconds + self.validation_seconds))
        drop = max(0, len(rates) - max(1, affordable))
        return rates[drop // 2 : len(rates) - drop // 2 - drop % 2]

    def sweep(self, plan: Plan, rates: int) -> Plan:
        """Return the plan of one of ``rates`` sweep runs: one look at the validation split, at the end."""
        plan = self._within(plan, SWEEP_SHARE * self.share / rates)
        return replace(plan, evaluate_every=NEVER, cooldown=0.0)

    def final(self, plan: Plan) -> Plan:
        """Return the plan of a run with all that is left of the share."""
        return self._within(plan, max(0.1, self.deadline - time.monotonic()))

    def observe(self, record: TrialRecord) -> None:
        """Take over the speed of a run that has just ended: a machine may have become slower or quicker."""
        if record.steps >= FEWEST_STEPS and record.timing.train_seconds:
            seconds = record.timing.train_seconds / record.steps
            self.validation_seconds *= max(1.0, seconds / self.step_seconds)
            self.step_seconds = seconds

    def _within(self, plan: Plan, seconds: float) -> Plan:
        steps = max(2, int(seconds / self.step_seconds))
        sparse = int(4 * self.validation_seconds / self.step_seconds)  # validation takes a fifth of the time at most
        return replace(
            plan,
            steps=max(plan.steps, steps),
            seconds=max(0.05, seconds - self.validation_seconds),
            warmup=min(plan.warmup, max(1, steps // 10)),
            evaluate_every=max(1, min(plan.evaluate_every, steps // 8), sparse),
            patience_steps=max(plan.patience_steps, steps),
        )


def rounds_of(race: Race) -> float:
    """Count how many first runs all runs of an arm are worth on average."""
    return 1.0 + RERUN_SHARE * (race.seeds - 1)


def opening(race: Race, sizes: Sequence[Sized]) -> dict[str, Any]:
    """Say how many test and validation items the limit pays for; the warning to give where the test is cut down.

    Raises:
        BudgetError: the limit is too short for one arm; said before anything is run.
    """
    first = next((s for s in sizes if s.method.is_trained and s.size), sizes[0])
    pace = measure(race, first, is_kept=False)
    left, item = race.left() or 0.0, pace["item_seconds"]
    test = len(race.task.held_out("test", race.pace.test_items))
    fewest = min(FEWEST_ITEMS["test"], test) if race.is_test_free else test
    need = FEWEST_STEPS * pace["step_seconds"] + item * (fewest + FEWEST_ITEMS["validation"])
    if left < need:
        raise _too_short(race, first, need, left, len(sizes))
    if race.is_test_free:
        paid = int(TEST_SHARE * left / (len(sizes) * rounds_of(race) * item))
        test = min(test, max(fewest, paid))
    looks = len(sizes) * rounds_of(race) * 9  # about nine looks at the validation split an arm
    paid = int(VALIDATION_SHARE * left / (looks * item))
    return {
        "test": test,
        "of": len(race.task.held_out("test", race.pace.test_items)),
        "validation": min(race.pace.validation_items, max(FEWEST_ITEMS["validation"], paid)),
    }


def _too_short(race: Race, sized: Sized, need: float, has: float, arms_left: int) -> BudgetError:
    spent = time.monotonic() - race.started
    return BudgetError(
        f"a time limit of {race.time_limit:g} s is too short: {sized.method.name} on {race.model.name} needs about "
        f"{max(need, 0.1):.3g} s here and has {max(0.0, has):.3g} s ({spent:.0f} s are spent; arms left: {arms_left}). "
        "Give more time, or fewer --method, --seeds or --test-items."
    )


def measure(race: Race, sized: Sized, is_kept: bool = True) -> Record:
    """Measure the seconds that a training step and a scored item take for this method here; measured once and kept.

    Not in the store where ``is_kept`` is False: a race that is refused leaves nothing behind.
    """
    is_chosen = not sized.method.is_trained  # the bare model's speed stands for all of these
    spec = {
        "pace": "chosen" if is_chosen else sized.method.identity,
        "size": sized.size,
        "batch": race.pace.batch,
        "max_tokens": race.pace.max_tokens,
        "layout": asdict(race.layouts[0]),
        "time_limit": race.time_limit,
        "model": race.model.fingerprint,
        "task": identity_of(race.task),
    }
    known = race.store.get(spec) or race.paces.get(identity(spec)) or _stopwatch(race, sized)
    race.paces[identity(spec)] = known
    return known if "spec" in known or not is_kept else race.store.put(spec, known)


def _stopwatch(race: Race, sized: Sized) -> Record:
    begun = time.monotonic()
    if not sized.method.is_trained:
        adaptation, step = Adaptation(), 0.0
    else:
        adaptation = sized.method.build(race.model, sized.size, seed=race.seed)
        step = _step_seconds(race, adaptation)
    items = race.task.held_out("validation", 16)
    reading = reading_of(_plan(race, 1), adaptation)
    with torch.no_grad(), prepared(race.model, adaptation) as refresh:
        refresh()
        started = time.monotonic()
        evaluate(race.model, items, race.task.labels(), reading)
    item = (time.monotonic() - started) / len(items)
    return {
        "status": "ok",
        "step_seconds": max(1e-5, step),
        "item_seconds": max(1e-7, item),
        "measuring_seconds": time.monotonic() - begun,
    }


def _step_seconds(race: Race, adaptation: Any) -> float:
    """Time a step. The first is slower than the rest; where it is very slow, only one more is taken."""
    started = time.monotonic()
    train(race.model, adaptation, race.task, _plan(race, 1), race.seed)
    steps = 4 if time.monotonic() - started < 1.0 else 1
    started = time.monotonic()
    fit = train(race.model, adaptation, race.task, _plan(race, steps), race.seed)
    return (time.monotonic() - started) / fit.steps


def _plan(race: Race, steps: int) -> Plan:
    return Plan(
        learning_rate=1e-6,
        steps=steps,
        batch=race.pace.batch,
        cooldown=0.0,
        evaluate_every=NEVER,
        validation_items=1,
        max_tokens=race.pace.max_tokens,
        layout=race.layouts[0],
    )
