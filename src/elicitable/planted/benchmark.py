"""Race every case as a person would, and count how often the verdict is right.

    out/
      MODEL-TASK.json   what one race came to, beside the truth; written whole when the race has ended
      results.json      the counts, from all records that are there
      races/            trials of the race that is under way; gone when its record is written

Killed at any moment, the same command goes on: finished cases are found, and a race goes on from its own folder. A
record of another model, task or setting than today's is made again; one that was altered is refused by name.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from elicitable.cache import replace_file
from elicitable.diagnosis.shares import wilson
from elicitable.diagnosis.verdict import OPEN_LABELS
from elicitable.errors import InputError, StoreError
from elicitable.models.model import Model
from elicitable.planted.cases import STATES, TRUTHS, Case, State, Truth, cases, planned, plantings
from elicitable.race.contest import verdict
from elicitable.records.digested import read_digested, write_digested
from elicitable.records.lock import alone
from elicitable.records.schema import from_plain
from elicitable.values import Verdict

NAME: Final = "planted-truth"
RESULTS: Final = "results.json"
RACES: Final = "races"
SEEDS: Final = 2
TEST_ITEMS: Final = 500
GROUPS: Final = ("nothing", "context", "weights", *OPEN_LABELS)
ADVICE: Final = "Free the place and run it again."
AGAIN: Final = "Move it away to race the case again."


@dataclass(frozen=True)
class Arm:
    """Hold what an arm came to; ``mean``, ``low`` and ``high`` are None where it was not tested."""

    mean: float | None
    low: float | None
    high: float | None
    status: str
    stopped: str
    steps: int
    seeds: int
    seconds: float


@dataclass(frozen=True)
class Raced:
    """Hold a case's record: the planted truth, the verdict, every arm, and what it was made of and with."""

    case: str
    model: str
    task: str
    family: str
    state: State
    truth: Truth
    group: str
    label: str
    answer: str | None
    reasons: tuple[str, ...]
    arms: Mapping[str, Arm]
    planting: Mapping[str, Any]
    seeds: int
    test_items: int
    model_hash: str
    data_hash: str
    processor: str
    versions: Mapping[str, str]
    seconds: float
    cpu_seconds: float


Told = Callable[[Case, Mapping[str, Any], int, int, float], None]  # case, record, done, of, seconds left


def run(out: str | os.PathLike[str], count: int | None = None, told: Told | None = None) -> dict[str, Any]:
    """Race the first ``count`` cases (all where None) that have no record in ``out``; return the counts of all records.

    The order mixes states and models, so the first cases are a fair sample. ``told`` hears of every new record.

    Raises:
        InputError: ``count`` is no number of cases.
        StoreError: ``out`` cannot be written to or is in use.
        KeyboardInterrupt: of a race that was stopped; the same call goes on from there.
    """
    folder, chosen = Path(out), _first(count)
    with alone(folder):
        todo = [(case, model) for case, model in _with_models(chosen) if not _is_done(folder, case, model)]
        began = time.monotonic()
        for nth, (case, model) in enumerate(todo, start=1):
            record = _raced(folder, case, model)
            if told is not None:
                left = (time.monotonic() - began) / nth * (len(todo) - nth)
                told(case, record, len(chosen) - len(todo) + nth, len(chosen), left)
        found = counted(records_in(folder))
        replace_file(folder / RESULTS, (json.dumps(found, indent=1) + "\n").encode(), ADVICE)
    return found


def _first(count: int | None) -> tuple[Case, ...]:
    every = cases()
    if count is None:
        return every
    if not 1 <= count <= len(every):
        raise InputError(f"cases must be a whole number from 1 to {len(every)}, got {count}.")
    return every[:count]


def _with_models(chosen: Sequence[Case]) -> Iterator[tuple[Case, Model]]:
    """Yield every case with its model, each loaded once."""
    models: dict[str, Model] = {}
    for case in chosen:
        if case.model not in models:
            models[case.model] = case.load_model()
        yield case, models[case.model]


def path_of(folder: Path, case: Case) -> Path:
    """Return where the record of ``case`` is kept."""
    return folder / f"{case.name.replace('/', '-')}.json"


