"""A whole race, small: it resumes as a no-op, a failing arm does not stop it, an interrupt leaves nothing partial."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.reverse import Reverse, race_of_seconds

import elicitable as el
from elicitable.errors import BudgetError, InputError, StoreError, TrainingDivergedError, UnknownNameError
from elicitable.methods.base import Schedule
from elicitable.methods.catalog import METHODS, method_named
from elicitable.methods.kv_prefix import KVPrefix
from elicitable.models.model import Model
from elicitable.models.speed import processor
from elicitable.models.speed.processor import kind
from elicitable.race import contest, line, pace, timing, trial
from elicitable.race.reporter import Silent
from elicitable.race.trial import Trial
from elicitable.records.store import Store
from elicitable.training import loop
from elicitable.training.loop import Plan
from elicitable.values import ArmResult, CurvePoint, Item

Build = Callable[..., Model]
TRAINED = {method.name for method in METHODS if method.schedule is not None}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A race of seconds: little data, few steps; the side effects on the same few items."""
    race_of_seconds(monkeypatch, evaluate_every=2)


def run(model: Model, out: Path | None = None, **options: Any) -> el.values.Verdict:
    return contest.verdict(model, Reverse(), **{"steps": 4, "seeds": 2, "budget": 500, "out": out} | options)


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}


def trials_in(folder: Path) -> list[dict[str, Any]]:
    """The records of trials, without those of decisions that hang on the clock."""
    return [record for record in Store(folder) if "method" in record["spec"]]


def test_every_method_runs_and_running_again_is_a_no_op(digits_model: Build, tmp_path: Path) -> None:
    model = digits_model(8)
    first = run(model, tmp_path)
    assert [arm.method for arm in first.arms] == [method.name for method in METHODS]
    assert {arm.status for arm in first.arms if arm.method != "examples"} == {"ok"}, [a.reason for a in first.arms]
    for arm in first.arms:
        assert arm.items == 32
        assert arm.low <= arm.mean <= arm.high
        assert (arm.budget.numbers_trained > 0) == (arm.method in TRAINED)
        assert arm.budget.numbers_trained <= 500 or arm.method == "full"
        assert arm.side_effect_nats is not None
        assert len(arm.samples) == 5
        by_item = arm.method == "nearest-examples"  # has no keys of its own
        assert bool(arm.prefix_mass) == (arm.budget.keys_per_layer > 0 and not by_item)
    zero = next(arm for arm in first.arms if arm.method == "zero-shot")
    assert zero.side_effect_nats == 0.0
    own = next(one for one in reversed(first.margins) if one.start <= first.margin)
    assert (own.label, own.answer) == (first.label, first.answer)
    assert set(own.standings) == {arm.method for arm in first.arms if arm.behind}
    before = files(tmp_path)
    again = run(model, tmp_path)
    assert files(tmp_path) == before
    assert again == first


def test_the_store_makes_no_difference_to_the_numbers(digits_model: Build, tmp_path: Path) -> None:
    chosen = ["zero-shot", "kv-prefix", "lora"]
    stored, plain = (run(digits_model(8), out, methods=chosen) for out in (tmp_path, None))
    assert [arm.correct for arm in stored.arms] == [arm.correct for arm in plain.arms]
    assert [arm.curves for arm in stored.arms] == [arm.curves for arm in plain.arms]
    other = run(digits_model(8), None, methods=chosen, seed=7)
    assert [arm.curves for arm in other.arms] != [arm.curves for arm in plain.arms]


def test_other_data_or_other_weights_run_again(digits_model: Build, tmp_path: Path) -> None:
    def count(model: Model, task: Any = None) -> int:
        contest.verdict(model, task or Reverse(), methods=["kv-prefix"], steps=4, seeds=1, budget=500, out=tmp_path)
        return len(list((tmp_path / "trials").iterdir()))

    model = digits_model(8)
    one = count(model)
    assert count(model) == one
    assert count(model, Reverse("changed")) == 2 * one
    with torch.no_grad():
        model.hf.transformer.wte.weight.add_(0.1)  # the same object, trained on by its owner
    assert count(model) == 3 * one
    assert count(digits_model(8, seed=1)) >= 3 * one + 5  # another model may have its best rate elsewhere


