"""Compile every kind of context into every form, write it, and read it where nothing of this package is known."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import elicitable as el
from elicitable.cache import check_seal, seal, sealed_files
from elicitable.compiling.fidelity import NOTHING, last_logits
from elicitable.compiling.pairs import Side
from elicitable.compiling.patch import fresh, multiplied_out
from elicitable.compiling.report import compiled_table, write_compiled
from elicitable.errors import InputError, UnknownNameError
from elicitable.methods.adapter import read_adapter, write_adapter
from elicitable.methods.kv_prefix import KVPrefixContext
from elicitable.methods.peft_weights import peft_logits
from elicitable.models.architectures import tiny_model
from elicitable.models.inject import prefix_of
from elicitable.models.model import Model
from elicitable.models.sites import sites_of
from elicitable.models.speed.processor import kind
from elicitable.rng import generator, torch_generator
from elicitable.tasks.catalog import task_from

IDS = torch.tensor([[12, 40, 5, 6, 33, 9]])
KINDS: dict[str, dict[str, Any]] = {
    "prompt": {"token_ids": [7, 9, 4, 11]},
    "soft-prompt": {"length": 3, "init": "random"},
    "layer-prefix": {"length": 3, "init": "random"},
    "kv-prefix": {"length": 3, "init": "random"},
}


def texts(vocab: int, count: int = 12, length: int = 6) -> list[list[int]]:
    return torch.randint(vocab, (count, length), generator=torch_generator(0, "texts")).tolist()


def compiled(model: Model, context: Any, **recipe: Any) -> Any:
    given = {"steps": 0, "control": False, "ridges": (1e-2,)} | recipe
    return el.compile_context(model, context, texts(min(model.anatomy.vocab, 60)), **given)


@pytest.mark.parametrize("kind", KINDS)
def test_a_context_of_every_kind_becomes_a_lora_that_is_nearer_to_it_than_nothing(kind: str) -> None:
    model = el.load("toy:ascending", dtype="float64")
    given = KINDS[kind] | ({"token_ids": [7, 0, 3, 5]} if kind == "prompt" else {})
    context = el.context(kind, model, **given)
    found = el.compile_context(model, context, texts(8, 40, 8), rank=8, steps=0, ridges=(1e-2,), control=False).record
    assert found["compiled"]["kl_nats"] < 0.5 * found["neither"]["kl_nats"]
    assert found["neither"]["kl_nats"] > 0.1


_PLAIN = """
import sys, torch
from transformers import AutoModelForCausalLM
from peft import PeftModel
ids = torch.tensor([[12, 40, 5, 6, 33, 9]])
for place in sys.argv[1:]:
    base = AutoModelForCausalLM.from_pretrained(place + "/base", dtype=torch.float64)
    model = PeftModel.from_pretrained(base, place + "/adapter")
    with torch.no_grad():
        before = model(input_ids=ids).logits
        model.merge_and_unload().save_pretrained(place + "/merged")
        merged = AutoModelForCausalLM.from_pretrained(place + "/merged", dtype=torch.float64)
        torch.save({"adapter": before, "merged": merged(input_ids=ids).logits}, place + "/out.pt")