def _is_done(folder: Path, case: Case, model: Model) -> bool:
    path = path_of(folder, case)
    return path.is_file() and is_of(_read(path, case), case, model)


def is_of(record: Mapping[str, Any], case: Case, model: Model) -> bool:
    """Say whether a record is of this case as it is today: same model, same data, same truth, same setting."""
    asked = {"seeds": SEEDS, "test_items": TEST_ITEMS}
    now = {"model_hash": model.fingerprint, "data_hash": case.task().fingerprint(), "truth": case.truth} | asked
    return all(record.get(name) == value for name, value in now.items())


def _raced(folder: Path, case: Case, model: Model) -> dict[str, Any]:
    races = folder / RACES / path_of(folder, case).stem
    began, used = time.monotonic(), time.process_time()
    answer = verdict(model, case.task(), seeds=SEEDS, test_items=TEST_ITEMS, out=races)
    seconds = {"seconds": round(time.monotonic() - began, 1), "cpu_seconds": round(time.process_time() - used, 1)}
    record = record_of(case, answer) | seconds
    write_digested(path_of(folder, case), record, ADVICE)
    shutil.rmtree(folder / RACES, ignore_errors=True)
    return record


def record_of(case: Case, answer: Verdict) -> dict[str, Any]:
    """Return what is kept of a race: the truth and the verdict, its reasons, and every arm's mean and interval."""
    told = answer.provenance
    return {
        "case": case.name,
        "model": case.model,
        "task": case.task_name,
        "family": case.family,
        "state": case.state,
        "truth": case.truth,
        "group": group_of(answer),
        "label": answer.label,
        "answer": answer.answer,
        "reasons": list(answer.reasons),
        "arms": {
            arm.method: {
                "mean": _short(arm.mean),
                "low": _short(arm.low),
                "high": _short(arm.high),
                "status": arm.status,
                "stopped": arm.stopped,
                "steps": arm.steps,
                "seeds": arm.seeds,
                "seconds": round(arm.seconds, 1),
            }
            for arm in answer.arms
        },
        "planting": plantings()[case.name],
        "seeds": SEEDS,
        "test_items": TEST_ITEMS,
        "model_hash": told["model_hash"],
        "data_hash": told["data_hash"],
        "processor": told["processor"],
        "versions": told["versions"],
    }


def _short(share: float | None) -> float | None:
    return None if share is None else round(share, 4)


def group_of(answer: Verdict) -> str:
    """Return the group of a verdict: nothing, context, weights (steering counts as such), or an open label itself."""
    if answer.label in OPEN_LABELS:
        return answer.label
    group = next(arm.rung.group for arm in answer.arms if arm.rung.label == answer.label)
    return "weights" if group == "other" else group


def records_in(folder: Path) -> list[dict[str, Any]]:
    """Read the records of a folder, in the order of the cases.

    Raises:
        StoreError: a record cannot be read, was altered, or is of another case; the message names it.
    """
    return [_read(path, case) for case in cases() if (path := path_of(folder, case)).is_file()]


def _read(path: Path, case: Case) -> dict[str, Any]:
    record = read_digested(path, AGAIN)
    try:
        found = from_plain(Raced, record)
    except InputError as error:
        raise StoreError(f"{path} is no record of a case ({error}). {AGAIN}") from error
    if found.case != case.name or found.group not in GROUPS or not found.reasons:
        raise StoreError(f"{path} is no record of {case.name}. {AGAIN}")
    return record


