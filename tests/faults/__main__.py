"""Count what kills, alterations and hostile input do: ``python -m tests.faults --kills 200 --alterations 300``.

Everything is drawn from ``--seed``. The exit code is 1 where anything was taken in silence, lost, or a traceback.
``--keep`` keeps each count as soon as there is one, and does not count again what stands there as often and without a
fault. Without a number, what is kept is printed, as ``docs/faults.md`` has it.
"""

from __future__ import annotations

import argparse
import datetime
import os
import resource
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tests.faults.counts import PATH, Counted, as_markdown, is_known, keep, read


def main() -> int:
    """Run what was asked for and print the counts; the exit code."""
    asked = _asked()
    if not (asked.kills or asked.alterations or asked.fuzz):
        print(as_markdown(read(asked.keep or PATH), names()))
        return 0
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # a race is run by the process that is killed
    preload()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        os.environ["ELICITABLE_CACHE"] = str(place / "cache")
        for what, counting in _countings(asked, place):
            found = [_told(one, asked.keep) for one in counting]
            wrong += [f"{what}: {fault}" for one in found for fault in one.wrong]
            print(
                f"{sum(one.total for one in found):,} {what} in {sum(one.seconds for one in found):.0f} s", flush=True
            )
    own, children = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(f"{len(wrong)} wrong; peak memory of one process: {max(own, children) / 1024:,.0f} MiB")
    return 1 if wrong else 0


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=0, metavar="N", help="how often a command is killed")
    parser.add_argument("--alterations", type=int, default=0, metavar="N", help="how many files are altered")
    parser.add_argument("--fuzz", type=int, default=0, metavar="N", help="how many inputs every reader is given")
    parser.add_argument("--only", action="append", metavar="NAME", help="of the tables only this (may be repeated)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, nargs="?", const=PATH, metavar="FILE", help=f"default: {PATH.name}")
    return parser.parse_args()


def _countings(asked: argparse.Namespace, place: Path) -> Iterator[tuple[str, Iterator[Counted]]]:
    from tests.faults.alterations import alter
    from tests.faults.fuzz import fuzz
    from tests.faults.kills import kill

    for what, count, counting in (
        ("inputs", asked.fuzz, fuzz), ("alterations", asked.alterations, alter), ("kills", asked.kills, kill),
    ):  # fmt: skip
        if count:
            known = partial(is_known, asked.keep, what)
            yield what, counting(count, place / what, asked.seed, asked.only, known)


def names() -> dict[str, list[str]]:
    """What there is to count."""
    from tests.faults.commands import COMMANDS
    from tests.faults.kept import KEPT
    from tests.faults.readers import READERS

    tables: dict[str, Sequence[Any]] = {"inputs": READERS, "alterations": KEPT, "kills": COMMANDS}
    return {what: [one.name for one in table] for what, table in tables.items()}


def _told(counted: Counted, path: Path | None) -> Counted:
    """Print a count and each of its faults, and keep it."""
    from elicitable.models.speed.processor import kind

    on = {"date": datetime.date.today().isoformat(), "processor": kind()}
    print(f"  {counted}", flush=True)
    for fault in counted.wrong:
        print(f"WRONG {fault}", file=sys.stderr, flush=True)
    if path is not None:
        keep(replace(counted, on=on), path)
    return counted


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


if __name__ == "__main__":
    sys.exit(main())