assert not any(name.split(".")[0] == "elicitable" for name in sys.modules)
"""


def test_a_compiled_lora_loads_in_peft_merges_and_answers_without_a_context_in_plain_transformers(
    tmp_path: Path,
) -> None:
    made = {}
    for name in ("llama", "gpt2"):
        place = tmp_path / name
        hf = tiny_model(name)
        hf.save_pretrained(place / "base")
        model = Model(hf, name=name, source=str(place / "base"))
        patch = compiled(model, el.context("kv-prefix", model, length=3, init="random"), rank=4).adaptation
        write_adapter(model, patch, place / "adapter")
        made[place] = model, patch
    # one process for both, as importing transformers and peft is what takes time
    subprocess.run([sys.executable, "-c", _PLAIN, *map(str, made)], check=True, capture_output=True, cwd=tmp_path)
    side = Side(IDS, torch.ones_like(IDS))
    for place, (model, patch) in made.items():
        found = torch.load(place / "out.pt")
        with torch.no_grad():
            ours, bare = (last_logits(model, one, side, 6) for one in (patch, NOTHING))
        # norms in float32
        assert (found["adapter"] - ours).abs().max() < 1e-5 * ours.abs().max()
        assert (found["merged"] - ours).abs().max() < 1e-5 * ours.abs().max()
        assert (bare - ours).abs().max() > 1e-2
        with torch.no_grad(), el.use(model, read_adapter(model, place / "adapter")):
            read = model(input_ids=IDS).logits
        assert (read - ours).abs().max() < 1e-5 * ours.abs().max()


def test_several_contexts_are_one_and_a_mixture_of_experts_is_patched_where_every_token_goes() -> None:
    model = Model(tiny_model("mixtral"), name="mixtral")
    parts = [el.context("prompt", model, token_ids=[7, 9]), el.context("kv-prefix", model, length=2, init="random")]
    both = compiled(model, parts, rank=2)
    joined = compiled(model, prefix_of(model, parts), rank=2)
    assert both.record["context_keys"] == 4
    assert both.record["compiled"] == joined.record["compiled"]
    assert (both.record["down_projections"], both.record["blocks"]) == (0, 2)
    assert all("o_proj" in site for site in both.adaptation.numbers)
    assert "choose among experts" in compiled_table(both.record).replace("\n", " ")


@pytest.mark.parametrize("name", ["afmoe", "glm4_moe"])
def test_a_lora_leaves_out_what_peft_takes_for_experts(name: str, tmp_path: Path) -> None:
    """PEFT looked for ``down_proj`` among the experts' parameters, and nobody could read what had been written."""
    model = Model(tiny_model(name), name=name)
    found = compiled(model, el.context("prompt", model, token_ids=[7, 9]), rank=2)
    write_compiled(model, found, tmp_path / "adapter")
    with torch.no_grad():
        with el.use(model, found.adaptation):
            ours = model(input_ids=IDS).logits
        with el.use(model, read_adapter(model, tmp_path / "adapter")):
            read = model(input_ids=IDS).logits
        theirs = peft_logits(model, tmp_path / "adapter", IDS)
    assert theirs is not None
    assert all("o_proj" in site for site in found.adaptation.numbers)
    assert (read - ours).abs().max() < 1e-5 * ours.abs().max()  # norms in float32
    assert (theirs - ours).abs().max() < 1e-5 * ours.abs().max()


def test_weights_are_written_as_a_model_that_transformers_loads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoModelForCausalLM

    model = Model(tiny_model("gpt2"), name="tiny")
    patch = compiled(model, el.context("prompt", model, token_ids=[7, 9, 4]), to="weights").adaptation
    capsys.readouterr()
    write_adapter(model, patch, tmp_path / "model")
    assert capsys.readouterr() == ("", "")  # nor does a progress bar of transformers'
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float64)
    with torch.no_grad():
        ours = last_logits(model, patch, Side(IDS, torch.ones_like(IDS)), 6)
        theirs = plain(input_ids=IDS).logits
    assert (ours - theirs).abs().max() < 1e-12 * ours.abs().max()


def test_a_folder_that_is_written_again_in_another_form_is_whole(tmp_path: Path) -> None:
    """What the old form leaves stays sealed; what the new one takes away is not sealed as if it were there."""
    model = Model(tiny_model("gpt2"), name="tiny")
    context = el.context("prompt", model, token_ids=[7, 9, 4])
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "note").write_text("mine", encoding="utf-8")
    seal(tmp_path, ["kept/note"])
    for to in ("lora", "weights", "lora"):
        write_compiled(model, compiled(model, context, to=to), tmp_path)
        told = json.loads((tmp_path / "elicitable.json").read_text(encoding="utf-8"))
        assert (told["processor"], told["device"]) == (kind(), "cpu")
        assert check_seal(tmp_path, "Compile it again.")
        assert "kept/note" in (sealed_files(tmp_path) or {})
        assert (tmp_path / "adapter_config.json").exists() == (to == "lora")


