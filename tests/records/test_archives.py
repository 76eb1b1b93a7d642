"""Archives are added to: what stands in one stays, and a trial's new record takes the place of its old one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from elicitable.cache import check_seal, seal
from elicitable.errors import StoreError
from elicitable.records.form_1 import DATA_OF_THEN
from elicitable.records.store import Store, add_to_archives, write_archive


def record(seed: int, steps: int = 1, **spec: Any) -> dict[str, Any]:
    return {"status": "ok", "steps": steps, "version": 1, "spec": {"seed": seed, **spec}}


def steps(path: Path) -> list[int]:
    return [json.loads(line)["steps"] for line in path.read_text(encoding="utf-8").splitlines()]


def test_records_are_added_and_the_newest_of_a_trial_counts(tmp_path: Path) -> None:
    write_archive([record(0), record(1)], tmp_path / "one.jsonl")
    assert add_to_archives({"one": [record(1, 2), record(2, 3)]}, tmp_path) == [tmp_path / "one.jsonl"]
    assert steps(tmp_path / "one.jsonl") == [1, 2, 3]


def test_nothing_to_add_leaves_archives_as_they_are(tmp_path: Path) -> None:
    write_archive([record(0)], tmp_path / "one.jsonl")
    before = (tmp_path / "one.jsonl").read_bytes()
    add_to_archives({"one": []}, tmp_path)
    assert (tmp_path / "one.jsonl").read_bytes() == before


def test_a_trial_that_another_archive_holds_is_renewed_there(tmp_path: Path) -> None:
    """Of two records of a trial, which one is read would hang on the archives' names."""
    write_archive([record(0)], tmp_path / "two.jsonl")
    add_to_archives({"one": [record(0, 5)]}, tmp_path)
    assert (steps(tmp_path / "one.jsonl"), steps(tmp_path / "two.jsonl")) == ([], [5])
    found = Store(tmp_path, is_read_only=True).get({"seed": 0})
    assert found is not None
    assert found["steps"] == 5


def test_both_forms_of_a_spec_are_one_trial(tmp_path: Path) -> None:
    then, now = record(0, data={}), record(0, 5, data={"mixed": DATA_OF_THEN["mixed"]})
    write_archive([then], tmp_path / "one.jsonl")
    add_to_archives({"one": [now]}, tmp_path)
    assert steps(tmp_path / "one.jsonl") == [5]


def test_records_that_only_a_seal_vouches_for_stay(tmp_path: Path) -> None:
    (tmp_path / "one.jsonl").write_text(json.dumps(record(0)) + "\n", encoding="utf-8")
    seal(tmp_path, ["one.jsonl"])
    add_to_archives({"one": [record(1, 2)]}, tmp_path)
    assert steps(tmp_path / "one.jsonl") == [1, 2]
    store = Store(tmp_path, is_read_only=True)
    assert all(store.get({"seed": seed}) is not None for seed in (0, 1))


def test_a_kill_before_the_seal_is_written_leaves_an_archive_that_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one.jsonl").write_text(json.dumps(record(0)) + "\n", encoding="utf-8")
    seal(tmp_path, ["one.jsonl"])

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("elicitable.records.store.seal", killed)
    with pytest.raises(KeyboardInterrupt):
        add_to_archives({"one": [record(1, 2)]}, tmp_path)
    monkeypatch.undo()
    store = Store(tmp_path, is_read_only=True)
    assert all(store.get({"seed": seed}) is not None for seed in (0, 1))
    add_to_archives({"one": [record(2, 3)]}, tmp_path)
    assert check_seal(tmp_path, "")


def test_an_archive_that_cannot_be_read_is_named_and_left(tmp_path: Path) -> None:
    (tmp_path / "one.jsonl").write_text("{\n", encoding="utf-8")
    with pytest.raises(StoreError, match=r"one\.jsonl:1 cannot be read"):
        add_to_archives({"one": [record(1)]}, tmp_path)
    assert (tmp_path / "one.jsonl").read_text(encoding="utf-8") == "{\n"
