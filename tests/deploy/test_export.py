"""What is exported answers as the race did, also where this package is not there; what cannot be is refused by name."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import elicitable as el
from elicitable.deploy.artefact import kept_in
from elicitable.deploy.export import FORMS, forms_of
from elicitable.deploy.forms import cache, merged, text
from elicitable.deploy.forms.form import Winner
from elicitable.errors import InputError, UnknownNameError
from elicitable.methods.catalog import method_named
from elicitable.models.architectures import tiny_model
from elicitable.models.load import save_model
from elicitable.rng import torch_generator
from elicitable.tasks.catalog import task_from

CAN = {
    "zero-shot": ("prompt",),
    "prompt": ("prompt", "prompt-embeds", "kv"),
    "examples": ("prompt", "prompt-embeds", "kv"),
    "soft-prompt": ("peft", "prompt-embeds", "kv"),
    "layer-prefix": ("peft", "kv"),
    "kv-prefix": ("peft", "kv"),
    "lora": ("peft", "merged"),
    "lora-behind-examples": ("peft", "merged"),
    "full": ("merged",),
    "nearest-examples": (),
    "steering": (),
    "value-bias": (),
}
ALONE = """
import sys, warnings
import torch
from safetensors.torch import load_file, save_file
warnings.simplefilter("ignore")
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM
ids, out, *folders = sys.argv[1:]
found = {}
for folder in folders:
    auto = AutoPeftModelForCausalLM if folder.endswith("peft") else AutoModelForCausalLM
    model = auto.from_pretrained(folder).eval()
    with torch.no_grad():
        found[folder] = model(input_ids=load_file(ids)["ids"]).logits.contiguous()
