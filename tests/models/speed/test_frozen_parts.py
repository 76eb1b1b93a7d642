"""Frozen linear layers, norms and rotary attention taken one by one: as near to the exact step as the plain ones."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from tests.models.speed.steps import batch_of, one_step, opened
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb

from elicitable.methods.catalog import method_named
from elicitable.models.architectures import ARCHITECTURES, tiny_model
from elicitable.models.model import Model
from elicitable.models.speed import frozen_parts as parts
from elicitable.models.speed import precision, processor
from elicitable.models.speed.frozen_parts import FrozenLinear, FrozenNorm, is_frozen_linear, is_frozen_norm
from elicitable.models.speed.rotary import RotaryAttention, is_of_llamas_form, turned

EXACT = [row.name for row in ARCHITECTURES if row.state == "exact"]
IN_FORM = {"llama", "mistral", "qwen2"}
PACKS = processor.packs(torch.bfloat16)


def tiny(name: str, dtype: torch.dtype = torch.float32) -> Model:
    hf, drawn = tiny_model(name, dtype=torch.float32), torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in hf.parameters():
            if weight.ndim == 1:  # norms and biases: ones and zeros would hide which is which
                weight.copy_(1 + 0.3 * torch.randn(weight.shape, generator=drawn))
    return Model(hf.to(dtype), name="tiny")


@contextmanager
def plainly() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision, "frozen_parts", lambda model, dtype: nullcontext())
        yield


def stood_in(model: Model, kind: type) -> int:
    return sum(isinstance(vars(module).get("forward"), kind) for module in model.hf.modules())


def distance(found: list[Tensor], exact: list[Tensor]) -> float:
    """Relative error of all gradients together."""
    apart = sum(float((a.double() - b.double()).square().sum()) for a, b in zip(found[1:], exact[1:], strict=True))
    return (apart / sum(float(b.double().square().sum()) for b in exact[1:])) ** 0.5


@pytest.mark.parametrize(("name", "method"), [*((name, "kv-prefix") for name in EXACT), ("llama", "lora")])
def test_a_step_is_as_near_to_the_exact_one_as_the_plain_step(name: str, method: str, fast: bool) -> None:
    batch = batch_of(6, 11, 3, padded=True)
    ours = one_step(tiny(name), method, batch)
    with plainly():
        plain = one_step(tiny(name), method, batch)
    exact = one_step(tiny(name, torch.float64), method, batch)
    # a tenth, and the rounding of float32, for the luck of the draw: either way errs by bfloat16's rounding
    assert distance(ours, exact) <= 1.1 * distance(plain, exact) + (2e-3 if fast else 1e-5)
    spread = float(exact[0].std())
    assert float((ours[0] - plain[0]).abs().max()) <= spread * (0.05 if fast else 1e-5)


@pytest.mark.parametrize("name", EXACT)
def test_what_stands_in_is_taken_out_again(name: str, fast: bool) -> None:
    model = tiny(name)
    before = [vars(module).get("forward") for module in model.hf.modules()]
    with opened(model):
        linear = sum(type(module) is nn.Linear for module in model.hf.modules())
        linear *= fast and PACKS and model.runs_in_bfloat16
        assert stood_in(model, FrozenLinear) == linear
        assert stood_in(model, RotaryAttention) == (2 if name in IN_FORM else 0)
        if name in IN_FORM:
            assert stood_in(model, FrozenNorm) == 5
        with precision.frozen_casts(model):  # a second one finds nothing that is left to do
            pass
        assert stood_in(model, FrozenLinear) == linear
    assert [vars(module).get("forward") for module in model.hf.modules()] == before


def test_what_is_kept_is_there_the_next_time_and_no_longer(fast: bool) -> None:
    model, other = tiny("llama"), tiny("llama")

    def prepared() -> dict[nn.Module, Any]:
        with opened(model):
            own = {module: vars(module).get("forward") for module in model.hf.modules()}
            cast = {module: weight for module in own if (weight := module._parameters.get("weight")) is not None}
        kinds = FrozenNorm, FrozenLinear
        kept = {module: forward for module, forward in own.items() if isinstance(forward, kinds)}
        return kept | {module: cast[module] for module in set(cast) - set(kept) if cast[module].dtype != torch.float32}

    def anew(before: dict[nn.Module, Any], after: dict[nn.Module, Any]) -> int:
        assert before.keys() == after.keys()
        return sum(before[module] is not after[module] for module in before)

    count = len(prepared())
    assert count >= (20 if fast else 5)
    assert anew(prepared(), prepared()) == count
    with parts.keeping_parts(model):
        first = prepared()
        assert anew(first, prepared()) == 0
        with parts.keeping_parts(model), parts.keeping_parts(other):
            pass
        assert anew(first, prepared()) == 0
        own, norm = model.hf.model.layers[0].input_layernorm.weight, model.hf.model.norm
        model.hf.model.layers[0].input_layernorm.weight = nn.Parameter(own.detach() + 1)
        with torch.no_grad():
            norm.weight.mul_(2)
        changed = prepared()
        assert anew(first, changed) == 2
        assert torch.equal(changed[norm].weight, norm.weight)
        assert torch.equal(changed[model.hf.model.layers[0].input_layernorm].weight, own.detach() + 1)
        for write in (lambda: norm.weight.data.mul_(2), lambda: setattr(norm.weight, "data", norm.weight.data * 2)):
            before = prepared()[norm]  # neither is counted as a change of the weight, and adapters are merged so
            write()
            assert prepared()[norm] is not before
            assert torch.equal(prepared()[norm].weight, norm.weight)
    assert anew(changed, prepared()) == count


def test_steps_are_the_same_bits_with_what_is_kept() -> None:
    model, batch = tiny("llama"), batch_of(6, 11, 3, padded=True)
    found = one_step(model, "kv-prefix", batch)
    with parts.keeping_parts(model):
        for method in ("lora", "kv-prefix"):
            again = one_step(model, method, batch)
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))


def test_what_is_kept_goes_with_its_model() -> None:
    model = tiny("llama")
    parts.keep_parts(model)
    with opened(model):
        pass
    assert model.hf in parts._kept
    gone = weakref.ref(model.hf)
    del model
    gc.collect()
    assert gone() is None


def test_outputs_of_llamas_form_are_the_plain_ones_bit_for_bit(fast: bool) -> None:
    batch = batch_of(4, 13, 2)
    for name in sorted(IN_FORM):
        ours = one_step(tiny(name), "kv-prefix", batch)
        with plainly():
            plain = one_step(tiny(name), "kv-prefix", batch)
        assert torch.equal(ours[0], plain[0]), name


def test_a_norm_and_its_way_back_in_float64() -> None:
    drawn = torch.Generator().manual_seed(0)
    x, weight, gradient = (torch.randn(n, 7, generator=drawn, dtype=torch.float64) for n in (5, 1, 5))
    norm = LlamaRMSNorm(7, eps=1e-3).double().requires_grad_(False)
    norm.weight.copy_(weight[0])
    found = []
    for function in (lambda x: parts._Normed.apply(x, norm.weight, 1e-3), lambda x: plain_norm(x, weight, 1e-3)):
        leaf = x.clone().requires_grad_()
        output = function(leaf)
        found.append((output, *torch.autograd.grad(output, leaf, gradient)))
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, rtol=0, atol=1e-14)
    assert torch.autograd.gradcheck(lambda x: parts._Normed.apply(x, norm.weight, 1e-3), (x.requires_grad_(),))


def plain_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    return weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + epsilon)


class OnePlusRMSNorm(LlamaRMSNorm):
    """As Gemma's: weights that are added to one."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        plain: Tensor = hidden_states * torch.rsqrt(hidden_states.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return (1 + self.weight) * plain


