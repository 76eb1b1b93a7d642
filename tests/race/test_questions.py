"""What a race leaves open is said with what would answer it, in words that are true."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from elicitable.diagnosis.verdict import Decision
from elicitable.race.contest import _has_ended
from elicitable.race.questions import said_to_be_open

OPEN: list[dict[str, Any]] = [{"method": "lora", "asks": "suffice", "low": 0.0, "high": 1.0, "seconds": 0.04}]
UNDECIDED = Decision("inconclusive", (), ())


def test_a_price_is_at_least_a_second() -> None:
    [said] = said_to_be_open((), OPEN, UNDECIDED)
    assert "About 1 s more would tell" in said


def test_a_race_that_came_to_its_end_does_not_ask_for_time() -> None:
    [said] = said_to_be_open((), OPEN, UNDECIDED, has_ended=True)
    assert "more --steps, --seeds or --test-items would tell" in said
    assert "About" not in said


@pytest.mark.parametrize(("stopped", "left", "has_ended"), [("plateau", 9.0, True), ("time", 9.0, False)])
def test_a_race_that_the_clock_cut_off_has_not_ended_when_it_is_asked_for_again(
    stopped: str, left: float, has_ended: bool
) -> None:
    """Found whole in its folder it had all of its time left, and asked for more steps in the place of time."""
    race: Any = SimpleNamespace(left=lambda: left, was_interrupted=False)
    entry: Any = SimpleNamespace(stopped=stopped)
    assert _has_ended(race, [entry], OPEN) == has_ended


def test_what_is_asked_of_several_arms_is_asked_once() -> None:
    [said] = said_to_be_open((), [*OPEN, OPEN[0] | {"method": "full"}, OPEN[0] | {"asks": "beat"}], UNDECIDED)
    assert "open: what do lora, full reach, what does lora reach?" in said