def test_an_arm_that_diverges_is_recorded_and_the_race_goes_on(
    digits_model: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = loop.token_losses
    training: list[str] = []
    monkeypatch.setattr(loop, "token_losses", lambda *given: own(*given) * (float("nan") if training else 1.0))
    build = method_named("kv-prefix").build

    def watched(self: Any, *given: Any, **more: Any) -> Any:
        training.append("kv-prefix")
        return build(*given, **more)

    monkeypatch.setattr(type(method_named("kv-prefix")), "build", watched)
    lora = method_named("layer-prefix").build

    def cured(self: Any, *given: Any, **more: Any) -> Any:
        training.clear()
        return lora(*given, **more)

    monkeypatch.setattr(type(method_named("layer-prefix")), "build", cured)
    answer = run(digits_model(8), tmp_path, methods=["zero-shot", "kv-prefix", "layer-prefix"])
    status = {arm.method: (arm.status, arm.reason, arm.mean) for arm in answer.arms}
    assert (status["kv-prefix"][0], status["kv-prefix"][2]) == ("diverged", None)
    assert "no finite number any more, at every one of 4 learning rates" in status["kv-prefix"][1]
    assert status["layer-prefix"][0] == status["zero-shot"][0] == "ok"
    assert any("kv-prefix took no part: diverged (the loss" in reason for reason in answer.reasons)
    records = [record for record in Store(tmp_path) if record["spec"].get("method") == "kv-prefix"]
    assert len(records) == len(method_named("kv-prefix").schedule.learning_rates)
    assert {record["status"] for record in records} == {"diverged"}


def test_an_arm_that_fails_is_recorded_with_its_traceback_and_the_race_goes_on(
    digits_model: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: Any, **more: Any) -> Any:
        raise RuntimeError("out of memory: tried to allocate 3 GB\nmore lines")

    monkeypatch.setattr(type(method_named("lora")), "build", broken)
    answer = run(digits_model(8), tmp_path, methods=["zero-shot", "lora", "kv-prefix"])
    arms = {arm.method: arm for arm in answer.arms}
    assert arms["lora"].status == "failed"
    assert arms["lora"].reason == "RuntimeError: out of memory: tried to allocate 3 GB"
    assert arms["kv-prefix"].status == "ok"
    (record,) = {r["traceback"] for r in Store(tmp_path) if r["spec"].get("method") == "lora"}
    assert "in broken" in record


def test_an_interrupt_leaves_no_partial_record_and_the_rest_is_kept(digits_model: Build, tmp_path: Path) -> None:
    class Impatient(Silent):
        def point(self, point: CurvePoint, share: float) -> None:
            if self.arm == "lora":
                raise KeyboardInterrupt

        def begin(self, arm: str, what: str, arms_done: int, arms: int) -> None:
            self.arm = arm

    model, chosen = digits_model(8), ["zero-shot", "lora"]
    with pytest.raises(KeyboardInterrupt):
        run(model, tmp_path, methods=chosen, reporter=Impatient())
    left = files(tmp_path)
    assert {record["spec"]["method"] for record in trials_in(tmp_path)} == {"zero-shot"}
    assert all(name.endswith("record.json") for name in left)
    whole = run(model, tmp_path, methods=chosen)
    assert left.items() <= files(tmp_path).items()
    assert [arm.correct for arm in whole.arms] == [arm.correct for arm in run(model, None, methods=chosen).arms]


def test_a_corrupt_record_stops_the_race_by_name(digits_model: Build, tmp_path: Path) -> None:
    run(digits_model(8), tmp_path, methods=["zero-shot"])
    (record,) = (path for path in tmp_path.rglob("record.json") if '"setting"' in path.read_text(encoding="utf-8"))
    record.write_text("{", encoding="utf-8")
    with pytest.raises(StoreError, match=r"record\.json cannot be read"):
        run(digits_model(8), tmp_path, methods=["zero-shot"])


def test_an_arm_below_the_budget_is_skipped_with_the_reason_and_one_asked_for_is_refused(digits_model: Build) -> None:
    model = digits_model(8)
    answer = run(model, budget=40, methods=None)
    arms: dict[str, ArmResult] = {arm.method: arm for arm in answer.arms}
    assert arms["soft-prompt"].status == "ok"
    assert arms["soft-prompt"].budget.numbers_trained == 32
    assert arms["kv-prefix"].status == "skipped"
    assert "size 1 trains 64 numbers" in arms["kv-prefix"].reason
    with pytest.raises(BudgetError, match=r"budget of 40 is too small for kv-prefix on tiny.*64"):
        run(model, budget=40, methods=["kv-prefix"])
    with pytest.raises(BudgetError, match="too small"):
        run(model, budget=3)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"methods": "lora"}, InputError, "a list of at least one name, got 'lora'"),
        ({"methods": []}, InputError, "at least one name"),
        ({"seeds": 1.5}, InputError, r"seeds must be a whole number, got 1\.5"),
        ({"budget": "12k"}, InputError, "budget .* got '12k'"),
        ({"margin": "2"}, InputError, "margin must be a number, got '2'"),
        ({"time_limit": "soon"}, InputError, "a time limit is a number of seconds.*got 'soon'"),
        ({"methods": ["kv-prefx"]}, UnknownNameError, "did you mean 'kv-prefix'"),
        ({"seeds": 0}, InputError, "seeds must be at least 1, got 0"),
        ({"seed": "a"}, InputError, "a seed is a whole number, got 'a'"),
        ({"seed": 1.7}, InputError, r"a seed is a whole number, got 1\.7"),
        ({"seed": None}, InputError, "a seed is a whole number, got None"),
        ({"out": 3}, InputError, "an output folder is a path, got 3"),
        ({"out": ""}, InputError, "an output folder is a path, got ''"),
        ({"executor": 3}, InputError, "an executor is a name .*got 3"),
        ({"keep": "lora"}, InputError, "a list of names, got 'lora'"),
        ({"keep": 3}, InputError, "a list of names, got 3"),
        ({"prompts": ["1 2"], "methods": ["lora"]}, InputError, "no method that takes part tries any"),
        ({"prompts": ["1 2"], "methods": ["prompt"]}, InputError, "reads token ids, and a prompt is a text"),
        ({"prompts": [" "], "methods": ["prompt"]}, InputError, "a prompt is a text that is not blank, got ' '"),
        ({"prompts": [3], "methods": ["prompt"]}, InputError, "a prompt is a text that is not blank, got 3"),
        ({"prompts": "hi"}, InputError, "a list of texts, got 'hi'"),
        ({"proposer": "smollm2", "methods": ["lora"]}, InputError, "no method that takes part asks one"),
        ({"search_passes": 9, "methods": ["lora"]}, InputError, "no method that takes part searches"),
        ({"stop": "x"}, InputError, "reads and writes token ids, and a stop string is a text"),
        ({"steps": 0}, InputError, "steps must be at least 1, got 0"),
        ({"test_items": 0}, InputError, "test items must be at least 1, got 0"),
        ({"margin": 0.0}, InputError, "margin must be"),
        ({"margin": 2}, InputError, r"2 points are 0\.02"),
        ({"margin": float("nan")}, InputError, "margin must be"),
        ({"budget": 0}, BudgetError, "at least 1 trained number, got 0"),
        ({"time_limit": 0.0}, BudgetError, "more than 0 seconds"),
        ({"time_limit": float("nan")}, BudgetError, "more than 0 seconds"),
        ({"time_limit": 1e-3, "methods": ["kv-prefix"]}, BudgetError, "too short.*kv-prefix"),
    ],
)
def test_arguments_out_of_range_are_named(
    digits_model: Build, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run(digits_model(8), **options)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)])
