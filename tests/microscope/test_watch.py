"""The watch: what it sees, that it can fail, and that it leaves no trace."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Cache

import elicitable as el
from elicitable.attention.reference import attention_reference
from elicitable.errors import InputError
from elicitable.methods.base import Adaptation
from elicitable.models.architectures import tiny_model
from elicitable.models.capture import capture_residuals, capture_tokens
from elicitable.models.model import Model
from elicitable.values import PrefixKV

EXACT = 1e-12  # float64; the bound the issue of exactness is decided by
IDS = torch.tensor([[12, 40, 5, 6, 33, 9, 8, 2], [8, 17, 3, 44, 20, 61, 7, 11]])


def fresh(name: str = "llama", dtype: torch.dtype = torch.float64) -> Model:
    return Model(tiny_model(name, dtype=dtype))


def prompt(model: Model, ids: tuple[int, ...] = (7, 9, 4)) -> PrefixKV:
    with torch.no_grad():
        return capture_tokens(model, torch.tensor([ids]))


class ChangedWeight(Adaptation):
    """Adds ``by`` to one weight for the length of the ``with``, and has no context."""

    kind = "changed-weight"

    def __init__(self, name: str, by: float = 0.1) -> None:
        super().__init__()
        self.name, self.by = name, by

    @contextmanager
    def weights(self, model: Model) -> Iterator[None]:
        weight = dict(model.hf.named_parameters())[self.name]
        kept = weight.detach().clone()
        delta = self.by * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0), dtype=weight.dtype)
        with torch.no_grad():
            weight.add_(delta)
        try:
            yield
        finally:
            with torch.no_grad():
                weight.copy_(kept)


# --- it sees what is there ------------------------------------------------------------------------------------------


@torch.no_grad()
def test_prefix_mass_is_the_oracles_in_every_layer_head_row_and_query() -> None:
    model = fresh("qwen3")
    with el.watch(model, prompt(model), keep=range(model.anatomy.depth)) as scope:
        model(IDS)
    assert scope.prefix_mass.shape == (2, 4, 2, 8)
    for layer in range(model.anatomy.depth):
        operands, _ = scope.raw[layer][0]
        mass = torch.from_numpy(attention_reference(operands).prefix_weights.sum(-1))
        assert (scope.prefix_mass[layer] - mass.transpose(0, 1)).abs().max() < EXACT


@torch.no_grad()
def test_statistics_are_means_over_batches_of_different_length_without_padding() -> None:
    model = fresh()
    context = prompt(model)
    padded = torch.cat([torch.zeros(2, 3, dtype=torch.long), IDS], dim=1)
    mask = torch.ones_like(padded)
    mask[:, :3] = 0
    with el.watch(model, context) as scope:
        model(input_ids=padded, attention_mask=mask)
        model(IDS[:1, :4])
    with el.watch(model, context) as plain:
        model(IDS)
        model(IDS[:1, :4])
    assert scope.queries == 2 * 8 + 4
    assert scope.prefix_mass.shape == (2, 4, 3, 11)
    assert scope.prefix_mass[:, :, :2, :3].isnan().all()
    assert scope.prefix_mass[:, :, 2, 4:].isnan().all()
    assert (scope.prefix_mass.nanmean(dim=(2, 3)) - scope.mean_mass).abs().max() < EXACT
    assert (scope.position_mass.sum(-1) - scope.mean_mass).abs().max() < EXACT
    for column in plain.frame().columns:
        # rotary angles are float32 and differ in no position; maxima and means are over the same numbers
        assert scope.frame()[column].to_numpy() == pytest.approx(plain.frame()[column].to_numpy(), abs=1e-10), column


@torch.no_grad()
def test_drift_is_the_distance_of_two_whole_runs() -> None:
    model = fresh("gpt2")  # learned positions: both runs must have the content at the same ones
    context = prompt(model)
    with el.watch(model, context, keep=[1]) as scope:
        model(IDS)
    ((watched, plain),) = scope.raw[1]
    one = attention_reference(watched.without_context()).content_weights
    zero = attention_reference(plain).content_weights
    by_hand = 0.5 * abs(one - zero).sum(-1).mean(axis=(0, 2))
    assert scope.drift[1].numpy() == pytest.approx(by_hand, abs=EXACT)
    assert scope.drift[1].min() > 1e-3
    assert scope.drift[0].max() < EXACT
    assert scope.local_rescaling.numpy() == pytest.approx(scope.mean_mass.numpy() / 2, abs=EXACT)
    model.hf.config._attn_implementation = "eager"
    shifted = model.hf(IDS, position_ids=torch.arange(3, 11)[None], output_attentions=True).attentions
    own = torch.einsum("bhqk->h", torch.from_numpy(abs(zero - shifted[1].numpy())))
    assert own.max() < EXACT  # the plain run is the model's own, at the shifted positions


@torch.no_grad()
def test_the_bias_has_one_direction_for_one_token_and_at_most_n_for_n() -> None:
    model = fresh()
    for ids, rank in (((7,), 1), ((7, 9), 2), ((7, 9, 4), 3)):
        with el.watch(model, prompt(model, ids)) as scope:
            model(IDS)
        assert scope.bias_subspace(1).rank().max() <= rank
        assert scope.effective_rank.max() <= rank + 1e-9
    with el.watch(model, prompt(model, (7,))) as scope:
        model(IDS)
    assert scope.first_share.numpy() == pytest.approx(1.0)
    assert scope.position_spread.max() == 0  # one token has all of the mass, always


@torch.no_grad()
def test_strength_value_bias_and_several_contexts_keep_the_identities() -> None:
    model = fresh("gpt_oss")
    biases = tuple(torch.ones(facts.kv_heads, facts.d_value, dtype=torch.float64) for facts in model.anatomy.layers)
    nothing = (None,) * model.anatomy.depth
    for context, strength in (
        ([prompt(model), prompt(model, (30, 31))], 1.0),
        (prompt(model), 0.25),
        (PrefixKV(nothing, nothing, value_bias=biases), 1.0),
        ([prompt(model), PrefixKV(nothing, nothing, value_bias=biases)], 0.5),
    ):
        with el.watch(model, context, strength=strength) as scope:
            model(IDS)
        assert scope.attention_residual.max() < EXACT
        assert scope.output_residual.max() < EXACT
        assert scope.bias_norm.min() > 0


@torch.no_grad()
@pytest.mark.parametrize("name", ["mistral", "gemma2", "gpt_oss", "gpt2"])
def test_a_context_that_skips_a_layer_can_stand_before_another(name: str) -> None:
    model = fresh(name)
    context = prompt(model)
    skipping = PrefixKV((None, *context.keys[1:]), (None, *context.values[1:]), context.positions, shift=context.shift)
    with el.watch(model, [skipping, context]) as scope:
        model(IDS)
    assert scope.attention_residual.max() < EXACT
    assert scope.output_residual.max() < EXACT
    assert scope.position_mass[0, :, :3].max() == 0
    assert scope.mean_mass[0].min() > 0
    assert scope.position_mass[1, :, :3].max() > 0 or name == "mistral"  # whose window of 4 leaves the last ones


@torch.no_grad()
def test_a_window_counts_tokens_wherever_positions_start() -> None:
    model = fresh("mistral")
    context = prompt(model)
    with el.watch(model, context) as at_zero:
        model(IDS)
    with el.watch(model, context) as later:
        model(IDS, position_ids=torch.arange(50, 58)[None].expand(2, -1))
    assert torch.equal(at_zero.visible_share, later.visible_share)
    assert torch.equal(at_zero.prefix_mass == 0, later.prefix_mass == 0)
    assert later.prefix_mass.max() > 0


@torch.no_grad()
def test_nothing_in_nothing_seen() -> None:
    model = fresh()
    with el.watch(model) as scope:
        model(IDS)
    assert scope.mean_mass.max() == scope.drift.max() == scope.bias_norm.max() == 0
    assert scope.attention_residual.max() < EXACT


@torch.no_grad()
def test_a_watch_sees_the_context_of_the_use_around_it() -> None:
    model = fresh()
    with el.watch(model, prompt(model)) as inner:
        model(IDS)
    with el.use(model, prompt(model)), el.watch(model) as outer:
        model(IDS)
    assert torch.equal(inner.prefix_mass, outer.prefix_mass)
    assert torch.equal(inner.drift, outer.drift)


# --- the check can fail ----------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("projection", ["q_proj", "k_proj", "v_proj"])
def test_a_changed_weight_shows_in_the_residual(projection: str) -> None:
    model = fresh()
    changed = ChangedWeight(f"model.layers.0.self_attn.{projection}.weight")
    with el.watch(model, [prompt(model), changed]) as scope:
        model(IDS)
    assert scope.output_residual[0].min() > 1e-3
    assert scope.output_residual[1].max() < EXACT  # its weights are the base's, and its input is the same
    assert scope.drift[1].min() > 1e-3
    if projection == "v_proj":
        assert scope.attention_residual.max() < EXACT  # values are no part of the first identity
    else:
        assert scope.attention_residual[0].max() > 1e-3
        assert scope.drift[0].max() > 1e-3


# peft 0.21 still calls what transformers 5.23 has renamed
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@torch.no_grad()
def test_lora_on_the_queries_shows_in_the_residual() -> None:
    from peft import LoraConfig, get_peft_model

    base = fresh()
    config = LoraConfig(r=1, target_modules=["q_proj"], init_lora_weights=False)
    torch.manual_seed(0)
    lora = get_peft_model(copy.deepcopy(base.hf), config)
    with el.watch(lora.base_model.model, prompt(base), reference=base.hf) as scope:
        lora(input_ids=IDS)
    assert scope.attention_residual.max(dim=1).values.min() > 1e-3
    with lora.disable_adapter(), el.watch(lora.base_model.model, prompt(base), reference=base.hf) as scope:
        lora(input_ids=IDS)
    assert scope.attention_residual.max() < EXACT


@torch.no_grad()
def test_a_reference_whose_norm_differs_shows_in_that_layer_alone() -> None:
    """A layer's input is the residual stream, so what a norm does to it is part of the layer."""
    model = fresh("gpt2")
    other = Model(copy.deepcopy(model.hf))
    with torch.no_grad():
        other.hf.transformer.h[0].ln_1.bias.add_(0.1)
    with el.watch(model, prompt(model), reference=other) as scope:
        model(IDS)
    assert scope.attention_residual[0].max() > 1e-3
    assert scope.attention_residual[1].max() < EXACT


