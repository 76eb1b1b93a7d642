"""What every method must keep on every kind of model: one suite over the whole catalog of methods."""

from __future__ import annotations

import inspect
import itertools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

import elicitable as el
from elicitable.errors import InputError
from elicitable.methods.catalog import CONTEXTS, EXTRAS, METHODS, method_named
from elicitable.models.model import Model
from elicitable.testing import CHECKS, Subject, applies, trace
from elicitable.training.batches import encode
from elicitable.training.evaluate import answer_logits, token_losses
from elicitable.training.loop import prepared
from elicitable.values import Item

from .conftest import GIVEN, SIZE, fresh_model, make, trained

# Float64 sums of some hundred terms of size 1 differ by 1e-14 in another order. Models with RMSNorm compute its
# rounding-sensitive part in float32, where a difference of 1e-16 can flip a last bit: 6e-8 of a value of size 5.
FLOAT64, FLOAT32_NORM = 1e-12, 1e-6
NOISE = {
    "gpt2": FLOAT64,
    "opt": FLOAT64,
    "gpt_neox": FLOAT64,
    "llama": FLOAT32_NORM,
    "qwen3": FLOAT32_NORM,
    "gemma3_text": FLOAT32_NORM,
    "mistral": FLOAT32_NORM,
}
# Rotary angles are computed in float32: at other absolute positions they differ by 6e-8 of an angle of up to 20.
MOVED = 2e-5
MODELS = tuple(NOISE)
BY_ITEM = ("nearest-examples",)  # differs from item to item: tests/methods/test_nearest.py
NAMES = tuple(method.name for method in (*METHODS, *EXTRAS) if method.name not in BY_ITEM)
TRAINED = tuple(method.name for method in (*METHODS, *EXTRAS) if method.schedule is not None)
DRAWN = ("soft-prompt", "layer-prefix", "kv-prefix", "lora", "lora-behind-examples")
WEIGHTS = ("lora", "full")
INACTIVE = ("zero-shot",)
IDS = torch.tensor([[12, 40, 5, 6, 33, 9], [8, 17, 3, 44, 20, 61]])
ITEMS = [Item((12, 40, 5, 6), (33, 9)), Item((8, 17, 3, 44), (20, 61)), Item((5, 9), (1, 2))]

every_model = pytest.mark.parametrize("name", MODELS)
every_method = pytest.mark.parametrize("method", NAMES)
every_trained = pytest.mark.parametrize("method", TRAINED)
every_context = pytest.mark.parametrize("method", [name for name in CONTEXTS if name not in BY_ITEM])
Shared = Callable[[str], Model]


@pytest.fixture
def model(name: str, shared: Shared) -> Iterator[Model]:
    """The shared tiny model; whatever a test does with it, it must be as it was afterwards."""
    one = shared(name)
    before = trace(one)
    yield one
    assert trace(one) == before


def logits(model: Model, ids: Tensor = IDS, **given: Any) -> Tensor:
    with torch.no_grad():
        return model(input_ids=ids, **given).logits


def scale(x: Tensor) -> float:
    return float(x.abs().max())


def far(a: Tensor, b: Tensor) -> float:
    """The largest difference, as a share of the largest value."""
    return scale(a - b) / scale(b)


# --- the fixtures are what they claim -------------------------------------------------------------------------------


def test_the_models_have_the_traits_they_stand_for(shared: Shared) -> None:
    facts = {name: shared(name).anatomy for name in MODELS}
    assert facts["llama"].layers[0].kv_heads == 2 < facts["llama"].layers[0].heads
    wide = facts["qwen3"]
    assert wide.layers[0].heads * wide.layers[0].d_head == 64 != wide.d_model
    assert hasattr(shared("qwen3").hf.model.layers[0].self_attn, "q_norm")
    assert [layer.sliding_window for layer in facts["gemma3_text"].layers] == [4, None]
    assert shared("gpt_neox").hf.config.rope_parameters["partial_rotary_factor"] == 0.25
    assert [name for name in MODELS if not facts[name].has_relative_positions] == ["gpt2", "opt"]
    assert all(shared(name).dtype == torch.float64 for name in MODELS)


@every_model
@every_method
def test_it_does_something(model: Model, method: str) -> None:
    with el.use(model, trained(method, model)):
        changed = logits(model)
    assert changed.isfinite().all()
    assert (far(changed, logits(model)) > 1e-3) == (method not in INACTIVE)


@every_model
@every_method
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_it_keeps_the_contract(model: Model, method: str, check: Callable[[Subject], None]) -> None:
    """The suite that anybody's own method can be held to, on every model and method there is."""
    if applies(check, method_named(method)):
        check(Subject(method_named(method), model, SIZE.get(method, 4), GIVEN.get(method, {}), 2 * NOISE[model.name]))


# --- the model is left as it came -----------------------------------------------------------------------------------