def test_a_race_does_not_hang_on_the_mode_of_its_caller(mode: Any, tmp_path: Path) -> None:
    """Under no_grad every arm had failed, and the verdict was that nothing does."""
    found = []
    for nth, around in enumerate((nullcontext, mode)):
        with around():
            answer = run(el.load("toy:ascending", device="cpu"), tmp_path / str(nth), methods=["soft-prompt"], seeds=1)
        found.append([(arm.status, arm.mean, arm.steps) for arm in answer.arms])
    assert found[0] == found[1]
    assert found[0][0][0] == "ok"


def test_a_cache_that_cannot_be_written_is_named_before_anything_is_trained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The race ran to its end, and its answer was lost with the error."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ELICITABLE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(StoreError, match="ELICITABLE_CACHE"):
        run(el.load("toy:ascending", device="cpu"), tmp_path / "out", methods=["kv-prefix"])
    assert not list((tmp_path / "out").rglob("record.json"))


def test_running_a_race_against_the_clock_again_is_a_no_op(digits_model: Build, tmp_path: Path) -> None:
    model = digits_model(8)
    first = run(model, tmp_path, steps=None, seeds=1, time_limit=6.0, methods=["zero-shot", "kv-prefix", "lora"])
    before = files(tmp_path)
    again = run(model, tmp_path, steps=None, seeds=1, time_limit="6s", methods=["zero-shot", "kv-prefix", "lora"])
    assert files(tmp_path) == before
    assert again.arms == first.arms


