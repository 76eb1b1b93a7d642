"""The cache folder and writing by rename."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from elicitable.cache import cache_dir, replace_file
from elicitable.errors import StoreError


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for unset in (None, ""):
        monkeypatch.delenv("ELICITABLE_CACHE", raising=False)
        if unset is not None:
            monkeypatch.setenv("ELICITABLE_CACHE", unset)
        assert cache_dir() == tmp_path / ".cache" / "elicitable"
    monkeypatch.setenv("ELICITABLE_CACHE", "~/mine")
    assert cache_dir() == tmp_path / "mine"
    monkeypatch.setenv("ELICITABLE_CACHE", "here")
    assert cache_dir() == Path.cwd() / "here"
    assert list(tmp_path.iterdir()) == []  # nothing is created


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kept"
    replace_file(path, b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(StoreError, match=r"cannot write .*kept: No space left on device"):
        replace_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["kept"]
