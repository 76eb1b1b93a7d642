"""Time whole races: against an older checkout in one paired run, and beside busy processes.

    python benchmarks/race.py --before ../older            # both at once, each on a core of its own
    python benchmarks/race.py --before ../older --turns 3  # each with all cores, in turns, three times
    python benchmarks/race.py --busy 2                     # alone, then beside two busy processes

Results go to ``--out`` as JSON lines; a race that is there is not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kept import Kept

HERE = Path(__file__).resolve().parents[1]
RACES = (("toy:mixed", "ascending"), ("toy:ascending", "descending"))
SPIN = "while True: pass"


def main() -> None:
    """Run what is missing and print every race that was timed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="an older checkout, for a paired run")
    parser.add_argument("--busy", type=int, default=0, help="processes that keep cores busy meanwhile")
    parser.add_argument("--turns", type=int, default=0, help="times that each has all cores")
    parser.add_argument("--out", type=Path, default=Path("race-times.jsonl"))
    given = parser.parse_args()
    known = Kept(given.out)
    for model, task in RACES:
        trees = [HERE, *([given.before.resolve()] if given.before else [])]
        for turn in range(given.turns):
            for tree in trees if not known.has(model=model, task=task, turn=turn) else ():
                known.add({**timed([tree], model, task, 0)[0], "turn": turn})
        for busy in dict.fromkeys((0, given.busy)) if not given.turns else ():
            if known.has(model=model, task=task, busy=busy):
                continue
            for one in timed(trees, model, task, busy):
                known.add(one)
    for one in known:
        print(
            f"{one['model']:<14} {one['task']:<11} {one['tree']:<10} busy {one['busy']}: {one['seconds']:7.1f} s, "
            f"{one['processor_seconds']:7.1f} s of processor time, {one['label']} ({one['answer']})"
        )
    for model, task in RACES:
        say_share(known, model, task)


def say_share(known: Iterable[dict[str, Any]], model: str, task: str) -> None:
    """Print which share of the older checkout's seconds this one takes, by the medians of all turns."""
    turns = [one for one in known if "turn" in one and (one["model"], one["task"]) == (model, task)]
    took = {tree: [one["seconds"] for one in turns if one["tree"] == tree] for tree in ("here", "before")}
    if all(took.values()):
        here, before = (statistics.median(seconds) for seconds in took.values())
        print(f"{model} {task}: {here:.1f} of {before:.1f} s, a share of {here / before:.2f}")


def timed(trees: list[Path], model: str, task: str, busy: int) -> list[dict[str, Any]]:
    """Race in every tree at the same time, each on a core of its own where there are several."""
    spinning = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(busy)]
    try:
        with tempfile.TemporaryDirectory() as folder:
            running = [
                start(tree, model, task, Path(folder) / str(nth), nth if len(trees) > 1 else None)
                for nth, tree in enumerate(trees)
            ]
            return [ended(*one, model=model, task=task, busy=busy) for one in running]
    finally:
        for process in spinning:
            process.kill()


def start(tree: Path, model: str, task: str, out: Path, core: int | None) -> tuple[Any, ...]:
    """Start a race of the package in ``tree``, on one core if ``core`` is its number."""
    code = (
        f"import sys; sys.argv = ['elicitable', 'verdict', '--model', '{model}', '--task', '{task}', '--out', '{out}', "
    )
    code += "'--quiet']; from elicitable.cli import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(tree / "src")}
    if core is not None:
        environment["OMP_NUM_THREADS"] = "1"
    pin = None if core is None else lambda: os.sched_setaffinity(0, {core % (os.cpu_count() or 1)})
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=pin
    )
    return process, time.monotonic(), tree, out


def ended(process: Any, started: float, tree: Path, out: Path, **of: Any) -> dict[str, Any]:
    """Wait for a race, and read what it found."""
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    if status:
        raise SystemExit(process.stderr.read().decode())
    verdict = json.loads((out / "verdict.json").read_text(encoding="utf-8"))
    return of | {
        "tree": "here" if tree == HERE else "before",
        "seconds": round(seconds, 1),
        "processor_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "label": verdict["label"],
        "answer": verdict["answer"],
    }


if __name__ == "__main__":
    main()
