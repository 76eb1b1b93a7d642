"""Where a race's time goes: nothing is trained twice, what cannot matter is left, an answer is owed at any moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.reverse import Reverse, race_of_seconds

import elicitable as el
from elicitable.diagnosis.looks import ALPHA, level_after
from elicitable.diagnosis.tried import is_rising
from elicitable.diagnosis.verdict import Comparison, Decision
from elicitable.methods.base import Schedule, Sized
from elicitable.methods.catalog import method_named
from elicitable.methods.kv_prefix import KVPrefix
from elicitable.models.model import Model
from elicitable.race import (
    beginning,
    contest,
    line,
    look,
    outlook,
    pace,
    questions,
    rounds,
    seeds,
    stakes,
    threads,
    timing,
)
from elicitable.race.contest import StoppedRace
from elicitable.race.entry import Race
from elicitable.race.line import Line
from elicitable.race.marking import Marking
from elicitable.race.outlook import Mark
from elicitable.race.reporter import Silent
from elicitable.records.store import Store
from elicitable.records.trial import TrialRecord
from elicitable.scores.catalog import score_from
from elicitable.scores.exact_match import ExactMatch
from elicitable.training.loop import Plan, train
from elicitable.values import CurvePoint

Build = Callable[..., Model]
EXACT = Marking(ExactMatch())


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A race of seconds: little data, few steps; the side effects on the same few items."""
    race_of_seconds(monkeypatch, first_steps=4, finish=4, steps=48)


def run(model: Model, out: Path | None = None, **options: Any) -> el.values.Verdict:
    given = {"seeds": 1, "budget": 500, "out": out, "methods": ["zero-shot", "kv-prefix", "lora"]}
    return contest.verdict(model, Reverse(), **given | options)


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, float, int, int, int]]]:
    """Note every piece of training: method and start, rate, seed, first and last step."""
    seen: list[tuple[str, float, int, int, int]] = []

    def watched(model: Any, adaptation: Any, task: Any, plan: Plan, seed: int, **more: Any) -> Any:
        first = more["start"].plain["steps"] if more.get("start") else 0
        fit = train(model, adaptation, task, plan, seed, **more)
        kind = f"{adaptation.kind} {adaptation.setting.get('init', '')}"
        seen.append((kind, plan.learning_rate, seed, first, fit.steps))
        return fit

    with monkeypatch.context() as patch:
        patch.setattr(line, "train", watched)
        yield seen


