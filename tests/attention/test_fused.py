"""Context and content in two fused calls are the softmax over both: in float64 on a CPU, and by a GPU's own kernels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.models.test_dispatch import llama

import elicitable as el
from elicitable.attention.fused import Keys, OnCPU, kernel_for
from elicitable.methods.catalog import method_named
from elicitable.models import attend
from elicitable.models.attend import Call, Slot, combine
from elicitable.models.inject import installed
from elicitable.models.model import as_model
from elicitable.models.speed import two_calls

BATCH, HEADS, WIDTH = 3, 4, 8
WITH_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="the same cases run on a CPU's kernel above")


def drawn(case: str, dtype: torch.dtype, device: str = "cpu", queries: int = 7, width: int = WIDTH) -> Call:
    """One attention call of random numbers, of a kind that ``case`` names."""
    random = torch.Generator().manual_seed(len(case))
    keys, kv_heads, prefix = queries, HEADS, 5
    extra: dict[str, Any] = {}
    if case == "grouped":
        kv_heads = 2
    elif case == "one query":
        queries, keys = 1, 9
    elif case == "behind a cache":
        keys = queries + 6
    elif case == "padded left":
        visible = torch.ones(queries, keys).tril().bool() & (
            torch.arange(keys) >= torch.tensor([0, 2, 3])[:, None, None]
        )
        extra["content_mask"] = (visible | torch.eye(keys).bool())[:, None]
    elif case == "nothing of the content":
        extra["content_mask"] = torch.ones(queries, keys).tril(-1).bool()[None, None]
    elif case == "additive":
        extra["content_mask"] = torch.randn(BATCH, 1, queries, keys, generator=random, dtype=dtype)
    elif case == "strength":
        extra["log_strength"] = -0.7
    elif case == "pruned":
        extra["prefix_visible"] = torch.rand(1, HEADS, 1, prefix, generator=random) > 0.4
        extra["prefix_visible"][:, 1] = False  # a head without any of the context
    elif case == "window":
        extra["prefix_visible"] = torch.rand(BATCH, 1, queries, prefix, generator=random) > 0.5
        extra["log_strength"] = 0.3
    shapes = {
        "query": (BATCH, HEADS, queries, width),
        "key": (BATCH, kv_heads, keys, width),
        "value": (BATCH, kv_heads, keys, width),
        "prefix_key": (BATCH, kv_heads, prefix, width),
        "prefix_value": (BATCH, kv_heads, prefix, width),
    }
    tensors = {
        name: torch.randn(shape, generator=random, dtype=torch.float64).to(device, dtype).requires_grad_()
        for name, shape in shapes.items()
    }
    extra = {name: x.to(device) if isinstance(x, torch.Tensor) else x for name, x in extra.items()}
    return Call(layer=0, module=torch.nn.Identity(), scaling=width**-0.5, **tensors, **extra)


CASES = (
    "plain", "grouped", "one query", "behind a cache", "padded left", "nothing of the content", "additive", "strength",
    "pruned", "window",
)  # fmt: skip


def found(call: Call, output: torch.Tensor) -> list[torch.Tensor]:
    """The output and the gradients of a fixed sum of it."""
    operands = [call.query, call.key, call.value, call.prefix_key, call.prefix_value]
    weights = torch.linspace(-1, 1, output.numel(), dtype=torch.float64).reshape(output.shape).to(output)
    return [output.detach(), *torch.autograd.grad((output * weights).sum(), operands)]


@pytest.mark.parametrize("case", CASES)
def test_two_calls_are_the_joint_softmax_in_float64(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    call = drawn(case, torch.float64)
    joint = found(call, combine(call, Slot()))
    monkeypatch.setattr(two_calls, "kernel_for", lambda query, keys: OnCPU())
    monkeypatch.setattr(two_calls, "DEVICES", {"cpu"})
    monkeypatch.setattr(two_calls, "LONG", 0)
    output = two_calls.in_two_calls(call, Slot())
    assert output is not None
    for a, b in zip(found(call, output), joint, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_a_strength_is_a_shift_of_the_contexts_log_sum_exp(monkeypatch: pytest.MonkeyPatch) -> None:
    """A strength far down leaves the content alone: a check that the comparison above can fail."""
    call = drawn("plain", torch.float64)
    monkeypatch.setattr(two_calls, "kernel_for", lambda query, keys: OnCPU())
    monkeypatch.setattr(two_calls, "DEVICES", {"cpu"})
    monkeypatch.setattr(two_calls, "LONG", 0)
    alone = combine(call.without_context(), Slot())
    weak = two_calls.in_two_calls(Call(**{**vars(call), "log_strength": -60.0}), Slot())
    full = two_calls.in_two_calls(call, Slot())
    assert weak is not None
    assert full is not None
    torch.testing.assert_close(weak, alone, rtol=0, atol=1e-12)
    assert (full - alone).abs().max() > 0.1


@pytest.mark.parametrize("odd", ["softcap", "sink", "content_bias"])
def test_what_a_kernel_cannot_do_is_one_call(odd: str, monkeypatch: pytest.MonkeyPatch) -> None:
    call = drawn("plain", torch.float64)
    given = {"softcap": 5.0, "sink": torch.zeros(HEADS), "content_bias": torch.zeros(1, 1, 1, 7)}[odd]
    monkeypatch.setattr(two_calls, "kernel_for", lambda query, keys: OnCPU())
    monkeypatch.setattr(two_calls, "DEVICES", {"cpu"})
    monkeypatch.setattr(two_calls, "LONG", 0)
    assert two_calls.in_two_calls(Call(**{**vars(call), odd: given}), Slot()) is None


def test_a_cpu_keeps_its_one_call_and_so_does_a_short_content(monkeypatch: pytest.MonkeyPatch) -> None:
    call = drawn("plain", torch.float64)
    assert kernel_for(call.query, Keys(call.key, call.value)) is None
    assert two_calls.in_two_calls(call, Slot()) is None
    monkeypatch.setattr(two_calls, "kernel_for", lambda query, keys: OnCPU())
    monkeypatch.setattr(two_calls, "DEVICES", {"cpu"})
    assert two_calls.in_two_calls(call, Slot()) is None
    monkeypatch.setattr(two_calls, "LONG", 7)
    assert two_calls.in_two_calls(call, Slot()) is not None


@pytest.mark.parametrize("is_trained", [True, False])
def test_a_model_behind_a_prefix_is_the_same_by_two_calls(is_trained: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits of padded rows and a trained prefix's gradient, through the very dispatch that a GPU takes."""
    model = as_model(llama())
    prefix = method_named("kv-prefix").build(model, size=3, seed=1)
    ids = torch.randint(0, 32, (2, 6), generator=torch.Generator().manual_seed(0))
    seen = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    results = []
    for devices in ((), ("cpu",)):
        monkeypatch.setattr(two_calls, "DEVICES", set(devices))
        monkeypatch.setattr(two_calls, "LONG", 0)
        monkeypatch.setattr(two_calls, "kernel_for", lambda query, keys: OnCPU())
        with torch.set_grad_enabled(is_trained), el.use(model, [prefix]):
            logits = model.hf(input_ids=ids, attention_mask=seen).logits[:, -1]
        gradients = torch.autograd.grad(logits.square().sum(), list(prefix.parameters())) if is_trained else ()
        results.append([logits.detach(), *gradients])
    assert len(results[0]) == (5 if is_trained else 1)  # two layers, keys and values
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-12)


