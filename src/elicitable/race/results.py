"""From the records of an arm to its result."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from functools import partial

from elicitable.diagnosis.intervals import interval, point
from elicitable.diagnosis.looks import level_after
from elicitable.diagnosis.verdict import Decision, Evidence, gather
from elicitable.race.entry import Entry, Race
from elicitable.race.reading import said_of_cuts
from elicitable.race.trial import outcomes_of
from elicitable.records.trial import TrialRecord
from elicitable.values import ArmResult, Budget, Effort


def arm_result(race: Race, entry: Entry) -> ArmResult:
    """Gather the records of an arm into its result; the same object while nothing has come to them."""
    state = (entry.stopped, entry.refusal, id(entry.last), entry.rate, entry.seconds, len(entry.swept))
    key = (entry.method.name, *(id(record) for record in entry.records), *state)
    if key not in race.known:
        race.known[key] = _gathered(race, entry)
    found: ArmResult = race.known[key]
    return found


def decision_of(race: Race, results: Sequence[ArmResult]) -> Decision:
    """Decide on what there is now, with the wider intervals that so many looks ask for."""
    return evidence_of(race, results).decide(race.margin)


def evidence_of(race: Race, results: Sequence[ArmResult]) -> Evidence:
    """Gather what the decision rests on now; the same object while nothing has come to it."""
    key = ("evidence", race.looks, *(id(arm) for arm in results))
    if key not in race.known:
        test = race.test()
        marking = race.marking
        outcomes = {arm.method: marking.outcome(arm.correct, arm.answers, test) for arm in results if arm.correct}
        race.known[key] = gather(
            results,
            floor=marking.floor(test),
            seed=race.seed,
            outcome=lambda arm: outcomes[arm.method],
            groups=race.groups(),
            highest=marking.scorer.highest,
            level=level_after(race.looks),
        )
    found: Evidence = race.known[key]
    return found


def _gathered(race: Race, entry: Entry) -> ArmResult:
    method, swept, rate = entry.method, list(entry.swept.values()), entry.rate
    result = partial(ArmResult, method=method.name, rung=method.rung, deployment=method.deployment)
    records = entry.records or ([entry.last] if entry.last else [])
    if entry.refusal:
        nothing = Budget(0, 0, 0)
        return result(setting={}, budget=nothing, status="skipped", reason=entry.refusal)
    if not records:
        nothing = Budget(entry.sized.numbers, 0, 0)
        return result(setting={}, budget=nothing, status="skipped", reason=_untested(entry), sweep=tuple(swept))
    done = [record for record in records if record.is_ok]
    first = (done or records)[0]
    budget = first.budget or Budget(entry.sized.numbers, 0, 0)
    if not done:
        return result(
            setting=first.setting,
            budget=budget,
            status=first.status,
            reason=_why_lost(entry, first),
            stopped=first.stopped,
            learning_rate=rate,
            sweep=tuple(swept),
            seconds=round(entry.seconds, 1),
        )
    correct = tuple(outcomes_of(record).items for record in done)
    written = tuple(record.answers for record in done)
    outcome = race.marking.outcome(correct, written, race.test())
    low, high = interval(outcome, race.seed, race.groups())
    raw = [record.raw.share for record in done if record.raw is not None]
    tried = tuple(swept) or first.tried
    return result(
        setting=first.setting,
        budget=budget,
        status="ok",
        reason=_lost_seeds(records, entry.stuck),
        stopped=entry.stopped or done[0].stopped,
        mean=point(outcome),
        low=low,
        high=high,
        items=len(correct[0]),
        seeds=len(correct),
        learning_rate=rate,
        steps=max(record.steps for record in done),
        seconds=round(entry.seconds, 1),
        side_effect_nats=_side_effect(race, done),
        correct=correct,
        curves=tuple(record.curve for record in done if record.curve),
        sweep=tried,
        prefix_mass=first.prefix_mass,
        samples=first.samples,
        cut_items=first.cut_items,
        cut_tokens=first.cut_tokens,
        answers=written if any(written) else (),
        rule=str(first.rule.get("name", "")),
        raw_mean=sum(raw) / len(raw) if raw else None,
        share_of_batch=race.share_of_batch,
        effort=all_effort([record.effort for record in done if record.effort is not None]),
    )


def all_effort(efforts: Sequence[Effort]) -> Effort | None:
    """Add up what the searches of all seeds tried; None where nothing was searched."""
    if not efforts:
        return None
    origins: dict[str, tuple[float, ...]] = {}
    for name, (count, best) in ((name, pair) for one in efforts for name, pair in one.origins.items()):
        before = origins.get(name, (0, 0.0))
        origins[name] = (before[0] + count, max(before[1], best))
    return Effort(
        candidates=sum(one.candidates for one in efforts),
        offered=sum(one.offered for one in efforts),
        passes=sum(one.passes for one in efforts),
        items=min(one.items for one in efforts),
        seconds=round(sum(one.seconds for one in efforts), 3),
        best=max(one.best for one in efforts),
        median=statistics.median(one.median for one in efforts),
        origins=origins,
    )


def cut_warning(entries: Sequence[Entry]) -> list[str]:
    """Say where texts of the test split were longer than the model reads, for the arm that lost the most."""
    records = [(entry.method.name, record) for entry in entries for record in entry.records if record.scores]
    cut = [(one.cut_tokens, one.cut_items, outcomes_of(one).of, name) for name, one in records]
    tokens, items, of, name = max(cut, default=(0, 0, 0, ""))
    return said_of_cuts(items, tokens, of, name)


def _untested(entry: Entry) -> str:
    """Say how far an arm came that was interrupted before its test."""
    record = entry.line.latest if entry.line is not None else None
    if record is None or record.validation is None:
        return "the race was stopped before its turn"
    return (
        f"the race was stopped after {record.steps} of its steps (validation {record.validation:.3f}), before its test"
    )


def _why_lost(entry: Entry, record: TrialRecord) -> str:
    if record.status != "diverged":
        return record.stopped
    where = f"at every one of {len(entry.swept)} learning rates" if entry.rate is None else f"at {entry.rate:g}"
    return f"the loss or its gradient was no finite number any more, {where}"


def _lost_seeds(records: list[TrialRecord], stuck: int) -> str:
    """What a score must not pass over: seeds that diverged, failed or were left; nothing where all ran through."""
    lost, of = Counter(record.status for record in records if not record.is_ok), len(records) + stuck
    named = [f"{count} of {of} seeds {status}" for status, count in sorted(lost.items())]
    named += [f"{stuck} of {of} seeds did not solve the task on validation, as the first did"] if stuck else []
    return f"{' and '.join(named)}; the score is that of the rest" if named else ""


def _side_effect(race: Race, records: list[TrialRecord]) -> float | None:
    """Nats a token lost elsewhere against the base model (the zero-shot arm's own reading of the same text)."""
    from elicitable.race.trial import elsewhere_nats

    base = elsewhere_nats(race.model)
    values = [record.elsewhere_nats for record in records if record.elsewhere_nats is not None]
    return round(sum(values) / len(values) - base, 4) if values else None
