"""Small tokenizers of every family that models come with, trained here, and tiny models that read with them."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizer, PreTrainedTokenizerFast

from elicitable.models.model import Model

TEXTS = (
    "Review: a fine and lovely film, warm and bright.\nSentiment: positive\n\n",
    "Review: a dull film; slow, flat, and far too long!\nSentiment: negative\n\n",
    "Привет, мир. Это простой текст.\n漢字と仮名を読む。\nمرحبا بالعالم\n2 + 2 = 4, 10 / 5 = 2  👍🏽\n",
)
SPECIAL = ["<unk>", "<s>", "</s>", "[gMASK]", "<sop>", "<|user|>", "<|assistant|>", "<|end|>"]
BYTES = [f"<0x{i:02X}>" for i in range(256)]
CHAT = (
    "{{ '[gMASK]<sop>' }}{% for m in messages %}<|{{ m.role }}|>\n{{ m.content | trim }}"
    "{% if m.role == 'assistant' %}<|end|>\n{% else %}\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


# How Llama 3 and Qwen tell words apart: punctuation takes the line breaks behind it along, so ".\n" may be one token.
LINES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


def byte_level(start: tuple[str, ...] = (), trims: bool = True, words: str = "") -> Tokenizer:
    """As GPT-2's; with ``words``, a rule for what is a word, as Llama 3's and Qwen's."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if words:
        split = pre_tokenizers.Split(Regex(words), "isolated")
        made.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(TEXTS * 3, trainer)
    steps: list[Any] = [processors.ByteLevel(trim_offsets=trims)]
    return with_start(made, start, steps)


def sentencepiece(kind: str, start: tuple[str, ...] = ()) -> Tokenizer:
    """As Llama 2's: a space is ▁, one is put before a text, and there are no words to begin with."""
    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trainer = trainers.BpeTrainer(
        vocab_size=450, special_tokens=SPECIAL + BYTES, initial_alphabet=["▁"], show_progress=False
    )
    made.train_from_iterator([line for text in TEXTS * 3 for line in text.split("\n") if line], trainer)
    out = Tokenizer(made.model)
    if kind == "prepend":
        out.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        out.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    out.decoder = decoders.Sequence(steps)
    return with_start(out, start)


def unigram() -> Tokenizer:
    """As T5's and XLM's: the likeliest pieces of every word."""
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.NFKC()
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    made.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False, initial_alphabet=list("aeiou.,")
    )
    made.train_from_iterator(TEXTS * 3, trainer)
    return made


def wordpiece() -> Tokenizer:
    """As BERT's: lower case without accents, no spaces, [CLS] before a text and [SEP] behind it."""
    made = Tokenizer(models.WordPiece(unk_token="<unk>"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.train_from_iterator(
        TEXTS * 3, trainers.WordPieceTrainer(vocab_size=260, special_tokens=SPECIAL, show_progress=False)
    )
    numbers = [(name, made.token_to_id(name)) for name in ("<s>", "</s>")]
    made.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=numbers)
    return made


def with_start(made: Tokenizer, start: tuple[str, ...], steps: list[Any] | None = None) -> Tokenizer:
    """``made`` with ``start`` before every text."""
    parts = list(steps or [])
    if start:
        numbers = [(name, made.token_to_id(name)) for name in start]
        parts.append(processors.TemplateProcessing(single=" ".join([*start, "$A"]), special_tokens=numbers))
    if parts:
        made.post_processor = processors.Sequence(parts) if len(parts) > 1 else parts[0]
    return made


class Letters(PreTrainedTokenizer):
    """A tokenizer in Python, which cannot say where its tokens stand: letters, and a few pairs of them."""

    pairs = ("th", "in", "e ", "\n\n", ": ")

    def __init__(self, **kwargs: Any) -> None:
        letters = sorted({letter for text in TEXTS for letter in text} | set("abcdefghijklmnopqrstuvwxyz"))
        self.known = {name: i for i, name in enumerate([*SPECIAL, *letters, *self.pairs])}
        super().__init__(unk_token="<unk>", eos_token="</s>", bos_token="<s>", **kwargs)

    @property
    def vocab_size(self) -> int:
        return len(self.known)

    def get_vocab(self) -> dict[str, int]:
        return dict(self.known) | self.added_tokens_encoder

    def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
        found, at = [], 0
        while at < len(text):
            size = 2 if text[at : at + 2] in self.pairs else 1
            found.append(text[at : at + size])
            at += size
        return found

    def _convert_token_to_id(self, token: str) -> int:
        return self.known.get(token, 0)

    def _convert_id_to_token(self, index: int) -> str:
        return list(self.known)[index]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        return "".join(tokens)

    def build_inputs_with_special_tokens(self, token_ids_0: list[int], token_ids_1: Any = None) -> list[int]:
        return [self.known["<s>"], *token_ids_0]


FAMILIES = (
    "byte-level BPE",
    "byte-level BPE with a start",
    "byte-level BPE by lines",
    "SentencePiece with Prepend",
    "Metaspace, first",
    "Metaspace with a start",
    "Unigram",
    "WordPiece",
    "double start",
    "in Python",
)
STARTS = {
    "byte-level BPE with a start": ["<s>"],
    "Metaspace with a start": ["<s>"],
    "WordPiece": ["<s>"],
    "double start": ["[gMASK]", "<sop>"],
    "in Python": ["<s>"],
}


@lru_cache
def tokenizer(family: str) -> Any:
    """The tokenizer of a family, with an end of text and, where it has none of its own, a chat template."""
    if family == "in Python":
        return Letters()
    made = {
        "byte-level BPE": byte_level,
        "byte-level BPE with a start": lambda: byte_level(("<s>",)),
        "byte-level BPE by lines": lambda: byte_level(words=LINES),
        "SentencePiece with Prepend": lambda: sentencepiece("prepend"),
        "Metaspace, first": lambda: sentencepiece("first"),
        "Metaspace with a start": lambda: sentencepiece("first", ("<s>",)),
        "Unigram": unigram,
        "WordPiece": wordpiece,
        "double start": lambda: byte_level(("[gMASK]", "<sop>")),
    }[family]()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>", unk_token="<unk>")


@lru_cache
def reader(family: str, positions: int = 512) -> Model:
    """A tiny Llama with random weights that reads with the tokenizer of ``family``."""
    torch.manual_seed(0)
    own = tokenizer(family)
    config = LlamaConfig(
        vocab_size=len(own),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=positions,
        bos_token_id=None,
        eos_token_id=own.eos_token_id,
        pad_token_id=0,
    )
    return Model(LlamaForCausalLM(config).eval(), tokenizer=own, name=f"tiny, {family}")