@torch.no_grad()
def test_an_output_that_the_model_did_not_compute_by_the_split_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    from elicitable.microscope import watch as module

    def wrong(call: Any, slot: Any) -> Tensor:
        return original(call, slot) + (1e-9 if call.prefix_key is not None else 0.0)

    original = module.combine
    monkeypatch.setattr(module, "combine", wrong)
    model = fresh()
    with el.watch(model, prompt(model)) as scope:
        model(IDS)
    assert scope.output_residual.numpy() == pytest.approx(1e-9, rel=1e-4)


# --- however the model is run ----------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "gpt_oss", "mpt", "bloom", "deepseek_v3", "mistral"])
def test_generate_is_seen_token_by_token(name: str) -> None:
    model = fresh(name)
    context = prompt(model)
    padded = IDS.clone()
    padded[0, :2] = 0
    mask = torch.ones_like(padded)
    mask[0, :2] = 0
    options: dict[str, Any] = {
        "max_new_tokens": 6,
        "do_sample": False,
        "pad_token_id": 0,
        "eos_token_id": None,
        "use_cache": True,
    }
    with el.watch(model, context) as scope:
        answer = model.generate(input_ids=padded, attention_mask=mask, **options)
    with el.use(model, context):
        assert torch.equal(answer, model.generate(input_ids=padded, attention_mask=mask, **options))
    seen = answer[:, :-1]
    whole = torch.cat([mask, torch.ones(2, 5, dtype=torch.long)], dim=1)
    with el.watch(model, context) as at_once:
        model(input_ids=seen, attention_mask=whole)
    assert scope.prefix_mass.shape == (2, 4, 2, 13)
    for residual in (scope.attention_residual, scope.output_residual, scope.crossing_residual):
        assert residual.max() < EXACT
    # one query at a time or all at once: float64 inside float32 norms and angles
    assert torch.allclose(scope.prefix_mass, at_once.prefix_mass, atol=1e-6, equal_nan=True)
    assert torch.allclose(scope.drift, at_once.drift, atol=1e-6)
    assert torch.allclose(scope.sink_with, at_once.sink_with, atol=1e-6)
    assert torch.allclose(scope.sink_without, at_once.sink_without, atol=1e-6)
    assert scope.queries == at_once.queries


