"""The race: every method under one harness at a matched budget, and the verdict it leads to."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from elicitable.diagnosis.intervals import interval
from elicitable.diagnosis.verdict import decide
from elicitable.errors import BudgetError, InputError
from elicitable.methods.budget import Sized, default_budget, solve
from elicitable.methods.catalog import METHODS, method_named
from elicitable.models.load import load
from elicitable.runs.provenance import versions
from elicitable.runs.store import Record, Store
from elicitable.runs.trial import Trial, curve_of, run
from elicitable.tasks.base import warnings_of
from elicitable.tasks.catalog import task_from
from elicitable.training.loop import Plan
from elicitable.values import ArmResult, Budget, CurvePoint, Verdict

if TYPE_CHECKING:
    from elicitable.models.model import Model
    from elicitable.tasks.base import Task

LONGEST = 64  # virtual tokens: every query pays for each of them in every layer, whatever the budget allows


class Reporter(Protocol):
    """Told of progress while a race runs."""

    def begin(self, arm: str, what: str, arms_done: int, arms: int) -> None:
        """An arm starts something: a sweep at a rate, a seed."""

    def point(self, point: CurvePoint, share: float) -> None:
        """A new point of the current run's curve, and the share of the run that is done."""

    def end(self, arm: ArmResult) -> None:
        """An arm is finished."""


class Silent:
    """A reporter that says nothing."""

    def begin(self, arm: str, what: str, arms_done: int, arms: int) -> None:
        """Say nothing."""

    def point(self, point: CurvePoint, share: float) -> None:
        """Say nothing."""

    def end(self, arm: ArmResult) -> None:
        """Say nothing."""


@dataclass(frozen=True)
class Pace:
    """How a race is run on one kind of task; found by the sweeps noted in docs/log.md.

    ``sweep_steps`` are given to every learning rate, then ``steps`` at most to every seed at the best one.
    """

    batch: int
    steps: int
    sweep_steps: int
    evaluate_every: int
    validation_items: int
    test_items: int
    max_tokens: int


DIGITS = Pace(
    batch=32, steps=8_000, sweep_steps=100, evaluate_every=50, validation_items=256, test_items=1_000, max_tokens=128
)
TEXT = Pace(
    batch=16, steps=300, sweep_steps=40, evaluate_every=20, validation_items=128, test_items=500, max_tokens=256
)


@dataclass
class Race:
    """One race and the state it runs with."""

    model: Model
    task: Task
    store: Store
    pace: Pace
    budget: int
    seeds: int
    seed: int
    margin: float
    time_limit: float | None
    started: float
    reporter: Reporter
    options: dict[str, dict[str, Any]]
    spent_before: float = 0.0
    arms: list[ArmResult] = field(default_factory=list)
    quickest: int | None = None  # steps of the quickest arm that solved the task

    def left(self) -> float | None:
        """Seconds left of the time limit."""
        return None if self.time_limit is None else self.time_limit - (time.monotonic() - self.started)


