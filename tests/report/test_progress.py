"""What the live line says about the time that is left."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from elicitable.report import progress
from elicitable.report.progress import LiveReporter
from elicitable.values import CurvePoint


def test_a_new_round_is_estimated_by_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with LiveReporter(Console(file=io.StringIO())) as live:
        live.begin("lora", "seed 1 of 2", 0, 2)
        now[0] = 600.0
        live.begin("full", "seed 1 of 2", 1, 2)
        assert live.line().endswith("about 10:00 left")  # half of the round took ten minutes
        live.begin("full", "seed 2 of 2", 0, 1)
        assert live.line().endswith("10:00 so far")
        now[0] = 660.0
        live.point(CurvePoint(100, 0.5), 5 / 9)
        assert live.line().endswith("about 1:00 left")  # half of this round took a minute


def test_arms_that_took_no_time_in_a_round_say_nothing_about_its_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with LiveReporter(Console(file=io.StringIO())) as live:
        for kept in range(4):  # read from the folder of an earlier run
            live.begin("prompt", "choosing on validation", kept, 8)
            now[0] += 0.01
        live.begin("lora", "first look at rate 0.01", 4, 8)
        assert live.line().endswith("0:00 so far")
        now[0] += 59.9
        live.begin("lora", "first look at rate 0.03", 4, 8)
        now[0] += 0.06
        live.begin("full", "first look at rate 0.01", 5, 8)
        assert live.line().endswith("about 3:00 left")  # one of the four that are left took a minute
        live.begin("lora", "on to 64 steps at 0.01", 4, 8)  # the next round, before which four are done
        assert live.line().endswith("1:00 so far")
        now[0] += 60.0
        live.begin("full", "on to 64 steps at 0.01", 5, 8)
        assert live.line().endswith("about 3:00 left")


def test_against_the_clock_the_limit_says_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with LiveReporter(Console(file=io.StringIO()), time_limit=90.0) as live:
        live.begin("prompt", "scoring", 0, 3)
        now[0] = 60.0
        assert live.line() == "[1/3] prompt: scoring  0:30 left"


def test_a_race_without_a_limit_says_how_long_it_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """An estimate from the arms that had their turn said that nothing was left, with half of the race to come."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with LiveReporter(Console(file=io.StringIO())) as live:
        live.expect(104.0, 400.0)
        for seconds, said in [(47.0, "0:47 of 1:44 to 6:40"), (120.0, "2:00 of up to 6:40"), (500.0, "8:20 so far")]:
            now[0] = seconds
            live.begin("lora", "first look", 10, 11)
            assert live.line().endswith(f"  {said}")