@every_model
@every_method
def test_an_exception_inside_leaves_the_model_as_it_came(model: Model, method: str) -> None:
    adaptation = trained(method, model)

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), el.use(model, adaptation):
        stop()
    with pytest.raises(KeyboardInterrupt), prepared(model, adaptation):
        stop()
    with pytest.raises(InputError), el.use(model, [adaptation, el.context("prompt", model, token_ids=[1])], 2.0):
        stop()


@every_method
def test_what_came_in_training_mode_half_frozen_and_hooked_leaves_so(method: str) -> None:
    model = fresh_model("llama")
    _ = model.anatomy
    model.hf.train()
    model.hf.model.layers[1].eval()
    model.hf.model.layers[0].mlp.up_proj.weight.requires_grad_(False)
    seen: list[int] = []
    model.hf.model.register_forward_pre_hook(lambda *_: seen.append(1))
    before = trace(model)
    adaptation = trained(method, model)
    with el.use(model, adaptation):
        logits(model)
        assert trace(model)["training modes"][0]
    with prepared(model, adaptation) as refresh:
        refresh()
        assert not model.hf.training
    assert trace(model) == before
    assert seen


# --- training touches what it should --------------------------------------------------------------------------------


@every_model
@every_trained
def test_gradients_flow_only_where_they_belong(model: Model, method: str) -> None:
    adaptation = trained(method, model)
    base = [p for p in model.hf.parameters() if id(p) not in set(map(id, adaptation.parameters()))]
    batch = encode(model, ITEMS)
    assert batch.attention_mask is not None  # one row is padded
    with prepared(model, adaptation) as refresh:
        refresh()
        inside = {id(p) for p in model.hf.parameters()}
        assert not any(p.requires_grad for p in base if id(p) in inside)
        token_losses(answer_logits(model, batch), batch.targets).sum().backward()
    assert all(p.grad is None for p in base)
    norms = [float(p.grad.norm()) if p.grad is not None else -1.0 for p in adaptation.parameters()]
    assert min(norms) >= 0.0
    # a bias on all keys alike changes no softmax: full fine-tuning has such weights, the others must all be reached
    assert min(norms) > 0.0 or method == "full"
    assert max(norms) > 0.0


@every_model
@pytest.mark.parametrize("method", ["prompt", "examples", *TRAINED])
def test_state_and_load_round_trip_bit_equal(model: Model, method: str) -> None:
    adaptation = trained(method, model, seed=0)
    other = trained(method, model, seed=1)
    if method in ("prompt", "examples"):
        other = el.context("prompt", model, token_ids=[1, 2])
    with el.use(model, adaptation):
        wanted = logits(model)
    with el.use(model, other):
        assert not torch.equal(logits(model), wanted)
    state = adaptation.state()
    other.load(state)
    with el.use(model, other):
        assert torch.equal(logits(model), wanted)
    with torch.no_grad():
        for parameter in adaptation.parameters():
            parameter.zero_()
    assert all(torch.equal(a, b) for a, b in zip(state.values(), other.state().values(), strict=True))


@every_model
@every_method
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(model: Model, method: str) -> None:
    one, again, other = (list(make(method, model, seed).state().values()) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    is_same = all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert is_same == (method not in DRAWN)


@every_model
@pytest.mark.parametrize("method", ["lora", "full", "value-bias"])
def test_what_starts_at_the_base_model_is_the_base_model(model: Model, method: str) -> None:
    with el.use(model, make(method, model)):
        started = logits(model)
    # B = 0 and b = 0 add exact zeros, but attention may be summed in another order than the model's own
    assert far(started, logits(model)) < NOISE[model.name]


@every_context
@pytest.mark.parametrize("init", ["random", "sink", "text", "vocabulary"])
def test_a_start_at_real_tokens_is_those_tokens(method: str, init: str, shared: Shared) -> None:
    model = shared("llama")
    if method in ("prompt", "examples"):
        return
    context = el.context(method, model, length=3, init=init, text=[9, 4] if init == "text" else None, seed=5)
    assert context.setting["init"] == init
    with el.use(model, context):
        got = logits(model)
    if init == "text":  # repeated, whole at the end; a kv-prefix stands elsewhere only in float32 angles
        with el.use(model, el.context("prompt", model, token_ids=[4, 9, 4])):
            assert far(got, logits(model)) < MOVED


# --- what the model computes does not depend on how it is asked ------------------------------------------------------


@every_model
@every_method
def test_left_padding_changes_nothing(model: Model, method: str) -> None:
    mask = torch.ones(3, 9, dtype=torch.long)
    padded = torch.zeros(3, 9, dtype=torch.long)
    rows = (IDS[0], IDS[1, :4], IDS[1])
    for row, ids in enumerate(rows):
        padded[row, -len(ids) :], mask[row, : 9 - len(ids)] = ids, 0
    with el.use(model, trained(method, model)):
        together = logits(model, padded, attention_mask=mask)
        for row, ids in enumerate(rows):
            assert far(together[row, -len(ids) :], logits(model, ids[None])[0]) < NOISE[model.name]


@every_model
@every_method
@pytest.mark.parametrize("use_cache", [True, False])
def test_generate_equals_teacher_forcing_token_by_token(model: Model, method: str, use_cache: bool) -> None:
    ids = torch.cat([torch.zeros(2, 2, dtype=torch.long), IDS], dim=1)
    mask = torch.ones_like(ids)
    mask[0, :2], ids[1, :2] = 0, torch.tensor([5, 7])
    with el.use(model, trained(method, model)):
        written = model.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=6,
            do_sample=False,
            use_cache=use_cache,
            output_logits=True,
            return_dict_in_generate=True,
        )
        whole = written.sequences
        forced = logits(model, whole, attention_mask=torch.cat([mask, torch.ones(2, 6, dtype=torch.long)], dim=1))
    assert whole.shape == (2, 14)
    assert torch.equal(forced[:, 7:-1].argmax(-1), whole[:, 8:])
    assert far(torch.stack(written.logits, dim=1), forced[:, 7:-1]) < 1e-6  # generate hands out float32


