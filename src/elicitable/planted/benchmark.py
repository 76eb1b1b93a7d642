"""Race every case as a person would, and count how often the verdict is right.

    out/
      MODEL-TASK.json   what one race came to, beside the truth; written whole when the race has ended
      results.json      the counts, from all records that are there
      models/           models that are made before they are raced, where the part has such
      races/            trials of the races that are under way, and the seconds that they took; gone when their records
                        are written

Killed at any moment, the same command goes on: finished cases are found, and a race goes on from its own folder. A
record of another model, task or setting than today's is made again, and is not counted until then; one that was
altered is refused by name. A case whose planting turns out not to have taken has a record that says so, and no verdict.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from elicitable.cache import replace_file
from elicitable.diagnosis.verdict import CONTEXT, OPEN_LABELS
from elicitable.errors import BudgetError, ElicitableError, InputError, StoreError
from elicitable.executors.executor import executor_named
from elicitable.models.model import Model
from elicitable.planted.cases import State, Truth
from elicitable.planted.counts import GROUPS, counted
from elicitable.planted.parts import AnyCase, Part, part_named
from elicitable.planted.spent import adding_up
from elicitable.race.contest import verdict
from elicitable.records.digested import read_digested, write_digested
from elicitable.records.lock import alone
from elicitable.records.schema import from_plain
from elicitable.values import Verdict

NAME: Final = "planted-truth"
RESULTS: Final = "results.json"
RACES: Final = "races"
MODELS: Final = "models"
DEFAULT: Final = "one-layer"
RACED: Final = ("label", "arms", "processor", "seconds", "cpu_seconds")  # what every race came to
ADVICE: Final = "Free the place and run it again."
AGAIN: Final = "Move it away to race the case again."


@dataclass(frozen=True)
class ArmKept:
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
class Kept:
    """Hold a case's record: the planted truth, the verdict where the planting took, and what it was made with."""

    case: str
    model: str
    task: str
    family: str
    state: State
    truth: Truth
    planting: Mapping[str, Any]
    seeds: int
    model_hash: str
    data_hash: str
    test_items: int | None = None
    time_limit: float | None = None
    group: str = ""
    label: str = ""
    answer: str | None = None
    reasons: tuple[str, ...] = ()
    arms: Mapping[str, ArmKept] = field(default_factory=dict)
    items: int = 0
    processor: str = ""
    device: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    cpu_seconds: float = 0.0


Record = dict[str, Any]
Told = Callable[[AnyCase, Mapping[str, Any], int, int, float], None]  # case, record, done, of, seconds left


@dataclass(frozen=True)
class Job:
    """Say what to do, as plain data that can travel to a worker: make a model, or race one of its cases."""

    part: str
    folder: str
    model: str
    case: int = 0  # its place among the cases of the part
    device: str = "auto"
    asked: tuple[tuple[str, Any], ...] = ()


def run(
    out: str | os.PathLike[str],
    count: int | None = None,
    told: Told | None = None,
    *,
    part: str = DEFAULT,
    device: str = "auto",
    time_limit: float | None = None,
    workers: int | None = None,
) -> dict[str, Any]:
    """Race the first ``count`` cases (all where None) that have no record in ``out``; return the counts of all records.

    The order mixes states and models, so the first cases are a fair sample. ``told`` hears of every new record.
    ``time_limit`` is that of each race, in the place of the part's own; ``workers`` so many races at once, each in a
    process of its own on one thread. Records of another model, task or setting than today's are left out of the counts,
    which say how many these are.

    Raises:
        UnknownNameError: no such part.
        BudgetError: the time limit is not above 0.
        InputError: ``count`` is no number of cases, or the part does not run on ``device``.
        StoreError: ``out`` cannot be written to or is in use.
        ElicitableError: races failed; the others were run before it is raised.
        KeyboardInterrupt: of a race that was stopped; the same call goes on from there.
    """
    folder, which = Path(out), part_named(part)
    chosen = which.first(count)
    if time_limit is not None and not time_limit > 0:
        raise BudgetError(f"a time limit must be more than 0 seconds, got {time_limit:g}.")
    asked = {**which.asked, **({} if time_limit is None else {"time_limit": time_limit})}
    jobs = [Job(part, str(folder), case.model, nth, device, tuple(asked.items())) for nth, case in enumerate(chosen)]
    runner = executor_named("inline") if workers is None else executor_named("local", workers)
    with alone(folder), runner.kept():
        runner.run(make, list({job.model: job for job in jobs}.values()))
        ahead = None if told is None else _Ahead(folder, chosen, asked)

        def heard(index: int, result: tuple[Record, bool]) -> None:
            if told is not None and ahead is not None:
                left = ahead.seconds_after(chosen[index], *result)
                if result[1]:
                    told(chosen[index], result[0], len(ahead.heard), len(chosen), left)

        records = runner.run(race, jobs, told=heard)
        found = _counted_today(folder, which, records, asked)
        replace_file(folder / RESULTS, (json.dumps(found, indent=1) + "\n").encode(), ADVICE)
    failed = [record for record, _ in records if "failed" in record]
    if failed:
        first, why = failed[0]["case"], failed[0]["failed"].strip().splitlines()[-1]
        raise ElicitableError(f"{len(failed)} races failed, the first of them {first}: {why}. Run it again.")
    return found


