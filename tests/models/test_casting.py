"""A model changes its type as transformers would have loaded it: what is computed from the configuration stays."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import elicitable as el
from elicitable.models.architectures import tiny_model
from elicitable.models.casting import cast


def bf16(folder: Path) -> tuple[el.Model, torch.Tensor]:
    """A model in bfloat16 as it is loaded by name, and its rotary frequencies."""
    tiny_model("llama", dtype=torch.float32).save_pretrained(folder)
    model = el.load(folder, device="cpu", dtype="bfloat16")
    return model, model.hf.model.rotary_emb.inv_freq.clone()


def test_a_model_in_memory_is_moved_without_rounding_its_angles(tmp_path: Path) -> None:
    """They were brought to bfloat16 with all else, also where no type was asked for: off by radians at 1,000 tokens."""
    model, angles = bf16(tmp_path)
    assert angles.dtype == torch.float32
    again = el.load(model.hf, device="cpu")
    assert torch.equal(again.hf.model.rotary_emb.inv_freq, angles)
    assert again.dtype == torch.bfloat16


def test_a_type_that_is_asked_for_is_that_of_the_weights(tmp_path: Path) -> None:
    loaded, angles = bf16(tmp_path)
    model = el.load(tiny_model("llama", dtype=torch.float32), dtype="bfloat16")
    assert {weight.dtype for weight in model.hf.parameters()} == {torch.bfloat16}
    assert torch.equal(model.hf.model.rotary_emb.inv_freq, angles)
    assert model.fingerprint == loaded.fingerprint
    ids = torch.arange(5)[None]
    assert torch.equal(model(input_ids=ids).logits, loaded(input_ids=ids).logits)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_what_a_model_keeps_in_float32_is_kept(dtype: torch.dtype, tmp_path: Path) -> None:
    """As it is where the same weights are loaded in that type."""
    hf = tiny_model("deepseek_v3", dtype=torch.float32)
    hf.save_pretrained(tmp_path)
    wanted = {name: x.dtype for name, x in type(hf).from_pretrained(tmp_path, dtype=dtype).state_dict().items()}
    cast(hf, dtype)
    assert {name: x.dtype for name, x in hf.state_dict().items()} == wanted
    assert torch.float32 in wanted.values()
