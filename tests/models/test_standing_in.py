"""A model in which a context is not what its tokens are in front of a text is refused, in any type of numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.coarse import TF32
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BartConfig,
    BartForCausalLM,
    RobertaConfig,
    RobertaForCausalLM,
)

import elicitable as el
from elicitable.errors import UnsupportedModelError
from elicitable.models.architectures import ARCHITECTURES, tiny_model
from elicitable.models.model import Model
from elicitable.models.rounding import rounding

EXACT = [row.name for row in ARCHITECTURES if not row.reason]
OUTSIDE = [row.name for row in ARCHITECTURES if "outside of attention" in row.reason]
ROUNDED = (torch.float32, torch.bfloat16, torch.float16)


@pytest.mark.parametrize("dtype", ROUNDED, ids=str)
@pytest.mark.parametrize("name", OUTSIDE)
def test_what_sees_earlier_tokens_outside_of_attention_is_refused(name: str, dtype: torch.dtype) -> None:
    hf = tiny_model(name, dtype=dtype)
    with pytest.raises(UnsupportedModelError, match=f"{type(hf).__name__}: a part of it sees .*outside of attention"):
        el.load(hf)


@pytest.mark.parametrize("dtype", ROUNDED, ids=str)
def test_rounding_refuses_no_exact_architecture(dtype: torch.dtype) -> None:
    """Experts among them, whose routers choose otherwise where scores are as good as equal."""
    for name in EXACT:
        assert Model(tiny_model(name, dtype=dtype)).anatomy.depth == 2


def test_products_in_tf32_refuse_no_exact_architecture() -> None:
    """A model of plain attention was called one with a state space, where float32 products are computed in TF32."""
    for name in EXACT:
        hf = tiny_model(name, dtype=torch.float32)
        with TF32():
            assert Model(hf).anatomy.depth == 2


@pytest.mark.parametrize("name", OUTSIDE)
def test_what_sees_earlier_tokens_outside_of_attention_is_refused_in_tf32(name: str) -> None:
    hf = tiny_model(name, dtype=torch.float32)
    with TF32(), pytest.raises(UnsupportedModelError, match="outside of attention"):
        el.load(hf)


def test_rounding_is_measured_not_asked() -> None:
    """Settings that lower products are many; the type of the model is one of them."""
    model = Model(tiny_model("llama", dtype=torch.float32))
    eps = torch.finfo(torch.float32).eps
    assert rounding(model) == eps
    with TF32():
        assert 2**-13 < rounding(model) < 2**-10
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert 2**-12 < rounding(model) < 2**-7
    assert rounding(Model(tiny_model("llama", dtype=torch.float64))) == torch.finfo(torch.float64).eps
    assert rounding(Model(tiny_model("llama", dtype=torch.bfloat16))) == torch.finfo(torch.bfloat16).eps


class Behind(nn.Module):
    """Adds to every token what stood before it, as a short convolution over the stream does."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + nn.functional.pad(x, (0, 0, 1, 0))[:, :-1])


@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma2"])
def test_a_convolution_that_somebody_put_into_a_model_is_found(name: str) -> None:
    hf = tiny_model(name, dtype=torch.float32)
    assert el.load(hf).anatomy.depth == 2
    changed = tiny_model(name, dtype=torch.float32)
    changed.model.layers[1].post_attention_layernorm = Behind(changed.model.layers[1].post_attention_layernorm)
    with pytest.raises(UnsupportedModelError, match="outside of attention"):
        el.load(changed)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["hunyuan_v1_dense", "hunyuan_v1_moe"])
def test_angles_that_a_norm_turns_back_are_not_relative(name: str, dtype: torch.dtype) -> None:
    """Where queries and keys are normed after they are turned, and the norm's weights differ."""
    hf, drawn = tiny_model(name, dtype=torch.float64), torch.Generator().manual_seed(5)
    assert Model(hf).anatomy.has_relative_positions  # its weights are ones
    for weight in hf.parameters():
        if weight.ndim == 1:
            weight.copy_(1 + 0.3 * torch.randn(weight.shape, generator=drawn))
    model = Model(hf.to(dtype))
    assert not model.anatomy.has_relative_positions
    if dtype == torch.bfloat16:
        return
    head, ids = torch.tensor([[7, 9, 4]]), torch.arange(10, 40)[None]
    plain = model(input_ids=torch.cat([head, ids], dim=1)).logits[:, 3:]
    with el.use(model, el.context("prompt", model, token_ids=[7, 9, 4])):
        injected = model(input_ids=ids).logits
    torch.testing.assert_close(injected, plain, rtol=0.0, atol=2e-5)  # norms in float32: logits of size 5


