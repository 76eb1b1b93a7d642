"""A model's fingerprint is equal exactly where everything that changes its answers is equal."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.families import tokenizer
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


def test_what_is_found_with_one_chat_template_is_not_of_another(tmp_path: Path) -> None:
    """A folder whose template was corrected took up the trials of the old one, whose rows were other texts."""
    given = copy.deepcopy(tokenizer("byte-level BPE"))
    model = Model(tiny_model("llama"), given)
    found = {model.identity}
    given.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    found.add(model.identity)
    given.chat_template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}\n{% endfor %}"
    found.add(model.identity)
    given.eos_token = "<|end|>"
    found.add(model.identity)
    assert len(found) == 4
    assert len({one.split()[0] for one in found}) == 1  # what answers is the same
    bare = Model(tiny_model("llama"))
    assert bare.identity == bare.fingerprint


def test_a_context_in_use_is_another_one_without_some_of_its_keys() -> None:
    model = Model(tiny_model("llama"))
    whole = el.context("prompt", model, token_ids=[7, 9, 4]).prefix(model)
    heads = [torch.tensor([[True, True, place != nth] for place in range(2)]) for nth in (0, 1)]
    variants = [
        whole,
        *(replace(whole, kept=(kept, None)) for kept in heads),
        replace(whole, visible=torch.tensor([[True, False, True]])),
        replace(whole, positions=torch.tensor([[-4, -3, -2]])),
        replace(whole, pinned=True),
    ]
    found = set()
    for one in variants:
        with el.use(model, one):
            found.add(model.fingerprint)
    assert len(found) == len(variants)
