"""Layers that take the keys of a layer below, and blocks that pass several streams on: exact, or refused by name."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import elicitable as el
from elicitable.errors import UnsupportedModelError
from elicitable.models.architectures import tiny_model
from elicitable.models.model import Model
from elicitable.models.states import text_states

KINDS = {"layer_types": ["sliding_attention", "full_attention"] * 2, "sliding_window": 4, "num_hidden_layers": 4}
MADE: dict[str, dict[str, Any]] = {
    "gemma3n_text": {
        **KINDS,
        "num_kv_shared_layers": 2,
        "vocab_size_per_layer_input": 64,
        "hidden_size_per_layer_input": 8,
        "intermediate_size": 48,
        "activation_sparsity_pattern": [0.0] * 4,
        "head_dim": 16,
    },
    "gemma4_text": {
        **KINDS,
        "num_kv_shared_layers": 2,
        "vocab_size_per_layer_input": 64,
        "hidden_size_per_layer_input": 8,
        "head_dim": 16,
        "global_head_dim": 16,
    },
    "deepseek_v4": {
        "sliding_window": 4,
        "layer_types": ["sliding_attention"] * 2,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
    },
}
SHARED = ["gemma3n_text", "gemma4_text"]
STREAMS = ["gemma3n_text", "deepseek_v4"]
HEAD = [7, 9, 4]
IDS = torch.tensor([[12, 40, 5, 6, 33, 9, 21, 22, 17, 31]])


@cache
def model_of(name: str) -> Model:
    like = {**tiny_model("llama").config.to_dict(), **MADE[name]}
    known = {key: like[key] for key in like if key in MADE[name] or key.endswith(("size", "_heads", "layers", "_id"))}
    torch.manual_seed(0)
    hf = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **known)).eval()
    for weight in hf.parameters():
        drawn = 0.25 * torch.randn(weight.shape)
        weight.data = drawn if weight.ndim > 1 else weight + drawn  # a scale that starts at 0 hides what it scales
    hf.generation_config.eos_token_id, hf.generation_config.pad_token_id = None, 0
    return el.load(hf)


def written(model: Model, ids: torch.Tensor) -> list[int]:
    given = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 6, "do_sample": False}
    tokens: list[int] = model.generate(input_ids=ids, **given)[0, -6:].tolist()
    return tokens


@pytest.mark.parametrize("name", SHARED)
def test_what_is_generated_behind_a_context_is_what_comes_behind_its_tokens(name: str) -> None:
    model = model_of(name)
    expected = written(model, torch.cat([torch.tensor([HEAD]), IDS], dim=1))
    with el.use(model, el.context("prompt", model, token_ids=HEAD)):
        assert written(model, IDS) == expected
    with el.watch(model, el.context("prompt", model, token_ids=HEAD)) as scope:
        assert written(model, IDS) == expected
    assert float(scope.attention_residual.nan_to_num(0).max()) < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("name", SHARED)
def test_every_layer_is_watched_at_every_token(name: str) -> None:
    """Gemma 4 leaves tokens out of the layers that share keys where only the last logits are asked for."""
    model = model_of(name)
    with el.watch(model, el.context("prompt", model, token_ids=HEAD)) as scope:
        model(input_ids=IDS, use_cache=False)
    for residual in (scope.attention_residual, scope.output_residual, scope.crossing_residual):
        assert residual.shape[0] == 4
        assert float(residual.nan_to_num(0).max()) < 1e-5


@pytest.mark.parametrize("name", STREAMS)
def test_several_streams_are_refused_by_name_where_one_is_needed(name: str) -> None:
    model = model_of(name)
    match = f"{type(model.hf).__name__} gives its blocks several residual streams"
    prefix = el.context("layer-prefix", model, length=3, init="random", seed=0)
    with pytest.raises(UnsupportedModelError, match=match), el.use(model, prefix):
        pass
    with pytest.raises(UnsupportedModelError, match=match):
        text_states(model, [[5, 6, 7]], 1)
    texts = [[5 + row, 6, 7, 8, 9, 10] for row in range(8)]
    with pytest.raises(UnsupportedModelError, match=match):
        el.compile_context(model, el.context("prompt", model, token_ids=HEAD), texts, to="weights", steps=0)


@pytest.mark.parametrize("name", ["gemma3n_text", "gemma4_text", "deepseek_v4"])
def test_a_model_that_looks_at_the_ids_again_has_no_soft_prompt(name: str) -> None:
    """Gemma 3n runs without the ids, and reads something else: a text's own embeddings were not the text."""
    model = model_of(name)
    soft = el.context("soft-prompt", model, length=3, init="random", seed=0)
    match = f"{type(model.hf).__name__} does not run on embeddings"
    with pytest.raises(UnsupportedModelError, match=match), el.use(model, soft):
        pass
