"""A model's fingerprint is equal exactly where everything that changes its answers is equal."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

import elicitable as el
from elicitable.models.architectures import tiny_model
from elicitable.models.model import Model


def other_theta(hf: PreTrainedModel) -> PreTrainedModel:
    """The same weights, read at other angles."""
    config = copy.deepcopy(hf.config)
    config.rope_parameters = {**config.rope_parameters, "rope_theta": 77.0}
    other = type(hf)(config).to(hf.dtype)
    other.load_state_dict(hf.state_dict())
    return other.eval()


def other_activation(hf: PreTrainedModel) -> PreTrainedModel:
    config = copy.deepcopy(hf.config)
    config.hidden_act = "relu"
    other = type(hf)(config).to(hf.dtype)
    other.load_state_dict(hf.state_dict())
    return other.eval()


@pytest.mark.parametrize("change", [other_theta, other_activation])
def test_equal_weights_under_another_configuration_are_another_model(
    change: Callable[[PreTrainedModel], PreTrainedModel],
) -> None:
    hf = tiny_model("llama")
    one, other = Model(hf), Model(change(hf))
    ids = torch.tensor([[3, 1, 4, 1, 5]])
    assert not torch.equal(one(input_ids=ids).logits, other(input_ids=ids).logits)
    assert one.fingerprint != other.fingerprint


def test_a_copy_and_a_saved_and_loaded_model_are_the_same_model(tmp_path: Path) -> None:
    model = Model(tiny_model("llama"))
    model.hf.save_pretrained(tmp_path)
    loaded = el.load(tmp_path, dtype="float64")
    assert model.fingerprint == Model(copy.deepcopy(model.hf), name="a copy").fingerprint == loaded.fingerprint
    with el.use(model, el.context("prompt", model, token_ids=[3])):
        inside = model.fingerprint
    with el.use(model, el.context("prompt", model, token_ids=[3]), strength=0.5):
        half = model.fingerprint
    assert len({inside, half, model.fingerprint}) == 3
    assert model.fingerprint == loaded.fingerprint


def test_another_tokenizer_reads_other_tokens(letters_model: Callable[..., Model]) -> None:
    plain, started, again = letters_model(), letters_model(has_start=True), letters_model()
    assert plain.fingerprint != started.fingerprint
    assert plain.fingerprint == again.fingerprint
    plain.tokenizer.padding_side = "left"
    plain.tokenizer.pad_token = "."
    plain.tokenizer(["a", "abc"], padding=True, truncation=True, max_length=2)  # leaves its mark on the tokenizer
    plain.hf.transformer.wte.weight.data = plain.hf.transformer.wte.weight.data.clone()  # so that it is read again
    assert plain.fingerprint == again.fingerprint