@torch.no_grad()
@pytest.mark.parametrize("cache", [None, "static"])
def test_the_first_token_is_none_any_more_once_a_window_has_passed_it(cache: str | None) -> None:
    """The oldest key that a sliding-window cache still held was taken for it."""
    model = fresh("mistral")
    mask = torch.ones_like(IDS)
    mask[0, :2] = 0
    more = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    for context in (prompt(model), None):
        with el.watch(model, context) as scope:
            answer = model.generate(input_ids=IDS, attention_mask=mask, cache_implementation=cache, **more)
        whole = torch.cat([mask, torch.ones(2, 5, dtype=torch.long)], dim=1)
        with el.watch(model, context) as at_once:
            model(input_ids=answer[:, :-1], attention_mask=whole)
        assert torch.allclose(scope.sink_with, at_once.sink_with, atol=1e-6)
        assert torch.allclose(scope.sink_without, at_once.sink_without, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama", "mistral"])
def test_a_loop_that_lets_the_model_make_its_cache_is_seen_to_its_end(name: str) -> None:
    """Drift was that of the first call alone."""
    model = fresh(name)
    with el.watch(model, prompt(model)) as scope:
        cache = None
        for one in IDS.split([5, 1, 1, 1], dim=1):
            cache = model(input_ids=one, past_key_values=cache).past_key_values
    with el.watch(model, prompt(model)) as at_once:
        model(input_ids=IDS)
    assert scope.notes == []
    assert torch.allclose(scope.drift, at_once.drift, atol=1e-6)
    assert torch.allclose(scope.sink_without, at_once.sink_without, atol=1e-6)


@torch.no_grad()
def test_what_nothing_was_summed_over_has_no_mean() -> None:
    model = fresh()
    with el.watch(model, prompt(model)) as scope:
        model(input_ids=IDS[:, :1])
    assert scope.sink_with.isnan().all()
    assert not scope.drift.isnan().any()


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama", "mistral"])
def test_beam_search_reorders_the_plain_runs_cache_as_well(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = fresh(name)
    orders: list[Tensor] = []
    reorder = Cache.reorder_cache

    def noted(self: Cache, beams: Tensor) -> None:
        orders.append(beams)
        reorder(self, beams)

    monkeypatch.setattr(Cache, "reorder_cache", noted)
    mask = torch.ones_like(IDS)
    with el.watch(model, prompt(model)) as scope:
        model.generate(
            input_ids=IDS, attention_mask=mask, max_new_tokens=6, num_beams=3, do_sample=False, pad_token_id=0
        )
    assert any(not torch.equal(order, torch.arange(6)) for order in orders)
    # layer 0 sees the tokens alone, so its content attention is the same in both runs if both hold the same beams
    assert scope.drift[0].max() < EXACT
    assert scope.drift[1].min() > 1e-3
    for residual in (scope.attention_residual, scope.output_residual, scope.crossing_residual):
        assert residual.max() < EXACT


def test_gradient_checkpointing_is_counted_once_and_gradients_are_untouched() -> None:
    model = fresh(dtype=torch.float32)
    model.hf.train()
    vectors = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(0), requires_grad=True)

    def gradient(watched: bool) -> tuple[Tensor, int]:
        vectors.grad = None
        prefix = capture_residuals(model, vectors)
        with el.watch(model, prefix) if watched else el.use(model, prefix) as scope:
            model(IDS, labels=IDS).loss.backward()
        assert vectors.grad is not None
        return vectors.grad.clone(), scope.queries if watched else 0

    plain, _ = gradient(False)
    with_watch, queries = gradient(True)
    assert queries == IDS.numel()
    assert torch.equal(plain, with_watch)
    if hasattr(model.hf, "activation_checkpointing_enable"):  # its name from transformers 5.23 on
        model.hf.activation_checkpointing_enable({"use_reentrant": False})
    else:
        model.hf.gradient_checkpointing_enable({"use_reentrant": False})
    checkpointed, queries = gradient(True)
    assert queries == IDS.numel()
    assert torch.allclose(plain, checkpointed, atol=1e-6)


def test_cheap_statistics_leave_gradients_alone_too() -> None:
    model = fresh(dtype=torch.float32)
    vectors = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(0), requires_grad=True)
    found = []
    for watched in (False, True):
        vectors.grad = None
        prefix = capture_residuals(model, vectors)
        with el.watch(model, prefix, residuals=False, drift=False) if watched else el.use(model, prefix):
            model(IDS, labels=IDS).loss.backward()
        assert vectors.grad is not None
        found.append(vectors.grad.clone())
    assert torch.equal(*found)


