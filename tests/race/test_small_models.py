"""What a person brings: models of few positions, labels of many words, prompts and targets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import elicitable as el
from elicitable.models.model import Model
from elicitable.race import trial

Build = Callable[..., Model]


@pytest.fixture(autouse=True)
def fresh() -> None:
    trial._elsewhere_nats.cache_clear()


def rows(path: Path, labels: list[str], count: int = 120) -> Path:
    """A CSV file whose label hangs on its first letter."""
    path = path / "my.csv"
    lines = [f'"{"abcde"[i % len(labels)] * 3} number {i:03d}","{labels[i % len(labels)]}"' for i in range(count)]
    path.write_text("\n".join(["text,label", *lines]), encoding="utf-8")
    return path


def test_a_model_of_few_positions_reads_what_fits(letters_model: Build, tmp_path: Path) -> None:
    """64 positions: neither the passages of the side effects nor long prompts fit; that stops no arm that can run."""
    task = rows(tmp_path, ["yes", "no"])
    answer = el.verdict(letters_model(), task, steps=2, seeds=1, budget=400, test_items=10)
    arms = {arm.method: arm for arm in answer.arms}
    for method in ("zero-shot", "soft-prompt", "kv-prefix", "lora", "full"):
        assert arms[method].status == "ok", arms[method].reason
        assert arms[method].side_effect_nats is not None
    assert arms["prompt"].status == "skipped"  # each instruction is longer than the room it has
    assert "prompt took no part: skipped" in " ".join(answer.reasons)


def test_labels_of_many_words_of_which_one_begins_another_can_be_learned(letters_model: Build, tmp_path: Path) -> None:
    task = rows(tmp_path, ["very", "very happy", "so so", "sad"])
    tuned = el.tune(
        letters_model(dtype=torch.float32), task, method="full", learning_rate=0.01, steps=60, test_items=20
    )
    assert tuned.record["mean"] > 0.9


def test_prompts_and_targets_from_json_lines(letters_model: Build, tmp_path: Path) -> None:
    path = tmp_path / "gen.jsonl"
    lines = [json.dumps({"prompt": f"say {'abc'[i % 3]} {i:03d}:", "target": "abc"[i % 3] * 2}) for i in range(120)]
    path.write_text("\n".join(lines), encoding="utf-8")
    tuned = el.tune(
        letters_model(dtype=torch.float32), path, method="full", learning_rate=0.01, steps=60, test_items=20
    )
    assert tuned.record["mean"] > 0.9
