"""Every architecture of the table: exact with every kind of context, or refused with a reason."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import Llama4ForCausalLM, Llama4TextConfig

import elicitable as el
from elicitable.errors import UnknownNameError, UnsupportedModelError
from elicitable.methods.adapter import read_adapter
from elicitable.methods.kv_prefix import KVPrefix
from elicitable.models.architectures import ARCHITECTURES, architecture, architecture_rows, tiny_model
from elicitable.models.capture import capture_embeddings, capture_residuals, capture_tokens
from elicitable.models.model import Model
from elicitable.values import PrefixKV

EXACT = [row.name for row in ARCHITECTURES if row.state == "exact"]
REFUSED = [row.name for row in ARCHITECTURES if row.state == "refused"]
ASKED_FOR = {
    "grouped-query", "multi-query", "sliding-window", "softcap", "sink", "ALiBi", "partial-rotary", "parallel-block",
    "QK-norm", "MoE",
}  # fmt: skip
PREFIX = 5


@functools.cache
def model_of(name: str) -> Model:
    return Model(tiny_model(name))


def _randn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def contexts(model: Model) -> dict[str, PrefixKV]:
    """One context of every kind, n = 5 (the examples are longer than the prompt)."""
    anatomy = model.anatomy
    width = model.hf.get_input_embeddings().weight.shape[1]
    keys = tuple(2 * _randn(1, facts.kv_heads, PREFIX, facts.d_head) for facts in anatomy.layers)
    values = tuple(_randn(1, facts.kv_heads, PREFIX, facts.d_value) for facts in anatomy.layers)
    return {
        "prompt": capture_tokens(model, torch.tensor([[7, 9, 4, 11, 30]])),
        "examples": capture_tokens(model, torch.tensor([[3, 5, 8, 13, 21, 34, 55, 3, 8]])),
        "soft-prompt": capture_embeddings(model, _randn(1, PREFIX, width)),
        "layer-prefix": capture_residuals(model, _randn(anatomy.depth, PREFIX, anatomy.d_model)),
        "kv-prefix": PrefixKV(keys, values, positions=torch.arange(-PREFIX, 0)[None]),
    }


def from_peft(model: Model, kind: str, folder: Path) -> PrefixKV | None:
    """What PEFT stores as one table of equal layers, read back; None for models whose layers are not equal."""
    shapes = {(facts.kv_heads, facts.d_head, facts.d_value) for facts in model.anatomy.layers}
    kv_heads, d_head, d_value = next(iter(shapes))
    if len(shapes) > 1 or d_head != d_value:
        return None
    table = 2 * _randn(PREFIX, 2 * model.anatomy.depth * kv_heads * d_head)
    save_file({"prompt_embeddings": table}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": kind, "num_virtual_tokens": PREFIX}))
    return read_adapter(model, folder).prefix(model)


def padded_batch() -> dict[str, torch.Tensor]:
    ids = torch.tensor([[0, 0, 0, 12, 40, 5, 6, 33, 9], [8, 17, 3, 44, 20, 61, 10, 5, 7]])
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    return {"input_ids": ids, "attention_mask": mask}


@torch.no_grad()
@pytest.mark.parametrize("name", EXACT)
def test_both_identities_hold_below_1e_12_in_every_layer_and_head_with_every_context(name: str, tmp_path: Path) -> None:
    model = model_of(name)
    stored = {kind: from_peft(model, kind, tmp_path) for kind in KVPrefix.peft_types}
    for kind, prefix in {**contexts(model), **stored}.items():
        if prefix is None:
            continue
        with el.watch(model, prefix) as scope:
            model(**padded_batch())
        for residual in (scope.attention_residual, scope.output_residual, scope.crossing_residual):
            assert residual.shape[0] == model.anatomy.depth
            assert residual.isfinite().sum() == sum(facts.heads for facts in model.anatomy.layers)
            # float64: values of size 1, softmax sums of 14 terms
            assert residual.nan_to_num(0).max() < 1e-12, kind
        # the fixture is what it claims: the context is attended to and moves the layer above it
        assert scope.prefix_mass.nan_to_num(0).max() > 0.05, kind
        assert scope.drift[0].nan_to_num(0).max() < 1e-12, kind
        assert scope.drift[1].nan_to_num(0).max() > 1e-4, kind


@torch.no_grad()
@pytest.mark.parametrize("name", EXACT)
def test_an_injected_prompt_gives_the_logits_of_plain_concatenation(name: str) -> None:
    model = model_of(name)
    prompt = torch.tensor([[7, 9, 4, 11, 30]])
    ids = torch.tensor([[12, 40, 5, 6, 33, 9], [8, 17, 3, 44, 20, 61]])
    plain = model(input_ids=torch.cat([prompt.expand(2, -1), ids], dim=1)).logits[:, prompt.shape[1] :]
    with el.use(model, capture_tokens(model, prompt)):
        injected = model(input_ids=ids).logits
    # rotary angles and norms are computed in float32 by many of them, at other absolute positions
    assert (injected - plain).abs().max() < 2e-5 * plain.abs().max()


@pytest.mark.parametrize("name", REFUSED)
def test_an_architecture_that_cannot_be_split_is_refused_by_name_with_the_reason(name: str) -> None:
    model = tiny_model(name)
    with pytest.raises(UnsupportedModelError) as refusal:
        _ = Model(model).anatomy
    assert type(model).__name__ in str(refusal.value)
    telling = {
        "attention interface",
        "another kind",
        "twice",
        "2 times",
        "mask",
        "chunks",
        "both directions",
        "outside of attention",
    }
    assert any(words in str(refusal.value) for words in telling)


def test_most_architectures_have_what_peft_can_store(tmp_path: Path) -> None:
    stored = [name for name in EXACT if from_peft(model_of(name), "CARTRIDGE", tmp_path) is not None]
    assert len(stored) >= 25


def test_the_list_is_long_enough_and_has_every_kind_that_was_asked_for() -> None:
    assert len(EXACT) >= 25
    traits = {trait for row in ARCHITECTURES if row.state == "exact" for trait in row.traits}
    assert traits >= ASKED_FOR


def test_traits_are_what_the_tiny_models_have() -> None:
    for name in EXACT:
        row, facts = architecture(name), model_of(name).anatomy.layers
        if "grouped-query" in row.traits:
            assert 1 < facts[0].kv_heads < facts[0].heads, name
        if "multi-query" in row.traits:
            assert facts[0].kv_heads == 1, name
        if "wide heads" in row.traits:
            assert facts[0].heads * facts[0].d_head != 32, name


def test_queries_scaled_by_a_count_of_the_models_own_are_refused() -> None:
    """Llama 4 without chunks was taken; behind its ``floor_scale``, 8,192 tokens, a context was not its tokens."""
    shape = {"hidden_size": 32, "intermediate_size": 48, "intermediate_size_mlp": 48, "vocab_size": 64, "head_dim": 8}
    shape |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 2}
    shape |= {"layer_types": ["full_attention"] * 2, "no_rope_layers": [1, 0], "pad_token_id": 0}
    with pytest.raises(UnsupportedModelError, match=r"Llama4ForCausalLM scales queries .*attn_temperature_tuning"):
        _ = Model(Llama4ForCausalLM(Llama4TextConfig(**shape))).anatomy
    plain = Model(Llama4ForCausalLM(Llama4TextConfig(**shape, attn_temperature_tuning=False)))
    assert plain.anatomy.has_relative_positions


def test_an_encoder_decoder_is_refused() -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(vocab_size=16, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    with pytest.raises(UnsupportedModelError, match="T5ForConditionalGeneration is an encoder-decoder"):
        _ = Model(T5ForConditionalGeneration(config)).anatomy


def test_a_row_says_name_state_traits_and_reason() -> None:
    rows = {row["name"]: row for row in architecture_rows()}
    assert rows["gpt_oss"] == {
        "name": "gpt_oss", "state": "exact", "traits": "sink, MoE, sliding-window", "reason": "",
    }  # fmt: skip
    assert rows["mamba"]["state"] == "refused"
    assert "state space" in rows["mamba"]["reason"]
    with pytest.raises(UnknownNameError, match="did you mean 'llama'"):
        architecture("lama")
