"""A stopped run goes on as if nothing had happened, bit for bit; a checkpoint that is not its own is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from elicitable.errors import StoreError
from elicitable.methods.catalog import method_named
from elicitable.models.model import Model
from elicitable.training.checkpoint import Checkpoint, Frozen
from elicitable.training.loop import Fit, Plan, train
from elicitable.values import CurvePoint, Item

Build = Callable[..., Model]
PLAN = Plan(
    learning_rate=0.03,
    steps=120,
    batch=4,
    warmup=5,
    evaluate_every=20,
    validation_items=8,
    largest_offset=3,
    solved=2.0,
    perfect=2.0,
)
 -> None:
    checkpoint = Checkpoint(tmp_path / "it", "it")
    checkpoint.write(Frozen({"best/0": torch.zeros(3)}, {}))
    with pytest.raises(StoreError, match="belongs to another trial"):
        Checkpoint(tmp_path / "it", "other").read()
    monkeypatch.setattr("elicitable.training.checkpoint.VERSION", 0)
    with pytest.raises(StoreError, match="checkpoint version 1, this elicitable reads 0"):
        checkpoint.read()
    before = (tmp_path / "it").read_bytes()[:20]
    (tmp_path / "it").write_bytes(before)
    with pytest.raises(StoreError, match="cannot be read"):
        checkpoint.read()
    assert (tmp_path / "it").read_bytes() == before


def test_a_checkpoint_that_cannot_be_written_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(StoreError, match="cannot write the checkpoint"):
        Checkpoint(tmp_path / "file" / "it", "it").write(Frozen({"a": torch.zeros(1)}, {}))
