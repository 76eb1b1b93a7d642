"""Tiny models that several rooms are tested with, and the command line run in this process."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from elicitable import cli
from elicitable.models.model import Model
from elicitable.rng import torch_generator

LETTERS = "abcdefghijklmnopqrstuvwxyz .:?+="


def tiny_gpt2(vocab: int, dtype: torch.dtype = torch.float64, seed: int = 0, spread: float = 0.5) -> Model:
    """Two layers, 16 wide, with weights large enough that answers differ from prompt to prompt."""
    config = GPT2Config(
        vocab_size=vocab, n_positions=64, n_embd=16, n_layer=2, n_head=2, bos_token_id=None, eos_token_id=None
    )
    hf = GPT2LMHeadModel(config)
    generator = torch_generator(seed, "test model")
    with torch.no_grad():
        for weight in hf.parameters():
            if weight.ndim >= 2:
                weight.copy_(spread * torch.randn(weight.shape, generator=generator))
    return Model(hf.to(dtype).eval(), name="tiny")


@pytest.fixture
def digits_model() -> Callable[..., Model]:
    """A tiny GPT-2 of token ids, without a tokenizer."""
    return tiny_gpt2


@pytest.fixture
def letters_model() -> Callable[..., Model]:
    """A tiny GPT-2 that reads letters, one token each, after a beginning-of-text token if asked for."""

    def build(has_start: bool = False, dtype: torch.dtype = torch.float64) -> Model:
        vocab = {"<s>": 0, **{letter: 1 + i for i, letter in enumerate(LETTERS)}}
        tokens = Tokenizer(WordLevel(vocab, unk_token="."))
        tokens.pre_tokenizer = Split(Regex("[\\s\\S]"), "isolated")  # type: ignore[assignment]
        if has_start:
            from tokenizers.processors import TemplateProcessing

            tokens.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
        model = tiny_gpt2(len(vocab), dtype)
        model.tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokens, bos_token="<s>")
        return model

    return build


# A busy machine must not fail a property: how long drawing takes says nothing about the code.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """``elicitable ARGS`` in an empty folder, in this process: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["elicitable", *args])
        monkeypatch.setattr(cli, "STARTED", time.monotonic())
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return run