def test_a_short_prefix_beats_the_last_keys_of_the_context_and_is_a_folder_that_peft_knows(tmp_path: Path) -> None:
    model = el.load("toy:ascending", dtype="float64")
    context = el.context("prompt", model, token_ids=[7, 0, 3, 5, 1, 2, 6, 4, 3, 3, 0, 1])
    found = el.compile_context(model, context, texts(8, 40, 8), to="short-prefix", keys=4, steps=0)
    cut = el.context("prompt", model, token_ids=[3, 3, 0, 1])
    last = el.compile_context(model, context, texts(8, 40, 8), to="lora", rank=1, steps=0, control=False).record
    assert isinstance(found.adaptation, KVPrefixContext)
    assert found.record["compiled"]["kl_nats"] < 0.5 * last["neither"]["kl_nats"]
    side = Side(torch.tensor(texts(8, 40, 8)), torch.ones(40, 8, dtype=torch.long))
    with torch.no_grad():
        wanted, short, truncated = (last_logits(model, one, side, 8) for one in (context, found.adaptation, cut))
    assert (short - wanted).square().mean() < 0.5 * (truncated - wanted).square().mean()
    write_adapter(model, found.adaptation, tmp_path / "short")
    assert json.loads((tmp_path / "short" / "adapter_config.json").read_text())["peft_type"] == "PREFIX_TUNING"
    again = read_adapter(model, tmp_path / "short")
    with torch.no_grad():
        assert torch.equal(last_logits(model, again, side, 8), short)


def test_training_on_takes_a_patch_nearer_and_never_further() -> None:
    model = el.load("toy:ascending")
    context = el.context("prompt", model, token_ids=[7, 0, 3, 5])
    told: list[str] = []
    found = el.compile_context(
        model, context, texts(8, 40, 8), rank=2, steps=30, rate=3e-3, control=False, ridges=(1e-2,), told=told.append
    ).record
    assert found["compiled"]["kl_nats"] < found["untrained"]["kl_nats"]
    assert any("step 30" in line for line in told)


@pytest.mark.parametrize("to", ["lora", "weights"])
def test_of_two_starts_the_one_that_is_nearer_on_held_out_texts_is_taken(to: str) -> None:
    model = el.load("toy:ascending")
    context = el.context("prompt", model, token_ids=[7, 0, 3, 5])
    found = el.compile_context(model, context, texts(8, 40, 8), to=to, rank=2, steps=12, control=False, ridges=(1e-2,))
    starts = found.record["starts"]
    assert set(starts) == {"closed form", "nothing"}
    assert starts["closed form"] != starts["nothing"]
    assert starts[found.record["start"]] == min(starts.values()) == found.record["held_nats"]
    assert f"from {found.record['start']} was taken" in compiled_table(found.record)
    rank = 2 if to == "lora" else None
    assert found.adaptation.rank == rank  # whole matrices, also where the better start was of a rank


def test_a_fresh_patch_changes_nothing_and_multiplied_out_it_is_the_same_change() -> None:
    model = el.load("toy:ascending", dtype="float64")
    ids = torch.tensor([[7, 0, 3, 5]])
    patch = fresh(model, sites_of(model), rank=3)
    with torch.no_grad():
        plain = model(ids).logits
        with el.use(model, patch):
            assert torch.equal(model(ids).logits, plain)
        for part in patch.parameters():
            part += torch.randn(part.shape, generator=torch_generator(0, "moved"), dtype=part.dtype) / 10
        with el.use(model, patch):
            moved = model(ids).logits
        with el.use(model, multiplied_out(model, patch)):
            whole = model(ids).logits
    assert (moved - plain).abs().max() > 0.01
    torch.testing.assert_close(whole, moved, rtol=0, atol=1e-10)


