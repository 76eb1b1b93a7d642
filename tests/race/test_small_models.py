"""What a person brings: models of few positions, labels of many words, prompts and targets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.families import reader
from tests.reverse import Reverse

import elicitable as el
from elicitable.errors import InputError
from elicitable.models.model import Model
from elicitable.models.speed import frozen_parts
from elicitable.race import trial
from elicitable.tasks.catalog import task_from

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


@pytest.mark.parametrize("which", ["rotary", "ids"])
def test_side_effects_are_measured_on_what_a_small_model_can_read(
    which: str, digits_model: Build, tmp_path: Path
) -> None:
    """Rotary positions have no end, but few were trained; a vocabulary may be smaller than that of the toys."""
    model = reader("byte-level BPE", 128) if which == "rotary" else digits_model(8)
    task: Any = rows(tmp_path, ["yes", "no"]) if which == "rotary" else Reverse()
    methods = ["zero-shot", "kv-prefix"]
    answer = el.verdict(model, task, methods=methods, steps=2, seeds=1, budget=20_000, test_items=10)
    for arm in answer.arms:
        assert arm.status == "ok", arm.reason
        assert arm.side_effect_nats is not None


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
    given: dict[str, Any] = {"method": "full", "learning_rate": 0.01, "steps": 60, "test_items": 20}
    with pytest.raises(InputError, match=r"has no end of text, so an answer of gen.jsonl never ends; give a stop"):
        el.tune(letters_model(dtype=torch.float32), path, **given)
    tuned = el.tune(letters_model(dtype=torch.float32), path, stop=".", **given)
    assert tuned.record["mean"] > 0.9


def test_what_is_cut_off_long_texts_is_counted_and_said(letters_model: Build, tmp_path: Path) -> None:
    """64 positions, every fourth text of 100 letters whose first one decides: whole by default, counted where cut."""
    lines = [f"{'ab'[i % 2]} {i:03d}{' x' * (48 if i % 4 == 0 else 3)},{'yn'[i % 2]}" for i in range(120)]
    path = tmp_path / "long.csv"
    path.write_text("\n".join(["text,label", *lines]), encoding="utf-8")
    given: dict[str, Any] = {"methods": ["zero-shot", "prompt"], "prompts": ["ab "], "seeds": 1}
    answer = el.verdict(letters_model(), path, **given)
    arms = {arm.method: arm for arm in answer.arms}
    texts = [item.prompt for item in task_from(path).held_out("test")]
    long = [len(text) + 2 - 64 for text in texts if len(text) + 2 > 64]
    assert arms["zero-shot"].cut_items == len(long) > 3
    assert arms["zero-shot"].cut_tokens == sum(long)
    assert arms["prompt"].cut_tokens >= sum(long)
    assert any("test texts are longer than is read and were cut by" in said for said in answer.provenance["warnings"])
    few = el.verdict(letters_model(), path, max_tokens=24, truncate="right", **given)
    assert few.arms[0].cut_tokens == sum(max(0, len(text) + 2 - 24) for text in texts)
    whole = el.verdict(reader("byte-level BPE"), path, **given)
    assert whole.arms[0].cut_items == 0
    assert not [said for said in whole.provenance["warnings"] if "cut" in said]


@pytest.mark.parametrize("what", ["verdict", "tune"])
def test_what_is_frozen_is_prepared_once(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Candidates, legs and tests each enter the model; all of them have the parts of the first."""
    born = list[Any]()

    class Counted(frozen_parts.Kept):
        def __init__(self) -> None:
            super().__init__()
            born.append(self)

    model, task = reader("byte-level BPE", 128), rows(tmp_path, ["yes", "no"])
    monkeypatch.setattr(frozen_parts, "Kept", Counted)
    if what == "tune":
        el.tune(model, task, method="kv-prefix", size=2, steps=2, test_items=10)
    else:
        el.verdict(model, task, methods=["zero-shot", "kv-prefix"], steps=2, seeds=1, budget=20_000, test_items=10)
    assert len(born) == 1
    assert model.hf not in frozen_parts._kept