def verdict(
    model: Any,
    task: Any,
    *,
    budget: int | None = None,
    methods: Sequence[str] | None = None,
    seeds: int = 2,
    seed: int = 0,
    margin: float = 0.02,
    time_limit: float | None = None,
    steps: int | None = None,
    test_items: int | None = None,
    prompts: Sequence[str] = (),
    out: str | os.PathLike[str] | None = None,
    reporter: Reporter | None = None,
    started: float | None = None,
) -> Verdict:
    """Can the task be elicited from the model by context, or must the weights change?

    Every method is tried at the largest size that trains at most ``budget`` numbers: swept over its learning rates on
    the validation split, rerun over ``seeds`` at the best, then scored once on the test split. The verdict is the
    least invasive method that is not worse than the best by more than ``margin``, decided with paired bootstrap
    intervals (:mod:`elicitable.diagnosis.verdict`).

    Args:
        model: a name for, or a model from, :func:`elicitable.load`, or a transformers model.
        task: a name, a path to a CSV or JSONL file, ``hub:owner/name``, or an object with a task's four methods.
        budget: numbers trained; default 12·layers·d_model. Full fine-tuning is shown beside it, unbound.
        methods: which to try; default all.
        seeds: reruns at the best learning rate. seed: the first of them, and of everything else that is drawn.
        time_limit: seconds for the whole race, spread evenly over the arms; None trains until nothing improves.
        steps: at most so many steps a run. test_items: how many of the test split.
        prompts: texts for the prompt arm to try besides its own.
        out: a folder that keeps every trial; the same arguments resume there, and do nothing when complete.

    Raises:
        InputError: an argument, the model or the task is not as expected; the message names it.
        BudgetError: the budget is too small for a method, or the time limit too short for one arm.

    Example:
        >>> import elicitable as el
        >>> answer = el.verdict("toy:ascending", "ascending", methods=["zero-shot", "prompt"], seeds=1)
        >>> answer.label
        'already-there'
    """
    clock = time.monotonic() if started is None else started
    _check(seeds, margin, time_limit, steps, test_items)
    model, task = load(model), task_from(task)
    pace = paced(DIGITS if model.tokenizer is None else TEXT, steps, test_items)
    race = Race(
        model=model,
        task=task,
        store=Store(out),
        pace=pace,
        budget=default_budget(model) if budget is None else budget,
        seeds=seeds,
        seed=seed,
        margin=margin,
        time_limit=time_limit,
        started=clock,
        reporter=reporter or Silent(),
        options={"prompt": {"prompts": list(prompts)} if prompts else {}},
    )
    sizes = _sizes(race, methods)
    for sized in _in_order(sizes):
        arm = _run_arm(race, sized, sizes)
        race.arms.append(arm)
        race.reporter.end(arm)
    return _judge(race)


def _check(seeds: int, margin: float, time_limit: float | None, steps: int | None, test_items: int | None) -> None:
    if seeds < 1:
        raise InputError(f"seeds must be at least 1, got {seeds}.")
    if not 0.0 < margin < 1.0:
        raise InputError(f"margin must be a share of items between 0 and 1 (2 points are 0.02), got {margin}.")
    if steps is not None and steps < 1:
        raise InputError(f"steps must be at least 1, got {steps}.")
    if test_items is not None and test_items < 1:
        raise InputError(f"test items must be at least 1, got {test_items}.")
    if time_limit is not None and time_limit <= 0:
        raise BudgetError(f"a time limit must be more than 0 seconds, got {time_limit:g}.")


