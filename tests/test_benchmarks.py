"""Benchmarks begin: each can be imported, and what is timed on a language model runs on a tiny one."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch

from elicitable.models.architectures import tiny_model
from elicitable.models.model import Model
from elicitable.models.rows import Row
from elicitable.training.batches import IGNORED, padded

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NAMES = sorted(path.stem for path in BENCHMARKS.glob("*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_can_be_imported(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    assert importlib.import_module(name).__doc__


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_says_on_which_kind_of_processor_it_ran(name: str) -> None:
    text = (BENCHMARKS / f"{name}.py").read_text(encoding="utf-8")
    assert any(way in text for way in ("say_where(", "made_on(", "Kept("))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks transformers by an old name
@pytest.mark.parametrize("method", ["kv-prefix", "lora"])
def test_our_step_and_pefts_are_timed_in_turns(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    measure = importlib.import_module("llm_step").measure
    model = Model(tiny_model("llama").float())
    rows = [Row([3, 5, 7, 9, 2], [4, 1]), Row([8, 6], [2, 2])]
    theirs = {
        "input_ids": torch.tensor([[3, 5, 7, 9, 2, 4, 1], [8, 6, 2, 2, 0, 0, 0]]),
        "attention_mask": torch.tensor([[1] * 7, [1] * 4 + [0] * 3]),
        "labels": torch.tensor([[IGNORED] * 5 + [4, 1], [IGNORED] * 2 + [2, 2] + [IGNORED] * 3]),
    }
    before = model.fingerprint
    found = measure(model, method, ([[padded(model, rows)]] * 3, [theirs] * 3))
    assert set(found) == {"ours_ms", "peft_ms", "peft_over_ours"}
    assert all(value > 0 for value in found.values())
    assert model.fingerprint == before
