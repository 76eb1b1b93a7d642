"""Experiments about contexts that fall short: run as arms are, kept and found again, within their time."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.conftest import tiny_gpt2
from tests.methods.conftest import fresh_model
from tests.race.test_rounds import counted
from tests.reverse import Reverse, race_of_seconds

import elicitable as el
from elicitable.diagnosis.causes import NO_TIME, Diagnosis, Experiment
from elicitable.diagnosis.explaining import is_open_to_contexts
from elicitable.methods.base import Method, Schedule, Sized
from elicitable.methods.catalog import METHODS, PROBES, method_named
from elicitable.methods.kv_prefix import KVPrefix
from elicitable.methods.unbounded import UnboundedContext
from elicitable.models.layout import PLAIN
from elicitable.models.model import Model
from elicitable.race import contest, trial
from elicitable.race.causes import data, optimisation, reading, why
from elicitable.race.causes import study as study_module
from elicitable.race.causes.capacity import in_subspaces, larger
from elicitable.race.causes.data import ByHeart, by_heart, most_right
from elicitable.race.causes.reading import KEPT, OtherReading, other_readings
from elicitable.race.causes.structure import any_context, positions_read, probed
from elicitable.race.causes.study import Study
from elicitable.race.contest import StoppedRace
from elicitable.race.elsewhere import items_elsewhere
from elicitable.race.entry import Entry
from elicitable.race.line import Line
from elicitable.race.reporter import Silent
from elicitable.race.results import arm_result
from elicitable.rng import generator
from elicitable.tasks.splitting import Row
from elicitable.tasks.template import Template
from elicitable.tasks.text import TextTask

Build = Callable[..., Model]


ON = "the unbounded context, from slow on"


class Slow(KVPrefix):
    """A prefix whose range of rates is far too low."""

    name = "slow"
    schedule = Schedule(learning_rates=(1e-6, 3e-6))


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    """A race of seconds: little data, few steps; the side effects on the same few items."""
    with pytest.MonkeyPatch.context() as patch:
        race_of_seconds(patch, first_steps=4, finish=4, steps=48)
        yield
    trial._elsewhere_nats.cache_clear()


Asked = tuple[Path, el.values.Verdict]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    """A race that was asked why, and its folder."""
    folder = tmp_path_factory.mktemp("why")
    # float64: what random weights learn in so few steps hangs on the last digits of float32, and those on the processor
    return folder, run(tiny_gpt2(8, torch.float64), folder)


@pytest.fixture
def raced(asked: Asked, tmp_path: Path) -> Path:
    """A copy of that folder, so that nothing has to be trained."""
    return Path(shutil.copytree(asked[0], tmp_path / "raced"))


class Asks(Silent):
    """Note what is asked, and interrupt at the first question that holds ``until``."""

    def __init__(self, until: str = "nothing") -> None:
        self.asked: list[str] = []
        self.until = until

    def begin(self, arm: str, what: str, arms_done: int, arms: int) -> None:
        if what.startswith("why"):
            self.asked.append(what)
            if self.until in what:
                raise KeyboardInterrupt


class Random:
    """Two digits in, two digits out that hang on nothing."""

    name = "random"

    def labels(self) -> None:
        return None

    def _items(self, rng: np.random.Generator, n: int) -> list[el.values.Item]:
        drawn = rng.integers(0, 8, (n, 4)).tolist()
        return [el.values.Item((a, b), (c, d)) for a, b, c, d in drawn]

    def sample(self, n: int, rng: np.random.Generator) -> list[el.values.Item]:
        return self._items(rng, n)

    def held_out(self, split: str, n: int | None = None) -> list[el.values.Item]:
        return self._items(generator(0, split), 64)[:n]

    def fingerprint(self) -> str:
        return "random"


def run(model: Model, out: Path | None = None, task: Any = None, **options: Any) -> el.values.Verdict:
    arms = ["zero-shot", Slow(), "full"]
    given = {"seeds": 1, "budget": 500, "out": out, "methods": arms, "why": True, "margin": 0.3, "steps": 300}
    return contest.verdict(model, task or Reverse(), **given | options)


def test_a_range_of_rates_that_is_too_low_is_a_matter_of_optimisation(asked: Asked) -> None:
    _, answer = asked
    full = next(arm for arm in answer.arms if arm.method == "full")
    (found,) = answer.why.diagnoses
    assert (answer.label, found.of, found.cause) == ("weights", "slow", "optimisation")
    assert found.remedy.kind in ("rate", "longer")
    assert float(found.remedy.setting["--learning-rate"]) > 1e-2
    assert found.remedy.is_enough
    assert "they can stay" in found.sentences[-1]  # else the verdict, which asks for weights, stands beside it unsaid
    for one in answer.why.experiments:  # compared in pairs with the best arm, on the race's own test items
        if one.mean is not None:
            assert one.behind[0] == pytest.approx((full.mean or 0) - one.mean, abs=1e-9)


def test_a_second_run_trains_nothing_again(asked: Asked, raced: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, first = asked
    with counted(monkeypatch) as seen:
        again = run(tiny_gpt2(8, torch.float64), raced)
    assert not seen
    assert [(one.of, one.cause) for one in again.why.diagnoses] == [(one.of, one.cause) for one in first.why.diagnoses]
    assert [one.mean for one in again.why.experiments] == [one.mean for one in first.why.experiments]


def test_an_interrupt_answers_with_the_verdict_and_what_was_found(raced: Path) -> None:
    with pytest.raises(StoppedRace) as stopped:
        run(tiny_gpt2(8, torch.float64), raced, reporter=Asks("another"))
    assert stopped.value.answer.why.diagnoses
    assert stopped.value.answer.arms


def test_no_experiment_begins_after_the_time_is_up(raced: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = contest.find_why
    monkeypatch.setattr(contest, "find_why", lambda race, entries, seconds: find(race, entries, 0.0))
    answer = run(tiny_gpt2(8, torch.float64), raced)
    assert answer.why.experiments
    assert {one.reason for one in answer.why.experiments} == {"no time was left for it"}
    assert {one.cause for one in answer.why.diagnoses} == {"unknown"}


def test_an_interrupt_names_no_cause_that_was_not_asked_for(raced: Path) -> None:
    with pytest.raises(StoppedRace) as stopped:
        run(tiny_gpt2(8, torch.float64), raced, reporter=Asks("times as long"))
    (found,) = stopped.value.answer.why.diagnoses
    assert found.cause in ("unknown", "optimisation")  # what another rate brought


def test_the_unbounded_context_goes_on_from_the_context_and_begins_anew_only_where_that_does_not_tell(
    raced: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: dict[str, Any] = {}
    monkeypatch.setattr(contest, "find_why", lambda race, entries, seconds: kept.update(race=race, entries=entries))
    run(tiny_gpt2(8, torch.float64), raced)
    race, entries = kept["race"], {entry.method.name: entry for entry in kept["entries"]}
    arm, best = (arm_result(race, entries[name]) for name in ("slow", "full"))
    study = Study.of(race, kept["entries"], best, None)
    has_told = any_context(study, entries["slow"], UnboundedContext())
    tells = [is_open_to_contexts(one, arm, best, race.margin) for one in study.found]
    assert [one.what for one in study.found] == [ON, "the unbounded context"][: len(tells)]
    assert tells == [*[False] * (len(tells) - 1), has_told]
    first = next(one for one in study.tested if one.method.probe)
    assert "from" in first.method.identity
    context = study.best_context(entries["slow"])
    assert first.line.sized.method.started.keys[0].shape[2] == context.sized.size
    most = study.steps_to_its_end()
    assert all(one.steps <= most + max(race.pace.finish, most // 2) for one in study.found)


def test_a_larger_context_has_so_many_times_the_tokens_and_no_more_than_there_are_positions(
    raced: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: dict[str, Any] = {}
    monkeypatch.setattr(contest, "find_why", lambda race, entries, seconds: kept.update(race=race, entries=entries))
    model = tiny_gpt2(8, torch.float64)
    run(model, raced)
    race, entry = kept["race"], next(one for one in kept["entries"] if one.method.name == "slow")
    study = Study.of(race, kept["entries"], arm_result(race, entry), None)
    monkeypatch.setattr(study_module, "SHORT", 4)
    monkeypatch.setattr(Study, "steps", lambda self, *others, **more: 8)
    four, most = (larger(study, entry, times, 0.1) for times in (4, 10**6))
    assert four is not None
    assert most is not None
    size = entry.sized.size
    assert (four.kind, four.setting["--size"], four.steps > 0) == ("size", str(4 * size), True)
    assert four.numbers_trained == 4 * arm_result(race, entry).budget.numbers_trained
    longest = max(len(item.prompt) + len(item.target) for item in [*race.test(), *items_elsewhere(model)])
    assert int(most.setting["--size"]) == model.anatomy.trained_positions - longest
    assert larger(study, entry, 10**7, 0.1) is None  # that was asked


def test_a_larger_context_starts_as_the_smaller_one_did(study: Study) -> None:
    """It started as the method does by itself, so two things were changed at once."""
    entry = entry_of(study, "slow")
    entry.sized = replace(entry.sized, options={"init": "sink"})
    assert larger(study, entry, 4, 0.1) is not None
    (tried,) = study.tested
    assert tried.trial is not None
    assert tried.trial.options["init"] == "sink"


@pytest.fixture
def study(raced: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """The study of that race, in which an experiment is a run of a few steps."""
    kept: dict[str, Any] = {}
    monkeypatch.setattr(contest, "find_why", lambda race, entries, seconds: kept.update(race=race, entries=entries))
    run(tiny_gpt2(8, torch.float64), raced)
    race, entries = kept["race"], kept["entries"]
    monkeypatch.setattr(study_module, "SHORT", 4)
    monkeypatch.setattr(Study, "steps", lambda self, at_least=0, times=1: max(8, at_least))
    full = next(one for one in entries if one.method.name == "full")
    return Study.of(race, entries, arm_result(race, full), None)


def entry_of(study: Study, name: str) -> Entry:
    return next(one for one in study.entries if one.method.name == name)


def test_the_best_context_is_enough_beside_itself_however_few_test_items_there_are(study: Study) -> None:
    """Beside another copy of its own results Tango's interval of 0 among 32 pairs is wider than two points."""
    study.race.margin = 0.02
    study.best = arm_result(study.race, entry_of(study, "slow"))
    found = why._sufficient(study, entry_of(study, "full"), study.entries)
    assert found is not None
    assert (found.kind, found.what, found.behind) == ("context", "slow", (0.0, 0.0, 0.0))