@torch.no_grad()
def test_without_residuals_the_splits_own_recombination_is_the_output() -> None:
    for name in ("llama", "gemma2", "gpt_oss", "bloom", "mistral"):
        model = fresh(name)
        with el.use(model, prompt(model)):
            joint = model(IDS).logits
        with el.watch(model, prompt(model), residuals=False, drift=False) as scope:
            split = model(IDS).logits
        assert (joint - split).abs().max() < 1e-5 * joint.abs().max(), name  # norms in float32
        with pytest.raises(InputError, match="residuals=True"):
            _ = scope.attention_residual
        assert scope.frame()["drift"].isna().all()


@torch.no_grad()
@pytest.mark.parametrize("residuals", [True, False])
def test_autocast_is_seen_in_float32_and_outputs_are_the_same(residuals: bool) -> None:
    model = fresh(dtype=torch.float32)
    context = prompt(model)
    with torch.autocast("cpu", torch.bfloat16):
        with el.use(model, context):
            plain = model(IDS).logits
        with el.watch(model, context, residuals=residuals, drift=residuals) as scope:
            watched = model(IDS).logits
    assert torch.equal(plain, watched)
    assert scope.prefix_mass.dtype == torch.float32
    if residuals:
        assert scope.attention_residual.max() < 1e-5  # computed in float32 from the same bfloat16 queries and keys
        assert scope.output_residual.max() < 0.05  # the model's own output has 8 bits


