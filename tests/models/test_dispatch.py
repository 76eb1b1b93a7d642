"""Models on several devices: what is offloaded answers, trains contexts and has its hash as in one place."""

from __future__ import annotations

import gc
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.conftest import tiny_gpt2
from tests.reverse import Reverse
from transformers import LlamaConfig, LlamaForCausalLM

import elicitable as el
from elicitable.errors import InputError, MissingPackageError, UnknownNameError, UnsupportedModelError
from elicitable.methods.catalog import PROBES, method_named
from elicitable.models.architectures import tiny_model
from elicitable.models.dispatch import RoomOnDisk
from elicitable.models.load import load, save_model
from elicitable.models.model import Model, as_model
from elicitable.models.speed.checkpointing import switch_on
from elicitable.race import contest
from elicitable.testing import CHECKS, check_method
from elicitable.training.loop import Plan, prepared, train

CONTEXTS = {
    "zero-shot": {},
    "prompt": {"token_ids": [1, 2, 3]},
    "examples": {"items": [el.values.Item((1, 2), (3,)), el.values.Item((2, 4), (1,))]},
    "soft-prompt": {},
    "layer-prefix": {},
    "kv-prefix": {},
    "steering": {},
    "value-bias": {},
    "unbounded-context": {},
}
OF_WEIGHTS = ["lora", "full", *(method.name for method in PROBES if method.name != "unbounded-context")]
MAP = {
    "model.embed_tokens": "cpu",
    "model.layers.0": "cpu",
    "model.layers.1": "disk",
    "model.norm": "cpu",
    "model.rotary_emb": "cpu",
    "lm_head": "disk",
}


def llama() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=32, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    return LlamaForCausalLM(config).double().eval()


def dispatched(folder: Path) -> Model:
    """A layer and the head on disk, the rest in memory, and a hook on every module."""
    from accelerate import dispatch_model

    return as_model(dispatch_model(llama(), dict(MAP), main_device="cpu", offload_dir=str(folder), force_hooks=True))


def in_memory(folder: Path) -> Model:
    from accelerate import cpu_offload

    return as_model(cpu_offload(llama(), execution_device=torch.device("cpu")))


def on_disk(folder: Path) -> Model:
    from accelerate import disk_offload

    return as_model(disk_offload(llama(), str(folder), execution_device=torch.device("cpu")))


PLACES = [dispatched, in_memory, on_disk]


@pytest.mark.parametrize("method", CONTEXTS)
def test_contexts_keep_the_contract_on_a_model_that_is_dispatched(method: str, tmp_path: Path) -> None:
    ran = check_method(method_named(method), dispatched(tmp_path), **CONTEXTS[method])  # type: ignore[arg-type]
    assert len(ran) >= 12


@pytest.mark.parametrize("place", PLACES[1:])
def test_contexts_keep_the_contract_on_a_model_that_is_offloaded(
    place: Callable[[Path], Model], tmp_path: Path
) -> None:
    assert len(check_method(method_named("kv-prefix"), place(tmp_path))) == len(CHECKS)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("method", OF_WEIGHTS)
def test_what_changes_weights_refuses_offloaded_ones_by_name(
    method: str, place: Callable[[Path], Model], tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedModelError, match=r"are offloaded \(model\..*weight, …\).*--device-map"):
        method_named(method).build(place(tmp_path), 1, 0)


@pytest.mark.parametrize("place", PLACES)
def test_it_is_the_same_model_with_the_same_answers_and_gradients(
    place: Callable[[Path], Model], tmp_path: Path
) -> None:
    whole, spread = as_model(llama()), place(tmp_path)
    assert spread.device == torch.device("cpu")
    assert spread.fingerprint == whole.fingerprint
    ids = torch.arange(12)[None] % 8
    states = []
    for model in (whole, spread):
        context = method_named("kv-prefix").build(model, 2, seed=1)
        plan = Plan(0.1, 4, batch=4, warmup=1, evaluate_every=2, validation_items=8)
        train(model, context, Reverse(), plan, seed=0)
        with el.use(model, context), torch.no_grad():
            states.append((context.state(), model(input_ids=ids).logits))
        assert all(weight.requires_grad for weight in model.hf.parameters())
    (plain, logits), (other, theirs) = states
    assert torch.equal(logits, theirs)
    assert all(torch.equal(plain[name], other[name]) for name in plain)


