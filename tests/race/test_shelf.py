"""Ends of legs are kept so that a race that is killed, however that is done, trains little of it again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from elicitable.race import line
from elicitable.race.line import Shelf
from elicitable.training.checkpoint import Frozen


def end(value: float) -> Frozen:
    return Frozen({"trained/x": torch.full((4,), value)}, {"step": 1})


def written(folder: Path) -> set[str]:
    return {path.stem for path in (folder / "running").glob("*.safetensors")}


def test_a_large_end_is_written_now_and_then_and_stays_until_a_later_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full fine-tuning's were in memory alone: a race that was killed trained all of it again."""
    shelf = Shelf(tmp_path)
    for nth, seldom in enumerate((1e12, -1.0, 1e12, 1e12, -1.0, 1e12)):
        monkeypatch.setattr(line, "SELDOM", seldom)
        shelf.keep(str(nth), end(nth), is_lasting=False)
        if nth:
            shelf.follow(str(nth - 1), str(nth))
        assert written(tmp_path) == [set(), {"1"}, {"1"}, {"1"}, {"4"}, {"4"}][nth]
        assert shelf.has(str(nth))
        assert not shelf.has(str(nth - 1)) or str(nth - 1) in written(tmp_path)
    after = Shelf(tmp_path)  # as another process finds it
    assert after.find("5") is None
    kept = after.find("4")
    assert kept is not None
    assert torch.equal(kept.tensors["trained/x"], torch.full((4,), 4.0))
    shelf.save()
    assert written(tmp_path) == {"5"}


def test_small_ends_that_are_written_now_and_then_do_not_hold_up_a_large_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each write set the clock back: with small ends in between every few seconds the large one was never due."""
    now = [0.0]
    monkeypatch.setattr(line.time, "monotonic", lambda: now[0])
    large = Frozen({"trained/x": torch.zeros(400)}, {"step": 1})
    monkeypatch.setattr(line, "WRITTEN_A_SECOND", float(end(0).bytes))  # a small end takes a second
    shelf, seconds = Shelf(tmp_path), large.bytes / end(0).bytes
    for nth in range(1, 30):
        now[0] = 10.0 * nth
        shelf.keep(f"small{nth}", end(nth), is_lasting=False)
    assert 10 < len(written(tmp_path)) < 15  # a twentieth of the time: 14 ends of 1 s
    shelf.keep("large", large, is_lasting=False)
    assert "large" not in written(tmp_path)
    now[0] += line.SELDOM * seconds
    shelf.keep("large", large, is_lasting=False)
    assert "large" in written(tmp_path)


def test_a_small_end_is_written_at_once(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.keep("0", end(0), is_lasting=True)
    shelf.keep("1", end(1), is_lasting=True)
    shelf.follow("0", "1")
    assert written(tmp_path) == {"1"}
