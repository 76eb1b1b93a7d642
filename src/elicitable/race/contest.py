"""The race: every method under one harness at a matched budget, and the verdict it leads to."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from elicitable.diagnosis.intervals import interval
from elicitable.diagnosis.verdict import SHARE, decide
from elicitable.errors import BudgetError, InputError
from elicitable.methods.budget import Sized, default_budget, solve
from elicitable.methods.catalog import METHODS, method_named
from elicitable.models.load import load
from elicitable.race.inside import look_inside
from elicitable.race.timing import Timing, opening, reserve
from elicitable.race.trial import Trial, curve_of, run
from elicitable.records.provenance import versions
from elicitable.records.store import Record, Store
from elicitable.tasks.base import warnings_of
from elicitable.tasks.catalog import task_from
from elicitable.training.batches import encode
from elicitable.training.loop import Plan
from elicitable.values import ArmResult, Budget, CurvePoint, Verdict

if TYPE_CHECKING:
    from elicitable.microscope.inspect import Inspection
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
    patience_steps: int


DIGITS = Pace(
    batch=16,
    steps=12_000,
    sweep_steps=30,
    evaluate_every=50,
    validation_items=256,
    test_items=1_500,
    max_tokens=128,
    patience_steps=300,
)
TEXT = Pace(
    batch=16,
    steps=300,
    sweep_steps=40,
    evaluate_every=20,
    validation_items=128,
    test_items=500,
    max_tokens=256,
    patience_steps=100,
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
    is_test_free: bool = True  # whether a race against the clock may cut the test items down
    quickest: int | None = None  # steps of the quickest arm that solved the task
    test_seconds: float = 0.0  # what the latest test took
    warnings: list[str] = field(default_factory=list)
    paces: dict[str, Record] = field(default_factory=dict)  # speeds measured in this sitting

    def left(self) -> float | None:
        """Seconds left of the time limit, without what the decision and the report will take."""
        if self.time_limit is None:
            return None
        return self.time_limit - reserve(self.time_limit) - (time.monotonic() - self.started)


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
        steps: at most so many steps a run. test_items: how many of the test split; by default the pace's, or as
            many as the time limit pays for.
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
    if isinstance(budget, bool) or not isinstance(budget, int | None):
        raise InputError(f"a budget is a whole number of trained numbers, got {budget!r}.")
    model, task = load(model), task_from(task)
    pace = pace_for(model, steps, test_items)
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
        options=_options(model, prompts),
        is_test_free=test_items is None,
    )
    encode(model, task.held_out("validation", 1))  # a task that the model cannot read is no arm's failure
    entries = _run(race, _sizes(race, methods))
    answer = _judge(race, [_arm(race, entry) for entry in entries])
    return replace(answer, inspection=_inside(race, entries, answer))


def _options(model: Model, prompts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Settings of the arms: a prefix starts at random where no text gives it a better place."""
    start = {"init": "random"} if model.tokenizer is None else {"init": "vocabulary"}
    return {"prompt": {"prompts": list(prompts)} if prompts else {}, "layer-prefix": start, "kv-prefix": start}


