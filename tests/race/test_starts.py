"""Trained contexts of a race start at what other arms chose, too, whoever computes; nothing is trained twice."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.race.test_workers import Scrambled, small, told, trials
from tests.reverse import Reverse

import elicitable as el
from elicitable.methods import base
from elicitable.methods.catalog import method_named
from elicitable.methods.examples import plain_pair
from elicitable.methods.nearest import Nearest
from elicitable.models.model import Model
from elicitable.race import choice, contest, line, look, rounds, rows_curve
from elicitable.race.causes import optimisation
from elicitable.race.line import Line
from elicitable.records.trial import TrialRecord
from elicitable.training.loop import train

Build = Callable[..., Model]
ARMS = ["zero-shot", "prompt", "examples", "kv-prefix"]
PROMPT, EXAMPLES = "the chosen prompt", "the chosen examples"


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    with small():
        yield


def run(model: Model, out: Path | None = None, **options: Any) -> el.values.Verdict:
    given = {"seeds": 1, "budget": 500, "methods": ARMS, "search_passes": 64, "executor": "inline", "margin": 0.5}
    return contest.verdict(model, Reverse(), out=out, **given | options)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float, int, int, int]]:
    """Every piece of training: its start, rate, seed, first and last step."""
    found: list[tuple[str, float, int, int, int]] = []

    def watched(model: Any, adaptation: Any, task: Any, plan: Any, seed: int, **more: Any) -> Any:
        first = more["start"].plain["steps"] if more.get("start") else 0
        fit = train(model, adaptation, task, plan, seed, **more)
        start = adaptation.setting.get("origin", adaptation.setting.get("init", ""))
        found.append((start, plan.learning_rate, seed, first, fit.steps))
        return fit

    monkeypatch.setattr(line, "train", watched)
    return found


@contextmanager
def preferring(origin: str, at_lower: bool = False) -> Iterator[None]:
    """A race in which a start is better than all others, at the lower of its rates or at the other one."""
    advance, rates = look.advance, list[float]()

    def said(race: Any, one: Line, steps: int) -> TrialRecord:
        record = advance(race, one, steps)
        is_meant = one.sized.options.get("origin") == origin
        if is_meant:
            rates.append(one.rate)
        is_best = is_meant and one.rate == (min(rates) if at_lower else max(rates))
        better = replace(record, validation=1.0 if is_best else 0.0)
        one.legs[-1] = (one.legs[-1][0], better)
        return better

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(look, "advance", said)
        yield


def of_rates(race: list[tuple[str, float, int, int, int]], start: str) -> list[tuple[float, int, int]]:
    return [(rate, first, last) for origin, rate, _, first, last in race if origin == start]


@pytest.mark.parametrize("origin", [PROMPT, EXAMPLES])
def test_a_context_goes_on_from_what_another_arm_chose_where_that_is_best(
    origin: str, digits_model: Build, seen: list[Any], tmp_path: Path
) -> None:
    model = digits_model(8)
    with preferring(origin):
        answer = run(model, tmp_path, seeds=2)
    arms = {arm.method: arm for arm in answer.arms}
    arm, kind = arms["kv-prefix"], origin.split()[-1]
    chosen = method_named(kind).from_setting(model, arms[kind].setting, el.models.layout.PLAIN)
    assert arm.setting["origin"] == origin
    assert arm.setting["text"] == chosen.ids.flatten().tolist()[-arm.setting["length"] :]
    assert ("items" in arm.setting) == (origin == EXAMPLES)
    assert {start for start, _, _, first, _ in seen if first >= 4} == {origin}
    assert {start for start, _, seed, _, _ in seen if seed == 1} == {origin}
    known = len(seen)
    with preferring(origin):
        again = run(model, tmp_path, seeds=2)
    assert len(seen) == known  # nothing is trained twice
    assert told(again) == told(answer)


@pytest.mark.parametrize("at_lower", [False, True])
def test_it_is_tried_at_the_next_lower_rate_too_for_its_first_steps(
    at_lower: bool, digits_model: Build, seen: list[Any]
) -> None:
    with preferring(PROMPT, at_lower):
        [arm] = [arm for arm in run(digits_model(8)).arms if arm.method == "kv-prefix"]
    rates = sorted({rate for rate, _, _ in of_rates(seen, PROMPT)})
    schedule = method_named("kv-prefix").schedule
    assert schedule is not None
    lower, own = rates
    assert lower == max(rate for rate in schedule.learning_rates if rate < own)
    assert arm.learning_rate == (lower if at_lower else own)
    for start in (PROMPT, EXAMPLES):
        begun = [rate for rate, first, last in of_rates(seen, start) if (first, last) == (0, 2)]
        assert sorted(begun) == rates
        assert len([rate for rate, first, last in of_rates(seen, start) if (first, last) == (2, 4)]) == 1
    for start in ("sink", "vocabulary"):
        assert of_rates(seen, start) == [(own, 0, 4)]


def test_the_question_why_names_the_start_in_words() -> None:
    start = {"init": "text", "origin": EXAMPLES, "text": (3, 1)}
    assert optimisation._said(start) == f"from {EXAMPLES}"
    assert optimisation._said({"init": "sink"}) == "from its first token"


def test_at_the_lowest_rate_of_the_range_there_is_no_lower_one(digits_model: Build) -> None:
    model, sized = digits_model(8), method_named("kv-prefix").fitting(digits_model(8), 500)
    prompt = el.context("prompt", model, token_ids=[1, 2])
    race: Any = type("race", (), {"model": model})
    entry: Any = type("entry", (), {"method": sized.method, "sized": sized})
    for rate, tried in ((0.01, [0.01]), (0.03, [0.03, 0.01]), (0.9, [0.9, 0.3]), (0.003, [0.003])):
        lines = list(look._started(race, entry, Line(sized, rate, 0), [prompt]))
        assert [[one.rate for one in some] for some in lines] == [[rate], [rate], tried]


@pytest.mark.parametrize(("score", "nats", "is_tried"), [(0.2, 9.0, True), (0.0, 1.0, True), (0.0, 9.0, False)])
def test_a_chosen_context_that_does_worse_than_the_run_is_no_start(
    score: float, nats: float, is_tried: bool, digits_model: Build, seen: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start has to be better than the run in its score or in its loss; here the run has 0.1, and 2 nats."""
    contexts = choice.chosen_contexts

    def beside(race: Any, entries: Any, run: TrialRecord) -> Any:
        for entry in entries:
            if not entry.method.is_trained:
                entry.records = [replace(one, validation=score, validation_loss_nats=nats) for one in entry.records]
        return contexts(race, entries, replace(run, validation=0.1, validation_loss_nats=2.0))

    monkeypatch.setattr(rounds, "chosen_contexts", beside)
    run(digits_model(8))
    assert bool(of_rates(seen, PROMPT)) == bool(of_rates(seen, EXAMPLES)) == is_tried
    assert of_rates(seen, "sink")