def test_dropout_draws_the_same_numbers_when_watched() -> None:
    hf = tiny_model("gpt2", dtype=torch.float32)
    for module in hf.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.3
    for block in hf.transformer.h:
        block.attn.attn_dropout.p = 0.3
    model = Model(hf.train())
    context = prompt(model)
    losses = []
    for entered in (el.use(model, context), el.watch(model, context)):
        torch.manual_seed(0)
        with entered:
            losses.append(model(IDS, labels=IDS).loss.item())
    assert losses[0] == losses[1]
    assert hf.training


# --- and leaves no trace ----------------------------------------------------------------------------------------------


def traces(model: Model) -> list[Any]:
    modules = list(model.hf.modules())
    return [
        model.hf.config._attn_implementation,
        [(len(m._forward_hooks), len(m._forward_pre_hooks), sorted(vars(m)), m.training) for m in modules],
        [(name, p.data_ptr(), p._version) for name, p in model.hf.named_parameters()],
    ]


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama", "mpt"])
def test_the_model_is_as_it_was_after_an_exception(name: str) -> None:
    model = fresh(name)
    context = prompt(model)
    before, logits = traces(model), model(IDS).logits
    with pytest.raises(ZeroDivisionError), el.watch(model, context):
        raise ZeroDivisionError
    assert traces(model) == before

    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    broken = model.anatomy.blocks[1].register_forward_pre_hook(fail)
    with pytest.raises(ZeroDivisionError), el.watch(model, context):
        model(IDS)
    broken.remove()
    assert traces(model) == before
    assert torch.equal(model(IDS).logits, logits)