class _Ahead:
    """Foretell how long the cases that are still to be raced take, at the pace of those that were raced in this run.

    A case whose record is there takes no time, whether its turn has come or not. It is known of which model a record
    has to be once a case of that model was heard of.
    """

    def __init__(self, folder: Path, chosen: Sequence[AnyCase], asked: Mapping[str, Any]) -> None:
        self.heard: set[str] = set()
        self._chosen, self._raced, self._hashes = chosen, 0, dict[str, str]()
        there = ((case, _read(path, case)) for case in chosen if (path := path_of(folder, case)).is_file())
        self._kept = {
            case.name: str(record["model_hash"])
            for case, record in there
            if _is_of(record, case, str(record["model_hash"]), asked)
        }
        self._began = time.monotonic()

    def seconds_after(self, case: AnyCase, record: Mapping[str, Any], is_new: bool) -> float:
        """Take note of a case that was heard of; return the seconds, about, of all others that are to be raced."""
        self.heard.add(case.name)
        self._raced += is_new
        if "failed" not in record:
            self._hashes[case.model] = record["model_hash"]
        return (time.monotonic() - self._began) / max(1, self._raced) * sum(map(self._is_to_be_raced, self._chosen))

    def _is_to_be_raced(self, case: AnyCase) -> bool:
        kept = self._kept.get(case.name)
        return case.name not in self.heard and (kept is None or kept != self._hashes.get(case.model, kept))


def _counted_today(
    folder: Path, part: Part, raced: Sequence[tuple[Record, bool]], asked: Mapping[str, Any]
) -> dict[str, Any]:
    """Count the records of a folder that are of the models that were raced, and of today's tasks and setting."""
    hashes: dict[str, str] = {record["model"]: record["model_hash"] for record, _ in raced if "failed" not in record}
    every = {case.name: case for case in part.cases()}
    there = records_in(folder, part)
    today = [
        record
        for record in there
        if _is_of(record, every[record["case"]], hashes.get(record["model"], str(record["model_hash"])), asked)
    ]
    return counted(today, part, len(there) - len(today))


def make(job: Job) -> None:
    """Make the model of a job, where the part's models are made."""
    part_named(job.part).make(job.model, Path(job.folder) / MODELS, job.device)


def race(job: Job) -> tuple[Record, bool]:
    """Return the record of a job's case, and whether it is new; of a race that failed, why, which is kept nowhere.

    Raises:
        InputError: no race can be run so.
        StoreError: the folder cannot be written to, or what it holds not be read.
    """
    part, folder, asked = part_named(job.part), Path(job.folder), dict(job.asked)
    case, model = part.cases()[job.case], _model(job.part, job.folder, job.model, job.device)
    path = path_of(folder, case)
    if path.is_file() and is_of(known := _read(path, case), case, model, asked):
        _swept(folder, path.stem)  # what a run left that was killed before it could
        return known, False
    try:
        record = _raced(folder, case, model, _planting(folder, part, case, model), asked)
    except (InputError, StoreError):  # no other race would fare better
        raise
    except Exception:  # out of memory, a bug: this race is lost, not the others
        return {"case": case.name, "failed": traceback.format_exc()}, True
    write_digested(path, record, ADVICE)
    _swept(folder, path.stem)
    return record, True