def test_an_arm_that_has_no_turn_tries_no_other_start(
    digits_model: Build, seen: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "can_matter", lambda race, entry, entries: False)
    [arm] = [arm for arm in run(digits_model(8)).arms if arm.method == "kv-prefix"]
    assert {start for start, *_ in seen} == {"random"}
    assert arm.mean is not None


def test_workers_give_the_records_of_one_process(
    digits_model: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LoRA's other layers were a list, which no worker could be sent; the budget pays for a rank on all of them."""
    monkeypatch.setattr(choice, "_is_worse", lambda one, than: False)
    given: dict[str, Any] = {"methods": [*ARMS[1:], "lora"], "budget": 3_000}
    found = []
    for name, executor in (("inline", "inline"), ("workers", Scrambled(3))):
        answer = run(digits_model(8), tmp_path / name, executor=executor, **given)
        found.append((told(answer), trials(tmp_path / name)))
    (inline, here), (workers, there) = found
    assert inline == workers
    assert {one: there[one] for one in here} == here
    origins = {one["spec"]["options"].get("origin") for one in here.values()}
    assert origins == {None, PROMPT, EXAMPLES}
    assert any("modules" in one["spec"]["options"] for one in here.values())


@pytest.mark.parametrize(
    ("spare", "starts"),
    [
        pytest.param(3, set(), id="none"),
        pytest.param(4, {"sink"}, id="one"),
        pytest.param(13, {"sink", "vocabulary"}, id="two"),
        pytest.param(14, {"sink", "vocabulary", PROMPT}, id="three"),
        pytest.param(math.inf, {"sink", "vocabulary", PROMPT, EXAMPLES}, id="all"),
    ],
)
def test_under_a_limit_as_many_starts_are_tried_as_it_pays_for(
    spare: float, starts: set[str], digits_model: Build, seen: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes four steps here, and one at what was chosen two more; it was all of them or none."""
    monkeypatch.setattr(look, "_paid", lambda *given: spare + 12)  # four rates of two steps, and two of two more
    monkeypatch.setattr(base, "WIDEST", 0)
    run(digits_model(8), time_limit=300.0)
    tried = {start for start, _, _, first, _ in seen if first == 0 and start != "random"}
    assert tried == starts


def test_examples_that_differ_from_item_to_item_are_no_start(
    digits_model: Build, monkeypatch: pytest.MonkeyPatch, seen: list[Any]
) -> None:
    """They have no keys of their own, and building them again reads their whole pool."""

    def built(*given: Any) -> Any:
        raise AssertionError("built again")

    monkeypatch.setattr(Nearest, "from_setting", built)
    run(digits_model(8), methods=["zero-shot", "nearest-examples", "kv-prefix"])
    assert {start for start, *_ in seen} == {"random", "sink", "vocabulary"}


def test_on_fewer_rows_an_arm_starts_by_itself(digits_model: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was chosen has all rows in it, whatever rows are trained on."""
    points: list[dict[str, Any]] = []
    own = rows_curve._on_rows

    def noted(race: Any, entry: Any) -> Any:
        trial = own(race, entry)
        points.append(trial.options)
        return trial

    def of_the_prefix(race: Any, entries: Any) -> Any:
        return [entry for entry in entries if entry.line is not None]

    monkeypatch.setattr(rows_curve, "_on_rows", noted)
    monkeypatch.setattr(rows_curve, "_contenders", of_the_prefix)
    for preferred, wanted in ((preferring(EXAMPLES), "random"), (preferring_sink(), "sink")):
        with preferred:
            answer = run(digits_model(8), rows_curve=True, methods=ARMS[2:])
        assert answer.rows is not None
        assert {one["init"] for one in points} == {wanted}
        points.clear()


@contextmanager
def preferring_sink() -> Iterator[None]:
    advance = look.advance

    def said(race: Any, one: Line, steps: int) -> TrialRecord:
        record = replace(advance(race, one, steps), validation=float(one.sized.options.get("init") == "sink"))
        one.legs[-1] = (one.legs[-1][0], record)
        return record

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(look, "advance", said)
        yield


def test_tune_starts_at_a_context_that_is_given_and_goes_on_in_its_folder(digits_model: Build, tmp_path: Path) -> None:
    model, task = digits_model(8), Reverse()
    shown = task.sample(3, np.random.default_rng(0))
    examples = el.context("examples", model, items=shown)
    given: dict[str, Any] = {"method": "kv-prefix", "size": 6, "steps": 4, "learning_rate": 0.01, "test_items": 8}
    first = el.tune(model, task, init=examples, out=tmp_path, **given)
    again = el.tune(model, task, init=el.context("examples", model, items=shown), out=tmp_path, **given)
    assert again.record == json.loads(json.dumps(first.record))
    assert first.adaptation.shown == tuple(shown[-2:])  # of four tokens each
    assert first.record["setting"]["origin"] == EXAMPLES
    kept = el.read(tmp_path)
    assert kept.record is not None
    assert kept.record.setting["items"] == [plain_pair(item) for item in shown[-2:]]
    tensors = first.adaptation.state()
    assert all(torch.equal(x, tensors[name]) for name, x in kept.adaptation(model).state().items())
