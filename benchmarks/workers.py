"""How a race gets quicker with workers: measured here on a few, and replayed from recorded durations on up to 1,000.

    python benchmarks/workers.py jobs [--jobs 16] [--tries 5]
    python benchmarks/workers.py race --out FOLDER [--measured 1 2]

``jobs``: so many equal jobs of one core through one worker process and through two, in turns; the share of the ideal
is seconds(1) / (2 · seconds(2)), with the workers there already and with their start counted in. That holds on an idle
machine alone, so the load is noted beside every pair, and two shares that other work does not change much: how busy the
two workers are with jobs, Σ seconds of jobs / (2 · seconds(2)), times how much processor time a job takes alone against
beside another.

``race``: a race is run inline, once, into FOLDER/inline. Then the same race runs again with a simulated executor: the
race decides as it does, every piece takes as long as it took, and the clock is a virtual one that also counts what the
deciding process itself computes. ``--measured`` runs the race on so many real workers, for points beside the curve.
What is begun ahead and not in the record takes as long as its steps would at the arm's own pace. It stops scaling at
the fewest workers that are within 5 % of the quickest; why is told by what the deciding process waits for there.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from elicitable.executors.executor import Executor
from elicitable.executors.processes import LocalProcesses
from elicitable.models.load import load
from elicitable.race import contest
from elicitable.race.pieces import Piece
from elicitable.records.store import Store, identity
from elicitable.records.trial import TrialRecord, kept_trial

WORKERS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128, 256, 1_000)
RACE: dict[str, Any] = {"steps": 192, "test_items": 256, "budget": 1_200}
GAIN = 1.05


def job(shared: str, seed: int) -> tuple[float, float]:
    """Read random ids with the model again and again; seconds of the processor and of the wall."""
    import torch

    from elicitable.models.speed.processor import one_thread
    from elicitable.rng import generator

    model = _model(shared)
    started, since = time.process_time(), time.monotonic()
    ids = torch.from_numpy(generator(seed, "workers").integers(10, size=(64, 32)))
    with one_thread(), torch.no_grad():
        for _ in range(JOB_READS):
            model.hf(input_ids=ids)
    return time.process_time() - started, time.monotonic() - since


JOB_READS = 12
_models: dict[str, Any] = {}


def _model(name: str) -> Any:
    if name not in _models:
        _models[name] = load(name, device="cpu")
    return _models[name]


def measure_jobs(jobs: int, tries: int) -> dict[str, Any]:
    """One and two workers in turns, warm; and once with their start."""
    cold: dict[int, float] = {}
    pairs = []
    with LocalProcesses(1).kept("toy:mixed") as one, LocalProcesses(2).kept("toy:mixed") as two:
        both = {1: one, 2: two}
        for count, executor in both.items():
            cold[count] = _seconds(executor, jobs)[0]
        for nth in range(tries):
            found: dict[str, Any] = {"load": round(os.getloadavg()[0], 2)}
            for count in (1, 2) if nth % 2 == 0 else (2, 1):
                wall, cpu, busy = _seconds(both[count], jobs)
                found |= {f"wall_{count}": round(wall, 2), f"cpu_{count}": round(cpu, 2)}
                found[f"busy_{count}"] = round(busy / (count * wall), 3)
            found["of_ideal"] = round(found["wall_1"] / (2 * found["wall_2"]), 3)
            found["whatever_the_load"] = round(found["busy_2"] * found["cpu_1"] / found["cpu_2"], 3)
            pairs.append(found)
            print(json.dumps(found), file=sys.stderr, flush=True)
    return {
        "jobs": jobs,
        "pairs": pairs,
        "median_of_ideal": statistics.median(pair["of_ideal"] for pair in pairs),
        "median_whatever_the_load": statistics.median(pair["whatever_the_load"] for pair in pairs),
        "with_start": round(cold[1] / (2 * cold[2]), 3),
    }


def _seconds(executor: Executor, jobs: int) -> tuple[float, float, float]:
    """Return the seconds of all jobs on the wall, on the processor, and summed over the jobs."""
    started = time.monotonic()
    found = executor.run(job, list(range(jobs)))
    return time.monotonic() - started, sum(cpu for cpu, _ in found), sum(wall for _, wall in found)


class Simulated(Executor):
    """Workers of a virtual clock: every piece takes as long as it took in the race that was recorded."""

    name = "simulated"

    def __init__(self, workers: int, recorded: Path, out: Path) -> None:
        self.at_once, self._recorded, self._out = workers, Store(recorded, is_read_only=True), out
        self._specs = {identity(one["spec"]): one["spec"] for one in self._recorded}
        self._pace = self._paces()
        self.clock = self.busy = self.wasted = 0.0
        self.waited: Counter[str] = Counter()
        self._ends: dict[int, tuple[float, Piece, list[tuple[str, TrialRecord]]]] = {}
        self._since = time.process_time()

    def _paces(self) -> dict[str, float]:
        """Seconds of a step of each method."""
        paces: dict[str, list[float]] = {}
        for record in self._recorded:
            spec, steps = record["spec"], record.get("steps", 0)
            if "plan" in spec and steps:
                paces.setdefault(spec["method"], []).append(record["timing"]["seconds"] / steps)
        return {name: statistics.median(found) for name, found in paces.items()}

    def start(self, index: int, function: Any, item: Piece) -> None:
        self._decided()
        records, seconds = [], 0.0
        for name in item.names:
            if name in self._specs:
                record = kept_trial(self._recorded, self._specs[name])
                assert record is not None
                records.append((name, record))
                seconds += record.timing.seconds
        if not records:
            before = item.legs[-2] if len(item.legs) > 1 else 0
            steps = (item.legs[-1] - before if item.legs else 0) + (item.cooldown or 0)
            seconds = steps * self._pace.get(item.method, 0.0)
            self.wasted += seconds
        self.busy += seconds
        self._ends[index] = (self.clock + seconds, item, records)

    def finished(self) -> tuple[int, Any]:
        self._decided()
        index = min(self._ends, key=lambda one: self._ends[one][0])
        end, piece, records = self._ends.pop(index)
        self.waited[_kind(piece)] += max(0.0, end - self.clock)
        self.clock = max(self.clock, end)
        for name, _ in records:  # the tensors of a winner are read there
            place = self._out / "trials" / name
            if not place.exists():
                shutil.copytree(self._recorded.folder / "trials" / name, place)
        self._since = time.process_time()
        return index, records

    def _decided(self) -> None:
        """Count what the deciding process computed since it was heard last."""
        now = time.process_time()
        self.waited["deciding"] += now - self._since
        self.clock += now - self._since
        self._since = now

    def stop(self) -> None:
        self._ends = {}


def _kind(piece: Piece) -> str:
    if piece.rate is None:
        return "choosing"
    if piece.seed:
        return "other seeds"
    if piece.cooldown is not None:
        return "way down and test"
    return "first look" if len(piece.legs) < 3 else "training on"


def race(out: Path, executor: Any, **more: Any) -> float:
    """Seconds of the rounds of the race that is measured."""
    started = time.monotonic()
    contest.verdict("toy:ascending", "descending", out=out, executor=executor, **RACE, **more)
    return time.monotonic() - started


def measure_race(out: Path, measured: list[int]) -> dict[str, Any]:
    """Record the race, replay it, and run it on real workers."""
    recorded = out / "inline"
    found: dict[str, Any] = {"load": round(os.getloadavg()[0], 2), "inline": round(race(recorded, "inline"), 1)}
    points = []
    for workers in WORKERS:
        folder = out / "replayed"
        shutil.rmtree(folder, ignore_errors=True)
        executor = Simulated(workers, recorded, folder)
        race(folder, executor)
        points.append(
            {
                "workers": workers,
                "seconds": round(executor.clock, 2),
                "busy": round(executor.busy / executor.clock, 2),
                "begun_in_vain": round(executor.wasted, 2),
                "waited_for": {name: round(seconds, 2) for name, seconds in executor.waited.most_common()},
            }
        )
        print(json.dumps(points[-1]), file=sys.stderr, flush=True)
    for workers in measured:
        folder = out / f"workers-{workers}"
        shutil.rmtree(folder, ignore_errors=True)
        load_before = round(os.getloadavg()[0], 2)
        seconds = round(race(folder, "local", workers=workers), 1)
        found.setdefault("measured", []).append({"workers": workers, "seconds": seconds, "load": load_before})
    return found | {"simulated": points, "stops_at": _stop(points)}


def _stop(points: list[dict[str, Any]]) -> int:
    """The number of workers beyond which no number is quicker by 5 %."""
    least = min(point["seconds"] for point in points)
    return int(next(point["workers"] for point in points if point["seconds"] <= GAIN * least))


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = parser.add_subparsers(dest="what", required=True)
    jobs = sub.add_parser("jobs")
    jobs.add_argument("--jobs", type=int, default=16)
    jobs.add_argument("--tries", type=int, default=5)
    raced = sub.add_parser("race")
    raced.add_argument("--out", type=Path, required=True)
    raced.add_argument("--measured", type=int, nargs="*", default=[1, 2])
    given = parser.parse_args()
    from elicitable.models.speed.processor import made_on

    found = measure_jobs(given.jobs, given.tries) if given.what == "jobs" else measure_race(given.out, given.measured)
    print(json.dumps({**made_on(), **found}))


if __name__ == "__main__":
    main()