def _swept(folder: Path, name: str) -> None:
    """Take away the trials of a race that has a record."""
    shutil.rmtree(folder / RACES / name, ignore_errors=True)
    with suppress(OSError):  # others are under way
        (folder / RACES).rmdir()


@lru_cache(maxsize=8)
def _model(part: str, folder: str, name: str, device: str) -> Model:
    return part_named(part).load(name, Path(folder) / MODELS, device)


def path_of(folder: Path, case: AnyCase) -> Path:
    """Return where the record of ``case`` is kept."""
    return folder / f"{case.name.replace('/', '-')}.json"


def is_of(record: Mapping[str, Any], case: AnyCase, model: Model, asked: Mapping[str, Any]) -> bool:
    """Say whether a record is of this case as it is today: same model, same data, same truth, same setting."""
    return _is_of(record, case, model.fingerprint, asked)


def _is_of(record: Mapping[str, Any], case: AnyCase, model_hash: str, asked: Mapping[str, Any]) -> bool:
    now: dict[str, Any] = {"model_hash": model_hash, "data_hash": case.task().fingerprint()}
    now |= {"truth": case.truth, "time_limit": None, **asked}
    return all(record.get(name) == value for name, value in now.items())


def _planting(folder: Path, part: Part, case: AnyCase, model: Model) -> dict[str, Any]:
    """Return what the part knows of the planting; what it measures is kept until the race has ended."""
    path = folder / RACES / path_of(folder, case).stem / "planting.json"
    of = {"model_hash": model.fingerprint, "data_hash": case.task().fingerprint()}
    if path.is_file() and of.items() <= (kept := read_digested(path, AGAIN)).items():
        return dict(kept["planting"])
    found = part.planting(case, model)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_digested(path, {**of, "planting": found}, ADVICE)
    return found


def _raced(folder: Path, case: AnyCase, model: Model, planting: Mapping[str, Any], asked: Mapping[str, Any]) -> Record:
    known = {
        "case": case.name,
        "model": case.model,
        "task": case.task_name,
        "family": case.family,
        "state": case.state,
        "truth": case.truth,
        "planting": dict(planting),
        **asked,
        "model_hash": model.fingerprint,
        "data_hash": case.task().fingerprint(),
    }
    if not planting["took"]:
        return known
    races = folder / RACES / path_of(folder, case).stem
    with adding_up(races / "spent.json") as seconds:
        answer = verdict(model, case.task(), **asked, out=races / "race")
    return known | kept_of(answer) | seconds()


def kept_of(answer: Verdict) -> Record:
    """Return what is kept of a verdict: its group and label, its reasons, and every arm's mean and interval."""
    told = answer.provenance
    return {
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
        "items": len(answer.items),
        "processor": told["processor"],
        "device": told["device"],
        "versions": told["versions"],
    }


def _short(share: float | None) -> float | None:
    return None if share is None else round(share, 4)


def group_of(answer: Verdict) -> str:
    """Return the group of a verdict: nothing, context, weights (steering counts as such), or an open label itself."""
    if answer.label in (CONTEXT, *OPEN_LABELS):
        return answer.label
    group = next(arm.rung.group for arm in answer.arms if arm.rung.label == answer.label)
    return "weights" if group == "other" else group


def records_in(folder: Path, part: Part) -> list[Record]:
    """Read the records of a folder, in the order of the part's cases.

    Raises:
        StoreError: a record cannot be read, was altered, or is of another case; the message names it.
    """
    return [_read(path, case) for case in part.cases() if (path := path_of(folder, case)).is_file()]


def _read(path: Path, case: AnyCase) -> Record:
    record = read_digested(path, AGAIN)
    try:
        kept = from_plain(Kept, record)
    except InputError as error:
        raise StoreError(f"{path} is no record of a case ({error}). {AGAIN}") from error
    took = kept.planting.get("took")
    is_raced = kept.group in GROUPS and bool(kept.reasons) and "answer" in record
    is_raced = is_raced and all(record.get(name) is not None for name in RACED)
    if kept.case != case.name or not isinstance(took, bool) or (took and not is_raced):
        raise StoreError(f"{path} is no record of {case.name}. {AGAIN}")
    return record