def counted(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Count verdicts against truths, and say of each share its Wilson interval.

    ``matrix[truth][group]`` are cases. *Decided* is what is not inconclusive; ``right`` is the share of decided cases
    whose group is the truth, ``inconclusive`` that of all cases. The same by state, model and family; every case that
    is not right with its reasons; and how many plantings did not take.
    """
    pairs = Counter((record["truth"], record["group"]) for record in records)
    lost = [case for case in planned() if case.name in plantings() and not plantings()[case.name]["took"]]
    return {
        "cases": len(records),
        "of": len(cases()),
        "models": len({record["model"] for record in records}),
        "tasks": len({record["task"] for record in records}),
        "matrix": {truth: {group: pairs[truth, group] for group in GROUPS} for truth in dict.fromkeys(TRUTHS.values())},
        **_shares(records),
        "by_state": {state: _shares([one for one in records if one["state"] == state]) for state in STATES},
        "by_model": _by(records, "model"),
        "by_family": _by(records, "family"),
        "not_right": [_miss(record) for record in records if record["group"] != record["truth"]],
        "plantings_lost": {state: sum(case.state == state for case in lost) for state in STATES},
        "planned": len(planned()),
        "seconds": round(sum(record["seconds"] for record in records), 1),
        "cpu_seconds": round(sum(record["cpu_seconds"] for record in records), 1),
        "processors": sorted({record["processor"] for record in records}),
    }


def _by(records: Sequence[Mapping[str, Any]], field: str) -> dict[str, dict[str, Any]]:
    kinds = dict.fromkeys(record[field] for record in records)
    return {kind: _shares([one for one in records if one[field] == kind]) for kind in kinds}


def _shares(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    decided = [record for record in records if record["group"] != "inconclusive"]
    right = sum(record["group"] == record["truth"] for record in decided)
    return {
        "right": _share(right, len(decided)),
        "inconclusive": _share(len(records) - len(decided), len(records)),
    }


def _share(count: int, of: int) -> dict[str, Any]:
    """Return a count with the share and its 95 % interval; without them where there is nothing to count in."""
    if of == 0:
        return {"count": 0, "of": 0}
    low, high = wilson(count / of, of)
    return {"count": count, "of": of, "share": round(count / of, 6), "low": round(low, 6), "high": round(high, 6)}


def _miss(record: Mapping[str, Any]) -> dict[str, Any]:
    means = {name: arm["mean"] for name, arm in record["arms"].items()}
    named = ("case", "state", "truth", "group", "label", "answer")
    return {name: record[name] for name in named} | {"reason": record["reasons"][0], "means": means}


def as_markdown(found: Mapping[str, Any]) -> str:
    """Write the counts as Markdown: the confusion matrix, the shares, and what is not right.

    >>> print(as_markdown(counted([])).splitlines()[0])
    0 of 0 cases: no models, no tasks.
    """
    if not found["cases"]:
        return f"{found['cases']} of {found['of']} cases: no models, no tasks.\n"
    lost = sum(found["plantings_lost"].values())
    lines = [
        f"{found['cases']} of {found['of']} cases: {found['models']} models, {found['tasks']} tasks; "
        f"{found['cpu_seconds'] / 60:.1f} min of processor time ({', '.join(found['processors'])}). Of "
        f"{found['planned']} planned cases {lost} were dropped before any race, as their planting did not take.",
        "",
        f"| truth | {' | '.join(GROUPS)} |",
        "|---" * (len(GROUPS) + 1) + "|",
        *(f"| {truth} | {' | '.join(str(row[group]) for group in GROUPS)} |" for truth, row in found["matrix"].items()),
        "",
        f"Right among the decided: {_said(found['right'])}. Inconclusive: {_said(found['inconclusive'])}.",
        "",
        "| | right among the decided | inconclusive |",
        "|---|---|---|",
    ]
    for table in ("by_state", "by_model", "by_family"):
        lines += [
            f"| {name} | {_said(row['right'])} | {_said(row['inconclusive'])} |" for name, row in found[table].items()
        ]
    if found["not_right"]:
        lines += ["", "| not right | planted | truth | verdict | first reason |", "|---|---|---|---|---|"]
    for miss in found["not_right"]:
        reason = miss["reason"].replace("|", "\\|")
        lines.append(f"| {miss['case']} | {miss['state']} | {miss['truth']} | {miss['label']} | {reason} |")
    return "\n".join(lines) + "\n"


def _said(share: Mapping[str, Any]) -> str:
    if not share["of"]:
        return "–"
    return f"{share['count']} of {share['of']} ({share['share']:.3f} [{share['low']:.3f}, {share['high']:.3f}])"
