"""A tiny model that reads letters, in memory and as a GGUF file."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

LETTERS = "abcdefghijklmnopqrstuvwxyz .:?+="
WIDTH, LAYERS, HEADS, HIDDEN = 32, 2, 2, 32


@lru_cache(maxsize=1)
def letters_model() -> Any:
    """A llama of two layers with a tokenizer of letters; the same bytes every time."""
    import torch
    from tokenizers import Regex, Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from elicitable.models.load import load

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(LETTERS), hidden_size=WIDTH, intermediate_size=HIDDEN, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=HEADS, max_position_embeddings=64,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    tokens = Tokenizer(WordLevel({letter: i for i, letter in enumerate(LETTERS)}, unk_token="."))
    tokens.pre_tokenizer = Split(Regex("[\\s\\S]"), "isolated")  # type: ignore[assignment]
    return load(LlamaForCausalLM(config), tokenizer=PreTrainedTokenizerFast(tokenizer_object=tokens))


def letters_gguf(path: Path) -> None:
    """Write the weights of such a model, and a vocabulary of letters, as GGUF in float32."""
    import gguf

    model = letters_model()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(LETTERS))
    writer.add_tokenizer_model("gpt2")
    tokens = [letter if letter != " " else "Ġ" for letter in LETTERS]
    writer.add_token_list([*tokens[:-1], "ab"])  # its merge needs a token
    writer.add_token_merges(["a b"])
    writer.add_token_types([1] * len(LETTERS))
    for name, weight in model.hf.state_dict().items():
        writer.add_tensor(_gguf_name(name), weight.detach().float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


_NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


def _gguf_name(name: str) -> str:
    stem = name.removesuffix(".weight")
    if stem in _NAMES:
        return f"{_NAMES[stem]}.weight"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{_NAMES[part]}.weight"