def test_only_norms_that_are_plain_and_frozen_are_replaced() -> None:
    norm = LlamaRMSNorm(8)
    assert not is_frozen_norm(norm)  # it would be trained
    assert is_frozen_norm(norm.requires_grad_(False))
    assert not is_frozen_norm(copy.deepcopy(norm).double())
    assert not is_frozen_norm(OnePlusRMSNorm(8).requires_grad_(False))
    assert not is_frozen_norm(nn.LayerNorm(8).requires_grad_(False))
    assert not is_frozen_norm(nn.RMSNorm(8, elementwise_affine=False))  # no weight, and no epsilon that is known
    assert not is_frozen_linear(nn.Linear(8, 8))
    assert is_frozen_linear(nn.Linear(8, 8).requires_grad_(False))
    assert not is_frozen_linear(nn.Linear(8, 8, dtype=torch.float64).requires_grad_(False))


def test_a_norm_of_other_numbers_is_the_modules_own() -> None:
    norm = LlamaRMSNorm(8).requires_grad_(False)
    for dtype in (torch.bfloat16, torch.float64):
        x = torch.randn(3, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
        assert torch.equal(FrozenNorm(norm)(x), norm(x))


@pytest.mark.parametrize("heads", [1, 3])
def test_queries_are_turned_as_transformers_turns_them(heads: int) -> None:
    drawn = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, heads * 8, generator=drawn)
    angles = torch.randn(2, 5, 4, generator=drawn)
    cos, sin = (torch.cat([f(angles)] * 2, dim=-1) for f in (torch.cos, torch.sin))

    def plain(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        turned: Tensor = apply_rotary_pos_emb(*[x.view(2, 5, heads, 8).transpose(1, 2)] * 2, cos, sin)[0]
        return turned

    assert torch.equal(turned(x, cos, sin), plain(x, cos, sin))
    lowered = x.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(turned(lowered, cos, sin), plain(lowered, cos, sin).bfloat16())
    found, exact = [], (x.double(), cos.double(), sin.double())
    for function in (turned, plain):
        leaf = exact[0].clone().requires_grad_()
        output = function(leaf, *exact[1:])
        gradient = torch.randn(output.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        found.append(torch.autograd.grad(output, leaf, gradient)[0])
    torch.testing.assert_close(*found, rtol=0, atol=1e-14)


def test_beside_a_cache_and_without_gradients_attention_is_the_modules_own(monkeypatch: pytest.MonkeyPatch) -> None:
    model, turns = tiny("llama"), list[int]()
    monkeypatch.setattr("elicitable.models.speed.rotary.turned", lambda *given: turns.append(1) or turned(*given))
    ids = torch.tensor([[1, 2, 3, 4]])
    with opened(model):
        cache = model.hf(input_ids=ids, use_cache=True).past_key_values
        continued = model.hf(input_ids=ids[:, :1], past_key_values=cache, use_cache=True).logits
        with torch.no_grad():
            model.hf(input_ids=ids, use_cache=False)
        assert not turns
        whole = model.hf(input_ids=torch.tensor([[1, 2, 3, 4, 1]]), use_cache=False).logits
    assert len(turns) == 4
    torch.testing.assert_close(continued[:, -1], whole[:, -1], rtol=0.02, atol=0.02)  # in bfloat16 where it is fast


def test_watchers_see_what_the_module_gives() -> None:
    model, ids, seen = tiny("llama"), torch.tensor([[1, 2, 3, 4]]), list[torch.dtype]()
    with opened(model):
        slot = model.anatomy.attentions[0]._elicitable_seat.slot
        with slot.watched_by(lambda call: seen.append(call.query.dtype)):
            model.hf(input_ids=ids, use_cache=False)
    assert seen == [torch.float32] * 2


def test_hooks_on_a_layer_see_what_they_would_see() -> None:
    model, ids, seen = tiny("llama"), torch.tensor([[1, 2, 3, 4]]), list[Tensor]()
    layer: Any = model.anatomy.blocks[0]
    hooks = [
        one.register_forward_hook(lambda module, args, output: seen.append(output))
        for one in (layer.input_layernorm, layer.self_attn.v_proj, layer.mlp)
    ]
    with opened(model):
        model.hf(input_ids=ids, use_cache=False)
    with plainly(), opened(model):
        model.hf(input_ids=ids, use_cache=False)
    assert all(torch.equal(a, b) for a, b in zip(seen[:3], seen[3:], strict=True))
    for hook in hooks:
        hook.remove()


@pytest.mark.skipif(not PACKS, reason="matrices are not laid out here; that nothing stands in is tested above")
def test_no_more_is_laid_out_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_fast_bfloat16", lambda device: True)
    model, batch = tiny("llama"), batch_of(4, 9, 3)
    whole = one_step(model, "kv-prefix", batch)
    sizes = [module.weight.numel() for module in model.hf.modules() if type(module) is nn.Linear]
    monkeypatch.setattr(parts, "LAID_OUT", sum(sizes[:3]))
    with opened(model):
        assert stood_in(model, FrozenLinear) == 3
        others = [m for m in model.hf.modules() if type(m) is nn.Linear and "forward" not in vars(m)]
        assert {module.weight.dtype for module in others} == {torch.bfloat16}  # cast once, as ever
    assert torch.equal(one_step(model, "kv-prefix", batch)[0], whole[0])


def test_lora_trains_beside_a_layer_that_is_laid_out(fast: bool) -> None:
    model = tiny("llama")
    lora = method_named("lora").build(model, 1, seed=0)
    with lora.weights(model):
        for weight in model.hf.parameters():
            weight.requires_grad_(False)
        for parameter in lora.parameters():
            parameter.requires_grad_(True)
        with precision.frozen_casts(model):
            base: Any = model.anatomy.attentions[0]
            assert isinstance(vars(base.q_proj.base_layer).get("forward"), FrozenLinear) == (fast and PACKS)
            assert not any("forward" in vars(one) for one in base.q_proj.lora_A.values())


def test_outside_of_autocast_a_layer_is_its_own() -> None:
    layer = nn.Linear(8, 4).requires_grad_(False)
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(FrozenLinear(layer)(x), layer(x))
    with torch.autocast("cpu", torch.bfloat16):
        assert FrozenLinear(layer)(x[:0]).shape == (0, 4)


def test_of_llamas_form_are_those_whose_forward_was_read() -> None:
    assert {name for name in EXACT if is_of_llamas_form(tiny(name).anatomy.attentions[0])} == IN_FORM
