"""The two rounds of a race: every arm once, cheap and quick ones first; then the contenders over the other seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from elicitable.diagnosis.verdict import SHARE
from elicitable.errors import BudgetError
from elicitable.methods.base import Method, Sized
from elicitable.race.entry import Entry, Race
from elicitable.race.results import arm_result
from elicitable.race.timing import Timing, opening
from elicitable.race.trial import Trial, outcomes_of, run
from elicitable.records.trial import TrialRecord
from elicitable.tasks.base import identity_of
from elicitable.training.loop import Plan

_FEWEST = 500
_FINISH = 150  # steps of the cosine, at least, after an arm has solved the task
_TELLING = 0.05  # a validation score that says something about a rate
_CONTENDER = 0.05  # arms further than this behind the best after one seed are not rerun: no seed would bring them back


def run_rounds(race: Race, sizes: Sequence[Sized]) -> list[Entry]:
    """Run every arm once, in the order of their turns; then the contenders again over the other seeds."""
    entries = [Entry(sized) for sized in sorted(sizes, key=lambda sized: sized.method.turn)]
    _open(race, entries)
    for nth, entry in enumerate(entries):
        try:
            (_first_round if entry.method.is_trained else _choose)(race, entry, nth, len(entries))
        except BudgetError as error:  # the time ran out all the same: an answer is owed
            entry.refusal = str(error)
        race.reporter.end(arm_result(race, entry))
    for seed in range(1, race.seeds):
        contenders = _contenders(entries)
        for nth, entry in enumerate(contenders):
            if entry.method.is_trained:
                _rerun(race, entry, seed, nth, len(contenders))
            else:
                _choose(race, entry, nth, len(contenders), seed)
    return entries


def _open(race: Race, entries: list[Entry]) -> None:
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


def _contenders(entries: list[Entry]) -> list[Entry]:
    running = [entry for entry in entries if entry.is_running]
    best = max((_first_score(entry) for entry in running), default=0.0)
    return [entry for entry in running if _first_score(entry) >= best - _CONTENDER]


def _first_score(entry: Entry) -> float:
    return outcomes_of(entry.records[0]).share


def _choose(race: Race, entry: Entry, nth: int, arms: int, seed: int = 0) -> None:
    """An arm without training chooses among its candidates on validation."""
    plan = _plan(race, entry.method, 0.0)
    if race.time_limit is not None:
        timing = Timing.of(race, entry.sized, (arms - nth) * (race.seeds - seed if seed else 1), is_rerun=seed > 0)
        if seed and _kept(race, entry, f"no time for seed {seed}", lambda: timing.is_over):
            return
        plan = replace(plan, seconds=max(0.1, 0.5 * timing.share))
    race.reporter.begin(entry.method.name, "choosing on validation", nth, arms)
    entry.records.append(_go(race, entry, plan, seed, race.pace.test_items))
    if not seed:
        race.learn(entry.records[0])


def _first_round(race: Race, entry: Entry, nth: int, arms: int) -> None:
    """Sweep the learning rates, then train once at the best."""
    method = entry.method
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


def _kept(race: Race, entry: Entry, what: str, decide_now: Callable[[], Any]) -> Any:
    """A decision that hangs on the clock, kept with the trials: the same arguments find the same trials again."""
    spec = {
        "decision": what,
        "method": entry.method.identity,
        "size": entry.sized.size,
        "time_limit": race.time_limit,
        "seeds": race.seeds,
        "seed": race.seed,
        "test_items": race.pace.test_items,
        "model": race.model.fingerprint,
        "task": identity_of(race.task),
    }
    return (race.store.get(spec) or race.store.put(spec, {"status": "ok", "decision": decide_now()}))["decision"]


def _sweep(
    race: Race, entry: Entry, rates: Sequence[float], steps: int, nth: int, arms: int, timing: Timing | None
) -> list[dict[str, Any]]:
    """A short run at every rate, best first. Where it scores nothing and nobody has solved the task yet, the caller
    sweeps the better ones again, ten times as long: the first steps of a hard task say little about a rate."""
    swept = []
    for at, rate in enumerate(rates):
        plan = _plan(race, entry.method, rate)
        plan = timing.sweep(plan, len(rates)) if timing else _short(plan, steps)
        race.reporter.begin(entry.method.name, f"rate {rate:g} ({at + 1} of {len(rates)})", nth, arms)
        record = _go(race, entry, plan, 0, 0)
        if timing:
            timing.observe(record)
        swept.append({"learning_rate": rate, **_of_sweep(record)})
        entry.last = record
    entry.swept += swept
    return sorted(swept, key=_worth, reverse=True)


def _rerun(race: Race, entry: Entry, seed: int, nth: int, arms: int, timing: Timing | None = None) -> None:
    """Train once at the best rate. In a race against the clock later seeds share what is left of it."""
    assert entry.rate is not None
    plan = _plan(race, entry.method, entry.rate)
    if race.time_limit is not None:
        timing = timing or Timing.of(race, entry.sized, (arms - nth) * (race.seeds - seed), is_rerun=True)
        late = timing
        if seed and _kept(race, entry, f"no time for seed {seed}", lambda: late.is_over):
            return
        plan = timing.final(plan)
    race.reporter.begin(entry.method.name, f"seed {seed + 1} of {race.seeds}", nth, arms)
    record = _go(race, entry, plan, seed, race.pace.test_items)
    entry.records.append(record)
    if record.stopped == "solved":
        race.quickest = min(record.steps, race.quickest or record.steps)


def _go(race: Race, entry: Entry, plan: Plan, seed: int, test_items: int) -> TrialRecord:
    options = race.options_of(entry.method)
    layouts = () if entry.method.is_trained else race.layouts
    size, number = entry.sized.size or 2, race.seed + seed
    trial = Trial(
        entry.method,
        size,
        plan,
        number,
        test_items,
        options,
        race.time_limit,
        layouts,
        race.marking,
        passes=race.search_passes,
        is_first=entry.trial is None and race.store.folder is not None,
    )
    record = run(trial, race.model, race.task, race.store, race.reporter.point)
    race.test_seconds = race.test_seconds if record.timing.test_seconds is None else record.timing.test_seconds
    if test_items and entry.trial is None:
        entry.trial = trial
    return record


def _short(plan: Plan, steps: int) -> Plan:
    """A sweep run: a few steps at a constant rate, one look at the validation split."""
    return replace(plan, steps=steps, warmup=min(plan.warmup, max(1, steps // 5)), evaluate_every=steps, cooldown=0.0)


def _of_sweep(record: TrialRecord) -> dict[str, Any]:
    return {
        "status": record.status,
        "steps": record.steps,
        "validation": record.validation,
        "loss_nats": record.validation_loss_nats,
    }


def _worth(swept: dict[str, Any]) -> tuple[float, float]:
    """Best validation score, then lowest loss; a run that diverged is worth nothing.

    Scores under 5 points are a few lucky items and count as none: there the loss says more.
    """
    if swept["status"] != "ok" or swept["validation"] is None:
        return (-1.0, 0.0)
    score = swept["validation"] if swept["validation"] >= _TELLING else 0.0
    return (score, -(swept["loss_nats"] or 0.0))


def _plan(race: Race, method: Method, rate: float) -> Plan:
    """The plan of a full run. Once an arm has solved the task, every other gets at most twice its steps, and 500
    at least; a control, as many."""
    schedule, pace = method.schedule, race.pace
    enough = pace.steps
    if race.quickest is not None:
        enough = race.quickest if method.is_control else max(_FEWEST, SHARE * race.quickest)
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
        layout=race.layout,
        cooldown=0.4,
        perfect=2.0,  # 256 validation items all right by luck: every arm is brought down to the end
        finish=_FINISH,
    )
