"""Races of every method on tiny models, each run once, with everything kept."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import elicitable as el
from elicitable.rng import torch_generator
from elicitable.values import Verdict

LETTERS = "abcdefghijklmnopqrstuvwxyz .:?+=\n"
EVERY = [
    "zero-shot",
    "prompt",
    "examples",
    "nearest-examples",
    "soft-prompt",
    "layer-prefix",
    "kv-prefix",
    "steering",
    "lora",
    "lora-behind-examples",
    "full",
    "value-bias",
]


@dataclass(frozen=True)
class Run:
    """A finished race: its folder, its answer, the model's folder and the file with its test rows."""

    folder: Path
    answer: Verdict
    model: Path
    test: Path
    template: str | None = None


def save_letters(folder: Path, is_rotary: bool = False) -> Path:
    """Write a tiny model that reads letters, one token each, as a folder that transformers loads."""
    vocab = {"<s>": 0, **{letter: 1 + i for i, letter in enumerate(LETTERS)}}
    tokens = Tokenizer(WordLevel(vocab, unk_token="."))
    tokens.pre_tokenizer = Split(Regex("[\\s\\S]"), "isolated")  # type: ignore[assignment]
    sizes = {"vocab_size": len(vocab), "bos_token_id": None, "eos_token_id": None}
    hf: Any
    if is_rotary:
        wide = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "max_position_embeddings": 512}
        hf = LlamaForCausalLM(LlamaConfig(num_attention_heads=2, num_key_value_heads=1, **wide, **sizes))
    else:
        hf = GPT2LMHeadModel(GPT2Config(n_positions=512, n_embd=16, n_layer=2, n_head=2, **sizes))
    generator = torch_generator(0, "letters of a winner")
    with torch.no_grad():
        for weight in hf.parameters():
            if weight.ndim >= 2:
                weight.copy_(0.5 * torch.randn(weight.shape, generator=generator))
    hf.eval().save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokens, bos_token="<s>").save_pretrained(folder)
    return folder


def text_of(number: int) -> str:
    """A text of letters that says its number."""
    return "say " + "".join("abcdefghij"[int(digit)] for digit in str(number)) + " now"


def write_rows(path: Path, rows: list[dict[str, str]]) -> Path:
    """Write ``rows`` as a CSV file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def race(place: Path, model: Path, rows: list[dict[str, str]], **options: Any) -> Run:
    """Race every method on ``rows``, whose last 60 are the test, and keep everything."""
    train, test = write_rows(place / "train.csv", rows[:-60]), write_rows(place / "test.csv", rows[-60:])
    answer = el.verdict(
        str(model),
        train,
        test=test,
        methods=EVERY,
        keep=EVERY,
        budget=2000,
        seeds=1,
        steps=6,
        out=place / "run",
        **options,
    )
    return Run(place / "run", answer, model, test, options.get("template"))


@pytest.fixture(scope="session")
def labels_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Texts with one of three labels, one of which takes two words; another column is in between."""
    place = tmp_path_factory.mktemp("labels")
    names = ("yes", "no way", "maybe")
    rows = [{"id": f"r{n}", "text": text_of(n), "label": names[(n * n + n // 3) % 3]} for n in range(200)]
    return race(place, save_letters(place / "model"), rows, template="{text}:")


@pytest.fixture(scope="session")
def written_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Prompts with targets to be written, scored by token F1, on a model of rotary positions."""
    place = tmp_path_factory.mktemp("written")
    rows = [{"prompt": text_of(n), "target": f"{'abcdefghij'[n % 10]} then {'abcdefghij'[n % 7]}"} for n in range(200)]
    model = save_letters(place / "model", is_rotary=True)
    return race(place, model, rows, stop="\n", score="token-f1")


@pytest.fixture
def digits_run(tmp_path: Path) -> Callable[..., tuple[Verdict, Path]]:
    """A race on the smallest toy, and its folder."""

    def run(task: str = "ascending", **options: Any) -> tuple[Verdict, Path]:
        folder = tmp_path / "run"
        return el.verdict("toy:ascending", task, seeds=1, steps=3, test_items=40, out=folder, **options), folder

    return run
