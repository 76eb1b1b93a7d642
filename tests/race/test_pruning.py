"""Pruning a folder: what is written acts as the record says, and half is trained on only where it cannot go without."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import elicitable as el
from elicitable.errors import InputError
from elicitable.methods.adapter import read_adapter, write_adapter
from elicitable.methods.kv_prefix import KVPrefixContext
from elicitable.methods.pruned_prefix import PrunedPrefixContext
from elicitable.models.inject import prefix_length
from elicitable.models.model import Model
from elicitable.race import pruning as module
from elicitable.race.pruning import prune_adapter, pruning_summary
from elicitable.tasks.catalog import task_from

FEW: dict[str, Any] = {"items": 40, "test_items": 20}


@pytest.fixture(scope="module")
def model() -> Model:
    return el.load("toy:ascending")


@pytest.fixture
def adapter(model: Model, tmp_path: Path) -> Path:
    return write_adapter(model, el.context("kv-prefix", model, length=6), tmp_path / "whole")


def test_a_prefix_that_does_nothing_is_pruned_to_a_single_pair(model: Model, adapter: Path, tmp_path: Path) -> None:
    task = task_from("descending")  # an untrained prefix does not solve it
    record = prune_adapter(model, adapter, task, tmp_path / "small", steps=0, **FEW)
    assert (record["pairs_after"], len(record["kept"]), record["trained_steps"]) == (1, 1, 0)
    assert json.loads((tmp_path / "small" / "elicitable.json").read_text()) == json.loads(json.dumps(record))
    left = read_adapter(model, tmp_path / "small")
    assert isinstance(left, PrunedPrefixContext)
    assert left.content_at == 6
    assert sum(x.numel() for x in left.parameters()) == record["numbers_after"]
    text = pruning_summary(record)
    assert "dropped 5 of 6 virtual tokens" in text
    assert "PEFT cannot load this one" in text


@pytest.mark.parametrize("peft", [False, True])
def test_half_is_trained_on_where_it_cannot_go_without(
    model: Model, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, peft: bool
) -> None:
    monkeypatch.setattr(module._Pruning, "score", lambda self, prefix, items: float(prefix_length(prefix) in (3, 6)))
    record = prune_adapter(model, adapter, task_from("descending"), tmp_path / "small", steps=2, peft=peft, **FEW)
    assert record["trained_steps"] == 2
    assert (len(record["kept"]), len(record["dropped"])) == (3, 3)
    left, whole = read_adapter(model, tmp_path / "small"), read_adapter(model, adapter)
    assert isinstance(left, KVPrefixContext if peft else PrunedPrefixContext)
    moved = left.prefix(model).keys[0][0, 0] - whole.prefix(model).keys[0][0, 0, list(record["kept"])]  # type: ignore[index]
    assert 0 < moved.abs().max() < 2.1 * module.RATES[0]  # two steps from where it was, each about the rate
    assert "trained on for 2 steps" in pruning_summary(record)
    assert ("PEFT cannot" in pruning_summary(record)) != peft


def test_what_is_no_prefix_is_named(model: Model, tmp_path: Path) -> None:
    soft = write_adapter(model, el.context("soft-prompt", model, length=2), tmp_path / "soft")
    with pytest.raises(InputError, match="holds no prefix \\(it is soft-prompt\\)"):
        prune_adapter(model, soft, task_from("descending"), tmp_path / "small")
    assert not (tmp_path / "small").exists()
    assert torch.is_tensor(read_adapter(model, soft).parameters()[0])
