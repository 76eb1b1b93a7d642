"""A winner is a folder: written by a race and by tune, read again bit for bit, and never taken for something else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import elicitable as el
from elicitable.cache import seal, sealed_files
from elicitable.deploy.artefact import ARTEFACT, KEPT, WINNER, kept_in
from elicitable.errors import InputError, StoreError, UnknownNameError
from elicitable.methods.adapter import write_adapter
from elicitable.methods.catalog import EXTRAS, METHODS
from elicitable.models.inject import differs_by_item
from elicitable.models.speed.processor import kind


def logits(model: Any, context: Any = None) -> torch.Tensor:
    ids = model.ids("say it now") if model.tokenizer is not None else model.ids([3, 1, 2, 0, 5])
    with torch.no_grad():
        if context is None:
            found: torch.Tensor = model(input_ids=ids).logits
            return found
        with el.use(model, context):
            return model(input_ids=ids).logits  # type: ignore[no-any-return]


@pytest.mark.parametrize("which", ["labels_run", "written_run"])
def test_a_race_writes_its_winner_and_everything_that_is_to_be_kept(which: str, request: Any) -> None:
    run = request.getfixturevalue(which)
    kept = {one.record.method: one.record for one in kept_in(run.folder) if one.record}
    assert set(kept) == {arm.method for arm in run.answer.arms if arm.status == "ok"}
    assert set(kept) >= {method.name for method in (*METHODS, *EXTRAS)}
    [first] = [record for record in kept.values() if record.role != "kept"]
    assert first.role == ("winner" if run.answer.answer == first.method else "best")
    assert first.verdict == run.answer.label
    assert not (run.folder / "aside").exists()
    for arm in run.answer.arms:
        record = kept[arm.method]
        assert (record.result.mean, record.result.low, record.result.high) == (arm.mean, arm.low, arm.high)
        assert record.budget == arm.budget
        assert record.base.path == str(run.model)
        assert record.task == "train.csv"


@pytest.mark.parametrize("which", ["labels_run", "written_run"])
def test_what_is_read_is_what_the_trial_kept_bit_for_bit(which: str, request: Any) -> None:
    run = request.getfixturevalue(which)
    model = el.load(str(run.model))
    plain = logits(model)
    for one in kept_in(run.folder):
        assert one.record is not None
        adaptation = one.adaptation(model)
        trained = run.folder / "trials" / one.record.identity / "state.safetensors"
        if trained.exists():
            kept, state = load_file(trained), adaptation.state()
            assert state.keys() == kept.keys()
            assert all(tensor.equal(kept[name]) for name, tensor in state.items())
        if differs_by_item(adaptation):
            with pytest.raises(InputError, match="differs from item to item"):
                logits(model, one.folder)
            continue
        with_it = logits(model, one.folder)
        assert torch.equal(with_it, plain) == (one.record.method == "zero-shot")
    assert torch.equal(logits(model), plain)


def test_all_weights_are_held_once_and_loaded_by_transformers(labels_run: Any) -> None:
    from transformers import AutoModelForCausalLM

    folder = next(one.folder for one in kept_in(labels_run.folder) if one.record and one.record.method == "full")
    assert [path.name for path in folder.glob("*.safetensors")] == ["model.safetensors"]
    model = el.load(str(labels_run.model))
    alone = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        assert torch.equal(alone(input_ids=model.ids("say it now")).logits, logits(model, folder))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks transformers by an old name
def test_the_base_of_an_adapter_is_a_path_that_plain_peft_finds(written_run: Any) -> None:
    from peft import AutoPeftModelForCausalLM

    model = el.load(str(written_run.model))
    for method in ("lora", "kv-prefix", "soft-prompt"):
        artefact = el.read(written_run.folder, method)
        alone = AutoPeftModelForCausalLM.from_pretrained(artefact.folder).eval()
        with torch.no_grad():
            found = alone(input_ids=model.ids("say it now")).logits
        ours = logits(model, artefact)
        # either is up to 3.4e-6 of the largest logit from float64: peft's prompt stands at other positions, whose
        # angles are rounded otherwise
        assert torch.allclose(found[:, -10:], ours, rtol=0, atol=1e-5 * float(ours.abs().max())), method


def test_a_toy_has_a_folder_that_transformers_loads(digits_run: Callable[..., Any]) -> None:
    from transformers import AutoModelForCausalLM

    record = el.read(digits_run("descending", methods=["zero-shot"])[1]).record
    assert record is not None
    assert record.base.path is not None
    model = el.load("toy:ascending")
    alone = AutoModelForCausalLM.from_pretrained(record.base.path).eval()
    with torch.no_grad():
        assert torch.equal(alone(input_ids=model.ids([3, 1, 2, 0, 5])).logits, logits(model))


def test_the_model_as_it_is_can_win_and_is_an_artefact_too(digits_run: Callable[..., Any]) -> None:
    artefact = el.read(digits_run("descending", methods=["zero-shot", "prompt"])[1])
    assert artefact.record is not None
    assert artefact.record.role == "best"  # nothing sorts the other way round
    assert artefact.record.form.ids
    assert artefact.record.longest_answer == 10
    assert (artefact.record.processor, artefact.record.device) == (kind(), "cpu")


def test_the_same_race_writes_nothing_anew(tmp_path: Path) -> None:
    def run() -> dict[Path, int]:
        given: dict[str, Any] = {"methods": ["prompt", "kv-prefix"], "seeds": 1, "steps": 3, "test_items": 40}
        el.verdict("toy:ascending", "descending", keep=["kv-prefix"], out=tmp_path, **given)
        return {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}

    assert run() == run()


def test_only_what_takes_part_can_be_kept(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown method to keep 'kvprefix': did you mean 'kv-prefix'"):
        el.verdict("toy:ascending", "descending", methods=["kv-prefix"], keep=["kvprefix"], out=tmp_path)


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    el.verdict("toy:ascending", "descending", methods=["zero-shot"], seeds=1, test_items=20)
    assert list(tmp_path.iterdir()) == []


def test_tune_writes_the_same_form_and_use_takes_its_folder(tmp_path: Path) -> None:
    tuned = el.tune("toy:ascending", "descending", method="kv-prefix", size=2, learning_rate=0.1, steps=3, out=tmp_path)
    artefact = el.read(tmp_path)
    assert artefact.record is not None
    assert (artefact.record.role, artefact.record.result.mean) == ("tuned", tuned.record["mean"])
    model = el.load("toy:ascending")
    assert torch.equal(logits(model, str(tmp_path)), logits(model, tuned.adaptation))
    assert torch.equal(logits(model, artefact), logits(model, tuned.adaptation))
    with el.watch(model, tmp_path) as scope:
        logits(model)
    assert scope.attention_residual.max() < 1e-5


def test_a_plain_adapter_folder_is_used_as_it_is(tmp_path: Path) -> None:
    from elicitable.methods.adapter import write_adapter

    model = el.load("toy:ascending")
    context = el.context("soft-prompt", model, length=2, init="random")
    write_adapter(model, context, tmp_path)
    assert el.read(tmp_path).record is None
    assert torch.equal(logits(model, tmp_path), logits(model, context))


def test_another_base_model_is_refused_by_its_hash(tmp_path: Path) -> None:
    el.tune("toy:ascending", "descending", method="value-bias", learning_rate=0.1, steps=2, out=tmp_path)
    model = el.load("toy:ascending")
    with torch.no_grad():
        next(model.hf.parameters()).add_(1e-3)
    with pytest.raises(InputError, match="was made for toy:ascending"), el.use(model, tmp_path):
        pass
    assert el.read(tmp_path).adaptation(model, any_base=True).parameters()
    half = el.load("toy:ascending", dtype="bfloat16")
    with pytest.raises(InputError, match="in float32, and this one is in bfloat16"), el.use(half, tmp_path):
        pass


def test_a_mistyped_folder_is_named_with_what_is_near(tmp_path: Path) -> None:
    (tmp_path / "kv-prefix").mkdir()
    model = el.load("toy:ascending")
    for name in (tmp_path / "kv-prefx", str(tmp_path / "kv-prefx")):
        with pytest.raises(InputError, match=r"no such folder; did you mean .*kv-prefix"), el.use(model, name):
            pass
    with pytest.raises(InputError, match=r"neither an artefact|no artefact and no adapter"):
        el.read(tmp_path / "kv-prefix")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        el.read(tmp_path / "file")


def test_adapters_in_folders_are_named(tmp_path: Path) -> None:
    """PEFT saves adapters with names into folders of these names."""
    model = el.load("toy:ascending")
    for name in ("a", "b"):
        write_adapter(model, el.context("kv-prefix", model, length=2), tmp_path / name)
    with pytest.raises(InputError, match=r"give one of them: .*/a, .*/b\.$"):
        el.read(tmp_path)
    assert el.read(tmp_path / "a").adaptation(model).keys_per_layer() == 2


def test_a_model_folder_is_no_artefact(written_run: Any) -> None:
    with pytest.raises(InputError, match=r"a model, which el.load loads"):
        el.read(written_run.model)


def test_what_was_not_kept_is_named_with_what_was(digits_run: Callable[..., Any]) -> None:
    run = digits_run("descending", methods=["zero-shot", "prompt"], keep=["prompt", "zero-shot"])[1]
    with pytest.raises(UnknownNameError, match=r"'lora'.*Known: prompt, zero-shot. Keep it in the race: --keep"):
        el.read(run, "lora")
    shutil.rmtree(run / WINNER)
    with pytest.raises(InputError, match="has no winner; it keeps"):
        el.read(run)
    [folder] = (run / KEPT).iterdir()
    assert el.read(folder).record is not None


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("method", None, "method must be a text"),
        ("surplus", 1, "surplus is no key"),
        ("role", "loser", "role must be one of winner"),
        ("form_version", 99, "written by a newer elicitable"),
        ("layout", {"cut": "top"}, "layout.cut must be one of left, right"),
        ("form", {"kind": "generation", "columns": [], "main": "", "literals": ["", ""]}, "form.slots"),
    ],
)
def test_a_record_is_held_to_its_form(key: str, value: Any, said: str, digits_run: Callable[..., Any]) -> None:
    run = digits_run("descending", methods=["zero-shot"])[1]
    path = run / WINNER / ARTEFACT
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    seal(path.parent, sealed_files(path.parent) or ())  # by whoever wrote it
    with pytest.raises(StoreError, match=said):
        el.read(run)


def test_a_method_of_your_own_comes_back_with_its_own_class(tmp_path: Path) -> None:
    from elicitable.methods.value_bias import ValueBias, ValueBiasAdaptation

    class Mine(ValueBias):
        name = "mine"

        def build(self, model: Any, size: int = 1, seed: int = 0, **options: Any) -> ValueBiasAdaptation:
            built = super().build(model, size, seed, **options)
            built.kind = self.name  # type: ignore[misc]
            return built

    el.verdict(
        "toy:ascending", "descending", methods=["zero-shot", Mine()], keep=["mine"], seeds=1, steps=2, out=tmp_path
    )
    artefact, model = el.read(tmp_path, "mine"), el.load("toy:ascending")
    with pytest.raises(UnknownNameError, match=r"unknown method 'mine'.*my_method.py:MyMethod"):
        artefact.adaptation(model)
    assert artefact.adaptation(model, [Mine()]).state()["layers.0"].any()


def test_all_weights_survive_a_race_that_is_killed_before_it_is_decided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {"methods": ["full"], "seeds": 2, "steps": 3, "test_items": 40, "out": tmp_path}
    with monkeypatch.context() as patch:
        patch.setattr("elicitable.race.contest._judge", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            el.verdict("toy:ascending", "descending", **given)
    assert len(list((tmp_path / "aside").iterdir())) == 1
    el.verdict("toy:ascending", "descending", **given)
    model = el.load("toy:ascending")
    assert not torch.equal(logits(model, tmp_path), logits(model))
    answer = el.verdict("toy:ascending", "descending", **(given | {"methods": ["full", "zero-shot"], "keep": ["full"]}))
    assert answer.provenance["warnings"] is not None


def test_the_command_line_takes_no_folder_for_a_text(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from elicitable.cli.commands import app

    given = ["inspect", "--model", "toy:ascending", "--task", "ascending", "--out", str(tmp_path / "out")]
    for context, said in (
        (["--context", "kvdd"], "kvdd: there is no such folder. The text of a prompt is given by --prompt."),
        ([], "give either a folder"),
        (["--context", str(tmp_path), "--prompt", "3"], "give either a folder"),
    ):
        done = CliRunner().invoke(app, [*given, *context])
        assert isinstance(done.exception, InputError)
        assert said in str(done.exception)
    el.tune("toy:ascending", "ascending", method="kv-prefix", size=1, learning_rate=0.1, steps=2, out=tmp_path / "kv")
    done = CliRunner().invoke(app, [*given, "--context", str(tmp_path / "kv"), "--texts", "3", "--quiet"])
    assert done.exit_code == 0, done.output
