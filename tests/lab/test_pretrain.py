"""A toy is trained from fresh weights, and its record is one that the trials' own reader reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from elicitable.errors import InputError
from elicitable.lab.pretrain import pretrain
from elicitable.models.toys import TOYS
from elicitable.planted.models import pretrain_mix
from elicitable.records.trial import TrialRecord
from elicitable.tasks.digit_rules import RULES


def test_a_toy_is_kept_with_a_record_of_the_one_form(tmp_path: Path) -> None:
    record = pretrain("ascending", tmp_path, seed=3, steps=4)
    kept = json.loads((tmp_path / "ascending.json").read_text(encoding="utf-8"))
    assert TrialRecord.from_json(kept, "ascending.json") == record
    assert (kept["spec"]["seed"], kept["spec"]["toy"]["task"], kept["spec"]["plan"]["steps"]) == (
        3,
        TOYS["ascending"].task,
        4,
    )
    assert (record.status, record.steps) == ("ok", 4)
    assert {name: outcomes.of for name, outcomes in record.scores.items()} == dict.fromkeys(RULES, 1_000)
    assert record.timing.seconds >= (record.timing.train_seconds or 0) > 0
    weights = load_file(tmp_path / "ascending.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"steps": 0}, "steps must be a whole number, at least 1, not 0"),
        ({"steps": -5}, "steps must be a whole number"),
        ({"learning_rate": 0.0}, "a learning rate is a number above 0, got 0.0"),
        ({"learning_rate": float("nan")}, "a learning rate"),
    ],
)
def test_what_cannot_be_trained_with_is_not_taken_for_the_default(
    tmp_path: Path, given: dict[str, Any], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        pretrain("ascending", tmp_path, **given)
    with pytest.raises(InputError, match="steps must be"):
        pretrain_mix("copyist", tmp_path, steps=0)
    assert not list(tmp_path.iterdir())
