"""Which architectures of transformers a context can be put into exactly, and which are refused and why.

Every row is held to reality by the tests: an exact one is built tiny from its config, in float64, and both identities
of section 4 hold below 1e-12 in every layer and head with every kind of context; a refused one raises.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from elicitable.errors import UnknownNameError
from elicitable.rng import torch_generator


@dataclass(frozen=True)
class Architecture:
    """One ``model_type`` of transformers, with the variant that was checked.

    ``traits`` name what is special about its attention; ``config`` makes a tiny one; ``reason`` says why a context
    cannot be put into it exactly, and is empty where it can.
    """

    name: str
    traits: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    model_type: str = ""

    @property
    def state(self) -> str:
        """ "exact" or "refused"."""
        return "refused" if self.reason else "exact"


_BASE: Mapping[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
_WINDOW = {"sliding_window": 4}
_WIDE = {"head_dim": 16}  # heads · d_head ≠ d_model
_MOE = {
    "num_local_experts": 4,
    "num_experts": 4,
    "n_routed_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_k": 2,
    "moe_topk": 2,
    "n_group": 1,
    "topk_group": 1,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
}
_LATENT = {
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "head_dim": 8,
    "num_key_value_heads": 4,
}
_PARTIAL = {"partial_rotary_factor": 0.5, "head_dim": 8}

_NO_INTERFACE = "its attention does not go through transformers' attention interface"
_OTHER_LAYERS = "layers of another kind (state space, linear or recurrent) would not see a context"
_OUTSIDE = "a part of it sees earlier tokens outside of attention"
_BOTH_WAYS = "it is no causal decoder"

ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture("afmoe", ("MoE", "sliding-window", "QK-norm", "gated output"), _MOE | _WINDOW),
    Architecture("apertus", ("grouped-query", "QK-norm")),
    Architecture("arcee", ("grouped-query",)),
    Architecture("beam", ("queries scaled by position", "MoE", "sliding-window", "gated output"), _MOE | _WINDOW),
    Architecture("biogpt", ("learned positions",)),
    Architecture("bloom", ("ALiBi",), {"n_head": 4, "n_layer": 2}),
    Architecture("cohere", ("parallel-block", "grouped-query")),
    Architecture("cohere2", ("parallel-block", "sliding-window"), _WINDOW),
    Architecture("ctrl", ("fixed positions",), _GPT2 | {"dff": 48}),
    Architecture(
        "dbrx",
        ("MoE",),
        {
            "d_model": 32,
            "n_heads": 4,
            "n_layers": 2,
            "max_seq_len": 64,
            "attn_config": {"rope_theta": 1e4, "kv_n_heads": 2, "clip_qkv": 8},
        },
    ),
    Architecture("deepseek_v2", ("MoE", "latent keys"), _MOE | _LATENT | {"topk_method": "greedy"}),
    Architecture("deepseek_v3", ("MoE", "latent keys"), _MOE | _LATENT),
    Architecture("dots1", ("MoE", "QK-norm"), _MOE),
    Architecture("ernie4_5", ("grouped-query",)),
    Architecture("ernie4_5_moe", ("MoE",), _MOE),
    Architecture("exaone4", ("sliding-window", "QK-norm"), _WINDOW),
    Architecture("falcon", ("multi-query", "parallel-block"), {"multi_query": True}),
    Architecture(
        "falcon (new decoder)", ("parallel-block",), {"new_decoder_architecture": True, "num_kv_heads": 2}, "", "falcon"
    ),
    Architecture("flex_olmo", ("MoE", "QK-norm"), _MOE),
    Architecture("gemma", ("multi-query", "wide heads"), _WIDE | {"num_key_value_heads": 1}),
    Architecture("gemma2", ("softcap", "sliding-window", "wide heads"), _WINDOW | _WIDE),
    Architecture(
        "gemma3_text",
        ("QK-norm", "sliding-window", "wide heads"),
        _WINDOW | _WIDE | {"layer_types": ["sliding_attention", "full_attention"]},
    ),
    Architecture("glm", ("partial-rotary", "grouped-query"), _PARTIAL),
    Architecture("glm4", ("partial-rotary", "grouped-query"), _PARTIAL),
    Architecture("glm4_moe", ("partial-rotary", "MoE"), _PARTIAL | _MOE),
    Architecture("gpt2", ("learned positions",), _GPT2),
    Architecture("gpt_bigcode", ("multi-query", "learned positions"), _GPT2 | {"multi_query": True}),
    Architecture("gpt_neox", ("parallel-block", "partial-rotary")),
    Architecture("gpt_oss", ("sink", "MoE", "sliding-window"), _MOE | _WINDOW | _WIDE),
    Architecture("granite", ("grouped-query", "scaled attention")),
    Architecture("granitemoe", ("MoE", "scaled attention"), _MOE),
    Architecture("helium", ("grouped-query",), {"head_dim": 8}),
    Architecture("hunyuan_v1_dense", ("QK-norm",), {"head_dim": 8}),
    Architecture("hunyuan_v1_moe", ("QK-norm", "MoE"), _MOE | {"head_dim": 8}),
    Architecture("jetmoe", ("MoE",)),
    Architecture("llama", ("grouped-query",)),
    Architecture("mimo_v2_flash", ("sink", "MoE", "sliding-window"), _MOE | _WINDOW),
    Architecture("minicpm3", ("latent keys",), _LATENT),
    Architecture("minimax_m2", ("MoE", "QK-norm"), _MOE),
    Architecture("ministral", ("sliding-window", "wide heads"), _WINDOW | _WIDE),
    Architecture("ministral3", ("queries scaled by position",)),
    Architecture("mistral", ("sliding-window", "grouped-query"), _WINDOW),
    Architecture("mixtral", ("MoE", "grouped-query"), _MOE),
    Architecture(
        "mpt", ("ALiBi",), {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 64, "expansion_ratio": 2}
    ),
    Architecture(
        "modernbert-decoder", ("sliding-window",), {"local_attention": 8, "cls_token_id": 1, "sep_token_id": 2}
    ),
    Architecture("nanochat", ("QK-norm", "final softcap")),
    Architecture("nemotron", ("partial-rotary",), {"partial_rotary_factor": 0.5}),
    Architecture("olmo", ("grouped-query",)),
    Architecture("olmo2", ("QK-norm", "norm after")),
    Architecture("olmo3", ("QK-norm", "sliding-window"), _WINDOW),
    Architecture("olmoe", ("MoE", "QK-norm"), _MOE),
    Architecture("opt", ("learned positions",), {"ffn_dim": 32, "word_embed_proj_dim": 32}),
    Architecture(
        "opt (projected)",
        ("learned positions", "narrow embeddings"),
        {"ffn_dim": 32, "word_embed_proj_dim": 16},
        "",
        "opt",
    ),
    Architecture("persimmon", ("partial-rotary", "QK-norm"), {"partial_rotary_factor": 0.5}),
    Architecture("phi", ("partial-rotary", "parallel-block"), {"partial_rotary_factor": 0.5}),
    Architecture("phi3", ("grouped-query", "fused projections")),
    Architecture("phimoe", ("MoE",), _MOE),
    Architecture("phimoe (window)", ("MoE", "sliding-window"), _MOE | _WINDOW, "", "phimoe"),
    Architecture("qwen2", ("grouped-query",)),
    Architecture("qwen2_moe", ("MoE",), _MOE),
    Architecture(
        "qwen2_moe (window)",
        ("MoE", "sliding-window"),
        _MOE | _WINDOW | {"use_sliding_window": True, "layer_types": ["sliding_attention", "full_attention"]},
        "",
        "qwen2_moe",
    ),
    Architecture("qwen3", ("QK-norm", "wide heads"), _WIDE),
    Architecture("qwen3_moe", ("QK-norm", "MoE"), _MOE | _WIDE),
    Architecture("seed_oss", ("grouped-query",), {"head_dim": 8}),
    Architecture("smollm3", ("grouped-query", "layers without positions")),
    Architecture("stablelm", ("partial-rotary",), {"partial_rotary_factor": 0.25}),
    Architecture("starcoder2", ("sliding-window", "grouped-query"), _WINDOW),
    Architecture("vaultgemma", ("softcap", "sliding-window"), _WINDOW | _WIDE),
    Architecture("youtu", ("latent keys",), _LATENT),
    Architecture("bert", (), {}, _BOTH_WAYS),
    Architecture("codegen", (), _GPT2 | {"rotary_dim": 4}, _NO_INTERFACE),
    Architecture(
        "deepseek_v4", (), _MOE | {"layer_types": ["compressed_sparse_attention"] * 2}, "it compresses earlier tokens"
    ),
    Architecture("diffllama", (), {}, "it attends twice in one layer (differential attention)"),
    Architecture("doge", (), {}, "it computes its attention mask from the input"),
    Architecture("falcon (ALiBi)", (), {"alibi": True}, _NO_INTERFACE, "falcon"),
    Architecture("falcon_h1", (), {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_ssm": 64}, _OUTSIDE),
    Architecture("falcon_mamba", (), {}, _OTHER_LAYERS),
    Architecture("gpt_neo", (), {"num_layers": 2, "attention_types": [[["global", "local"], 1]]}, _NO_INTERFACE),
    Architecture("gptj", (), _GPT2 | {"rotary_dim": 4}, _NO_INTERFACE),
    Architecture("gpt_neox_japanese", (), {}, _NO_INTERFACE),
    Architecture("inkling_text", (), _MOE, _OUTSIDE),
    Architecture("jamba", (), _MOE, _OTHER_LAYERS),
    Architecture("llama4_text", (), _MOE | _WIDE, "it attends in chunks"),
    Architecture("mamba", (), {}, _OTHER_LAYERS),
    Architecture("minimax", (), _MOE, _OTHER_LAYERS),
    Architecture("openai-gpt", (), _GPT2, _NO_INTERFACE),
    Architecture("qwen3_next", (), _MOE | {"linear_num_value_heads": 2, "linear_num_key_heads": 2}, _OTHER_LAYERS),
    Architecture("recurrent_gemma", (), {"num_hidden_layers": 3}, _OTHER_LAYERS),
    Architecture("rwkv", (), {}, _NO_INTERFACE),
    Architecture("xglm", (), {"d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 48}, _NO_INTERFACE),
    Architecture("xlm", (), {}, _NO_INTERFACE),
    Architecture("zaya", (), _MOE | {"num_experts": 16, "num_experts_per_tok": 1}, _OUTSIDE),
)


def architecture(name: str) -> Architecture:
    """The row of one architecture.

    >>> architecture("gemma2").traits
    ('softcap', 'sliding-window', 'wide heads')
    """
    for row in ARCHITECTURES:
        if row.name == name:
            return row
    raise UnknownNameError("architecture", name, [row.name for row in ARCHITECTURES])


def architecture_rows() -> list[dict[str, str]]:
    """The table that ``elicitable models --architectures`` prints: name, state, traits, reason.

    >>> architecture_rows()[0]["state"]
    'exact'
    """
    return [
        {"name": row.name, "state": row.state, "traits": ", ".join(row.traits), "reason": row.reason}
        for row in ARCHITECTURES
    ]


def tiny_model(name: str, seed: int = 0, dtype: torch.dtype = torch.float64) -> PreTrainedModel:
    """A tiny random model of one architecture, in evaluation mode.

    Weights have a standard deviation of 0.25, so that attention is far from even and contexts move it.

    Args:
        name: a row of the table.
        seed: of its weights.
        dtype: float64 by default, in which the identities are decided. Many architectures compute norms and rotary
            angles in float32 all the same; a layer's identities do not mind, as they start from that layer's input.
    """
    row = architecture(name)
    config = AutoConfig.for_model(row.model_type or row.name, **{**_BASE, **row.config})
    try:  # grouped matrix products of experts know no float64
        model = AutoModelForCausalLM.from_config(config, experts_implementation="eager")
    except TypeError:
        model = AutoModelForCausalLM.from_config(config)
    generator = torch_generator(seed, "tiny", name)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim >= 2:
                weight.copy_(0.25 * torch.randn(weight.shape, generator=generator))
    hf: PreTrainedModel = model.to(dtype).eval()
    return hf
