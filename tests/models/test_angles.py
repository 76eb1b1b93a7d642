"""Rotary angles that hang on the length of a text: a context is exact up to where they change, and refused beyond."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import elicitable as el
from elicitable.errors import InputError
from elicitable.models.architectures import tiny_model
from elicitable.models.inject import room_in
from elicitable.models.model import Model

BORDER = 16
LONG = {
    "rope_type": "longrope",
    "short_factor": [1.0] * 4,
    "long_factor": [2.0] * 4,
    "rope_theta": 1e4,
    "original_max_position_embeddings": BORDER,
}
MADE: dict[str, dict[str, Any]] = {
    "phi3": {"original_max_position_embeddings": BORDER, "rope_parameters": LONG},
    "phimoe": {"rope_parameters": {**LONG, "factor": 4.0, "short_mscale": 1.5, "long_mscale": 1.7}},
    "llama": {
        "max_position_embeddings": BORDER,
        "rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4},
    },
}
HEAD = [7, 9, 4]


def model_of(name: str) -> Model:
    like = {**tiny_model(name).config.to_dict(), **MADE[name]}
    config = AutoConfig.for_model(name, **{key: value for key, value in like.items() if key != "model_type"})
    torch.manual_seed(0)
    hf = AutoModelForCausalLM.from_config(config).eval()
    for weight in hf.parameters():
        if weight.ndim > 1:
            weight.data = 0.25 * torch.randn(weight.shape)
    return el.load(hf)


@torch.no_grad()
@pytest.mark.parametrize("name", MADE)
def test_a_context_is_exact_up_to_the_length_where_angles_change(name: str) -> None:
    model = model_of(name)
    assert model.anatomy.angles_change_at == BORDER
    assert room_in(model, taken=len(HEAD)) == BORDER - len(HEAD)
    ids = torch.arange(10, 10 + BORDER - len(HEAD))[None]
    plain = model(input_ids=torch.cat([torch.tensor([HEAD]), ids], dim=1)).logits[:, len(HEAD) :]
    with el.use(model, el.context("prompt", model, token_ids=HEAD)):
        injected = model(input_ids=ids).logits
    torch.testing.assert_close(injected, plain, rtol=0.0, atol=2e-5)  # float32: logits of size 5


@torch.no_grad()
@pytest.mark.parametrize("name", MADE)
def test_a_longer_text_is_refused_behind_a_context_and_read_as_ever_without(name: str) -> None:
    model = model_of(name)
    ids = torch.arange(10, 11 + BORDER - len(HEAD))[None]
    before = model(input_ids=ids).logits
    with (
        el.use(model, el.context("prompt", model, token_ids=HEAD)),
        pytest.raises(InputError, match=r"14 tokens and the context in front of it 3: .* more than the 16 .* angles"),
    ):
        model(input_ids=ids)
    with el.use(model, []):
        torch.testing.assert_close(model(input_ids=ids).logits, before, rtol=0.0, atol=2e-5)


@pytest.mark.parametrize("name", MADE)
def test_generate_ends_by_name_where_the_border_is_passed(name: str) -> None:
    model = model_of(name)
    model.hf.generation_config.eos_token_id = None
    with el.use(model, el.context("prompt", model, token_ids=HEAD)):
        model.generate(input_ids=torch.tensor([[5, 6]]), max_new_tokens=8, do_sample=False)
        with pytest.raises(InputError, match="rotary angles"):
            model.generate(input_ids=torch.tensor([[5, 6]]), max_new_tokens=20, do_sample=False)


@torch.no_grad()
def test_a_kv_prefix_has_no_angles_and_is_never_too_long_for_them() -> None:
    model = model_of("phi3")
    with el.use(model, el.context("kv-prefix", model, length=3)):
        model(input_ids=torch.arange(10, 40)[None])


def test_other_angles_do_not_hang_on_the_length() -> None:
    assert Model(tiny_model("llama")).anatomy.angles_change_at is None
    assert Model(tiny_model("gemma3_text")).anatomy.angles_change_at is None
    assert Model(tiny_model("gpt2")).anatomy.angles_change_at is None