# two that keep their window in the mask alone, one that passes it as well, and one with a window in every other layer
WINDOWS: dict[str, dict[str, Any]] = {
    "phimoe": {},
    "qwen2_moe": {"use_sliding_window": True, "layer_types": ["sliding_attention", "full_attention"]},
    "mistral": {},
    "gemma2": {"head_dim": 16},
}


def with_window(name: str, window: int) -> Model:
    like = {**tiny_model(name).config.to_dict(), "sliding_window": window, **WINDOWS[name]}
    config = AutoConfig.for_model(name, **{key: value for key, value in like.items() if key != "model_type"})
    torch.manual_seed(0)
    hf = AutoModelForCausalLM.from_config(config)
    for weight in hf.parameters():
        if weight.ndim > 1:
            weight.data = 0.25 * torch.randn(weight.shape)
    return el.load(hf.eval())


@torch.no_grad()
@pytest.mark.parametrize("window", [4, 16])
@pytest.mark.parametrize("name", WINDOWS)
def test_a_window_cuts_the_context_off_wherever_the_model_keeps_it(name: str, window: int) -> None:
    model = with_window(name, window)
    assert model.anatomy.layers[0].sliding_window == window
    head, ids = torch.tensor([[7, 9, 4]]), torch.arange(10, 40)[None]
    plain = model(input_ids=torch.cat([head, ids], dim=1)).logits[:, 3:]
    with el.use(model, el.context("prompt", model, token_ids=[7, 9, 4])):
        injected = model(input_ids=ids).logits
    torch.testing.assert_close(injected, plain, rtol=0.0, atol=2e-5)  # float32: logits of size 6


@pytest.mark.parametrize("name", WINDOWS)
def test_a_window_that_is_far_is_read_off_the_mask(name: str) -> None:
    assert with_window(name, 4096).anatomy.layers[0].sliding_window == 4096


def test_the_decoder_is_the_module_that_takes_the_text() -> None:
    """modernbert calls its head a decoder."""
    model = Model(tiny_model("modernbert-decoder"))
    assert model.anatomy.decoder is model.hf.model
    assert model.anatomy.takes_position_ids


@pytest.mark.parametrize("padding", [0, 1, 7])
def test_a_decoder_whose_positions_begin_elsewhere_is_refused(padding: int) -> None:
    """RoBERTa's begin behind its padding token's; it was read from 0 as soon as anything was in use.

    Where that token is 0, a text that begins with it stands where others do.
    """
    config = RobertaConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=64, is_decoder=True, pad_token_id=padding,
    )  # fmt: skip
    with pytest.raises(UnsupportedModelError, match="RobertaForCausalLM: its first token does not stand at position 0"):
        el.load(RobertaForCausalLM(config).eval())


def test_a_decoder_that_takes_no_positions_is_refused_for_that() -> None:
    """BART's learned positions; it was said to have a state space or a convolution."""
    config = BartConfig(
        vocab_size=64, d_model=32, encoder_layers=2, decoder_layers=2, decoder_attention_heads=4, decoder_ffn_dim=48,
        max_position_embeddings=64, pad_token_id=0,
    )  # fmt: skip
    hf, drawn = BartForCausalLM(config).eval(), torch.Generator().manual_seed(0)
    for weight in hf.parameters():
        if weight.ndim > 1:
            weight.data = 0.25 * torch.randn(weight.shape, generator=drawn)
    with pytest.raises(UnsupportedModelError, match="BartForCausalLM counts the positions of its tokens itself"):
        el.load(hf)


def test_a_context_of_any_length_stands_where_queries_are_scaled_by_position() -> None:
    """Beam's grow by (1 + p / 2048)^0.1, which twelve tokens hardly show; behind forty the logits were off by 8e-4."""
    model = Model(tiny_model("beam"))
    assert not model.anatomy.has_relative_positions
    ids = torch.arange(3, 50)[None]
    plain = model(input_ids=ids).logits[:, 40:]
    with el.use(model, el.context("prompt", model, token_ids=ids[0, :40].tolist())):
        injected = model(input_ids=ids[:, 40:]).logits
    torch.testing.assert_close(injected, plain, rtol=0.0, atol=1e-10)  # float64, of numbers below 10
