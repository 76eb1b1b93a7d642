"""Clocks that jump: whoever sets the date, or a machine that asks for it, changes no limit and no result."""

from __future__ import annotations

import itertools
import re
import time
from pathlib import Path

import pytest

import elicitable
from elicitable.race.contest import verdict
from elicitable.values import Verdict

YEAR = 365 * 24 * 3600
# a run that holds a folder says since when; what another host left half-written is swept after a day
MAY_ASK = {"records/lock.py", "cache.py"}


def test_no_limit_and_no_result_hangs_on_the_date() -> None:
    package = Path(elicitable.__file__).parent
    asks = re.compile(r"\btime\.time\b|datetime\.(now|today|utcnow)|date\.today|st_[mac]time|from time import")
    found = {path.relative_to(package).as_posix() for path in package.rglob("*.py") if asks.search(path.read_text())}
    assert found == MAY_ASK


def test_a_date_that_jumps_while_a_race_runs_changes_neither_its_limit_nor_its_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raced(place: Path) -> Verdict:
        methods = ["zero-shot", "value-bias"]
        return verdict(
            "toy:ascending", "ascending", methods=methods, seeds=1, steps=8, test_items=8, time_limit=600, out=place
        )

    before = raced(tmp_path / "before")
    jumps = itertools.cycle((0, YEAR, -YEAR, 40 * YEAR))
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + next(jumps))
    after = raced(tmp_path / "after")
    assert after.label == before.label
    for one, other in zip(after.arms, before.arms, strict=True):
        assert (one.method, one.status, one.steps, one.correct) == (
            other.method, other.status, other.steps, other.correct,
        )  # fmt: skip