def test_a_context_within_the_margin_explains_another_one_though_it_is_not_enough_for_sure(study: Study) -> None:
    """Beside a context as good as the weights the cause was that no context can do it."""
    entry = entry_of(study, "slow")
    arm = arm_result(study.race, entry)
    study.best = replace(
        arm, method="other", mean=(arm.mean or 0.0) + 0.01
    )  # another result, whose interval 32 items leave wide
    study.race.margin = 0.02
    found = why._sufficient(study, entry_of(study, "full"), study.entries)
    assert found is not None
    assert (found.kind, found.what, found.is_enough) == ("context", "slow", False)
    study.race.margin = -0.1
    assert why._sufficient(study, entry_of(study, "full"), study.entries) is None


@pytest.mark.parametrize(
    ("own", "what", "is_so"),
    [
        ("kv-prefix", "prompt", True),
        ("soft-prompt", "prompt", True),
        ("kv-prefix", "soft-prompt, with 8 virtual tokens in the place of 2,", True),
        ("soft-prompt", "kv-prefix", False),
        ("examples", "prompt", False),  # a text is not trained to be another
        ("kv-prefix", "nearest-examples", False),  # others for each item
    ],
)
def test_a_prefix_can_be_any_text_and_a_text_no_prefix(own: str, what: str, is_so: bool) -> None:
    settings = {
        "prompt": {"token_ids": [3, 1]},
        "nearest-examples": {"k": 1, "items": [[[3, 1], [2]], [[1, 1], [4]]], "room": 12},
    }
    entries = [
        Entry(Sized(method, 2, 0, 0), records=[SimpleNamespace(setting=settings.get(method.name, {}))])
        for method in METHODS
    ]
    entry = next(one for one in entries if one.method.name == own)
    study = SimpleNamespace(race=SimpleNamespace(model=tiny_gpt2(8, torch.float64), layouts=(PLAIN,)))
    assert why._can_be(study, entry, Experiment(own, "context", what), entries) == is_so


