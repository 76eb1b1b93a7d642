"""A tiny model of language that can be fine-tuned as SmolLM2 is, in seconds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as Bytes
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from elicitable.planted.orders import KINDS, RULES, held_out_orders

CHAT = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def order_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE in which the words of orders are single tokens, with SmolLM2's turns."""
    orders = held_out_orders("validation", 400)
    texts = [order.text for order in orders] + [f" {rule.answer(o)}" for rule in RULES.values() for o in orders]
    tokens = Tokenizer(BPE())
    tokens.pre_tokenizer = ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokens.decoder = Bytes()  # type: ignore[assignment]
    specials = ["<|im_start|>", "<|im_end|>"]
    trainer = BpeTrainer(
        vocab_size=1_200, special_tokens=specials, initial_alphabet=ByteLevel.alphabet(), show_progress=False
    )
    tokens.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokens, bos_token=specials[0], eos_token=specials[1], chat_template=CHAT
    )


@pytest.fixture(scope="session")
def tiny_language(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with fresh weights of two Llama blocks, with tied embeddings and grouped keys as SmolLM2 has."""
    tokenizer = order_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    folder = tmp_path_factory.mktemp("tiny-language")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    assert all(len(tokenizer(f" {word}")["input_ids"]) == 1 for word in KINDS)
    return folder