@every_model
@every_method
def test_logits_are_as_long_as_the_labels(model: Model, method: str) -> None:
    with torch.no_grad(), el.use(model, trained(method, model)):
        out = model(input_ids=IDS, labels=IDS)
    assert out.logits.shape == (2, 6, 64)
    own = torch.nn.functional.cross_entropy(out.logits[:, :-1].flatten(0, 1).double(), IDS[:, 1:].flatten())
    assert float(out.loss) == pytest.approx(float(own), rel=1e-6)  # transformers' loss is float32


# --- the dial -------------------------------------------------------------------------------------------------------


@every_model
@every_context
def test_prefix_mass_grows_with_strength(model: Model, method: str) -> None:
    context, masses, moved = trained(method, model), [], []
    dials = (1e-30, 0.05, 0.3, 0.7, 1.0)
    for strength in dials:
        with torch.no_grad(), el.watch(model, context, strength=strength) as scope:
            moved.append(model(input_ids=IDS).logits)
        masses.append(scope.prefix_mass[0])  # below the first layer the queries differ with the strength
    for low, high in itertools.pairwise(masses):
        assert (high - low).nan_to_num(0).min() >= 0
        assert (high - low).nan_to_num(0).max() > 0
    with el.use(model, context):
        assert far(moved[-1], logits(model)) < NOISE[model.name]
    if (
        model.anatomy.has_relative_positions and method != "kv-prefix"
    ):  # else the content stands elsewhere than without a context
        assert far(moved[0], logits(model)) < 1e-3  # continuous at zero


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_strength_outside_the_dial_is_refused(strength: float, shared: Shared) -> None:
    with (
        pytest.raises(InputError, match="strength must be between 0"),
        el.use(shared("llama"), make("prompt", shared("llama")), strength),
    ):
        pass


# --- gradient checkpointing -----------------------------------------------------------------------------------------


@contextmanager
def checkpointing(model: Model) -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # renamed in newer versions than the oldest we allow
        model.hf.gradient_checkpointing_enable()
    model.hf.train()
    yield


@every_trained
@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3", "gemma3_text", "gpt_neox"])
def test_gradient_checkpointing_gives_the_same_gradients(name: str, method: str) -> None:
    model = fresh_model(name)
    for module in model.hf.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # the same function in training mode
    adaptation = trained(method, model)
    entered: list[int] = []
    last = model.anatomy.attentions[-1]  # a vector that is added half way up needs no gradient below itself
    last.register_forward_pre_hook(lambda *_: entered.append(1))

    def gradients() -> list[Tensor]:
        with el.use(model, adaptation):
            entered.clear()
            loss = torch.nn.functional.cross_entropy(model(input_ids=IDS).logits.flatten(0, 1), IDS.flatten())
            found = list(torch.autograd.grad(loss, adaptation.parameters(), allow_unused=True))
        return [torch.zeros(1) if g is None else g for g in found]

    plain, once = gradients(), len(entered)
    with checkpointing(model):
        again, twice = gradients(), len(entered)
    assert (once, twice) == (1, 2)  # it is on: the layer is run once more on the way back
    assert max(map(scale, plain)) > 0
    for one, two in zip(plain, again, strict=True):
        assert scale(one - two) <= 1e-9 * max(map(scale, plain))  # the same sums, of gradients through six layers


# --- the catalog itself ---------------------------------------------------------------------------------------------


def test_names_are_unique_and_every_method_says_what_it_is() -> None:
    assert len(set(NAMES)) == len(NAMES)
    for method in METHODS:
        assert method.rung.label
        assert method.summary
        if method.schedule is not None:
            rates = method.schedule.learning_rates
            assert list(rates) == sorted(set(rates))
            assert min(rates) > 0
    assert set(CONTEXTS) <= {*NAMES, *BY_ITEM}


def test_every_method_adapts_through_the_same_arguments() -> None:
    for method in METHODS:
        names = list(inspect.signature(method.build).parameters)
        assert names[:3] == ["model", "size", "seed"], method.name
