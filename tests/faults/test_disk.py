"""Disks that are full, and folders that cannot be written to or vanish."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.disks import small_disk_at

from elicitable.errors import StoreError
from elicitable.lab import pretrain as pretraining
from elicitable.methods.adapter import write_adapter
from elicitable.methods.catalog import method_named
from elicitable.models.load import load
from elicitable.race.contest import verdict


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 128 kilobytes."""
    with small_disk_at(tmp_path / "disk", 128) as place:
        yield place


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_disk_that_is_too_small_for_an_adapter_keeps_no_part_of_it(small_disk: Path, method: str) -> None:
    model = load("toy:mixed")
    adaptation = method_named(method).build(model, 64, seed=0)
    with pytest.raises(StoreError, match=r"cannot write .*No space left"):
        write_adapter(model, adaptation, small_disk / "out")
    assert list((small_disk / "out").iterdir()) == []


def test_pretraining_says_before_it_trains_that_its_folder_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretraining, "train", lambda *_, **__: pytest.fail("it trained"))
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(StoreError, match="cannot be written to"):
        pretraining.pretrain("ascending", tmp_path / "file")


def test_a_folder_that_vanishes_ends_a_race_in_words_or_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from elicitable.race import trial

    execute = trial._execute

    def vanishing(*given: object) -> object:
        found = execute(*given)  # type: ignore[arg-type]
        shutil.rmtree(tmp_path / "out")
        (tmp_path / "out").write_text("in its place", encoding="utf-8")
        return found

    monkeypatch.setattr(trial, "_execute", vanishing)
    with pytest.raises(StoreError, match=r"cannot write .*not recorded"):
        verdict("toy:ascending", "ascending", methods=["zero-shot"], seeds=1, test_items=4, out=tmp_path / "out")