@torch.no_grad()
def test_a_changed_weight_is_put_back() -> None:
    model = fresh()
    weight = model.hf.model.layers[0].self_attn.q_proj.weight
    before = weight.clone()
    with el.watch(model, ChangedWeight("model.layers.0.self_attn.q_proj.weight")):
        model(IDS)
        assert not torch.equal(weight, before)
    assert torch.equal(weight, before)


class _LargestMatrix(TorchDispatchMode):
    """Notes every floating-point tensor with ``size`` rows and as many columns or more."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.found = size, set[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for x in result if isinstance(result, tuple | list) else (result,):
            if isinstance(x, Tensor) and x.is_floating_point() and x.ndim >= 2 and min(x.shape[-2:]) >= self.size:
                self.found.add(f"{func} {tuple(x.shape)}")
        return result


@torch.no_grad()
def test_no_query_by_key_matrix_is_ever_whole() -> None:
    model = fresh()
    ids = torch.randint(3, 64, (1, 300), generator=torch.Generator().manual_seed(0))
    context = prompt(model)
    with el.use(model, context), _LargestMatrix(300) as own:
        model(ids)
    with el.watch(model, context), _LargestMatrix(300) as seen:
        model(ids)
    assert all("(1, 1, " in made for made in own.found)  # the causal mask, shared by all heads
    assert seen.found == own.found
    model.hf.set_attn_implementation("eager")  # the check can fail
    with _LargestMatrix(300) as seen:
        model(ids)
    assert any("(1, 4, 300, 300)" in made for made in seen.found)


def test_errors_say_what_to_do() -> None:
    model = fresh()
    with el.watch(model) as scope:
        pass
    with pytest.raises(InputError, match="nothing was watched"):
        _ = scope.prefix_mass
    with pytest.raises(InputError, match="has layers 0 to 1, got 2"), el.watch(model, keep=[2]):
        pass
    with pytest.raises(InputError, match="it was made for another"), el.watch(model, PrefixKV((None,), (None,))):
        pass
    with (
        pytest.raises(InputError, match="give the base model as reference"),
        el.use(model, prompt(model)),
        el.watch(model, ChangedWeight("model.layers.0.self_attn.q_proj.weight")),
    ):
        pass
    with el.watch(model, prompt(model), spectra=False) as scope:
        model(IDS)
    with pytest.raises(InputError, match="spectra=True"):
        _ = scope.effective_rank


def test_directions_of_vectors_whose_squares_are_no_float32_numbers() -> None:
    from elicitable.microscope.scope import _directions

    vectors = torch.tensor([[3.0, 4.0], [3e-25, -4e-25], [3e30, 4e30], [0.0, 0.0]])
    wanted = torch.tensor([[0.6, 0.8], [0.6, -0.8], [0.6, 0.8], [0.0, 0.0]])
    torch.testing.assert_close(_directions(vectors), wanted)  # float32's own tolerance
