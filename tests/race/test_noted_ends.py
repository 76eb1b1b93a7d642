"""An arm that a race leaves is shown as another race in its folder has taken it: the furthest that is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.race.test_workers import Scrambled
from tests.reverse import Reverse, race_of_seconds

import elicitable as el
from elicitable.models.model import Model
from elicitable.race import contest, line, look, rounds
from elicitable.race.entry import Entry, Race
from elicitable.race.line import Line
from elicitable.records.store import Store
from elicitable.records.trial import TrialRecord
from elicitable.tasks.base import identity_of
from elicitable.training.loop import train

Build = Callable[..., Model]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A race of seconds: little data, few steps; the side effects on the same few items."""
    race_of_seconds(monkeypatch, first_steps=4, finish=4, steps=48)


def run(model: Model, out: Path, **options: Any) -> dict[str, el.values.ArmResult]:
    given = {"seeds": 1, "budget": 500, "methods": ["lora"]}
    return {arm.method: arm for arm in contest.verdict(model, Reverse(), out=out, **given | options).arms}


@contextmanager
def leaving(*names: str, first_turn: bool = False) -> Iterator[list[tuple[str, int]]]:
    """Leave these arms after their first look, or after their ``first_turn``, at which they try other starts.

    It yields the kind and the steps of whatever is trained meanwhile.
    """
    trained: list[tuple[str, int]] = []

    def watched(model: Any, adaptation: Any, *given: Any, **more: Any) -> Any:
        fit = train(model, adaptation, *given, **more)
        trained.append((adaptation.kind, fit.steps))
        return fit

    def matters(race: Race, entry: Entry, entries: Any) -> bool:
        is_left = entry.method.name in names and (entry.is_begun or not first_turn)
        return not is_left and can_matter(race, entry, entries)

    can_matter = rounds.can_matter
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounds, "can_matter", matters)
        patch.setattr(line, "train", watched)
        yield trained


def test_a_run_that_another_race_has_taken_further_is_tested_by_other_items_too(
    digits_model: Build, tmp_path: Path
) -> None:
    """Its end is kept: a test by another number of items trains nothing, and so it is owed."""
    model = digits_model(8)
    before = run(model, tmp_path)["lora"]
    with leaving("lora") as trained:
        after = run(model, tmp_path, test_items=24)["lora"]
    assert trained == []
    assert (after.steps, after.items) == (before.steps, 24)
    assert after.correct[0] == before.correct[0][:24]


def test_a_run_is_not_taken_further_than_the_steps_that_are_asked_for(digits_model: Build, tmp_path: Path) -> None:
    model = digits_model(8)
    before = run(model, tmp_path, steps=120)["lora"]
    with leaving("lora"):
        after = run(model, tmp_path, steps=100)["lora"]
    assert before.steps > 100
    assert after.steps <= 100


def test_a_shorter_race_does_not_hide_how_far_a_longer_one_has_come(digits_model: Build, tmp_path: Path) -> None:
    """Nor does one that was killed before its run had come down."""
    model = digits_model(8)
    before = run(model, tmp_path, steps=200)["lora"]
    assert run(model, tmp_path, steps=100)["lora"].steps < before.steps
    with leaving("lora"):
        after = run(model, tmp_path, steps=200)["lora"]
    assert (after.steps, after.correct) == (before.steps, before.correct)


@contextmanager
def placing(*modules: str) -> Iterator[None]:
    """Let a look find LoRA at its best where it is on these layers; on its own where none are named."""

    def told(race: Any, one: Line, steps: int) -> TrialRecord:
        record = advance(race, one, steps)
        better = replace(record, validation=1.0 if one.sized.options.get("modules", ()) == modules else 0.0)
        one.legs[-1] = (one.legs[-1][0], better)
        return better

    advance = look.advance
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(look, "advance", told)
        yield


EVERY = ("c_attn", "c_fc", "c_proj")


def test_the_place_of_a_run_is_the_one_of_its_rows_curve_and_of_what_workers_are_sent(
    digits_model: Build, tmp_path: Path
) -> None:
    """JSON keeps a tuple as a list, which is none of the starts of a method and cannot be sent to a worker."""
    model, given = digits_model(8), {"budget": 5_000, "methods": ["zero-shot", "lora"]}
    with placing(*EVERY):
        before = run(model, tmp_path, **given)["lora"]
    assert before.setting["modules"] == [*EVERY]
    with leaving("lora"):
        after = run(model, tmp_path, executor=Scrambled(2), rows_curve=True, **given)["lora"]
    assert after.setting == before.setting
    specs = [one["spec"] for one in Store(tmp_path) if one["spec"].get("method") == "lora"]
    on_rows = [one for one in specs if one["task"] != identity_of(Reverse())]
    assert on_rows
    assert all(one["options"].get("modules") == [*EVERY] for one in on_rows)


def test_a_run_from_the_arms_own_start_is_found_behind_another_start(digits_model: Build, tmp_path: Path) -> None:
    """LoRA on more layers has a lower rank, and the run on its own layers is none of that rank."""
    model, given = digits_model(8), {"budget": 5_000, "steps": 480}
    with placing():
        before = run(model, tmp_path, **given)["lora"]
    with placing(*EVERY), leaving("lora", first_turn=True):
        after = run(model, tmp_path, **given)["lora"]
    assert (after.steps, after.setting) == (before.steps, before.setting)


def test_what_is_said_of_a_run_that_another_race_has_taken_further_is_true_of_this_one(
    digits_model: Build, tmp_path: Path
) -> None:
    """It was left here: that its steps were up is said of no arm that could have been given more."""
    model = digits_model(8)
    before = run(model, tmp_path, steps=100)["lora"]
    assert before.stopped == "steps"
    with leaving("lora"):
        answer = contest.verdict(model, Reverse(), out=tmp_path, seeds=1, budget=500, methods=["lora"], steps=480)
    [arm] = answer.arms
    assert (arm.steps, arm.stopped) == (before.steps, "settled")
    assert arm.seconds >= before.seconds - 0.1  # rounded


def test_a_run_that_another_race_has_taken_further_has_the_seeds_that_are_asked_for(
    digits_model: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be the answer, which is known only once it has been tested."""
    model, tested = digits_model(8), list[list[str]]()

    def more_seeds(race: Race, entries: Sequence[Entry], beside: Any) -> None:
        tested.append([entry.method.name for entry in entries if entry.records])

    run(model, tmp_path)
    monkeypatch.setattr(rounds, "more_seeds", more_seeds)
    with leaving("lora"):
        run(model, tmp_path)
    assert tested == [[], ["lora"]]


def test_a_run_behind_what_another_race_has_chosen_is_none_of_this_one(digits_model: Build, tmp_path: Path) -> None:
    model, name = digits_model(8), "lora-behind-examples"
    given: dict[str, Any] = {"methods": [name], "steps": 100}
    before = run(model, tmp_path, search_passes=32, **given)[name]
    with leaving(name):
        again = run(model, tmp_path, search_passes=32, **given)[name]
        other = run(model, tmp_path, search_passes=2_000, **given)[name]
    assert again.steps == before.steps
    assert other.setting["items"] != before.setting["items"]
    assert other.steps < before.steps