def paced(pace: Pace, steps: int | None, test_items: int | None) -> Pace:
    if steps is not None:
        pace = replace(pace, steps=steps, sweep_steps=min(pace.sweep_steps, max(1, steps // 4)))
    return replace(pace, test_items=test_items) if test_items is not None else pace


def _sizes(race: Race, methods: Sequence[str] | None) -> list[Sized]:
    """Every method's size within the budget. A method named by the user must fit; of all, at least one must."""
    names = list(methods) if methods else [method.name for method in METHODS]
    for name in names:
        method_named(name)
    sizes, refusals = [], []
    for name in dict.fromkeys(names):
        try:
            sizes.append(solve(race.model, name, race.budget, longest=LONGEST))
        except BudgetError as error:
            refusals.append(error)
            sizes.append(Sized(name, 0, 0, race.budget))
            if methods:
                raise
            race.reporter.begin(name, str(error), 0, 0)
    if refusals and all(s.size == 0 for s in sizes if method_named(s.method).schedule and s.is_bound):
        raise refusals[-1]
    return sizes


_ORDER = ("zero-shot", "prompt", "examples", "full", "kv-prefix", "lora", "layer-prefix", "soft-prompt", "value-bias")


def _in_order(sizes: list[Sized]) -> list[Sized]:
    """Cheap and quick arms first: how fast they solve a task says how long the others deserve."""
    return sorted(sizes, key=lambda sized: _ORDER.index(sized.method))


def _run_arm(race: Race, sized: Sized, sizes: list[Sized]) -> ArmResult:
    method = method_named(sized.method)
    if method.schedule is None:
        return _chosen_arm(race, sized, len(sizes))
    if sized.size == 0:
        reason = f"a budget of {race.budget:,} is too small; size 1 trains {method.numbers(race.model, 1):,} numbers"
        nothing = Budget(0, 0, 0)
        return ArmResult(method=sized.method, setting={}, budget=nothing, status="skipped", reason=reason)
    return _trained_arm(race, sized, len(sizes))


def _chosen_arm(race: Race, sized: Sized, arms: int) -> ArmResult:
    """An arm without training: every seed chooses among its candidates on validation."""
    left, records = race.left(), []
    share = None if left is None else max(1.0, 0.6 * left / (arms - len(race.arms)) / race.seeds)
    plan = replace(_plan(race, sized.method, 0.0), seconds=share, validation_items=race.pace.validation_items // 2)
    seeds = race.seeds if sized.method == "examples" else 1
    for nth in range(seeds):
        race.reporter.begin(sized.method, f"seed {nth + 1} of {seeds}", len(race.arms), arms)
        trial = _trial(race, sized, plan, race.seed + nth, race.pace.test_items)
        records.append(run(trial, race.model, race.task, race.store))
    return _arm(race, sized, records, [], None)


def _trained_arm(race: Race, sized: Sized, arms: int) -> ArmResult:
    """Sweep the learning rates, then rerun the best over the seeds."""
    method = method_named(sized.method)
    assert method.schedule is not None
    timing = _Timing.of(race, sized, arms)
    rates = timing.rates(method.schedule.learning_rates)
    swept = []
    for nth, rate in enumerate(rates):
        plan = timing.sweep(_plan(race, sized.method, rate), len(rates))
        race.reporter.begin(sized.method, f"rate {rate:g} ({nth + 1} of {len(rates)})", len(race.arms), arms)
        record = run(_trial(race, sized, plan, race.seed, 0), race.model, race.task, race.store, race.reporter.point)
        swept.append({"learning_rate": rate, **_of_sweep(record)})
        timing.used()
    best = max(swept, key=_worth)
    if _worth(best)[0] < 0:
        return _arm(race, sized, [record], swept, None)
    records = []
    for nth in range(race.seeds):
        plan = timing.final(_plan(race, sized.method, best["learning_rate"]), race.seeds - nth)
        race.reporter.begin(sized.method, f"seed {nth + 1} of {race.seeds}", len(race.arms), arms)
        trial = _trial(race, sized, plan, race.seed + nth, race.pace.test_items)
        records.append(run(trial, race.model, race.task, race.store, race.reporter.point))
    return _arm(race, sized, records, swept, best["learning_rate"])


def _of_sweep(record: Record) -> dict[str, Any]:
    return {
        "status": record["status"],
        "steps": record.get("steps", 0),
        "validation": record.get("validation"),
        "loss_nats": record.get("validation_loss_nats"),
    }


def _worth(swept: dict[str, Any]) -> tuple[float, float]:
    """Best validation score, then lowest loss; a run that diverged is worth nothing."""
    if swept["status"] != "ok" or swept["validation"] is None:
        return (-1.0, 0.0)
    return (swept["validation"], -(swept["loss_nats"] or 0.0))


def _plan(race: Race, method: str, rate: float) -> Plan:
    schedule = method_named(method).schedule
    return Plan(
        learning_rate=rate,
        steps=race.pace.steps,
        batch=race.pace.batch,
        warmup=min(50, max(1, race.pace.steps // 10)),
        evaluate_every=race.pace.evaluate_every,
        validation_items=race.pace.validation_items,
        weight_decay=schedule.weight_decay if schedule else 0.0,
        max_tokens=race.pace.max_tokens,
    )


def _trial(race: Race, sized: Sized, plan: Plan, seed: int, test_items: int) -> Trial:
    options = race.options.get(sized.method, {})
    return Trial(sized.method, sized.size or 2, plan, seed, test_items, options, race.time_limit)


@dataclass
class _Timing:
    """How an arm's share of the time is spent: 40 % on the sweep, the rest on the seeds, tests taken off first."""

    race: Race
    share: float | None
    pace_seconds: float
    validation_seconds: float
    test_seconds: float
    deadline: float = 0.0

    @classmethod
    def of(cls, race: Race, sized: Sized, arms: int) -> _Timing:
        left = race.left()
        if left is None:
            return cls(race, None, 0.0, 0.0, 0.0)
        paced = _measure(race, sized)
        per_item = paced["item_seconds"]
        test = per_item * race.pace.test_items
        share = left / (arms - len(race.arms)) - race.seeds * test
        timing = cls(race, share, paced["step_seconds"], per_item * race.pace.validation_items, test)
        timing.deadline = time.monotonic() + share
        need = timing.least()
        if share < need:
            total = need * arms + race.seeds * test * arms
            raise BudgetError(
                f"a time limit of {race.time_limit:g} s is too short for {sized.method} on {race.model.name}: one arm "
                f"needs about {need + race.seeds * test:.0f} s here, all {arms} about {total:.0f} s; give more time, fewer "
                "--methods, --seeds or --test-items."
            )
        return timing

    def least(self) -> float:
        """The shortest share that can be judged: one rate and every seed for ten steps and one validation."""
        return (1 + self.race.seeds) * (10 * self.pace_seconds + self.validation_seconds)

    def rates(self, rates: tuple[float, ...]) -> tuple[float, ...]:
        """As many of the rates as get at least 15 steps each; the middle ones are the last to go."""
        if self.share is None:
            return rates
        affordable = int(0.4 * self.share / (15 * self.pace_seconds + self.validation_seconds))
        drop = max(0, len(rates) - max(1, affordable))
        return rates[drop // 2 + drop % 2 : len(rates) - drop // 2]

    def sweep(self, plan: Plan, rates: int) -> Plan:
        """The plan of one sweep run."""
        if self.share is None:
            steps = self.race.pace.sweep_steps
            return replace(plan, steps=steps, warmup=min(plan.warmup, steps // 5), evaluate_every=steps, cooldown=0.0)
        return self._within(plan, 0.4 * self.share / rates, is_sweep=True)

    def final(self, plan: Plan, seeds_left: int) -> Plan:
        """The plan of one seed at the best rate."""
        if self.share is None:
            return plan
        return self._within(plan, max(1.0, (self.deadline - time.monotonic()) / seeds_left))

    def _within(self, plan: Plan, seconds: float, is_sweep: bool = False) -> Plan:
        steps = max(2, int(seconds / self.pace_seconds))
        every = max(1, steps) if is_sweep else max(5, steps // 8)
        affordable = max(5, int(4 * self.validation_seconds / self.pace_seconds))  # a fifth of the time at most
        return replace(
            plan,
            seconds=max(0.5, seconds - self.validation_seconds),
            warmup=min(plan.warmup, max(1, steps // 10)),
            evaluate_every=min(max(every, affordable), max(1, steps - 1)) if not is_sweep else 10**9,
            cooldown=0.0 if is_sweep else plan.cooldown,
            patience_steps=max(plan.patience_steps, steps),
        )

    def used(self) -> None:
        """A run ended; what it left over goes to the seeds by itself, because they go by the deadline."""


def _measure(race: Race, sized: Sized) -> dict[str, float]:
    """Seconds a training step and a scored item take for this method, measured once and kept."""
    spec = {
        "pace": sized.method,
        "size": sized.size,
        "time_limit": race.time_limit,
        "budget": race.budget,
        "model": race.model.fingerprint,
        "task": race.task.fingerprint(),
        "batch": race.pace.batch,
    }
    known = race.store.get(spec)
    if known is None:
        plan = replace(
            _plan(race, sized.method, 1e-5), steps=3, cooldown=0.0, evaluate_every=10**9, validation_items=16
        )
        known = race.store.put(spec, _stopwatch(race, sized, plan))
    return {key: known[key] for key in ("step_seconds", "item_seconds")}


def _stopwatch(race: Race, sized: Sized, plan: Plan) -> Record:
    from elicitable.runs.trial import reading_of
    from elicitable.training.evaluate import evaluate
    from elicitable.training.loop import prepared, train

    adaptation = method_named(sized.method).build(race.model, sized.size, seed=race.seed)
    train(race.model, adaptation, race.task, replace(plan, steps=1), race.seed)  # warm caches
    started = time.monotonic()
    fit = train(race.model, adaptation, race.task, plan, race.seed)
    items = race.task.held_out("validation", 32)
    with prepared(race.model, adaptation) as refresh:
        refresh()
        begun = time.monotonic()
        evaluate(race.model, items, race.task.labels(), reading_of(plan, adaptation))
        per_item = (time.monotonic() - begun) / len(items)
    seconds = begun - started - plan.validation_items * per_item
    return {"status": "ok", "step_seconds": max(1e-4, seconds / max(1, fit.steps)), "item_seconds": per_item}


def _arm(race: Race, sized: Sized, records: list[Record], swept: list[dict[str, Any]], rate: float | None) -> ArmResult:
    """Gather the records of an arm into its result."""
    done = [record for record in records if record["status"] == "ok"]
    first = (done or records)[0]
    budget = Budget(**first["budget"]) if "budget" in first else Budget(sized.numbers, 0, 0)
    seconds = sum(record["seconds"] for record in records)
    if not done:
        return ArmResult(
            method=sized.method,
            setting=first.get("setting", {}),
            budget=budget,
            status=first["status"],
            reason=first.get("stopped", ""),
            learning_rate=rate,
            sweep=tuple(swept),
            seconds=seconds,
        )
    correct = tuple(tuple(int(c) for c in record["test"]["correct"]) for record in done)
    low, high = interval(correct, race.seed)
    stops = [record["stopped"] for record in done]
    tried = tuple(swept) or tuple(first.get("tried", ()))
    return ArmResult(
        method=sized.method,
        setting=first["setting"],
        budget=budget,
        status="ok",
        reason=next((stop for stop in stops if stop in ("time", "steps")), stops[0]),
        mean=sum(map(sum, correct)) / (len(correct) * len(correct[0])),
        low=low,
        high=high,
        items=len(correct[0]),
        seeds=len(correct),
        learning_rate=rate,
        steps=max(record["steps"] for record in done),
        seconds=round(seconds, 1),
        side_effect_nats=_side_effect(race, done),
        correct=correct,
        curves=tuple(curve_of(record) for record in done if record["curve"]),
        sweep=tried,
        prefix_mass=tuple(tuple(row) for row in first.get("prefix_mass") or ()),
        samples=tuple(first["samples"]),
    )


def _side_effect(race: Race, records: list[Record]) -> float | None:
    """Nats a token lost elsewhere against the base model (the zero-shot arm's own reading of the same text)."""
    from elicitable.runs.trial import elsewhere_nats

    base = elsewhere_nats(race.model)
    values = [record["elsewhere_nats"] for record in records if record.get("elsewhere_nats") is not None]
    return round(sum(values) / len(values) - base, 4) if values else None


def _judge(race: Race) -> Verdict:
    order = [method.name for method in METHODS]
    arms = tuple(sorted(race.arms, key=lambda arm: order.index(arm.method)))
    decision = decide(arms, margin=race.margin, floor=_floor(race), seed=race.seed)
    return Verdict(
        label=decision.label,
        reasons=decision.reasons,
        arms=arms,
        model=race.model.name,
        task=race.task.name,
        margin=race.margin,
        provenance=_provenance(race),
    )


def _floor(race: Race) -> float:
    """What always giving the most common answer scores on the test items."""
    items = race.task.held_out("test", race.pace.test_items)
    return Counter(item.target for item in items).most_common(1)[0][1] / len(items)


def _provenance(race: Race) -> dict[str, Any]:
    return {
        "versions": versions(),
        "seed": race.seed,
        "seeds": race.seeds,
        "budget": race.budget,
        "margin": race.margin,
        "time_limit_seconds": race.time_limit,
        "model": race.model.name,
        "model_hash": race.model.fingerprint,
        "task": race.task.name,
        "data_hash": race.task.fingerprint(),
        "device": str(race.model.device),
        "dtype": str(race.model.dtype).removeprefix("torch."),
        "floor": round(_floor(race), 4),
        "warnings": list(warnings_of(race.task)),
    }


Started = Callable[[], float]
