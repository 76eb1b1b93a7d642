"""Small decoders with rotary positions, in which a context stands before the content without moving it."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from elicitable.models.model import Model
from elicitable.rng import derive_seed

THETA = 100.0  # of the rotary angles: the longest wave is as long as a row and a context, not thousands of tokens


def build_rotary_toy(
    name: str, vocab: int, *, layers: int, heads: int, d_model: int, width: int, positions: int, seed: int
) -> Model:
    """Build Llama blocks with fresh weights; the same seed gives the same bytes, and no global generator is touched.

    The feed-forward is gated by ReLU; embeddings and output are two matrices.
    """
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=d_model,
        intermediate_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=positions,
        rope_parameters={"rope_type": "default", "rope_theta": THETA},
        hidden_act="relu",
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "rotary toy", name))
        hf = LlamaForCausalLM(config)
    return Model(hf.eval(), name=name)
