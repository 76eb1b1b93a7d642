"""What a limit cut down is not kept for longer ones in the same folder, or is said to be."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.reverse import Reverse, race_of_seconds

from elicitable.diagnosis.tried import is_barely_trained
from elicitable.models.model import Model
from elicitable.race import beginning, contest, rounds, timing, trial
from elicitable.records.store import Store
from elicitable.values import Verdict

Build = Callable[..., Model]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A race of seconds: little data, few steps; the side effects on the same few items."""
    race_of_seconds(monkeypatch, validation_items=64, first_steps=4, finish=4, steps=48)


def run(model: Model, out: Path, limit: float, **options: Any) -> Verdict:
    return contest.verdict(model, Reverse(), seeds=1, out=out, time_limit=limit, **options)


def paying(monkeypatch: pytest.MonkeyPatch, numbers: dict[float, int], of: str = "validation") -> None:
    """Let a limit pay for so many validation items, or rows of a batch."""

    def opening(race: Any, sizes: Any) -> dict[str, Any]:
        return timing.opening(race, sizes) | {of: numbers[race.time_limit]}

    monkeypatch.setattr(beginning, "opening", opening)


def test_a_search_that_time_cut_off_is_made_anew_under_a_longer_limit(
    digits_model: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One look took more than a fifth of its seconds, so that it ended with as much of them left."""
    model, scored, chosen = digits_model(8), trial._scored, {"methods": ["examples"], "search_passes": 500}
    paying(monkeypatch, {20.0: 16, 200.0: 16, 400.0: 16})
    with monkeypatch.context() as patch:
        patch.setattr(trial, "_scored", lambda *given: (time.sleep(0.6), scored(*given))[1])
        [cut] = run(model, tmp_path, 20.0, **chosen).arms
    [longer] = run(model, tmp_path, 200.0, **chosen).arms
    assert cut.effort is not None
    assert longer.effort is not None
    assert cut.stopped == "time"
    assert cut.effort.seconds < 0.8 * timing.CHOICE_SHARE * 20.0
    assert longer.stopped != "time"
    assert longer.effort.candidates > cut.effort.candidates
    [again] = run(model, tmp_path, 400.0, **chosen).arms
    assert again.effort == longer.effort  # that one was tried to its end


def test_few_validation_items_are_said_and_left_behind_by_a_limit_that_is_many_times_as_long(
    digits_model: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first race in a folder, of half a minute, fixed them for all that came after it, and nothing said so."""
    model, paid = digits_model(8), {30.0: 16, 60.0: 32, 600.0: 64, 1200.0: 64}
    paying(monkeypatch, paid)
    said: dict[float, list[str]] = {}
    for limit in (30.0, 60.0, 600.0, 1200.0, 30.0):
        warnings = run(model, tmp_path, limit, methods=["zero-shot"]).provenance["warnings"]
        found = [one for one in warnings if "validation items" in one]
        assert said.setdefault(limit, found) == found  # another time too
    assert [len(found) for found in said.values()] == [1, 1, 0, 0]
    assert said[30.0][0].startswith("the time limit pays for 16 of the 64 validation items; 16 times the time")
    assert said[60.0][0].startswith("16 of the 64 validation items are looked at, as in another race in this folder")
    assert said[60.0][0].endswith("pays for 32, which another --out takes")
    specs = [record["spec"] for record in Store(tmp_path) if "method" in record["spec"]]
    assert sorted({spec["plan"]["validation_items"] for spec in specs}) == [16, 64]


def rows_of_a_step(monkeypatch: pytest.MonkeyPatch, step: Callable[[int], float], seconds: float) -> tuple[int, float]:
    """Return what a limit that leaves ``seconds`` to an arm makes of batches of 16 rows; ``step``: what rows take."""
    race: Any = SimpleNamespace(pace=SimpleNamespace(batch=16))
    monkeypatch.setattr(timing, "_pass_seconds", lambda race, rows: step(rows) / timing.STEP_PASSES)
    return timing._rows_of_a_step(race, step(16), seconds)


def test_a_limit_that_pays_for_few_steps_takes_more_of_fewer_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """24 steps are fair; on a GPU half of the rows take as long as all."""

    def proportional(rows: int) -> float:
        return rows / 16.0

    for seconds, rows in ((24.0, 16), (23.0, 8), (12.0, 8), (11.0, 4), (1.0, 4)):
        assert rows_of_a_step(monkeypatch, proportional, seconds) == (rows, rows / 16.0)
    assert rows_of_a_step(monkeypatch, lambda rows: 1.0, 1.0) == (16, 1.0)


def test_a_race_trains_in_the_batches_that_its_limit_pays_for(
    digits_model: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the first race in a folder took holds for the others there, up to one that is many times as long."""
    paying(monkeypatch, {60.0: 2, 120.0: 4, 960.0: 8}, of="rows")
    trained: dict[float, set[int]] = {}
    said: dict[float, list[str]] = {}
    price: dict[float, dict[str, Any]] = {}
    before: list[Any] = []
    for limit in (60.0, 120.0, 960.0):
        made = run(digits_model(8), tmp_path, limit, methods=["kv-prefix", "lora"]).provenance
        warnings, price[limit] = made["warnings"], made["price"]
        specs = [record["spec"] for record in Store(tmp_path) if "method" in record["spec"]]
        trained[limit] = {spec["plan"]["batch"] for spec in specs if spec not in before}
        before = specs
        said[limit] = [one for one in warnings if "rows" in one]
    assert trained[60.0] == {2}
    assert trained[120.0] <= {2}  # goes on
    assert trained[960.0] == {8}
    assert said[60.0][0].startswith("a step reads 2 rows where 8 are usual, as the time limit pays for few of those")
    assert said[120.0] == [
        "a step reads 2 rows where 8 are usual, as in another race in this folder; the time limit pays for 4, which "
        "another --out takes"
    ]
    assert said[960.0] == []
    assert {limit: one["rows"] for limit, one in price.items()} == {60.0: 2, 120.0: 2, 960.0: 8}


def test_a_race_without_arms_that_are_trained_settles_no_rows_of_a_batch(
    digits_model: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It took the usual ones for the folder, and a race of all arms there had a few steps of many rows each."""
    paying(monkeypatch, {60.0: 8}, of="rows")
    run(digits_model(8), tmp_path, 60.0, methods=["zero-shot"])
    paying(monkeypatch, {60.0: 2}, of="rows")
    assert run(digits_model(8), tmp_path, 60.0, methods=["kv-prefix"]).provenance["price"]["rows"] == 2


def test_twice_the_time_thrice_goes_on_whatever_that_pays_for(
    digits_model: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where loading takes half of a short limit, twice as long a one pays for many times as much; it began anew."""
    paying(monkeypatch, {10.0: 8, 20.0: 32, 40.0: 64, 80.0: 64})
    for limit in (10.0, 20.0, 40.0, 80.0):
        run(digits_model(8), tmp_path, limit, methods=["zero-shot"])
    specs = [record["spec"] for record in Store(tmp_path) if "method" in record["spec"]]
    assert {spec["plan"]["validation_items"] for spec in specs} == {8}


def test_arms_that_had_a_few_steps_are_trained_on_with_what_is_left(
    digits_model: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leg that the limit did not pay for beside what others were owed was never asked for again.

    What they had then ended by no clock, and each of their legs was tested: more looks, and wider intervals.
    """
    most = 24

    def affords(race: Any, entry: Any, steps: int, entries: Any, is_again: bool = False) -> bool:
        return is_again and steps <= most

    monkeypatch.setattr(rounds, "affords_leg", affords)
    answer = run(digits_model(8), tmp_path, 120.0, methods=["kv-prefix", "lora", "full"])
    arms = {arm.method: arm for arm in answer.arms}
    assert not is_barely_trained(arms["kv-prefix"])
    others = [is_barely_trained(arms[name]) for name in ("lora", "full")]
    assert others.count(False) >= 1
    trained_on = [arm for arm in answer.arms if not is_barely_trained(arm)]
    assert [arm.stopped for arm in trained_on] == ["time", "time"]
    assert answer.provenance["looks"] == 1 + len(trained_on)