@pytest.mark.parametrize("place", PLACES)
def test_layers_that_are_run_again_on_the_way_back_leave_offloaded_weights_where_they_were(
    place: Callable[[Path], Model], tmp_path: Path
) -> None:
    model, ids = place(tmp_path), torch.arange(12)[None] % 8
    empty = [name for name, weight in model.hf.named_parameters() if weight.is_meta]
    context = method_named("kv-prefix").build(model, 2, seed=1)
    gradients = []
    for switch in (lambda *given: None, switch_on):
        switch(model.hf, model.name)
        with prepared(model, context) as refresh:
            refresh()
            logits = model.hf(input_ids=ids, use_cache=False).logits
            gradients.append(torch.autograd.grad(logits.square().sum(), list(context.parameters())))
        assert [name for name, weight in model.hf.named_parameters() if weight.is_meta] == empty
    assert all(map(torch.equal, *gradients))


def test_a_race_goes_on_without_the_arms_that_cannot_be(tmp_path: Path) -> None:
    answer = contest.verdict(
        dispatched(tmp_path), Reverse(), methods=["zero-shot", "kv-prefix", "lora"], budget=2_000, steps=4,
        test_items=8, seeds=1,
    )  # fmt: skip
    found = {arm.method: (arm.status, arm.reason) for arm in answer.arms}
    assert [found[name][0] for name in ("zero-shot", "kv-prefix", "lora")] == ["ok", "ok", "skipped"]
    assert "lora changes weights, and 10 of this model's are offloaded" in found["lora"][1]


def test_a_folder_is_spread_by_a_map(tmp_path: Path) -> None:
    save_model(as_model(llama()), tmp_path / "model")
    plain = load(tmp_path / "model", dtype="float64")
    spread = load(tmp_path / "model", dtype="float64", device_map=dict(MAP))
    assert spread.hf.hf_device_map["lm_head"] == "disk"
    assert spread.fingerprint == plain.fingerprint
    assert load(tmp_path / "model", device_map="auto", dtype="float64").fingerprint == plain.fingerprint
    with pytest.raises(InputError, match="cannot be moved"):
        load(spread, dtype="float32")


def test_what_cannot_be_spread_or_packed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="device_map are for a model that is loaded by name"):
        load(tiny_gpt2(8), device_map="auto")
    with pytest.raises(InputError, match="toy:ascending is small"):
        load("toy:ascending", device_map="auto")
    with pytest.raises(InputError, match="give either device"):
        load("toy:ascending", device="cpu", device_map="auto")
    with pytest.raises(UnknownNameError, match="did you mean '4bit'"):
        load("toy:ascending", load_in="4bits")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else find(name))
    with pytest.raises(MissingPackageError, match="run: pip install bitsandbytes"):
        load("toy:ascending", load_in="4bit")


def test_two_models_that_are_offloaded_to_disk_have_files_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers writes fused experts anew, by the weight's name: the second model's were read for the first."""
    monkeypatch.setenv("ELICITABLE_CACHE", str(tmp_path / "cache"))
    where = {"model.embed_tokens": "cpu", "model.layers": "disk", "model.norm": "cpu", "lm_head": "cpu"}
    where |= {"model.rotary_emb": "cpu"}
    for seed in (0, 1):
        tiny_model("mixtral", seed, torch.float32).save_pretrained(tmp_path / str(seed))
    first = load(tmp_path / "0", device_map=where)
    ids = torch.arange(6)[None]
    with torch.no_grad():
        before = first(input_ids=ids).logits
        second = load(tmp_path / "1", device_map=where)
        assert not torch.equal(second(input_ids=ids).logits, before)
        assert torch.equal(first(input_ids=ids).logits, before)
    folders = list((tmp_path / "cache" / "offloaded").iterdir())
    assert len(folders) == 2
    del first
    gc.collect()
    assert len(list((tmp_path / "cache" / "offloaded").iterdir())) == 1


def test_what_a_killed_run_was_offloaded_with_goes_with_the_next_one(tmp_path: Path) -> None:
    killed = "import os, sys; from pathlib import Path; from elicitable.models.dispatch import RoomOnDisk\n"
    killed += "room = RoomOnDisk(Path(sys.argv[1])); (room.folder / 'weights').touch(); os._exit(9)"
    assert subprocess.run([sys.executable, "-c", killed, str(tmp_path)], check=False).returncode == 9
    (left,) = (tmp_path / "offloaded").iterdir()
    with RoomOnDisk(tmp_path) as first, RoomOnDisk(tmp_path) as second:
        assert not left.exists()
        assert sorted((tmp_path / "offloaded").iterdir()) == sorted((first.folder, second.folder))
        elsewhere = left.with_name(".model.00000000-1-00000000")  # of another machine, where it may be read for days
        elsewhere.mkdir()
        for days, is_there in ((29, True), (31, False)):
            os.utime(elsewhere, (time.time() - 86_400 * days,) * 2)
            with RoomOnDisk(tmp_path):
                assert elsewhere.exists() is is_there