save_file(found, out)
assert not any(name.split(".")[0] == "elicitable" for name in sys.modules)
"""


def alone(folders: list[Path], ids: torch.Tensor, place: Path) -> dict[str, torch.Tensor]:
    """The logits of each folder in a process that never imports this package."""
    from safetensors.torch import save_file

    save_file({"ids": ids}, place / "ids.safetensors")
    given = [str(place / "ids.safetensors"), str(place / "logits.safetensors"), *map(str, folders)]
    clean = {"PYTHONPATH": "", "PATH": "", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", ALONE, *given], check=True, env=clean, cwd=place)
    return dict(load_file(place / "logits.safetensors"))


@pytest.mark.parametrize("which", ["labels_run", "written_run"])
def test_every_form_is_written_where_it_can_be_and_refused_with_what_can_be(
    which: str, request: Any, tmp_path: Path
) -> None:
    run = request.getfixturevalue(which)
    model = el.load(str(run.model))
    for artefact in kept_in(run.folder):
        assert artefact.record is not None
        name = artefact.record.method
        for form in FORMS:
            out = tmp_path / f"{name}-{form.name}"
            if form.name in CAN[name]:
                assert el.export(artefact, form.name, out, model=model) == out
                card = (out / "README.md").read_text()
                assert f"hash `{artefact.record.base.hash}`" in card
                assert f"hash `{artefact.record.data_hash}`" in card
                result = artefact.record.result
                assert f"{result.mean:.4f} [{result.low:.4f}, {result.high:.4f}]" in card
                assert f"| numbers trained | {artefact.record.budget.numbers_trained:,} |" in card
                assert "license: " in card.split("---")[1]
            else:
                with pytest.raises(InputError, match=f"{name} cannot be exported to {form.name}: .* It can be to"):
                    el.export(artefact, form.name, out, model=model)
                assert not out.exists()
        assert forms_of(Winner(model, artefact.adaptation(model), artefact.record)) == CAN[name]
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}-{form}" for name, can in CAN.items() for form in can}


def test_plain_transformers_and_plain_peft_give_the_same_logits(written_run: Any, tmp_path: Path) -> None:
    model = el.load(str(written_run.model))
    ids, wanted = model.ids("say it now"), {}
    for method, form in (("lora", "merged"), ("full", "merged"), ("lora", "peft"), ("kv-prefix", "peft")):
        artefact = el.read(written_run.folder, method)
        folder = el.export(artefact, form, tmp_path / f"{method}-{form}", model=model)
        with el.use(model, artefact), torch.no_grad():
            wanted[str(folder)] = model(input_ids=ids).logits
    found = alone([Path(folder) for folder in wanted], ids, tmp_path)
    with torch.no_grad():
        plain = model(input_ids=ids).logits
    for folder, logits in wanted.items():
        assert (logits - plain).abs().max() > 1e-3
        # two float32 computations, one of rounded sums W + ΔW; 2.05e-6 was seen on `avx2` (float64: see below)
        assert (found[folder] - logits).abs().max() <= 4e-6 * logits.abs().max(), folder


def test_weights_behind_a_text_are_exported_with_the_text(written_run: Any, tmp_path: Path) -> None:
    model = el.load(str(written_run.model))
    artefact, ids = el.read(written_run.folder, "lora-behind-examples"), model.ids("say it now")
    with el.use(model, artefact), torch.no_grad():
        wanted = model(input_ids=ids).logits
    folders = [el.export(artefact, form, tmp_path / form, model=model) for form in ("peft", "merged")]
    for folder in folders:
        assert "trained behind a text" in (folder / "README.md").read_text()
        held = json.loads((folder / "token_ids.json").read_text())["token_ids"]
        assert model.ids((folder / "prompt.txt").read_text())[0, : len(held)].tolist() == held
    found = alone(folders, torch.cat([torch.tensor([held]), ids], dim=1), tmp_path)
    for folder in folders:  # rotary angles in float32, at other positions
        assert (found[str(folder)][:, len(held) :] - wanted).abs().max() <= 5e-5 * wanted.abs().max()
    bare = alone(folders[:1], ids, tmp_path)[str(folders[0])]
    assert (bare - wanted).abs().max() > 1e-3


def test_a_merge_in_float64_is_exact_to_the_last_digits(tmp_path: Path) -> None:
    model = el.load("toy:ascending", dtype="float64")
    el.tune(model, "descending", method="lora", size=2, learning_rate=0.01, steps=5, out=tmp_path / "run")
    winner = Winner(model, el.read(tmp_path / "run").adaptation(model), el.read(tmp_path / "run").record)  # type: ignore[arg-type]
    before = {name: weight.clone() for name, weight in model.hf.state_dict().items()}
    ids = winner.sample()
    with torch.no_grad():
        found = merged.merged(winner).hf(input_ids=ids).logits
    assert (found - winner.logits(ids)).abs().max() < 1e-12
    assert all(weight.equal(before[name]) for name, weight in model.hf.state_dict().items())


@pytest.mark.parametrize("method", ["soft-prompt", "examples", "prompt"])
def test_embeddings_come_back_bit_for_bit(method: str, written_run: Any, tmp_path: Path) -> None:
    model = el.load(str(written_run.model))
    artefact = el.read(written_run.folder, method)
    el.export(artefact, "prompt-embeds", tmp_path / "out", model=model)
    kept = artefact.adaptation(model).embeddings(model)
    assert kept is not None
    assert kept.shape[1] == model.anatomy.d_model
    assert load_file(tmp_path / "out" / "prompt_embeds.safetensors")["prompt_embeds"].equal(kept)
    assert torch.load(tmp_path / "out" / "prompt_embeds.pt", weights_only=True).equal(kept)


@pytest.mark.parametrize("which", ["labels_run", "written_run"])
@pytest.mark.parametrize("method", ["kv-prefix", "layer-prefix", "soft-prompt", "examples"])
def test_keys_and_values_are_an_ordinary_cache(method: str, which: str, request: Any, tmp_path: Path) -> None:
    """In float64, where only the last digits are left to rounding."""
    run = request.getfixturevalue(which)
    model = el.load(str(run.model), dtype="float64")
    artefact = el.read(run.folder, method)
    adaptation = artefact.adaptation(model, any_base=True)
    assert artefact.record is not None
    winner = Winner(model, adaptation, artefact.record)
    [said] = cache.FORM.write(winner, tmp_path)
    rotary_angles = 5e-5  # transformers computes them in float32, and positions have moved
    apart = float(said.split(" to ")[1].split(" ")[0])
    assert apart < (rotary_angles if model.anatomy.has_relative_positions and method != "kv-prefix" else 1e-11)
    layers = json.loads((tmp_path / "kv.json").read_text())["layers"]
    first = load_file(tmp_path / f"{layers[0]}.safetensors")["kv_cache"]
    facts = model.anatomy.layers[0]
    assert first.shape == (2, adaptation.keys_per_layer(), facts.kv_heads * facts.d_head)
    given: dict[str, Any] = {"torch": torch, "kv_cache": first, "kv_heads": facts.kv_heads}
    exec(cache.SIDE_BY_SIDE, given)  # the line of the card
    prefix = winner.whole_prefix()
    assert prefix is not None
    assert prefix.keys[0] is not None
    assert prefix.values[0] is not None
    for one, x in zip(given["kv_cache"].split(facts.d_head, dim=-1), (prefix.keys[0], prefix.values[0]), strict=True):
        assert one.equal(x[0].transpose(0, 1))


def test_the_text_of_a_prompt_is_what_a_client_sends(labels_run: Any, tmp_path: Path) -> None:
    el.export(labels_run.folder, "prompt", tmp_path / "out", method="examples")
    text = (tmp_path / "out" / "prompt.txt").read_text()
    kept = json.loads((tmp_path / "out" / "messages.json").read_text())
    assert text.endswith("{text}:")
    assert kept["placeholders"] == {"text": "{text}"}
    assert kept["labels"] == ["maybe", "no way", "yes"]
    assert [turn["role"] for turn in kept["messages"]][:2] == ["user", "assistant"]
    assert kept["messages"][-1] == {"role": "user", "content": "{text}:"}
    shown = [turn["content"] for turn in kept["messages"][:-1]]
    assert all(content in text for content in shown)
    record = el.read(labels_run.folder, "examples").record
    assert record is not None
    ids = json.loads((tmp_path / "out" / "token_ids.json").read_text())["token_ids"]
    assert ids == list(record.held)
    model = el.load(str(labels_run.model))
    assert model.ids(text)[0, : len(ids)].tolist() == ids


def test_a_start_that_the_race_put_in_front_is_exported(letters_model: Callable[..., el.Model], tmp_path: Path) -> None:
    """A tokenizer that has a start token and writes none: the race wrote it, and the exported text went without."""
    model = letters_model()
    rows = [{"text": f"{a}{b}", "label": "yes" if a < b else "no"} for a in "abcdefgh" for b in "ijklabcd"]
    task = task_from(rows)
    el.verdict(model, task, methods=["zero-shot"], seeds=1, test_items=8, out=tmp_path / "run")
    zero = el.read(tmp_path / "run")
    assert zero.record is not None
    for start, ids in (("bos", [0]), ("own", [])):
        record = replace(zero.record, layout=replace(zero.record.layout, start=start))
        winner = Winner(model, zero.adaptation(model), record)
        folder = tmp_path / start
        folder.mkdir()
        text.FORM.write(winner, folder)
        assert json.loads((folder / "token_ids.json").read_text())["token_ids"] == ids
        assert ("`<s>` (id 0)" in text.FORM.usage(winner)) is bool(ids)


def test_a_placeholder_is_one_that_no_text_holds(labels_run: Any, tmp_path: Path) -> None:
    from dataclasses import replace

    from elicitable.deploy.forms import text

    artefact = el.read(labels_run.folder, "zero-shot")
    assert artefact.record is not None
    form = replace(artefact.record.form, literals=("as in {text} ", ":"))
    model = el.load(str(labels_run.model))
    winner = Winner(model, artefact.adaptation(model), replace(artefact.record, form=form))
    text.FORM.write(winner, tmp_path)
    assert (tmp_path / "prompt.txt").read_text() == "as in {text} {text_}:"


def test_nothing_is_left_of_an_export_that_fails_its_test(
    written_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for method, form in (("lora", "merged"), ("lora", "peft"), ("soft-prompt", "prompt-embeds"), ("kv-prefix", "kv")):
        with monkeypatch.context() as patch:
            logits = Winner.logits
            patch.setattr(Winner, "sample", lambda self: torch.tensor([[1, 2, 3], [4, 5, 6]]))
            turns = iter([0.0, 0.01, 0.02])
            patch.setattr(Winner, "logits", lambda self, ids: logits(self, ids) + next(turns))  # noqa: B023
            if form != "peft":
                next(turns)
            with pytest.raises(InputError, match="the self-test failed"):
                el.export(written_run.folder, form, tmp_path / "out", method=method)
        assert list(tmp_path.iterdir()) == []


def test_arguments_that_make_no_sense_are_named(labels_run: Any, call: Callable[..., Any], tmp_path: Path) -> None:
    run = str(labels_run.folder)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    for given, said in (
        ((run, "--to", "gguf", "--out", "x"), "unknown form 'gguf'"),
        ((run, "--to", "merged", "--out", "full"), "full is there already"),
        ((run, "--to", "merged", "--out", "x", "--method", "soft-prompt"), "It can be to peft, prompt-embeds, kv."),
        ((run, "--to", "peft", "--out", "x", "--method", "full"), "It can be to merged."),
        ((run, "--to", "merged", "--out", "x", "--method", "zero-shot"), "use the base model. It can be to prompt."),
    ):
        code, _, err = call("export", *given)
        assert (code, said in err) == (2, True), err
    with pytest.raises(UnknownNameError):
        el.export(labels_run.folder, "vllm", tmp_path / "x")
    code, out, _ = call("export", run, "--to", "kv", "--out", "kv", "--method", "kv-prefix", "--license", "mit")
    assert (code, out) == (0, "kv: kv\n")
    assert 'license: "mit"' in (tmp_path / "kv" / "README.md").read_text()


def test_the_license_of_the_base_is_read_off_its_card(tmp_path: Path) -> None:
    from elicitable.deploy.card import license_of

    assert license_of(str(tmp_path)) == license_of(None) == "unknown"
    (tmp_path / "README.md").write_text("---\nlicense: apache-2.0\n---\nlicense: none\n")
    assert license_of(str(tmp_path)) == "apache-2.0"
    (tmp_path / "README.md").write_text("license: none\n")
    assert license_of(str(tmp_path)) == "unknown"


FUSED = ("gpt2", "gpt_neox", "phi3", "falcon", "bloom", "mpt")  # queries, keys and values in one matrix


@pytest.mark.parametrize("method", ["queries-and-keys", "values-and-output", "random-subspace"])
@pytest.mark.parametrize("name", FUSED)
def test_a_part_of_a_matrix_is_merged_into_all_of_it(name: str, method: str, labels_run: Any, tmp_path: Path) -> None:
    model, ids = el.load(tiny_model(name, dtype=torch.float32)), torch.arange(6)[None] + 3
    change, record = method_named(method).build(model, 4, 0), el.read(labels_run.folder, "full").record
    with torch.no_grad():
        for nth, number in enumerate(change.parameters()):
            number.add_(0.1 * torch.randn(number.shape, generator=torch_generator(nth, "moved")))
        plain = model(input_ids=ids).logits
    assert record is not None
    winner = Winner(model, change, record)
    assert merged.FORM.refusal(winner) is None
    whole = merged.merged(winner)
    assert whole.hf.state_dict().keys() == model.hf.state_dict().keys()
    save_model(whole, tmp_path)
    with el.use(model, change), torch.no_grad():
        wanted = model(input_ids=ids).logits
        found = el.load(tmp_path).hf(input_ids=ids).logits
    assert (wanted - plain).abs().max() > 1e-3
    torch.testing.assert_close(found, wanted, rtol=0.0, atol=4e-6 * float(wanted.abs().max()))  # float32, as above


def test_what_replays_the_base_models_attention_is_not_merged(labels_run: Any) -> None:
    model, record = el.load(tiny_model("gpt2")), el.read(labels_run.folder, "full").record
    assert record is not None
    winner = Winner(model, method_named("frozen-attention").build(model, 1, 0), record)
    assert str(merged.FORM.refusal(winner)).endswith("stands in no weight")
    assert "merged" not in forms_of(winner)


def test_what_peft_has_no_weight_for_is_not_merged(labels_run: Any, tmp_path: Path) -> None:
    model, record = el.load(tiny_model("llama", dtype=torch.float32)), el.read(labels_run.folder, "full").record
    assert record is not None
    beside = Winner(model, method_named("peft:adaption_prompt").build(model, 2, 0), record)
    assert str(merged.FORM.refusal(beside)).endswith("stands in no weight")
    assert forms_of(beside) == ("peft",)
    biases = Winner(model, method_named("peft:beft").build(model, 1, 0), record)
    with pytest.raises(InputError, match=r"PEFT cannot merge .*Linear.*: Base layer has no bias"):
        merged.FORM.write(biases, tmp_path)