def test_a_task_is_scored_in_pairs_and_its_targets_are_never_read() -> None:
    model = el.load("toy:ascending")
    context = el.context("prompt", model, token_ids=[7, 0])

    class Unread:
        """The digits' task, whose training targets say nothing."""

        name = "unread"

        def __init__(self) -> None:
            from elicitable.tasks.catalog import task_from

            self.own = task_from("ascending")

        def __getattr__(self, name: str) -> Any:
            return getattr(self.own, name)

        def sample(self, n: int, rng: Any) -> list[Any]:
            from dataclasses import replace

            return [replace(item, target=(0,) * 10) for item in self.own.sample(n, rng)]

        labels = fingerprint = held_out = None  # type: ignore[assignment]

    for name in ("labels", "fingerprint", "held_out"):
        delattr(Unread, name)
    records = [
        el.compile_context(
            model, context, task=task, texts_of_task=20, test_items=30, steps=0, ridges=(1e-2,), control=False
        ).record
        for task in ("ascending", Unread())
    ]
    assert records[0]["compiled"].keys() == records[1]["compiled"].keys()
    score = records[1]["score"]
    assert score["items"] == 30
    assert score["lost"][1] <= score["lost"][0] <= score["lost"][2]
    assert score["context"] - score["compiled"] == pytest.approx(score["lost"][0])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"to": "loar"}, "did you mean 'lora'"),
        ({"rank": 0}, "rank must be"),
        ({"steps": -1}, "steps must be"),
        ({"ridges": (0.0,)}, "ridges must be"),
        ({"rnk": 4}, "unknown option of compile"),
        ({"to": "short-prefix", "keys": 16}, "ask for fewer"),
    ],
)
def test_what_cannot_be_is_said(given: dict[str, Any], says: str) -> None:
    model = el.load("toy:ascending")
    context = el.context("prompt", model, token_ids=[7, 0])
    with pytest.raises((InputError, UnknownNameError), match=says):
        compiled(model, context, **given)


def test_what_is_no_context_and_what_has_no_texts_is_refused() -> None:
    model = el.load("toy:ascending")
    with pytest.raises(InputError, match="only a context can be compiled"):
        compiled(model, NOTHING)
    with pytest.raises(InputError, match=r"'runs/one' is a path; el\.read\(path\)\.adaptation\(model\) reads"):
        compiled(model, "runs/one")
    with pytest.raises(InputError, match="give texts= or task="):
        el.compile_context(model, el.context("prompt", model, token_ids=[7, 0]))
    with pytest.raises(InputError, match="at least 3 different texts, got 2"):
        el.compile_context(model, el.context("prompt", model, token_ids=[7, 0]), [[1, 2], [3]])
    with pytest.raises(InputError, match="at least 3 different texts, got 2"):
        el.compile_context(model, el.context("prompt", model, token_ids=[7, 0]), [[1, 2], [3], [3], [1, 2]])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"texts": [[], [1], [2], [3]]}, "every text needs at least one token"),
        ({"max_tokens": 0}, "max_tokens must be a whole number, at least 1, not 0"),
        ({"max_tokens": -1}, "max_tokens must be a whole number, at least 1, not -1"),
    ],
)
def test_texts_without_tokens_are_refused(given: dict[str, Any], says: str) -> None:
    model = el.load("toy:ascending")
    with pytest.raises(InputError, match=says):
        el.compile_context(model, el.context("prompt", model, token_ids=[7, 0]), **{"texts": texts(8)} | given)


def test_no_text_is_reported_on_that_was_fitted_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task of few rows gave the same ones again, in all three parts."""
    model = el.load("toy:ascending")
    context = el.context("prompt", model, token_ids=[7, 0])
    few = texts(8, 10)
    quick: dict[str, Any] = {"rank": 1, "steps": 0, "ridges": (1e-2,), "control": False}
    repeated = el.compile_context(model, context, few * 5, **quick).record
    assert sum(repeated["texts"]) == len({tuple(row) for row in few})

    task = task_from("ascending")
    seven = task.sample(7, generator(0, "texts"))
    monkeypatch.setattr(type(task), "sample", lambda self, n, rng: [seven[place % 7] for place in range(n)])
    found = el.compile_context(model, context, task=task, texts_of_task=30, test_items=8, **quick).record
    assert sum(found["texts"]) == 7
