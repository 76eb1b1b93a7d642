"""Weights that are packed into few bits: on any processor, what is computed is the model of the numbers they hold."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.deploy.conftest import save_letters, text_of
from torch import Tensor
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

import elicitable as el
from elicitable.deploy.artefact import ARTEFACT
from elicitable.errors import InputError, UnsupportedModelError
from elicitable.forecasting.gradients import gradients_of
from elicitable.methods.catalog import CONTEXTS, PROBES, catalog, method_named
from elicitable.methods.peft_config import REFUSED_TYPES, weight_types
from elicitable.methods.peft_method import _NO_ARM, VARIANTS
from elicitable.methods.peft_weights import _ON_PACKED
from elicitable.models.architectures import tiny_model
from elicitable.models.dispatch import PACKED
from elicitable.models.load import load, save_model
from elicitable.models.model import Model, as_model
from elicitable.models.packed import Linear8bit, _without_what_it_fetches, bnb
from elicitable.models.sites import sites_of
from elicitable.rng import torch_generator
from elicitable.testing import CHECKS, ONLY_TRAINED, Subject, check_method, check_the_model_is_left_as_it_came
from elicitable.training.batches import encode
from elicitable.values import Item

ITEMS = [Item((1, 2), (3,)), Item((2, 4), (1,))]
BUILT = {"prompt": {"token_ids": [1, 2, 3]}, "examples": {"items": ITEMS}, "lora-behind-examples": {"items": ITEMS}}
TRAIN_WEIGHTS = {"full", *(method.name for method in PROBES)} - {"unbounded-context"}
HERE = [
    m.name for m in catalog() if m.name not in TRAIN_WEIGHTS and m.name != "nearest-examples"
]  # which is no context
IDS = torch.arange(12).reshape(2, 6)
AS_ONE = 1e-5  # float32: the same products, summed in another order


def saved(folder: Path, kind: str = "llama") -> Path:
    save_model(as_model(tiny_model(kind, 0, torch.float32)), folder)
    return folder


def matrix_of(layer: Any) -> Tensor:
    """The numbers that a packed layer holds, (outputs, inputs)."""
    if isinstance(layer, bnb.nn.Linear4bit):
        return bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    scale = layer.weight.SCB if layer.state.SCB is None else layer.state.SCB
    return layer.weight.data.float() * scale[:, None] / 127


@torch.no_grad()
def unpacked(packed: Model, folder: Path) -> Model:
    """The model of the numbers that the packed one holds."""
    model = load(folder, dtype="float32")
    for name, layer in packed.hf.named_modules():
        if isinstance(layer, bnb.nn.Linear4bit | bnb.nn.Linear8bitLt):
            own = model.hf.get_submodule(name)
            own.weight.copy_(matrix_of(layer) if isinstance(own, torch.nn.Linear) else matrix_of(layer).T)
    return model


@pytest.fixture(scope="module", params=PACKED)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Model]:
    """A packed model, whose layers have no 32 outputs, and the model of the numbers that it holds."""
    folder = saved(tmp_path_factory.mktemp(request.param) / "llama")
    packed = load(folder, dtype="float32", load_in=request.param)
    return packed, unpacked(packed, folder)


def same(found: Tensor, wanted: Tensor, tolerance: float = AS_ONE) -> bool:
    apart = (found - wanted).detach().abs().max()
    return bool(apart <= tolerance * wanted.detach().abs().max())


@contextmanager
def as_it_was(model: Model) -> Iterator[None]:
    with torch.no_grad():
        before = model(input_ids=IDS).logits
        yield
        assert torch.equal(model(input_ids=IDS).logits, before)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2", "mixtral"])
@pytest.mark.parametrize("load_in", PACKED)
def test_logits_and_gradients_are_those_of_the_numbers_that_are_held(kind: str, load_in: str, tmp_path: Path) -> None:
    packed = load(saved(tmp_path, kind), dtype="float32", load_in=load_in)
    plain = unpacked(packed, tmp_path)
    found = []
    for model in (packed, plain):
        with torch.no_grad():  # a processor's own way of packing would begin here
            model(input_ids=IDS)
        embedded = model.embed(IDS).requires_grad_()
        logits = model(inputs_embeds=embedded).logits
        found.append((logits.detach(), *torch.autograd.grad(logits.square().sum(), embedded)))
    for one, other in zip(*found, strict=True):
        assert same(one, other)
    kinds = {type(module) for module in packed.hf.modules()}
    assert kinds & {Linear8bit, bnb.nn.Linear4bit}


def test_a_large_number_of_a_later_token_changes_no_earlier_one(tmp_path: Path) -> None:
    """bitsandbytes leaves columns unrounded that hold a 6 anywhere in the batch."""
    hf = tiny_model("gpt2", 0, torch.float32)
    with torch.no_grad():
        hf.transformer.h[0].ln_1.weight[:4] *= 20
    save_model(as_model(hf), tmp_path)
    model = load(tmp_path, dtype="float32", load_in="8bit")
    assert same(model(input_ids=IDS).logits, unpacked(model, tmp_path)(input_ids=IDS).logits)


@pytest.mark.parametrize("name", HERE)
def test_the_contract_holds_on_packed_weights(pair: tuple[Model, Model], name: str) -> None:
    packed, _ = pair
    # products of 16 bits, as on any model in float32 where those are fast, and of few directions
    ran = check_method(method_named(name), packed, tolerance=3e-2, **BUILT.get(name, {}))
    assert len(ran) == len(CHECKS) - len(ONLY_TRAINED) * (name in ("zero-shot", "prompt", "examples"))


@pytest.mark.parametrize("name", sorted(TRAIN_WEIGHTS))
def test_what_trains_weights_is_refused_by_name(pair: tuple[Model, Model], name: str) -> None:
    with as_it_was(pair[0]), pytest.raises(UnsupportedModelError, match="packed into few bits"):
        method_named(name).build(pair[0], 1, 0)


def of_peft() -> list[str]:
    return sorted({*(kind.lower() for kind in weight_types()), *VARIANTS} - {*_NO_ARM})


ON_PACKED = {*(kind.lower() for kind in _ON_PACKED), "rslora"}


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:Sparse invariant checks")  # SHiRA builds sparse tensors
@pytest.mark.parametrize("kind", [kind for kind in of_peft() if kind in ON_PACKED])
def test_a_type_of_peft_acts_on_packed_weights_as_on_what_they_hold(pair: tuple[Model, Model], kind: str) -> None:
    method = method_named(f"peft:{kind}")
    with as_it_was(pair[0]):
        built = [method.build(model, 2, 0) for model in pair]
        for nth, (one, other) in enumerate(zip(*(each.parameters() for each in built), strict=True)):
            one.add_(0.1 * torch.randn(one.shape, generator=torch_generator(nth, "moved")))
            other.copy_(one)
        found = []
        for model, adaptation in zip(pair, built, strict=True):
            with el.use(model, adaptation):
                found.append(model(input_ids=IDS).logits)
        assert same(*found)
        assert not same(found[1], pair[1](input_ids=IDS).logits, 1e-3)


@pytest.mark.parametrize("kind", [kind for kind in of_peft() if kind not in ON_PACKED])
def test_a_type_of_peft_that_reads_weights_is_refused_by_name(pair: tuple[Model, Model], kind: str) -> None:
    with as_it_was(pair[0]), pytest.raises(UnsupportedModelError, match=f"{kind} reads the weights"):
        method_named(f"peft:{kind}").build(pair[0], 1, 0)


def test_what_acts_on_packed_weights_is_known_to_peft() -> None:
    assert {*_ON_PACKED} <= {*weight_types()} - {*REFUSED_TYPES}


@pytest.mark.parametrize("load_in", PACKED)
def test_a_bias_stays_in_its_type_whatever_comes_in(load_in: str, tmp_path: Path) -> None:
    model = load(saved(tmp_path, "gpt2"), dtype="float32", load_in=load_in)
    check_the_model_is_left_as_it_came(Subject(method_named(CONTEXTS[-1]), model))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        model(input_ids=IDS)
    assert {module.bias.dtype for module in model.hf.modules() if getattr(module, "bias", None) is not None} == {
        torch.float32
    }


@pytest.mark.parametrize("load_in", PACKED)
def test_a_model_that_was_packed_and_run_elsewhere_trains_here_too(load_in: str, tmp_path: Path) -> None:
    hf = tiny_model("llama", 0, torch.float32)
    hf.config.hidden_size = hf.config.intermediate_size = 128
    hf.config.head_dim = 32
    type(hf)(hf.config).save_pretrained(tmp_path)
    how: Any = BitsAndBytesConfig(**{f"load_in_{load_in}": True}, bnb_4bit_compute_dtype=torch.float32)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, quantization_config=how).eval()
    with torch.no_grad():
        theirs(input_ids=IDS)  # where products of 16 bits are fast, its layers pack themselves anew
    model = load(theirs)
    assert same(model(input_ids=IDS).logits, unpacked(model, tmp_path)(input_ids=IDS).logits)
    check_method(method_named("soft-prompt"), model, tolerance=3e-2)


def test_a_hook_around_a_layer_runs_the_layer_as_it_is_here(tmp_path: Path) -> None:
    from accelerate.hooks import ModelHook, add_hook_to_module

    model = load(saved(tmp_path), dtype="float32", load_in="8bit")
    layer = next(module for module in model.hf.modules() if isinstance(module, Linear8bit))
    layer.__class__ = bnb.nn.Linear8bitLt
    add_hook_to_module(layer, ModelHook())
    Model(model.hf)
    assert same(model(input_ids=IDS).logits, unpacked(model, tmp_path)(input_ids=IDS).logits)


def test_more_digits_than_can_be_unpacked_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unpacks to float32, bfloat16 or float16, and dtype is float64"):
        load(saved(tmp_path), dtype="float64", load_in="4bit")


def test_nothing_is_fetched_while_bitsandbytes_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr("importlib.import_module", lambda name: seen.append((name, sys.modules["kernels"])))
    monkeypatch.setitem(sys.modules, "kernels", pytest)
    _without_what_it_fetches("bitsandbytes")
    assert (seen, sys.modules["kernels"]) == ([("bitsandbytes", None)], pytest)
    monkeypatch.delitem(sys.modules, "kernels")
    _without_what_it_fetches("bitsandbytes")
    assert "kernels" not in sys.modules


def test_gradients_of_matrices_and_places_to_write_are_those_of_what_is_held(pair: tuple[Model, Model]) -> None:
    batch = encode(pair[1], [Item((1, 2, 3, 4), (5, 6)), Item((3, 1, 2), (4, 4)), Item((7, 8), (9,))])
    packed, plain = (gradients_of(model, batch) for model in pair)
    assert packed.matrices.keys() == plain.matrices.keys()
    for name, value in plain.signals().items():
        assert packed.signals()[name] == pytest.approx(value, abs=1e-4), name
    packed_sites, sites = (sites_of(model) for model in pair)
    for one, other in zip(packed_sites, sites, strict=True):
        assert [site.shape for site in one.all()] == [site.shape for site in other.all()]


def test_a_context_is_compiled_to_a_lora_and_not_into_packed_weights(pair: tuple[Model, Model]) -> None:
    texts = [row.tolist() for row in torch.randint(64, (8, 6), generator=torch_generator(0, "texts"))]
    context = el.context("prompt", pair[0], token_ids=[7, 3])
    with as_it_was(pair[0]):
        fitted = [
            el.compile_context(model, context, texts, rank=2, steps=0, control=False, ridges=(0.1,)).record["untrained"]
            for model in pair
        ]
        with pytest.raises(UnsupportedModelError, match="to which changed weights would be rounded"):
            el.compile_context(pair[0], context, texts, to="weights", steps=0)
    assert fitted[0]["kl_nats"] == pytest.approx(fitted[1]["kl_nats"], rel=1e-2)


@pytest.mark.parametrize("load_in", PACKED)
def test_a_run_on_packed_weights_is_read_answers_and_is_exported_where_it_can_be(
    load_in: str, tmp_path: Path, call: Callable[..., tuple[int, str, str]]
) -> None:
    rows = [{"text": text_of(n), "label": "yes" if n % 2 else "no"} for n in range(60)]
    model = load(save_letters(tmp_path / "model"), load_in=load_in)
    told = {"size": 2, "learning_rate": 0.1, "steps": 2, "test_items": 10}
    el.tune(model, rows, method="lora", out=tmp_path / "run", **told)  # type: ignore[arg-type]
    assert f'"load_in": "{load_in}"' in (tmp_path / "run" / ARTEFACT).read_text(encoding="utf-8")
    run = str(tmp_path / "run")
    answering = el.predictor(run)
    assert answering.model.fingerprint == model.fingerprint
    assert call("export", run, "--to", "peft", "--out", str(tmp_path / "peft"))[0] == 0
    code, _, err = call("export", run, "--to", "merged", "--out", str(tmp_path / "merged"))
    assert (code, "packed into few bits, to which what is merged would be rounded" in err) == (2, True)
