"""Count what kills, alterations and hostile input do: ``python -m tests.faults --kills 200 --alterations 300``.

Everything is drawn from ``--seed``. The exit code is 1 where anything was taken in silence, lost, or a traceback.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path


def main() -> int:
    """Run what was asked for and print the counts; the exit code."""
    asked = _asked()
    preload()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        os.environ["ELICITABLE_CACHE"] = str(place / "cache")
        if asked.kills:
            from tests.faults.kills import kill

            wrong += _told("kills", *_timed(lambda: kill(asked.kills, place / "kills", asked.seed, asked.only)))
        if asked.alterations:
            from tests.faults.alterations import alter

            count, here = asked.alterations, place / "alterations"
            wrong += _told("alterations", *_timed(lambda: alter(count, here, asked.seed, asked.only)))
        if asked.fuzz:
            from tests.faults.fuzz import fuzz

            wrong += _told("inputs", *_timed(lambda: fuzz(asked.fuzz, place / "fuzz", asked.seed, asked.only)))
    own, children = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(f"peak memory of one process: {max(own, children) / 1024:,.0f} MiB")
    for one in wrong:
        print(f"WRONG {one}", file=sys.stderr)
    return 1 if wrong else 0


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=0, metavar="N", help="how often a command is killed")
    parser.add_argument("--alterations", type=int, default=0, metavar="N", help="how many files are altered")
    parser.add_argument("--fuzz", type=int, default=0, metavar="N", help="how many inputs every reader is given")
    parser.add_argument("--only", action="append", metavar="NAME", help="of the tables only this (may be repeated)")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def preload() -> None:
    """Import what the commands import, so that a process that is forked from this one begins at once."""
    import elicitable.compiling.report
    import elicitable.deploy.export
    import elicitable.executors.processes
    import elicitable.forecasting.forecast
    import elicitable.lab.jobs
    import elicitable.lab.pretrain
    import elicitable.lab.reproduce
    import elicitable.methods.adapter
    import elicitable.microscope.inspect
    import elicitable.models.load
    import elicitable.planted.benchmark
    import elicitable.race.causes
    import elicitable.race.contest
    import elicitable.race.tune
    import elicitable.report.html
    import elicitable.report.microscope
    import elicitable.report.reproduction
    import elicitable.training.checkpoint  # noqa: F401


def _timed(run: object) -> tuple[Counter[str], list[str], float]:
    began = time.monotonic()
    counts, wrong = run()  # type: ignore[operator]
    return counts, wrong, time.monotonic() - began


def _told(what: str, counts: Counter[str], wrong: list[str], seconds: float) -> list[str]:
    print(f"{counts.total():,} {what} in {seconds:.0f} s, {len(wrong)} of them wrong", flush=True)
    for name, count in sorted(counts.items()):
        print(f"  {count:>7,}  {name}", flush=True)
    return wrong


if __name__ == "__main__":
    sys.exit(main())
