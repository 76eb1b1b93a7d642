"""From the records of an arm to its result."""

from __future__ import annotations

from collections import Counter
from functools import partial

from elicitable.diagnosis.intervals import interval
from elicitable.race.entry import Entry, Race
from elicitable.race.trial import curve_of
from elicitable.records.store import Record
from elicitable.values import ArmResult, Budget


def arm_result(race: Race, entry: Entry) -> ArmResult:
    """Gather the records of an arm into its result."""
    method, swept, rate = entry.method, entry.swept, entry.rate
    result = partial(ArmResult, method=method.name, rung=method.rung, deployment=method.deployment)
    records = entry.records or ([entry.last] if entry.last else [])
    if entry.refusal:
        nothing = Budget(0, 0, 0)
        return result(setting={}, budget=nothing, status="skipped", reason=entry.refusal)
    done = [record for record in records if record["status"] == "ok"]
    first = (done or records)[0]
    budget = Budget(**first["budget"]) if "budget" in first else Budget(entry.sized.numbers, 0, 0)
    seconds = sum(record["seconds"] for record in records)
    if not done:
        return result(
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
    return result(
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


def _why_lost(entry: Entry, record: Record) -> str:
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