def test_no_step_at_the_constant_rate_is_taken_twice(digits_model: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    with counted(monkeypatch) as seen:
        run(digits_model(8))
    assert len(seen) == len(set(seen))
    legs: dict[tuple[str, float, int], int] = {}
    for kind, rate, seed, first, last in seen:
        assert first == legs.get((kind, rate, seed), 0), "every piece begins where the one before it ended"
        if last < pace.DIGITS.steps or first == 0:
            legs[kind, rate, seed] = last
    assert {last for *_, last in seen} >= {4, 8, 16}


def test_a_context_goes_on_from_the_start_that_is_best_after_as_many_steps(
    monkeypatch: pytest.MonkeyPatch, digits_model: Build
) -> None:
    """The start that a record says is best is the one of every later piece, of other seeds too."""

    def told(race: Any, one: Line, steps: int) -> TrialRecord:
        record = advance(race, one, steps)
        better = replace(record, validation=1.0 if one.sized.options == {"init": "sink"} else 0.0)
        one.legs[-1] = (one.legs[-1][0], better)
        return better

    advance = look.advance
    monkeypatch.setattr(look, "advance", told)
    with counted(monkeypatch) as seen:
        [arm] = run(digits_model(8), methods=["kv-prefix"], seeds=2).arms
    assert arm.setting["init"] == "sink"
    assert {kind for kind, _, _, first, _ in seen if first >= 8} == {"kv-prefix sink"}
    assert {kind for kind, _, seed, _, _ in seen if seed == 1} == {"kv-prefix sink"}
    assert {kind for kind, *_ in seen} == {"kv-prefix random", "kv-prefix sink", "kv-prefix vocabulary"}


def test_arms_that_were_left_are_trained_on_where_other_seeds_undo_what_the_first_had_settled(
    digits_model: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of five seeds of a soft prompt failed, and the prefix that was left for it had 32 steps: no label."""
    undone: list[int] = []

    def reopened(race: Race, entry: Any, entries: Any) -> bool:
        return bool(undone) and entry.method.name == "kv-prefix" and entry.is_racing and not entry.is_tested

    monkeypatch.setattr(rounds, "can_matter", reopened)
    monkeypatch.setattr(rounds, "more_seeds", lambda *given: undone.append(1))
    arms = {arm.method: arm for arm in run(digits_model(8), methods=["kv-prefix", "lora"]).arms}
    assert len(undone) == 2
    assert arms["lora"].stopped == "settled"
    assert arms["kv-prefix"].stopped != "settled"
    assert arms["kv-prefix"].steps > arms["lora"].steps


def test_lora_goes_on_from_the_place_that_is_best_after_as_many_steps_at_the_same_count(
    monkeypatch: pytest.MonkeyPatch, digits_model: Build
) -> None:
    """Here the whole of every block is better than its feed-forward alone; on more layers the rank is lower."""
    every = ["c_attn", "c_fc", "c_proj"]

    def told(race: Any, one: Line, steps: int) -> TrialRecord:
        record = advance(race, one, steps)
        better = replace(record, validation=1.0 if one.sized.options == {"modules": tuple(every)} else 0.0)
        one.legs[-1] = (one.legs[-1][0], better)
        return better

    advance = look.advance
    monkeypatch.setattr(look, "advance", told)
    model, budget = digits_model(8), 5_000
    [arm] = run(model, methods=["lora"], budget=budget).arms
    assert arm.setting["modules"] == every
    lora = method_named("lora")
    assert arm.setting["rank"] == budget // lora.numbers(model, 1, modules=every) < lora.fitting(model, budget).size
    assert arm.budget.numbers_trained == lora.numbers(model, arm.setting["rank"], modules=every) <= budget


def test_a_rank_that_was_capped_is_capped_on_other_layers_too(digits_model: Build) -> None:
    model, lora = digits_model(8), method_named("lora")
    [options] = lora.starts(model)
    for longest in (2, 64):
        sized = lora.fitting(model, 10**6, longest)
        assert lora.begun(model, sized, options).size == sized.size == longest
    sized = lora.fitting(model, 5_000)
    assert 1 < lora.begun(model, sized, options).size < sized.size


def test_a_vector_goes_on_behind_the_layer_that_is_best_after_as_many_steps(
    monkeypatch: pytest.MonkeyPatch, digits_model: Build, tmp_path: Path
) -> None:
    def told(race: Any, one: Line, steps: int) -> TrialRecord:
        record = advance(race, one, steps)
        better = replace(record, validation=1.0 if one.sized.options else 0.0)
        one.legs[-1] = (one.legs[-1][0], better)
        return better

    advance, heard = look.advance, list[str]()
    monkeypatch.setattr(look, "advance", told)
    monkeypatch.setattr(Silent, "begin", lambda self, method, what, nth, arms: heard.append(what))
    model = digits_model(8)
    [arm] = run(model, out=tmp_path, methods=["steering"], keep=["steering"]).arms
    assert arm.setting["layer"] == 1  # of two, the first of which is its own
    assert any(one.startswith("first look from another start (layer 1), at rate ") for one in heard)
    read = el.read(tmp_path, "steering").adaptation(model)
    assert read.setting["layer"] == 1
    [again] = run(model, out=tmp_path, methods=["steering"], keep=["steering"]).arms
    assert (again.setting["layer"], again.steps) == (1, arm.steps)


@pytest.mark.parametrize(("labels", "reads"), [(None, 50 + 48), (("a", "b"), 50 + 20 + 48)])
def test_the_latest_test_tells_what_a_test_costs_now(labels: tuple[str, ...] | None, reads: int) -> None:
    """A test reads the validation items for its rule, texts for its side effects, and items for the prefix mass."""
    race: Any = SimpleNamespace(
        item_seconds=0.1,
        pace=SimpleNamespace(test_items=500, validation_items=128),
        tested=[],
        task=SimpleNamespace(labels=lambda: labels),
        held_out=lambda split, most: {"test": 50, "validation": 20}[split],
    )
    entry: Any = SimpleNamespace(records=[])
    assert timing.test_seconds(race, entry) == pytest.approx(0.1 * reads)  # a product of floats
    for seconds, item in ((90.0, 90.0 / reads), (130.0, 130.0 / reads), (60.0, 60.0 / reads), (0.1, 0.1)):
        timing.note_test(race, SimpleNamespace(timing=SimpleNamespace(test_seconds=seconds)))  # type: ignore[arg-type]
        assert timing.test_seconds(race, entry) == max(seconds, 0.1 * reads)
        assert race.item_seconds_now == item


def test_what_comes_after_a_race_is_set_aside(digits_model: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """The winner and the look inside have their time, a tenth of the limit at most."""
    races: list[Any] = []

    def watched(race: Any, sizes: Any) -> Any:
        races.append(race)
        return timing.opening(race, sizes)

    monkeypatch.setattr(beginning, "opening", watched)
    monkeypatch.setattr(timing, "LOOKING_READS", 10**9)
    run(digits_model(8), time_limit=60.0, methods=["zero-shot", "prompt"])
    assert races[0].closing_reads * races[0].item_seconds_now > 6.0
    assert 0 < (races[0].left() or 0.0) <= 60.0 - 6.0


def test_killed_and_given_twice_the_time_thrice_trains_nothing_again(
    digits_model: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(Silent):
        def __init__(self, after: int) -> None:
            self.left = after

        def point(self, point: CurvePoint, share: float) -> None:
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt

    model = digits_model(8)
    run(model)  # what is imported and measured at first use
    with counted(monkeypatch) as seen:
        for limit, points in ((30.0, 3), (60.0, 5), (120.0, 9)):
            with pytest.raises(KeyboardInterrupt):
                run(model, tmp_path, time_limit=limit, reporter=Killed(points))
        answer = run(model, tmp_path, time_limit=240.0)
    trials = [
        (record["spec"]["method"], record["spec"]["plan"]["learning_rate"], record["spec"]["seed"])
        for record in Store(tmp_path)
        if "plan" in record["spec"]
    ]
    assert len(trials) > 5
    assert len(seen) == len(set(seen)), "a piece that was finished was trained again"
    assert {arm.status for arm in answer.arms} == {"ok"}
    with counted(monkeypatch) as seen:
        again = run(model, tmp_path, time_limit=240.0)
    assert seen == []
    assert again.arms == answer.arms


def test_more_seeds_and_more_arms_go_on_from_what_is_there(
    digits_model: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An arm that the longer race needs less is shown as the first has taken it, and trained again by nobody."""
    model = digits_model(8)
    with counted(monkeypatch) as first:
        before = {arm.method: arm for arm in run(model, tmp_path).arms}
    given: dict[str, Any] = {"seeds": 2, "methods": ["zero-shot", "kv-prefix", "lora", "layer-prefix"]}
    with counted(monkeypatch) as second:
        after = {arm.method: arm for arm in run(model, tmp_path, **given).arms}
    assert not set(first) & set(second)
    assert {kind.split()[0] for kind, *_ in second} >= {"layer-prefix"}
    for name in ("kv-prefix", "lora"):
        assert (after[name].steps, after[name].setting) == (before[name].steps, before[name].setting)
        assert after[name].correct[0] == before[name].correct[0]
    with counted(monkeypatch) as third:
        again = run(model, tmp_path, **given).arms
    assert third == []
    assert list(again) == list(after.values())


class TimidPrefix(KVPrefix):
    """A prefix whose range of rates ends far too low."""

    name, schedule = "timid-prefix", Schedule((1e-4, 3e-4))


def test_a_best_rate_at_the_edge_is_compared_with_those_beyond_it(digits_model: Build) -> None:
    [arm] = run(digits_model(8), methods=[TimidPrefix()]).arms
    tried = {one["learning_rate"]: one["loss_nats"] for one in arm.sweep}
    assert sorted(tried) == pytest.approx([1e-4, 3e-4, 9e-4, 2.7e-3, 8.1e-3])
    assert arm.learning_rate == min(tried, key=lambda rate: tried[rate]) == max(tried)


def test_where_the_limit_is_spent_nobody_looks_inside_and_that_is_said(
    digits_model: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {"methods": ["zero-shot", "kv-prefix"], "time_limit": 60.0}
    assert run(digits_model(8), **given).inspection is not None
    monkeypatch.setattr(timing, "OVERDRAWN", 0.0)
    late = run(digits_model(8), **given)
    assert late.inspection is None
    assert any("elicitable inspect" in told for told in late.provenance["warnings"])


def test_the_limit_pays_for_another_choice_or_there_is_none(
    digits_model: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The examples drawn by another seed take as long as the first ones did."""
    given: dict[str, Any] = {"methods": ["examples"], "time_limit": 120.0, "seeds": 2}
    [arm] = run(digits_model(8), **given).arms
    assert arm.seeds == 2
    monkeypatch.setattr(seeds, "affords_choice", lambda *given: False)
    [arm] = run(digits_model(8), **given).arms
    assert arm.seeds == 1


@pytest.mark.parametrize(("steps", "share", "high"), [(6, 1.0, 1.0), (64, 1.0, 0.3), (64, 0.25, 1.0)])
def test_an_arm_that_was_hardly_trained_may_reach_anything_whatever_its_test_says(
    steps: int, share: float, high: float
) -> None:
    """So may one that read a quarter of the usual rows in each of 64 steps."""
    race: Any = Slow()
    result: Any = SimpleNamespace(mean=0.2, low=0.1, high=0.3, effort=None, stopped="time", steps=steps, curves=())
    result.share_of_batch = share
    entry = marked((4, 0.2, 1.0))
    assert questions._bounds(race, entry, [entry], result, questions._may_rise(result)) == (0.1, high)


@pytest.mark.parametrize(("is_paid", "kept"), [(True, {"a", "b", "c"}), (False, {"a", "c"})])
def test_against_the_clock_half_of_the_arms_go_on_or_the_best_context_and_the_best_of_the_others(
    is_paid: bool, kept: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights a and b are best, then the contexts c and d."""
    arms = []
    for name, is_context, score in (("a", False, 0.9), ("b", False, 0.8), ("c", True, 0.5), ("d", True, 0.4)):
        entry = marked((16, score, 1.0))
        entry.sized = SimpleNamespace(method=SimpleNamespace(name=name, is_context=is_context))
        arms.append(entry)
    monkeypatch.setattr(stakes, "affords_legs", lambda *given: is_paid)
    race: Any = SimpleNamespace(pace=Slow.pace, time_limit=60.0)
    assert stakes._better(race, arms, arms, 16) == kept


def growing(name: str, is_context: bool, *looks: tuple[int, float, float]) -> Any:
    entry = marked(*looks)
    entry.records, entry.is_spent = [], False
    entry.sized = SimpleNamespace(method=SimpleNamespace(name=name, is_context=is_context))
    return entry


def test_against_the_clock_arms_are_compared_after_as_many_steps_whoever_is_ahead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One had a longer first look and is good after it; after 16 steps, when all are there, it is the worst of them."""
    arms = []
    for name, is_context, score in (("a", False, 0.9), ("b", False, 0.8), ("c", True, 0.5), ("d", True, 0.4)):
        looks = [(16, score, 1.0)] if name != "b" else [(16, 0.1, 1.0), (32, 0.95, 1.0)]
        arms.append(growing(name, is_context, *looks))
    monkeypatch.setattr(stakes, "affords_legs", lambda *given: True)
    monkeypatch.setattr(stakes, "is_ready", lambda race, entry: False)
    race: Any = SimpleNamespace(
        pace=SimpleNamespace(first_steps=16, steps=96),
        time_limit=60.0,
        compared_at=0,
        cohort=set("abcd"),
        quickest=None,
    )
    assert [one.method.name for one in stakes.cohort_of(race, arms, arms)] == ["a", "c"]
    assert race.cohort == {"a", "c"}
    race.cohort = set("abcd")
    assert len(stakes.cohort_of(race, arms, arms)) == 4  # they have been compared after 16 steps


def test_an_arm_that_waits_for_contexts_does_not_keep_them_from_being_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another has solved the task, so a waits after 16 steps. The contexts have had 32, and their worst one is left."""
    arms = []
    for name, is_context, score in (("a", False, 0.1), ("b", True, 0.8), ("c", True, 0.5), ("d", True, 0.4)):
        arms.append(growing(name, is_context, *((steps, score, 1.0) for steps in ((16,) if name == "a" else (16, 32)))))
    monkeypatch.setattr(stakes, "affords_legs", lambda *given: True)
    monkeypatch.setattr(stakes, "is_ready", lambda race, entry: False)
    race: Any = SimpleNamespace(
        pace=SimpleNamespace(first_steps=16, steps=96), time_limit=60.0, compared_at=16, cohort=set("abcd"), quickest=32
    )
    assert [one.method.name for one in stakes.cohort_of(race, arms, arms)] == ["a", "b", "c"]
    assert (race.cohort, race.compared_at) == ({"a", "b", "c"}, 32)


def test_a_task_with_few_validation_items_is_looked_at_by_as_many_as_it_has() -> None:
    """Twelve items leave more open than 128: no arm is given up for what they happen to say."""
    few = [(str(i), str(i % 2)) for i in range(12)]
    race: Any = Race.__new__(Race)
    race.pace, race.known, race.marking = Slow.pace, {}, EXACT
    race.task = SimpleNamespace(held_out=lambda split, most: few[:most])
    assert race.items_looked_at() == 12
    flat = marked((32, 0.5, 1.3), (64, 0.5, 1.29), (128, 0.5, 1.28))
    race.quickest, race.store = None, None
    assert 0.7 < outlook.ceiling(flat, race, []) < 0.8  # of six right in twelve; of 64 in 128 it is 0.59
    assert outlook.floor_of(flat, race) < 0.3


def test_what_first_looks_leave_of_their_time_is_not_the_last_ones(
    digits_model: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first arm's even part is what each gets, though the first takes none of it."""
    paid = []
    monkeypatch.setattr(look, "step_seconds", lambda race, entry: 1.0)
    own = look._paid
    monkeypatch.setattr(look, "_paid", lambda *given: paid.append(own(*given)) or min(paid[-1], 1))
    run(digits_model(8), methods=["lora", "kv-prefix", "layer-prefix", "soft-prompt"], time_limit=120.0, steps=24)
    assert len(paid) == 4
    assert max(paid) == paid[0] > 4


@pytest.mark.parametrize(
    ("steps", "share", "owed"),
    [
        (4, 1.0, 2),
        (16, 1.0, 4),
        (16, 0.75, 8),
        (16, 0.25, 8),
        (4, 0.25, 2),
        (24, 1.0, 12),
        (24, 0.25, 12),
        (64, 1.0, 32),
    ],
)
def test_an_arm_of_the_first_round_is_owed_as_many_steps_as_tell_something(steps: int, share: float, owed: int) -> None:
    """Steps on a quarter of the usual rows tell a quarter as much each, so it is owed the whole way down."""
    race: Any = SimpleNamespace(pace=Slow.pace, time_limit=60.0, share_of_batch=share)
    assert timing._owed_way(race, steps) == owed


def test_under_a_limit_workers_begin_in_a_first_look_what_is_asked_for(
    digits_model: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on from 4 steps to 16 by 8, and from 16 to 32 by 24; workers began 16 and 32, and then those."""
    begun: list[str] = []
    asked: list[str] = []
    piece_of, advance = look.piece_of, look.advance

    def begins(*given: Any) -> Any:
        piece = piece_of(*given)
        begun.extend(piece.names)
        return piece

    def asks(race: Race, line: Any, steps: int) -> Any:
        asked.extend(piece_of(race, line, steps).names)
        return advance(race, line, steps)

    monkeypatch.setattr(look, "piece_of", begins)
    monkeypatch.setattr(look, "advance", asks)
    monkeypatch.setattr(look, "_paid", lambda *given: 10**6)
    run(digits_model(8), methods=["kv-prefix"], time_limit=300.0, steps=96)
    assert len(asked) == len(set(asked)) > 10
    assert begun == asked


@pytest.mark.parametrize(("lines", "beyond"), [(2, 0), (3, 0), (4, 1), (5, 2), (9, 3)])
def test_under_a_limit_every_rate_beyond_the_range_is_paid_for_by_itself(
    lines: int, beyond: int, digits_model: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rates cost two lines of four steps and half as many again; each rate beyond them costs one more."""
    monkeypatch.setattr(look, "_paid", lambda *given: 4 * lines)
    [arm] = run(digits_model(8), methods=[TimidPrefix()], time_limit=300.0).arms
    assert len(arm.sweep) == (2 if lines > 2 else 1) + beyond


@pytest.mark.parametrize("solves_after", [1, 2, 3, 9])
def test_where_the_first_seed_solved_the_task_another_is_trained_until_it_does(
    solves_after: int, digits_model: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Legs of the second seed say that it solves the task at their end, from the one of that number on."""

    def told(race: Any, one: Line, steps: int) -> TrialRecord:
        record = advance(race, one, steps)
        score = 1.0 if len(one.legs) >= solves_after else 0.2
        one.legs[-1] = (one.legs[-1][0], replace(record, validation=score))
        return one.legs[-1][1]

    advance = seeds.advance
    monkeypatch.setattr(seeds, "advance", told)
    monkeypatch.setattr(seeds, "is_solved", lambda entry, race: True)
    monkeypatch.setattr(seeds, "longest", lambda race: 10_000)
    with counted(monkeypatch) as seen:
        [arm] = run(digits_model(8), methods=["kv-prefix"], seeds=2, steps=24).arms
    own = [(first, last) for _, _, seed, first, last in seen if seed == 1]
    steps = own[0][1]
    expected = [(0, steps), (steps, 2 * steps), (2 * steps, 4 * steps)][: min(solves_after, 3)]
    assert own[: len(expected)] == expected
    assert arm.seeds == 2
    others = {seed for _, _, seed, *_ in seen} - {0, 1}
    if solves_after <= 3:
        assert own[len(expected)][0] == expected[-1][1]  # then the way down
        assert len(own) == len(expected) + 1
        assert not others
        assert not arm.reason
    else:  # it is left, twice, and the third that does not solve the task is counted as it is
        assert len(own) == len(expected)
        assert others == {2, 3}
        assert arm.reason.startswith("2 of 4 seeds did not solve the task on validation, as the first did")


def test_an_interrupted_race_answers_with_bounds_and_the_price(digits_model: Build, tmp_path: Path) -> None:
    class Impatient(Silent):
        def begin(self, arm: str, what: str, arms_done: int, arms: int) -> None:
            if arm == "kv-prefix":
                raise KeyboardInterrupt

    with pytest.raises(StoppedRace) as stopped:
        run(digits_model(8), tmp_path, reporter=Impatient())
    answer = stopped.value.answer
    status = {arm.method: arm.status for arm in answer.arms}
    assert status == {"zero-shot": "ok", "lora": "skipped", "kv-prefix": "skipped"}
    lows = {one["method"]: one["low"] for one in answer.provenance["open"]}
    assert [one["high"] for one in answer.provenance["open"]] == [1.0, 1.0]
    assert 0.0 < lows["lora"] < 1.0  # what its look at the validation split says
    assert lows["kv-prefix"] == 0.0  # not looked at
    assert "zero-shot reaches" in answer.reasons[0]
    assert "open: does lora beat it, does kv-prefix suffice? About" in answer.reasons[0]
    assert "more would tell" in answer.reasons[0]


@pytest.mark.parametrize("part", ["looking inside", "on 16 rows"])
def test_an_interrupt_after_the_race_loses_nothing_of_its_answer(
    digits_model: Build, tmp_path: Path, part: str
) -> None:
    """All arms were tested, and Ctrl-C in what came behind them left neither table nor record."""

    class Impatient(Silent):
        def begin(self, arm: str, what: str, arms_done: int, arms: int) -> None:
            if what == part:
                raise KeyboardInterrupt

    given = {"rows_curve": part != "looking inside"}
    whole = run(digits_model(8), tmp_path, **given)
    with pytest.raises(StoppedRace) as stopped:
        run(digits_model(8), tmp_path, reporter=Impatient(), **given)
    answer = stopped.value.answer
    assert (answer.label, answer.arms, answer.card) == (whole.label, whole.arms, whole.card)
    assert whole.inspection is not None
    assert answer.inspection is None


def test_decisions_of_another_race_in_the_same_folder_are_not_taken_over(
    digits_model: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A race of six steps had its price said again, and its first looks, by one that asked for eight times as many."""
    opened: list[int] = []
    opening = beginning.opening
    monkeypatch.setattr(
        beginning, "opening", lambda race, sizes: opened.append(race.pace.steps) or opening(race, sizes)
    )
    for steps in (6, 48, 6, 48):
        run(digits_model(8), tmp_path, time_limit=30.0, steps=steps)
    assert opened == [6, 48], "each is measured once, and found again"


def test_the_control_comes_last_and_no_arm_is_left_out_by_the_clock(digits_model: Build) -> None:
    class Order(Silent):
        def __init__(self) -> None:
            self.begun: list[str] = []

        def begin(self, arm: str, what: str, arms_done: int, arms: int) -> None:
            if what != "looking inside":
                self.begun.append(arm)

    order, model, started = Order(), digits_model(8), time.monotonic()
    chosen = ["value-bias", "zero-shot", "kv-prefix", "lora", "full"]
    answer = run(model, time_limit=20.0, methods=chosen, reporter=order)
    assert time.monotonic() - started < 40.0  # a machine that is shared; a slow test holds the limit itself
    assert {arm.status for arm in answer.arms if not arm.is_control} == {"ok"}
    first = order.begun.index("value-bias")
    assert set(order.begun[first:]) == {"value-bias"}


def test_a_control_has_no_first_look_once_the_time_is_over(
    digits_model: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first look took a race of eight minutes with workers a minute and a half beyond its limit."""
    begun: list[str] = []

    class Over(Silent):
        def begin(self, arm: str, what: str, arms_done: int, arms: int) -> None:
            begun.append(arm)

        def end(self, arm: Any) -> None:
            if arm.method == "lora" and arm.mean is not None:
                monkeypatch.setattr(Race, "left", lambda race: 0.0)

    answer = run(digits_model(8), time_limit=20.0, methods=["value-bias", "zero-shot", "lora"], reporter=Over())
    control = next(arm for arm in answer.arms if arm.is_control)
    assert (control.status, control.reason) == ("skipped", rounds.SPARE)
    assert "value-bias" not in begun


def marked(*points: tuple[int, float, float]) -> Any:
    from elicitable.race.entry import Entry
    from elicitable.race.line import Line
    from elicitable.records.trial import Times, TrialRecord

    sized = method_named("lora").fitting
    entry = Entry.__new__(Entry)
    records = [
        TrialRecord("ok", "steps", Times(1.0), steps=steps, validation=score, validation_loss_nats=nats)
        for steps, score, nats in points
    ]
    entry.line = Line(sized, 0.1, 0, [(None, record) for record in records])  # type: ignore[arg-type, list-item]
    return entry


class Slow:
    """As much of a race as an outlook asks for."""

    pace = pace.Pace(
        batch=8, steps=12_000, sweep_steps=4, evaluate_every=4, validation_items=256, test_items=8, patience_steps=300
    )
    quickest = None
    marking, margin = EXACT, 0.02

    def items_looked_at(self) -> int:
        return self.pace.look_items


@pytest.mark.parametrize(
    ("items", "score", "nats", "is_solved"),
    [
        (128, 0.984, 0.3, True),
        (128, 0.97, 0.01, False),
        (36, 1.0, 0.5, True),  # of so many, nine in ten are right at least
        (34, 1.0, 0.5, False),
        (8, 1.0, 0.5, False),
        (8, 1.0, 0.04, True),
    ],
)
def test_a_few_items_that_are_right_solve_a_task_only_where_the_arm_is_sure_of_them(
    items: int, score: float, nats: float, is_solved: bool
) -> None:
    """LoRA was solved after 12 steps by 8 items, and ended there with 0.59 on test."""
    race: Any = Slow()
    race.items_looked_at = lambda: items
    assert outlook.is_solved(marked((12, score, nats)), race) is is_solved


@pytest.mark.parametrize(
    ("is_context", "rate", "score", "nats", "is_better"),
    [
        (False, 0.3, 0.0, 0.5, False),  # half the loss and no answer right
        (False, 0.3, 0.2, 0.5, True),
        (False, 0.3, 0.2, 1.5, True),  # of 128 items the score alone tells
        (False, 0.01, 0.0, 0.5, True),  # a lower rate unlearns nothing
        (True, 0.3, 0.0, 0.5, True),
        (True, 0.3, 0.0, 1.5, False),
    ],
)
def test_a_higher_rate_of_what_changes_the_model_shows_in_its_score_that_it_is_better(
    is_context: bool, rate: float, score: float, nats: float, is_better: bool
) -> None:
    """Full fine-tuning went on at 37 times its highest rate, where it had unlearned the model."""
    beyond, own = marked((32, score, nats)).line, marked((32, 0.0, 1.0)).line
    for one in (beyond, own):
        one.sized = SimpleNamespace(method=SimpleNamespace(is_context=is_context))
    beyond.rate = rate
    assert look.is_better_beyond(Slow(), beyond, own) is is_better  # type: ignore[arg-type]


def test_a_curve_that_is_short_may_lead_anywhere_and_a_long_one_leads_where_it_leads() -> None:
    race: Any = Slow()
    flat = marked((32, 0.0, 1.3), (64, 0.0, 1.25), (128, 0.0, 1.2))
    assert outlook.ceiling(marked((32, 0.0, 1.3), (64, 0.0, 1.25)), race, []) == 1.0
    assert outlook.ceiling(flat, race, []) < 0.03  # what 128 items without a right answer leave open
    race.quickest = 64  # so 256 steps are owed: one doubling more, and the way down counts as two
    # its loss, as foreseen 1.2 · (1.2 / 1.25)³ = 1.06, is one at which another arm scored 0.3
    assert outlook.ceiling(flat, race, [Mark(8, 0.3, 1.07), Mark(16, 0.9, 1.05)]) == 0.3
    race.quickest = None
    rising = marked((32, 0.2, 1.0), (64, 0.4, 0.9), (128, 0.5, 0.8))
    assert 0.9 <= outlook.ceiling(rising, race, []) <= 0.99  # 0.5 + 2 · 0.2 and the interval of 128 items
    assert not outlook.is_flat(rising, race)
    assert outlook.is_flat(marked((256, 0.5, 0.6), (512, 0.505, 0.59)), race)


def test_a_curve_whose_loss_falls_may_lead_to_what_that_loss_is_worth_elsewhere() -> None:
    """A kv-prefix of toy:mixed on ascending-add-1 that has nothing right after 128 steps, and 0.96 after 1,536."""
    race: Any = Slow()
    race.quickest = 512
    full = [Mark(64, 0.40, 0.2235), Mark(128, 0.70, 0.1035), Mark(256, 0.78, 0.0684)]
    young = marked((32, 0.0, 1.245), (64, 0.0, 0.935), (128, 0.008, 0.754))
    older = marked((256, 0.02, 0.523), (512, 0.03, 0.270), (1024, 0.03, 0.240))
    assert outlook.ceiling(young, race, full) == 1.0
    assert outlook.ceiling(older, race, full) == 0.78  # owed no more: 0.240 · (0.270 / 0.523)² = 0.064
    soft = marked((32, 0.0, 1.011), (64, 0.0, 0.905), (128, 0.008, 0.775))
    assert outlook.ceiling(soft, race, full) < 0.1  # 0.775 · (0.775 / 0.905)⁵ = 0.36


@pytest.mark.parametrize(
    ("name", "labels", "bounds"),
    [("rouge-l", None, (0.0, 1.0)), ("numeric", None, (0.0, 1.0)), ("mcc", ("a", "b"), (-1.0, 1.0))],
)
def test_where_a_race_scores_otherwise_than_looks_do_a_curve_bounds_nothing(
    name: str, labels: tuple[str, ...] | None, bounds: tuple[float, float]
) -> None:
    """Looks count answers that are right: none may be, where ROUGE-L is 0.4."""
    race: Any = Slow()
    flat = marked((32, 0.0, 1.3), (64, 0.0, 1.25), (128, 0.0, 1.2))
    assert outlook.ceiling(flat, race, []) < 0.03
    race.marking = Marking(score_from(name, labels))
    assert (outlook.floor_of(flat, race), outlook.ceiling(flat, race, [])) == bounds
    done = marked((32, 0.3, 1.3), (64, 0.31, 1.25), (128, 0.31, 1.2))
    done.records, done.is_spent = [], False
    assert not stakes.is_done_alone(race, done)
    race.marking = EXACT
    assert stakes.is_done_alone(race, done)


def test_what_a_rule_between_labels_brought_is_not_asked_of_a_curve() -> None:
    """Looks read the plain likelihood; a test of 0.82 by a fitted rule, 0.70 without it, is 0.70 to them."""
    tested: Any = SimpleNamespace(mean=0.82, raw_mean=0.70)
    assert stakes.as_looked_at(tested, 0.78) == pytest.approx(0.66)
    tested.raw_mean = None
    assert stakes.as_looked_at(tested, 0.78) == 0.78
    tested.raw_mean = 0.9  # the rule took points away: nothing is added for it
    assert stakes.as_looked_at(tested, 0.78) == 0.78


def test_a_loss_that_was_no_number_is_the_worst_there_is_and_ends_no_race() -> None:
    race: Any = Slow()
    lost: Any = None
    without = marked((32, 0.2, lost), (64, 0.2, lost), (128, 0.2, lost))
    assert outlook.marks(without)[-1].nats == float("inf")
    assert 0.2 < outlook.ceiling(without, race, []) < 0.3
    assert outlook.ceiling(marked((32, 0.2, 1.0), (64, 0.2, lost), (128, 0.2, 0.9)), race, []) < 0.3


def looked_at(method: str, *looks: tuple[int, float]) -> Any:
    """An arm that was looked at after so many steps, with those scores."""
    legs = [
        (None, SimpleNamespace(is_ok=True, steps=steps, validation=score, validation_loss_nats=1.0))
        for steps, score in looks
    ]
    return SimpleNamespace(method=method_named(method), line=SimpleNamespace(legs=legs), is_tested=False)


def test_an_arm_that_lags_far_behind_the_leader_of_its_rung_is_trained_on_too() -> None:
    """A slow riser led by one look at 32 steps and took 2,048, beside an arm that solved the task in 128."""
    waiting, context = looked_at("full", (32, 0.0)), looked_at("kv-prefix", (32, 0.0))
    for steps, wanted in ((128, ["lora", "kv-prefix"]), (256, ["lora", "kv-prefix", "full"])):
        found = stakes._leaders([looked_at("lora", (steps, 0.2)), waiting, context])
        assert sorted(entry.method.name for entry in found) == sorted(wanted)


def test_no_context_is_given_up_before_the_strongest_one_had_the_steps_that_it_is_owed() -> None:
    """On ascending-add-1 a kv-prefix with nothing right after 128 steps was left by its curve; 0.96 after 1,536."""
    race: Any = Slow()
    race.margin = 0.02

    def arm(method: str, steps: int, score: float = 0.0, nats: float = 1.0) -> Any:
        found = marked(*((at, score, nats * (steps / at) ** 0.1) for at in (steps // 4, steps // 2, steps)))
        found.sized = Sized(method_named(method), 1, 1, 1)
        found.records, found.is_spent, found.stopped, found.tested_at = [], False, "", 0
        return found

    full, soft = arm("full", 128, 1.0, 0.01), arm("soft-prompt", 128)
    for steps in (128, 512, 1024):
        prefix = arm("kv-prefix", steps)
        entries = [full, soft, prefix]
        assert outlook.ceiling(prefix, race, []) < 0.1, "its curve leads nowhere"
        assert stakes.can_matter(race, prefix, entries)
        assert stakes.is_at_its_end(race, prefix, [prefix, full], entries) is (steps == 1024)  # and comes down
        assert not stakes.can_matter(race, soft, entries), "a free prefix speaks for the weaker ones too"
    assert stakes.can_matter(race, soft, [full, soft]), "where it is the only one it is the strongest"


def test_the_last_arm_that_matters_is_not_done_while_its_curve_is_too_short_to_tell() -> None:
    """Brought down at 64 steps with 6 % right, a prefix that solves the task in 128 left a verdict open."""
    race: Any = SimpleNamespace(pace=SimpleNamespace(steps=12_000), margin=0.02, marking=EXACT)
    scores = (0.01, 0.055, 0.0625)
    assert not stakes.is_done_alone(race, looked_at("layer-prefix", *zip((16, 32, 64), scores, strict=True)))
    assert stakes.is_done_alone(race, looked_at("layer-prefix", *zip((64, 128, 256), scores, strict=True)))
    assert not stakes.is_done_alone(race, looked_at("layer-prefix", (64, 0.1), (128, 0.2), (256, 0.6)))


def test_threads_are_those_that_are_quickest_and_the_change_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    before, said, clock = torch.get_num_threads(), [], [0.0]
    speed = {1: 1.0, 2: 3.0, 4: 8.0}
    monkeypatch.setattr(threads.time, "monotonic", lambda: clock[0])

    tried: list[int] = []

    def work() -> None:
        tried.append(torch.get_num_threads())
        clock[0] += speed[tried[-1]]

    try:
        torch.set_num_threads(4)
        chosen = threads.Threads(work, said.append, most=4)
        chosen.look_again()
        assert torch.get_num_threads() == 1
        assert (tried.count(1), tried.count(2), tried.count(4)) == (6, 6, 2), "what is hopeless is not tried again"
        assert said == ["Threads: 1 instead of 4, 8.0 times as quick on this machine as busy as it is."]
        speed.update({1: 1.0, 2: 0.9, 4: 0.85})  # a little quicker is no reason to change
        clock[0] += 1e4
        chosen.look_again()
        assert torch.get_num_threads() == 1
        speed.update({4: 0.3})
        chosen.look_again()
        assert torch.get_num_threads() == 1, "it was tried a moment ago"
        clock[0] += 1e4
        chosen.left = lambda: 10 * chosen.took
        chosen.look_again()
        assert torch.get_num_threads() == 1, "a try would take a tenth of the time that is left"
        chosen.left = lambda: 30 * chosen.took
        chosen.look_again()
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


def test_the_number_of_threads_holds_for_what_comes_after_the_race(
    digits_model: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside busy processes a winner was measured on two threads again, a quarter as quick: 72 s beyond the limit."""
    before, seen = torch.get_num_threads(), []
    monkeypatch.setattr(threads, "is_free", lambda: True)
    monkeypatch.setattr(threads.Threads, "_seconds", lambda self, numbers: {n: float(n) for n in numbers})
    monkeypatch.setattr(contest, "keep_winner", lambda *given: seen.append(torch.get_num_threads()))
    try:
        torch.set_num_threads(2)
        run(digits_model(8), tmp_path)
        assert seen == [1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("disturbed", [range(6), range(2, 8), range(0, 12, 5)])
def test_what_disturbs_for_a_moment_changes_no_number_of_threads(
    monkeypatch: pytest.MonkeyPatch, disturbed: range
) -> None:
    """Two threads looked slow while something else ran for a second, and a race went on with one for six minutes."""
    before, said, clock, taken = torch.get_num_threads(), [], [0.0], [0]
    monkeypatch.setattr(threads.time, "monotonic", lambda: clock[0])

    def work() -> None:
        clock[0] += (1.0 if torch.get_num_threads() == 1 else 0.6) * (4.0 if taken[0] in disturbed else 1.0)
        taken[0] += 1

    try:
        torch.set_num_threads(2)
        threads.Threads(work, said.append, most=2).look_again()
        assert torch.get_num_threads() == 2
        assert said == []
    finally:
        torch.set_num_threads(before)


def test_a_number_of_threads_that_was_set_is_left_alone(digits_model: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setattr(threads.Threads, "_seconds", lambda *given: pytest.fail("it was tried"))
    answer = run(digits_model(8), methods=["zero-shot"])
    assert answer.arms[0].status == "ok"


def test_all_looks_together_err_no_more_often_than_one_test() -> None:
    spent = sum(1 - level_after(looks) for looks in range(60))
    assert spent == pytest.approx(ALPHA, abs=1e-9)
    assert all(level_after(looks) < level_after(looks + 1) for looks in range(20))


def test_the_price_is_said_before_anything_is_run(
    digits_model: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # on a busy machine another number of threads may be said before it

    class Listener(Silent):
        def __init__(self) -> None:
            self.heard: list[str] = []

        def begin(self, arm: str, what: str, arms_done: int, arms: int) -> None:
            self.heard.append(arm)

        def say(self, text: str) -> None:
            self.heard.append(text)

    listener = Listener()
    answer = run(digits_model(8), tmp_path, time_limit=60.0, reporter=listener)
    price = answer.provenance["price"]
    warned, said = listener.heard[:2]
    assert warned.startswith("warning: 64 of 64 test items are also drawn for training")  # of the task, before the race
    assert said == timing.said_of(price)
    assert "The limit of 1 min pays for about" in said
    assert price["fair_minimum_seconds"] > 0
    assert price["test_items"] == 32


def test_many_looks_at_two_equal_arms_mistake_them_for_unequal_in_five_races_of_a_hundred_at_most() -> None:
    """Sums of normal differences, looked at after every one of ten equal additions; without spending, far too often."""
    from scipy.special import ndtri

    walks = np.random.default_rng(0).standard_normal((20_000, 10)).cumsum(axis=1) / np.sqrt(np.arange(1, 11))
    kept = ndtri([(1 + level_after(looks)) / 2 for looks in range(10)])
    assert (np.abs(walks) > kept).any(axis=1).mean() <= ALPHA
    assert (np.abs(walks) > ndtri(0.975)).any(axis=1).mean() > 3 * ALPHA


def test_where_every_finalist_is_lost_the_best_of_those_that_were_dropped_goes_on(
    monkeypatch: pytest.MonkeyPatch, digits_model: Build
) -> None:
    """The better half of four rates diverges in the second round; without a line its record would be untested."""
    rounds: dict[float, int] = {}
    advance = look.advance

    def lost(race: Any, one: Line, steps: int) -> TrialRecord:
        record = advance(race, one, steps)
        rounds[one.rate] = rounds.get(one.rate, 0) + 1
        if rounds[one.rate] == 1:
            return record
        one.legs[-1] = (one.legs[-1][0], replace(record, status="diverged"))
        return one.legs[-1][1]

    monkeypatch.setattr(look, "advance", lost)
    answer = run(digits_model(8), methods=["lora"])
    [arm] = answer.arms
    assert sum(count > 1 for count in rounds.values()) == 2
    assert (arm.status, arm.learning_rate in {rate for rate, count in rounds.items() if count == 1}) == ("ok", True)


@pytest.mark.parametrize(
    ("behind", "is_still_rising", "is_run"),
    [(0.012, False, True), (0.012, True, True), (0.025, False, True), (0.025, True, False)],
)
def test_another_seed_is_run_where_it_can_settle_what_is_open(
    behind: float, is_still_rising: bool, is_run: bool
) -> None:
    """An arm at the end of its steps that still rose was given no other seed, although it seemed good enough."""
    curve = tuple(CurvePoint(step, 0.1, 0.9 + 0.05 * (is_still_rising and step == 3)) for step in (1, 2, 3))
    arm: Any = SimpleNamespace(stopped="steps", curves=(curve,))
    assert is_rising(arm) == is_still_rising
    open_one = Comparison(arm, behind, behind - 0.015, behind + 0.015, "open")
    assert seeds._is_in_doubt(Decision("inconclusive", (), (open_one,)), 0.02) == is_run
    assert not seeds._is_in_doubt(Decision("weights", (), (open_one,)), 0.02)


def test_later_looks_at_other_seeds_come_after_more_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two were asked for; in doubt one more, then two: two looks, where one at a time would take three."""
    method = SimpleNamespace(name="a", is_seeded=True)
    rivals = [SimpleNamespace(method=method, records=[None], stuck=0, line=None) for _ in range(2)]
    told: list[tuple[int, int]] = []

    def one_more(race: Any, entry: Any, entries: Any) -> bool:
        entry.records.append(None)
        told.append((race.looks, len(entry.records)))
        return True

    monkeypatch.setattr(seeds, "decision_of", lambda race, results: None)
    monkeypatch.setattr(seeds, "arm_result", lambda race, entry: None)
    monkeypatch.setattr(seeds, "_rivals", lambda race, decision, entries: entries)
    monkeypatch.setattr(seeds, "_is_in_doubt", lambda decision, margin: True)
    monkeypatch.setattr(seeds, "_one_more", one_more)
    race: Any = SimpleNamespace(seeds=2, margin=0.02, looks=0, ahead=lambda pieces: None)
    seeds.more_seeds(race, rivals, list)
    assert [count for _, count in told] == [2, 2, 3, 3, 4, 4, 5, 5]
    assert race.looks == 2
