"""Position biases on logits: as exact in a rounded type as the model's own, and no row of padding is a row of NaN."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedModel

import elicitable as el
from elicitable.models.architectures import tiny_model
from elicitable.models.model import Model


def divergence(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """KL of the last token's distribution from the wanted one, in nats."""
    p, q = (x[0, -1].double().log_softmax(-1) for x in (wanted, found))
    return float((p.exp() * (p - q)).sum())


def long_mpt(dtype: torch.dtype) -> PreTrainedModel:
    """A tiny MPT with room for 2,048 tokens."""
    hf = tiny_model("mpt", dtype=dtype)
    hf.config.max_seq_len = 2_048
    for block in hf.transformer.blocks:
        block.attn.max_seq_length = 2_048
    return hf


@torch.no_grad()
@pytest.mark.parametrize("is_autocast", [True, False])
def test_mpt_tells_far_positions_apart_in_bfloat16(is_autocast: bool) -> None:
    """They were rounded to multiples of 8 from position 1,024 on; MPT adds its biases in float32."""
    ids = torch.randint(0, 32, (1, 1_500), generator=torch.Generator().manual_seed(0))
    model = Model(long_mpt(torch.float32 if is_autocast else torch.bfloat16))
    exact = long_mpt(torch.bfloat16).float()(input_ids=ids).logits
    with torch.autocast("cpu", torch.bfloat16, enabled=is_autocast):
        own = divergence(model(input_ids=ids).logits, exact)
        with el.use(model, []):
            ours = divergence(model(input_ids=ids).logits, exact)
    assert ours < 2 * own + 1e-4  # was 50 times as far


@torch.no_grad()
@pytest.mark.parametrize("name", ["bloom", "mpt", "llama"])
def test_padded_rows_are_numbers_under_autocast(name: str) -> None:
    """Bloom hides keys by float32's lowest number, which is −∞ in bfloat16: a row of padding had no number at all."""
    model = Model(tiny_model(name, dtype=torch.float32))
    ids = torch.tensor([[0, 0, 0, 5, 6, 7]])
    mask = torch.tensor([[0, 0, 0, 1, 1, 1]])
    with el.use(model, []), torch.autocast("cpu", torch.bfloat16):
        padded = model(input_ids=ids, attention_mask=mask).logits[:, 3:].float()
        alone = model(input_ids=ids[:, 3:]).logits.float()
    assert torch.isfinite(padded).all()
    torch.testing.assert_close(padded, alone, rtol=0.0, atol=0.05)  # a few roundings of bfloat16 of logits of size 2