@WITH_GPU
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", CASES)
def test_a_gpus_kernels_are_the_joint_softmax(case: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """As near to float64's numbers as the joint call of the same type, twice over: each part is rounded once more."""
    exact = found(call := drawn(case, torch.float64, queries=70, width=64), combine(call, Slot()))
    call = drawn(case, dtype, "cuda", queries=70, width=64)
    assert kernel_for(call.query, Keys(call.key, call.value)) is not None
    monkeypatch.setattr(two_calls, "LONG", 0)
    output = two_calls.in_two_calls(call, Slot())
    assert output is not None
    mask = attend.joint_mask(call, Slot())
    pairs = ((call.prefix_key, call.key), (call.prefix_value, call.value))
    key, value = (torch.cat(pair, dim=2).repeat_interleave(HEADS // pair[1].shape[1], dim=1) for pair in pairs)
    joint = torch.nn.functional.scaled_dot_product_attention(call.query, key, value, attn_mask=mask, scale=call.scaling)
    for ours, theirs, right in zip(found(call, output), found(call, joint), exact, strict=True):
        error = (ours.double().cpu() - right).abs().max()
        allowed = (theirs.double().cpu() - right).abs().max()
        assert error <= 2 * allowed + 8 * torch.finfo(dtype).eps * right.abs().max(), (error, allowed)


def test_a_context_in_use_leaves_cudnn_out_and_puts_it_back() -> None:
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(True)
    try:
        with installed(as_model(llama())):
            assert not torch.backends.cuda.cudnn_sdp_enabled()
        assert torch.backends.cuda.cudnn_sdp_enabled()
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


@WITH_GPU
def test_gradients_behind_padding_are_numbers_at_every_width() -> None:
    """cuDNN's are not where the keys are 64 more than a multiple of 128."""
    model = as_model(llama().to("cuda", torch.bfloat16))
    for width in (63, 64, 128, 192):
        mask = torch.ones(2, width, dtype=torch.long, device="cuda")
        mask[0, : width // 2] = 0
        with installed(model):
            loss = model.hf(input_ids=mask, attention_mask=mask).logits[:, -1].float().square().sum()
        found = torch.autograd.grad(loss, [p for p in model.hf.parameters() if p.requires_grad], allow_unused=True)
        assert all(one is None or bool(one.isfinite().all()) for one in found), width