def test_a_run_that_the_clock_ends_says_so(study: Study) -> None:
    entry = entry_of(study, "slow")
    line = study.short(entry.sized, 0.01)
    assert study.trained(line, line.steps + 1).stopped != "time"
    line = study.short(entry.sized, 0.02)
    study.trained(line, line.steps)  # its end is kept
    study.deadline = 0.0
    assert study.trained(line, 10**6).stopped == "time"


DEAR = 1e6  # seconds of a step: whatever is to be trained would take days


@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(lambda study, slow, full: optimisation.other_rates(study, slow), id="rate"),
        pytest.param(lambda study, slow, full: optimisation.longer(study, slow), id="longer"),
        pytest.param(lambda study, slow, full: optimisation.other_starts(study, slow, 0.1), id="start"),
        pytest.param(lambda study, slow, full: larger(study, slow, 4, 0.1), id="size"),
        pytest.param(lambda study, slow, full: by_heart(study, full), id="by-heart"),
        pytest.param(lambda study, slow, full: any_context(study, slow, UnboundedContext()), id="unbounded"),
        pytest.param(lambda study, slow, full: probed(study, probe("frozen-patterns")), id="frozen-patterns"),
        pytest.param(lambda study, slow, full: in_subspaces(study, probe("subspace"), (100,)), id="subspace"),
    ],
)
def test_no_experiment_begins_that_takes_longer_than_there_is_time(
    study: Study, ask: Callable[[Study, Entry, Entry], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock was looked at between legs alone: first looks at rates and starts went on for as long as they took."""
    monkeypatch.setattr(KVPrefix, "starts", lambda self, model: [{"init": "vocabulary"}])
    monkeypatch.setattr(Line, "step_seconds", lambda self: DEAR)
    study.race.price["step_seconds"] = DEAR
    study.deadline = time.monotonic() + 3_600
    with counted(monkeypatch) as seen:
        ask(study, entry_of(study, "slow"), entry_of(study, "full"))
    assert study.found
    assert {one.reason for one in study.found} == {NO_TIME}
    assert not seen


def probe(tells: str) -> Method:
    return next(one for one in PROBES if one.probe == tells)


def test_a_leg_is_paid_for_with_the_way_down_and_the_test_behind_it(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = entry_of(study, "slow")
    line = study.short(entry.sized, 0.02)
    monkeypatch.setattr(Line, "step_seconds", lambda self: 60.0)
    monkeypatch.setattr(study_module, "test_seconds", lambda *given: 0.0)
    study.deadline = time.monotonic() + 60.0 * 9
    assert study.trained(line, 16).stopped == "time"
    assert line.steps == 8  # four steps on, and as many down from there, take 8 minutes; to 16 it would be more


def test_other_readings_begin_only_where_there_is_time_for_the_choice(study: Study) -> None:
    chosen = entry_of(study, "zero-shot")
    (record,) = chosen.records
    chosen.records[0] = replace(record, timing=replace(record.timing, seconds=DEAR))
    study.deadline = time.monotonic() + 3_600
    other = OtherReading("told otherwise", study.race.task, (replace(study.race.layouts[0], end="!"),), "sum", {})
    study.ask("", "reading", other.said, lambda: reading._asked_so(study, other, [chosen], 0.1))
    assert study.found[-1].had_no_time


def test_rows_by_heart_leave_nothing_to_go_on_from(study: Study) -> None:
    """States of the whole model stayed in the race's folder."""
    folder = study.race.store.folder / "running"
    before = set(folder.iterdir())
    by_heart(study, entry_of(study, "slow"))
    assert study.found[-1].mean is not None
    assert set(folder.iterdir()) == before


def test_a_remedy_that_the_clock_cut_off_was_not_asked_for(study: Study) -> None:
    """Trained for a few of its steps it stayed behind, and the cause was structure."""
    entry = entry_of(study, "slow")
    for stopped, cause in (("steps", "structure"), ("time", "unknown")):
        gap = study.gap_of(arm_result(study.race, entry))
        arm = replace(arm_result(study.race, entry), stopped=stopped)
        study.found = [study.compared("slow", kind, f"another {kind}", arm, gap) for kind in ("rate", "longer")]
        assert why._diagnosed(study, entry, study.entries, 0.0, is_open=False).cause == cause


def test_a_context_that_an_experiment_brought_within_the_margin_explains_another_one(study: Study) -> None:
    """It was passed over, and no context was said to do what this one does."""
    study.race.margin = 0.02
    near = Experiment("other", "rate", "at another rate", 0.9, 0.8, 1.0, (0.01, -0.1, 0.1), closed=0.97)
    study.found = [replace(near, behind=(0.03, -0.1, 0.1))]
    assert why._sufficient(study, entry_of(study, "slow"), study.entries) is None
    study.found.append(near)
    found = why._sufficient(study, entry_of(study, "slow"), study.entries)
    assert found is not None
    assert (found.of, found.kind, found.what) == ("slow", "context", "other, at another rate,")


def test_where_positions_have_no_end_the_table_has_as_many_as_the_longest_item_needs(study: Study) -> None:
    """No model with rotary positions had a table in its first layer: the unbounded context was a small network."""
    method = UnboundedContext()
    assert positions_read(study, method) is None  # learned positions, and all of them are in the table
    study.race.model = fresh_model("llama")
    longest = max(len(item.prompt) + len(item.target) for item in items_elsewhere(study.race.model))
    assert positions_read(study, method) == max(4, longest)
    assert not method.is_exact(study.race.model)
    assert method.is_exact(study.race.model, positions_read(study, method))
    context = method_named("kv-prefix").build(study.race.model, 3)
    started = method.starting_at(study.race.model, context, "there")
    assert positions_read(study, started) == max(4, longest) + started.started.shift


def test_a_rate_that_ends_below_the_race_is_not_gone_on_from(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = entry_of(study, "slow")
    own = entry.rate
    other = study.short(entry.sized, 0.1)
    monkeypatch.setattr(optimisation, "_better_rate", lambda *given: other)
    for gain, rate in ((-1.0, own), (1.0, 0.1)):
        study.runs.clear()
        study.found.clear()
        monkeypatch.setattr(optimisation, "arm_result", _worse_by(gain))
        found = optimisation.other_rates(study, entry)
        assert (found.setting["--learning-rate"], found.setting["--size"]) == ("0.1", str(entry.sized.size))
        assert optimisation.rate_of(study, entry) == rate
        assert bool(study.runs) is (rate == 0.1)


def _worse_by(gain: float) -> Callable[[Any, Any], Any]:
    """Results of a race that stand below what an experiment finds by ``gain``."""
    return lambda race, entry: replace(arm_result(race, entry), mean=(arm_result(race, entry).mean or 0.0) - 2 * gain)


def test_where_more_tokens_are_enough_as_many_numbers_are_put_anywhere_once(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That a task is elicited and not taught was said of capacity, without the control that tells."""
    entry, asked = entry_of(study, "slow"), []
    large = Experiment("slow", "size", "larger", 0.9, 0.8, 1.0, (0.0, 0.0, 0.0), True, closed=1.0, numbers_trained=900)
    found = Diagnosis("slow", "capacity", True, ("a", "b"), "c", large)
    monkeypatch.setattr(why, "_so_far", lambda *given: found)
    monkeypatch.setattr(why, "in_subspaces", lambda study, method, sizes: asked.append((method.probe, sizes)))
    why._put_anywhere(study, entry, 0.0)
    assert asked == [("subspace", (entry.sized.numbers, 900))]
    study.found.append(Experiment("", "subspace", "numbers anywhere"))
    why._put_anywhere(study, entry, 0.0)
    assert len(asked) == 1


def test_a_method_without_a_size_is_not_made_larger(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = entry_of(study, "slow")
    monkeypatch.setattr(type(entry.method), "has_size", False)
    assert larger(study, entry, 4, 0.1) is None
    assert not study.found


def test_nothing_to_explain_is_said(raced: Path) -> None:
    answer = run(tiny_gpt2(8, torch.float64), raced, methods=["zero-shot", "full"])
    assert answer.why is None
    assert any("--why has nothing to explain: no context" in one for one in answer.provenance["warnings"])


def test_answers_that_hang_on_nothing_are_a_matter_of_the_data(digits_model: Build) -> None:
    answer = run(digits_model(8, torch.float32), task=Random(), steps=64)
    (learned,) = [one for one in answer.why.experiments if one.kind == "by-heart"]
    assert learned.mean is not None
    assert {one.cause for one in answer.why.diagnoses} == {"data"}


def test_rows_that_contradict_each_other_cannot_all_be_right() -> None:
    rows = Reverse().sample(40, np.random.default_rng(0))
    assert most_right(rows[:1]) == 1.0
    twice = [el.values.Item((1, 2), (3, 4)), el.values.Item((1, 2), (4, 3)), el.values.Item((2, 2), (3, 4))]
    assert most_right(twice) == pytest.approx(2 / 3)


def test_rows_by_heart_are_tried_at_other_rates_before_anything_is_said_of_them(
    digits_model: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[float] = []
    monkeypatch.setattr(data, "most_right", lambda rows: 1.0)
    monkeypatch.setattr(data, "_share_right", lambda line: tried.append(line.rate) or line.rate / 1_000)
    answer = run(digits_model(8, torch.float32), task=Random(), steps=64)
    (learned,) = [one for one in answer.why.experiments if one.kind == "by-heart"]
    assert len(set(tried)) == 3
    assert "in the place of" in learned.what
    assert learned.ceiling is not None


def test_rows_by_heart_are_validated_on_themselves() -> None:
    rows = Reverse().sample(40, np.random.default_rng(0))
    task = ByHeart(Reverse(), rows, 32)  # type: ignore[arg-type]
    assert task.held_out("validation") == rows[:32]
    assert set(task.sample(100, np.random.default_rng(1))) <= set(rows[:32])


def test_a_misleading_template_is_told_from_what_the_model_can_do(letters_model: Build) -> None:
    splits = {split: [Row((f"ab{n}",), "xy"[n % 2]) for n in range(20)] for split in ("train", "validation", "test")}
    task = TextTask("t", splits, Template.parse("{text} never", "classification"), classes=("x", "y"))
    model = letters_model()
    race: Any = type("", (), {"model": model, "task": task, "layouts": (el.models.layout.PLAIN,)})()
    race.marking, race.item_seconds = type("", (), {"rule": "sum", "metric": None})(), 0.1
    begun: list[str] = []
    study: Any = type("", (), {"race": race, "begins": lambda self, of, what, seconds: not begun.append(what)})()
    found = list(other_readings(study))
    assert len(begun) == len(dict(reading._other_templates(task)))  # each is told of, and asks whether there is time
    study.begins = lambda *asked: False
    assert len(list(other_readings(study))) == len(found)  # with no time left they are named, and not read on
    settings = [one.setting for one in found]
    assert {"--rule": "auto"} in settings
    assert "{text}\nLabel:" in dict(reading._other_templates(task))
    templates = [one["--template"] for one in settings if "--template" in one]
    assert len(templates) == len(set(templates)) == KEPT
    for one in found:
        assert [item.target for item in one.task.held_out("test")] == [item.target for item in task.held_out("test")]


@pytest.mark.parametrize("template", ["{text} never\n", "{text} never"])
def test_another_template_is_typed_with_the_separator_that_the_task_has(template: str) -> None:
    splits = {split: [Row(("ab",), "x"), Row(("abc",), "y")] for split in ("train", "validation", "test")}
    task = TextTask("t", splits, Template.parse(template, "classification"), classes=("x", "y"))
    others = list(reading._other_templates(task))
    assert others
    for typed, other in others:
        assert other.labels() == task.labels()
        assert Template.parse(typed, "classification") == other.template  # so the command asks in the same way


def test_a_model_that_is_asked_by_another_template_than_it_learned_is_read_wrongly(
    letters_model: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [first + second + third for first in "ab" for second in "cdefghij" for third in "cdefghij"]
    order = np.random.default_rng(0).permutation(texts).tolist()
    split = {"train": order[:64], "validation": order[64:96], "test": order[96:]}
    rows = {name: [Row((text,), "xy"[text[0] == "b"]) for text in some] for name, some in split.items()}

    def task(template: str) -> TextTask:
        return TextTask("t", rows, Template.parse(template, "classification"), classes=("x", "y"))

    model = letters_model(dtype=torch.float32)
    teach(model, task("{text}\nLabel:").sample(64, generator(0, "taught")))
    misled = task("{text} so?")
    monkeypatch.setattr(trial, "_elsewhere", lambda model: misled.held_out("validation", 4))
    given = {"methods": ["zero-shot", "prompt", "full"], "steps": 64, "margin": 0.1, "search_passes": 64}
    answer = run(model, task=misled, **given)
    for one in answer.why.diagnoses:
        assert (one.cause, one.is_sure, one.remedy.setting) == ("reading", True, {"--template": "{text}\nLabel:"})
    assert "prompt" in {one.of for one in answer.why.diagnoses}


def teach(model: Model, items: list[el.values.Item], steps: int = 150) -> None:
    """Train all weights of a model on how items end, at one token a letter."""
    ids = torch.tensor([model.tokenizer(item.prompt + item.target)["input_ids"] for item in items])
    optimizer = torch.optim.AdamW(model.hf.parameters(), lr=3e-3)
    for _ in range(steps):
        logits = model.hf(input_ids=ids[:, :-1]).logits[:, -1]
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, ids[:, -1]).backward()
        optimizer.step()


def test_right_answers_that_go_on_are_a_matter_of_the_reading(
    letters_model: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {split: [Row((f"ab{n}",), "xy"[n % 2] * 3) for n in range(20)] for split in ("train", "validation", "test")}
    task = TextTask("t", rows, Template.parse("{prompt} so", "generation"))
    monkeypatch.setattr(trial, "_elsewhere", lambda model: task.held_out("validation", 4))
    monkeypatch.setattr(reading, "_written", lambda race, entry: [f"{item.target}\nand on" for item in race.test()])
    given = {"methods": ["zero-shot", "prompt"], "steps": 4, "margin": 0.02, "search_passes": 64, "stop": "."}
    answer = run(letters_model(), task=task, **given)
    assert {(one.of, one.cause) for one in answer.why.diagnoses} == {("prompt", "reading")}
    assert answer.why.diagnoses[0].remedy.setting == {"--stop": "\\n"}
    assert reading._holds("Forty two", "It is forty-two.")
    assert not reading._holds("4", "It is 42.")
    assert not reading._in_first_line("4", "4 2\n4")


def test_answers_that_hold_whatever_may_be_asked_for_are_not_right() -> None:
    """A model that rambles was right wherever the target came along."""
    targets = [str(n % 10) for n in range(60)]
    rambling = ["0 1 2 3 4 5 6 7 8 9"] * 60
    assert sum(reading.above_chance(targets, rambling, reading._holds)) == 0
    fine = [f"It is {target}." for target in targets]
    assert sum(reading.above_chance(targets, fine, reading._holds)) == 60
    assert sum(reading.above_chance(targets, fine[:30] + rambling[30:], reading._holds)) == 30
    assert sum(reading.above_chance(["yes"] * 5, ["yes"] * 5, reading._holds)) == 5  # as the score would have it


def test_the_probes_are_found_by_what_they_tell() -> None:
    assert method_named("unbounded-context").probe == "unbounded"
    assert not [method for method in el.methods.catalog.METHODS if method.probe]