def _check(seeds: int, margin: float, time_limit: float | None, steps: int | None, test_items: int | None) -> None:
    for name, number in (("seeds", seeds), ("steps", steps), ("test items", test_items)):
        check_count(name, number)
    for name, value in (("margin", margin), ("a time limit in seconds", time_limit)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise InputError(f"{name} must be a number, got {value!r}.")
    if not 0.0 < margin < 1.0:
        raise InputError(f"margin must be a share of items between 0 and 1 (2 points are 0.02), got {margin}.")
    if time_limit is not None and not time_limit > 0:
        raise BudgetError(f"a time limit must be more than 0 seconds, got {time_limit:g}.")


def check_count(name: str, number: Any) -> None:
    """Raise InputError unless ``number`` is None or a whole number of at least 1."""
    if number is None:
        return
    if isinstance(number, bool) or not isinstance(number, int):
        raise InputError(f"{name} must be a whole number, got {number!r}.")
    if number < 1:
        raise InputError(f"{name} must be at least 1, got {number}.")


def pace_for(model: Model, steps: int | None, test_items: int | None) -> Pace:
    """The pace of this kind of model, with what a person asked for; half of few positions are left to a context."""
    pace, limit = DIGITS if model.tokenizer is None else TEXT, model.anatomy.position_limit
    if limit is not None and model.tokenizer is not None:
        pace = replace(pace, max_tokens=min(pace.max_tokens, limit // 2))
    if steps is not None:
        pace = replace(pace, steps=steps, sweep_steps=min(pace.sweep_steps, max(1, steps // 4)))
    return replace(pace, test_items=test_items) if test_items is not None else pace


def _sizes(race: Race, methods: Sequence[str] | None) -> list[Sized]:
    """Every method's size within the budget. A method named by the user must fit; of all, at least one must."""
    if methods is not None and (isinstance(methods, str) or not methods):
        raise InputError(f"methods must be a list of at least one name, got {methods!r}; leave it out to try all.")
    names = list(methods) if methods else [method.name for method in METHODS]
    for name in names:
        method_named(name)
    sizes, refusals = [], []
    for name in dict.fromkeys(names):
        try:
            limit = race.model.anatomy.position_limit or 2 * LONGEST
            sizes.append(solve(race.model, name, race.budget, longest=min(LONGEST, limit // 2)))
        except BudgetError as error:
            refusals.append(error)
            sizes.append(Sized(name, 0, 0, race.budget))
            if methods:
                raise
            race.reporter.begin(name, str(error), 0, 0)
    if refusals and all(s.size == 0 for s in sizes if method_named(s.method).schedule and s.is_bound):
        raise refusals[-1]
    return sizes


@dataclass
class _Entry:
    """One arm while the race runs."""

    sized: Sized
    records: list[Record] = field(default_factory=list)
    swept: list[dict[str, Any]] = field(default_factory=list)
    rate: float | None = None
    refusal: str = ""
    last: Record | None = None  # of the sweep: what is shown when every rate diverged
    trial: Trial | None = None  # the first of ``records``

    @property
    def is_trained(self) -> bool:
        return method_named(self.sized.method).schedule is not None

    @property
    def is_running(self) -> bool:
        """Whether there is something to rerun: not refused, not diverged, and seeds can change it."""
        is_fine = bool(self.records) and self.records[-1]["status"] == "ok"
        return is_fine and self.sized.method not in (*_SEEDLESS, *_CONTROLS)


_SEEDLESS = ("zero-shot", "prompt")
_CONTROLS = ("value-bias",)  # no part in the verdict, so one seed is enough
_ORDER = ("zero-shot", "prompt", "examples", "lora", "full", "kv-prefix", "layer-prefix", "soft-prompt", "value-bias")
_FEWEST = 500
_FINISH = 150  # steps of the cosine, at least, after an arm has solved the task
_TELLING = 0.05  # a validation score that says something about a rate
_CONTENDER = 0.05  # arms further than this behind the best after one seed are not rerun: no seed would bring them back


def _run(race: Race, sizes: list[Sized]) -> list[_Entry]:
    """Two rounds: every arm once, cheap and quick ones first; then the contenders over the other seeds."""
    entries = [_Entry(sized) for sized in sorted(sizes, key=lambda sized: _ORDER.index(sized.method))]
    _open(race, entries)
    for nth, entry in enumerate(entries):
        try:
            (_first_round if entry.is_trained else _choose)(race, entry, nth, len(entries))
        except BudgetError as error:  # the time ran out all the same: an answer is owed
            entry.refusal = str(error)
        race.reporter.end(_arm(race, entry))
    for seed in range(1, race.seeds):
        contenders = _contenders(entries)
        for nth, entry in enumerate(contenders):
            if entry.is_trained:
                _rerun(race, entry, seed, nth, len(contenders))
            else:
                _choose(race, entry, nth, len(contenders), seed)
    return entries


def _open(race: Race, entries: list[_Entry]) -> None:
    """Against the clock: cut test and validation items down to what the limit pays for."""
    if race.time_limit is None:
        return
    race.reporter.begin("all arms", "measuring the speed", 0, len(entries))
    sizes = [entry.sized for entry in entries]
    items = _kept(race, entries[0], "items", lambda: opening(race, sizes))
    race.pace = replace(race.pace, test_items=items["test"], validation_items=items["validation"])
    if items["test"] < items["of"]:
        race.warnings.append(
            f"the time limit pays for {items['test']} of the {items['of']} test items; more time or --test-items gives "
            "narrower intervals"
        )


def _contenders(entries: list[_Entry]) -> list[_Entry]:
    running = [entry for entry in entries if entry.is_running]
    best = max((_first_score(entry) for entry in running), default=0.0)
    return [entry for entry in running if _first_score(entry) >= best - _CONTENDER]


def _first_score(entry: _Entry) -> float:
    correct = entry.records[0]["test"]["correct"]
    return float(correct.count("1") / len(correct))


def _choose(race: Race, entry: _Entry, nth: int, arms: int, seed: int = 0) -> None:
    """An arm without training chooses among its candidates on validation."""
    method = entry.sized.method
    plan = replace(_plan(race, method, 0.0), validation_items=max(1, race.pace.validation_items // 2))
    if race.time_limit is not None:
        timing = Timing.of(race, entry.sized, (arms - nth) * (race.seeds - seed if seed else 1), is_rerun=seed > 0)
        if seed and _kept(race, entry, f"no time for seed {seed}", lambda: timing.is_over):
            return
        plan = replace(plan, seconds=max(0.1, 0.5 * timing.share))
    race.reporter.begin(method, "choosing on validation" if method not in _SEEDLESS[:1] else "scoring", nth, arms)
    entry.records.append(_go(race, entry, plan, seed, race.pace.test_items))


def _first_round(race: Race, entry: _Entry, nth: int, arms: int) -> None:
    """Sweep the learning rates, then train once at the best."""
    method = method_named(entry.sized.method)
    assert method.schedule is not None
    if entry.sized.size == 0:
        needed = method.numbers(race.model, 1)
        entry.refusal = f"a budget of {race.budget:,} is too small; size 1 trains {needed:,} numbers"
        return
    timing = None if race.time_limit is None else Timing.of(race, entry.sized, arms - nth)
    rates = method.schedule.learning_rates
    if timing is not None:
        rates = tuple(_kept(race, entry, "rates", lambda: timing.rates(rates)))
        if len(rates) == 1:  # no time for a sweep
            entry.rate = rates[0]
            _rerun(race, entry, 0, nth, arms, timing)
            return
    swept = _sweep(race, entry, rates, race.pace.sweep_steps, nth, arms, timing)
    says_nothing = _worth(swept[0])[0] < _TELLING and race.quickest is None
    if timing is None and says_nothing and race.pace.steps > 20 * race.pace.sweep_steps:
        left = tuple(one["learning_rate"] for one in swept[:3])
        swept = _sweep(race, entry, left, 10 * race.pace.sweep_steps, nth, arms, timing)
    if _worth(swept[0])[0] < 0:
        return
    entry.rate = swept[0]["learning_rate"]
    _rerun(race, entry, 0, nth, arms, timing)


def _kept(race: Race, entry: _Entry, what: str, decide_now: Callable[[], Any]) -> Any:
    """A decision that hangs on the clock, kept with the trials: the same arguments find the same trials again."""
    spec = {
        "decision": what,
        "method": entry.sized.method,
        "size": entry.sized.size,
        "time_limit": race.time_limit,
        "seeds": race.seeds,
        "seed": race.seed,
        "test_items": race.pace.test_items,
        "model": race.model.fingerprint,
        "task": race.task.fingerprint(),
    }
    return (race.store.get(spec) or race.store.put(spec, {"status": "ok", "decision": decide_now()}))["decision"]


def _sweep(
    race: Race, entry: _Entry, rates: Sequence[float], steps: int, nth: int, arms: int, timing: Timing | None
) -> list[dict[str, Any]]:
    """A short run at every rate, best first. Where it scores nothing and nobody has solved the task yet, the caller
    sweeps the better ones again, ten times as long: the first steps of a hard task say little about a rate."""
    swept = []
    for at, rate in enumerate(rates):
        plan = _plan(race, entry.sized.method, rate)
        plan = timing.sweep(plan, len(rates)) if timing else _short(plan, steps)
        race.reporter.begin(entry.sized.method, f"rate {rate:g} ({at + 1} of {len(rates)})", nth, arms)
        record = _go(race, entry, plan, 0, 0)
        if timing:
            timing.observe(record)
        swept.append({"learning_rate": rate, **_of_sweep(record)})
        entry.last = record
    entry.swept += swept
    return sorted(swept, key=_worth, reverse=True)


def _rerun(race: Race, entry: _Entry, seed: int, nth: int, arms: int, timing: Timing | None = None) -> None:
    """Train once at the best rate. In a race against the clock later seeds share what is left of it."""
    assert entry.rate is not None
    plan = _plan(race, entry.sized.method, entry.rate)
    if race.time_limit is not None:
        timing = timing or Timing.of(race, entry.sized, (arms - nth) * (race.seeds - seed), is_rerun=True)
        late = timing
        if seed and _kept(race, entry, f"no time for seed {seed}", lambda: late.is_over):
            return
        plan = timing.final(plan)
    race.reporter.begin(entry.sized.method, f"seed {seed + 1} of {race.seeds}", nth, arms)
    record = _go(race, entry, plan, seed, race.pace.test_items)
    entry.records.append(record)
    if record.get("stopped") == "solved":
        race.quickest = min(record["steps"], race.quickest or record["steps"])


def _go(race: Race, entry: _Entry, plan: Plan, seed: int, test_items: int) -> Record:
    method = entry.sized.method
    options = race.options.get(method, {})
    trial = Trial(method, entry.sized.size or 2, plan, race.seed + seed, test_items, options, race.time_limit)
    record = run(trial, race.model, race.task, race.store, race.reporter.point)
    race.test_seconds = record.get("test_seconds", race.test_seconds)
    if test_items and entry.trial is None:
        entry.trial = trial
    return record


def _short(plan: Plan, steps: int) -> Plan:
    """A sweep run: a few steps at a constant rate, one look at the validation split."""
    return replace(plan, steps=steps, warmup=min(plan.warmup, max(1, steps // 5)), evaluate_every=steps, cooldown=0.0)


def _of_sweep(record: Record) -> dict[str, Any]:
    return {
        "status": record["status"],
        "steps": record.get("steps", 0),
        "validation": record.get("validation"),
        "loss_nats": record.get("validation_loss_nats"),
    }


def _worth(swept: dict[str, Any]) -> tuple[float, float]:
    """Best validation score, then lowest loss; a run that diverged is worth nothing.

    Scores under 5 points are a few lucky items and count as none: there the loss says more.
    """
    if swept["status"] != "ok" or swept["validation"] is None:
        return (-1.0, 0.0)
    score = swept["validation"] if swept["validation"] >= _TELLING else 0.0
    return (score, -(swept["loss_nats"] or 0.0))


def _plan(race: Race, method: str, rate: float) -> Plan:
    """The plan of a full run. Once an arm has solved the task, every other gets at most twice its steps, and 500
    at least; a control, as many."""
    schedule, pace = method_named(method).schedule, race.pace
    enough = pace.steps
    if race.quickest is not None:
        enough = race.quickest if method in _CONTROLS else max(_FEWEST, SHARE * race.quickest)
    return Plan(
        learning_rate=rate,
        steps=min(pace.steps, enough),
        batch=pace.batch,
        warmup=min(20, max(1, pace.steps // 10)),
        evaluate_every=min(pace.evaluate_every, pace.steps),
        validation_items=pace.validation_items,
        weight_decay=schedule.weight_decay if schedule else 0.0,
        patience_steps=pace.patience_steps,
        max_tokens=pace.max_tokens,
        cooldown=0.4,
        perfect=2.0,  # 256 validation items all right by luck: every arm is brought down to the end
        finish=_FINISH,
    )


def _arm(race: Race, entry: _Entry) -> ArmResult:
    """Gather the records of an arm into its result."""
    sized, swept, rate = entry.sized, entry.swept, entry.rate
    records = entry.records or ([entry.last] if entry.last else [])
    if entry.refusal:
        nothing = Budget(0, 0, 0)
        return ArmResult(method=sized.method, setting={}, budget=nothing, status="skipped", reason=entry.refusal)
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
            reason=_why_lost(entry, first),
            stopped=first.get("stopped", ""),
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
        reason=_lost_seeds(records),
        stopped=next((stop for stop in stops if stop in ("time", "steps")), stops[0]),
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


def _why_lost(entry: _Entry, record: Record) -> str:
    if record["status"] != "diverged":
        return str(record.get("stopped", ""))
    where = f"at every one of {len(entry.swept)} learning rates" if entry.rate is None else f"at {entry.rate:g}"
    return f"the loss or its gradient was no finite number any more, {where}"


def _lost_seeds(records: list[Record]) -> str:
    """What a score must not pass over: seeds that diverged or failed; nothing where every one ran through."""
    lost = Counter(record["status"] for record in records if record["status"] != "ok")
    if not lost:
        return ""
    named = " and ".join(f"{count} of {len(records)} seeds {status}" for status, count in sorted(lost.items()))
    return f"{named}; the score is that of the rest"


def _side_effect(race: Race, records: list[Record]) -> float | None:
    """Nats a token lost elsewhere against the base model (the zero-shot arm's own reading of the same text)."""
    from elicitable.race.trial import elsewhere_nats

    base = elsewhere_nats(race.model)
    values = [record["elsewhere_nats"] for record in records if record.get("elsewhere_nats") is not None]
    return round(sum(values) / len(values) - base, 4) if values else None


def _judge(race: Race, results: list[ArmResult]) -> Verdict:
    order = [method.name for method in METHODS]
    arms = tuple(sorted(results, key=lambda arm: order.index(arm.method)))
    decision = decide(arms, margin=race.margin, floor=_floor(race), seed=race.seed)
    behind = {one.arm.method: (one.mean, one.low, one.high) for one in decision.compared}
    answer = {"answer": decision.answer} if decision.answer else {}
    return Verdict(
        label=decision.label,
        reasons=decision.reasons,
        arms=tuple(replace(arm, behind=behind.get(arm.method, ())) for arm in arms),
        model=race.model.name,
        task=race.task.name,
        margin=race.margin,
        provenance=_provenance(race) | answer,
    )


def _inside(race: Race, entries: Sequence[_Entry], answer: Verdict) -> Inspection | None:
    """The microscope on the answer's context; on the best context where the answer is another or none."""
    contexts = {arm.method: arm for arm in answer.arms if arm.status == "ok" and arm.budget.keys_per_layer}
    if not contexts:
        return None
    named = answer.provenance.get("answer")
    method = named if named in contexts else max(contexts, key=lambda name: contexts[name].mean or 0.0)
    entry = next(entry for entry in entries if entry.sized.method == method)
    assert entry.trial is not None
    race.reporter.begin(method, "looking inside", len(entries) - 1, len(entries))
    return look_inside(entry.trial, entry.records[0], race.model, race.task, race.store)


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
        "warnings": [*warnings_of(race.task), *race.warnings],
    }