def test_a_sweep_never_reads_the_test_split(digits_model: Build) -> None:
    class Secret(Reverse):
        def held_out(self, split: str, n: int | None = None) -> list[Item]:
            assert split == "validation"
            return super().held_out(split, n)

    plan = Plan(learning_rate=1e-3, steps=2, batch=4, validation_items=4)
    record = trial.run(Trial(method_named("lora"), 1, plan, seed=0), digits_model(8), Secret(), Store(None))
    assert record.status == "ok"
    with pytest.raises(AssertionError):
        trial.run(Trial(method_named("lora"), 1, plan, seed=0, test_items=4), digits_model(8), Secret(), Store(None))


def test_a_seed_that_diverges_is_not_passed_over(
    digits_model: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = line.train

    def second_diverges(model: Any, adaptation: Any, task: Any, plan: Plan, seed: int, **more: Any) -> Any:
        fit = own(model, adaptation, task, plan, seed, **more)
        return replace(fit, stopped="diverged", best=None) if seed == 1 else fit

    monkeypatch.setattr(line, "train", second_diverges)
    answer = run(digits_model(8), tmp_path, methods=["lora"])
    [lora] = answer.arms
    assert (lora.status, lora.seeds, len(lora.correct)) == ("ok", 1, 1)
    assert lora.reason == "1 of 2 seeds diverged; the score is that of the rest"
    assert lora.stopped == "steps"
    assert any(lora.reason in why for why in answer.reasons)


def test_what_failed_is_tried_again_and_what_diverged_is_not(
    digits_model: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: Any, **more: Any) -> Any:
        raise RuntimeError("out of memory")

    model = digits_model(8)
    with monkeypatch.context() as patch:
        patch.setattr(type(method_named("lora")), "build", broken)
        first = run(model, tmp_path, methods=["zero-shot", "lora"])
    assert first.arms[1].status == "failed"
    again = run(model, tmp_path, methods=["zero-shot", "lora"])
    assert again.arms[1].status == "ok"
    assert again.arms[0] == replace(first.arms[0], behind=again.arms[0].behind)  # the best arm may be another now
    plain = run(model, None, methods=["zero-shot", "lora"])
    assert again.arms[1].correct == plain.arms[1].correct


def test_a_method_that_cannot_be_is_skipped_for_good(digits_model: Build, tmp_path: Path) -> None:
    class Long(Reverse):
        def _items(self) -> list[Item]:
            return [Item(pair * 18, pair[::-1]) for pair in itertools.product(range(8), repeat=2)]

    answer = contest.verdict(digits_model(8), Long(), steps=2, seeds=1, methods=["zero-shot", "examples"], out=tmp_path)
    examples = answer.arms[1]
    assert examples.status == "skipped"
    assert "no worked example has room: each that was drawn takes more than 32 tokens" in examples.reason
    before = files(tmp_path)
    assert contest.verdict(digits_model(8), Long(), steps=2, seeds=1, methods=["zero-shot", "examples"], out=tmp_path)
    assert files(tmp_path) == before


def test_side_effects_are_measured_against_the_weights_as_they_are_now(digits_model: Build) -> None:
    model = digits_model(8)
    first = run(model, methods=["zero-shot"])
    with torch.no_grad():
        model.hf.transformer.wte.weight.mul_(3)
    assert run(model, methods=["zero-shot"]).arms[0].side_effect_nats == first.arms[0].side_effect_nats == 0.0


def test_training_goes_on_inside_what_is_in_use(digits_model: Build) -> None:
    """A prompt around a race or a tuning stands before whatever is trained, and is not trained itself."""
    model = digits_model(8)
    bare = run(model, methods=["zero-shot", "kv-prefix"])
    outer = el.context("kv-prefix", model, length=2, seed=5)
    before = outer.state()
    with el.use(model, outer):
        inside = run(model, methods=["zero-shot", "kv-prefix"])
        tuned = el.tune(model, Reverse(), method="kv-prefix", size=2, learning_rate=0.3, steps=20, test_items=32)
    assert inside.arms[0].curves == bare.arms[0].curves
    assert inside.arms[0].samples != bare.arms[0].samples or inside.arms[1].curves != bare.arms[1].curves
    assert inside.provenance["model_hash"] != bare.provenance["model_hash"]
    assert inside.provenance["processor"] == tuned.record["processor"] == kind()
    assert all(torch.equal(before[name], tensor) for name, tensor in outer.state().items())
    assert all(parameter.grad is None for parameter in outer.parameters())
    items = Reverse().held_out("test", 32)
    with torch.no_grad(), el.use(model, [outer, tuned.adaptation]):
        both = trial.evaluate(model, items, None, trial.Reading(batch=32))
    assert both.mean == tuned.record["mean"]
    assert both.loss_nats == pytest.approx(tuned.record["loss_nats"], abs=1e-9)
    with el.use(model, outer, strength=0.5), pytest.raises(InputError, match=r"strength 0\.5"):
        el.tune(model, Reverse(), method="kv-prefix", size=2, learning_rate=0.3, steps=2)


def test_a_race_inside_a_prompt_does_not_find_the_trials_of_one_without(digits_model: Build, tmp_path: Path) -> None:
    model = digits_model(8)
    run(model, tmp_path, methods=["zero-shot"])
    before = len(list((tmp_path / "trials").iterdir()))
    with el.use(model, el.context("prompt", model, token_ids=[3, 1])):
        run(model, tmp_path, methods=["zero-shot"])
    assert len(list((tmp_path / "trials").iterdir())) == 2 * before


def timed(
    model: Model, limit: float, out: Path | None = None, task: Any = None, **options: Any
) -> tuple[el.values.Verdict, float]:
    started = time.monotonic()
    given = {"seeds": 2, "budget": 500, "out": out, "time_limit": limit} | options
    return contest.verdict(model, task or Reverse(), **given), time.monotonic() - started


@pytest.mark.parametrize("limit", [12.0, 25.0])
@pytest.mark.slow  # hangs on the clock: other work on the machine can fail it
def test_every_arm_runs_within_the_limit(digits_model: Build, limit: float) -> None:
    answer, taken = timed(digits_model(8), limit)
    judged = [
        arm for arm in answer.arms if not arm.is_control and arm.method != "examples"
    ]  # a control gets what is left
    assert {arm.status for arm in judged} == {"ok"}, [arm.reason for arm in judged]
    assert taken < 1.1 * limit


@pytest.mark.slow  # hangs on the clock: other work on the machine can fail it
def test_test_items_are_cut_to_what_the_limit_pays_for(
    digits_model: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = timing.evaluate

    def slow(model: Any, items: Any, *given: Any) -> Any:
        time.sleep(0.006 * len(items))
        return own(model, items, *given)

    monkeypatch.setattr(timing, "evaluate", slow)
    monkeypatch.setattr(trial, "evaluate", slow)
    monkeypatch.setattr(loop, "evaluate", slow)
    monkeypatch.setattr(pace, "DIGITS", replace(pace.DIGITS, test_items=64, validation_items=64))
    chosen = ["zero-shot", "kv-prefix", "lora", "soft-prompt"]
    run(digits_model(8), methods=["lora"])  # what is imported on first use takes seconds
    answer, taken = timed(digits_model(8), 6.0, tmp_path, methods=chosen, seeds=1)
    assert {arm.status for arm in answer.arms} == {"ok"}, [arm.reason for arm in answer.arms]
    assert {arm.items for arm in answer.arms} == {answer.arms[0].items}
    assert 32 <= answer.arms[0].items < 64
    said = f"pays for {answer.arms[0].items} of the 64 test items"  # of the validation items perhaps, too
    assert any(said in warning for warning in answer.provenance["warnings"])
    assert taken < 6.6
    with pytest.raises(BudgetError, match=r"too short.*kv-prefix"):
        timed(digits_model(8), 1.4, None, methods=["kv-prefix"], test_items=64)  # what is asked for is not cut down


@pytest.mark.slow  # hangs on the clock: other work on the machine can fail it
def test_a_race_against_the_clock_that_is_killed_goes_on_where_it_was(digits_model: Build, tmp_path: Path) -> None:
    class Killed(Silent):
        def begin(self, arm: str, what: str, arms_done: int, arms: int) -> None:
            if arm == "kv-prefix":
                raise KeyboardInterrupt

    model, chosen = digits_model(8), ["zero-shot", "lora", "kv-prefix"]
    with pytest.raises(KeyboardInterrupt):
        timed(model, 6.0, tmp_path, methods=chosen, reporter=Killed())
    left = {name: was for name, was in files(tmp_path).items() if not name.startswith("running")}  # ends of legs
    assert len([name for name in left if name.endswith("record.json")]) > 4
    time.sleep(0.3)
    whole, taken = timed(model, 6.0, tmp_path, methods=chosen)
    assert taken < 6.6
    assert left.items() <= files(tmp_path).items()  # nothing ran twice
    keys = [
        (*map(spec.get, ("method", "seed", "test_items")), str(spec["options"]), str(spec["plan"]))
        for spec in (record["spec"] for record in Store(tmp_path))
        if "plan" in spec and spec["plan"]["steps"]  # a choice that ran to its end is kept for every limit as well
    ]
    assert len(keys) == len(set(keys))
    assert {arm.status for arm in whole.arms} == {"ok"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": -1.0}, "learning rate must be more than 0 and finite"),
        ({"learning_rate": float("nan")}, "learning rate must be"),
        ({"size": 0}, "size must be at least 1, got 0"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"size": 2, "budget": 500}, "not both"),
        ({"method": "prompt"}, "not trained"),
    ],
)
def test_what_cannot_be_tuned_is_named(digits_model: Build, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        el.tune(digits_model(8), Reverse(), **{"method": "lora"} | options)


def test_weights_that_are_not_finite_stop_every_arm_and_not_the_race(digits_model: Build, tmp_path: Path) -> None:
    model = digits_model(8, dtype=torch.float32)
    with torch.no_grad():
        model.hf.transformer.h[0].mlp.c_fc.weight[0, 0] = float("inf")
    answer = run(model, tmp_path, methods=["zero-shot", "kv-prefix", "lora", "full"], seeds=1)
    status = {arm.method: arm.status for arm in answer.arms}
    assert "is not a number (NaN)" in answer.arms[0].reason
    assert status == {"zero-shot": "skipped", "kv-prefix": "diverged", "lora": "diverged", "full": "diverged"}
    assert answer.label == "inconclusive"
    from elicitable.report.verdict_json import verdict_to_json

    assert json.loads(json.dumps(verdict_to_json(answer), allow_nan=False))["label"] == "inconclusive"


def test_a_learning_rate_far_too_high_stops_that_arm(digits_model: Build, tmp_path: Path) -> None:
    with pytest.raises(TrainingDivergedError, match="give a lower one"):
        el.tune(digits_model(8), Reverse(), method="full", learning_rate=1e200, steps=4, out=tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists() or not list((tmp_path / "adapter").iterdir())


@pytest.mark.parametrize("method", ["prompt", "kv-prefix"])
def test_a_verdict_looks_inside_the_context_it_speaks_of(digits_model: Build, tmp_path: Path, method: str) -> None:
    model = digits_model(8)
    answer = run(model, tmp_path, methods=["zero-shot", method, "full"])
    arm = next(arm for arm in answer.arms if arm.method == method)
    assert answer.inspection.prefix == arm.budget.keys_per_layer
    assert answer.inspection.largest_residual() < 1e-12  # both identities, in float64
    again = run(model, tmp_path, methods=["zero-shot", method, "full"])  # the tensors come from the store
    assert again.inspection.heads == answer.inspection.heads
    assert run(model, methods=["zero-shot", "full"]).inspection is None


def test_a_verdict_names_every_kind_of_processor_that_its_records_were_made_on(
    digits_model: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a race that was begun on one kind and went on on another it named the last."""
    model, own = digits_model(8), kind()
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(processor, "kind", lambda device=None: "avx2")
        first = run(model, tmp_path, methods=["zero-shot"])
    both = run(model, tmp_path, methods=["zero-shot", "prompt"])
    assert first.provenance["processor"] == "avx2"
    assert both.provenance["processor"] == f"avx2, {own}"
    kept = list(Store(tmp_path))
    assert {one["device"] for one in kept} == {both.provenance["device"]} == {"cpu"}
    assert all(one["processor"] in ("avx2", own) for one in kept)


def test_two_methods_of_one_name_are_refused(digits_model: Build) -> None:
    """The later one took the place of the other, which took no part and was not said to be missing."""

    class Timid(KVPrefix):
        schedule = Schedule((1e-4, 3e-4))

    model = digits_model(8)
    with pytest.raises(InputError, match="two different methods are called 'kv-prefix'"):
        contest.verdict(model, Reverse(), methods=["kv-prefix", Timid()], steps=2, seeds=1)
    assert len(contest.verdict(model, Reverse(), methods=["zero-shot", "zero-shot"], seeds=1).arms) == 1
