"""The cache folder and writing by rename."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any

import pytest

import elicitable
from elicitable.cache import (
    cache_dir,
    check_seal,
    filling_folder,
    replace_file,
    replacing_file,
    replacing_folder,
    sealed_files,
)
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


def half_written(replacing: Any, path: Path) -> None:
    with replacing(path) as partial:
        (partial / "inside" if partial.is_dir() else partial).write_bytes(b"half")
        raise KeyboardInterrupt


def test_a_body_that_raises_leaves_the_old_file_and_the_old_folder(tmp_path: Path) -> None:
    replace_file(tmp_path / "file", b"old")
    with replacing_folder(tmp_path / "folder") as partial:
        (partial / "inside").write_bytes(b"old")
    for replacing in (replacing_file, replacing_folder):
        with pytest.raises(KeyboardInterrupt):
            half_written(replacing, tmp_path / replacing.__name__.removeprefix("replacing_"))
    assert (tmp_path / "file").read_bytes() == b"old"
    assert (tmp_path / "folder" / "inside").read_bytes() == b"old"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder"]


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    for name in ("first", "second"):
        with replacing_folder(tmp_path / "kept") as partial:
            (partial / name).write_bytes(b"")
    assert sorted(entry.name for entry in (tmp_path / "kept").iterdir()) == ["seal.json", "second"]
    assert sealed_files(tmp_path / "kept") == {"second": hashlib.sha256(b"").hexdigest()}


def test_what_is_written_can_be_read_by_whom_the_umask_lets(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        replace_file(tmp_path / "file", b"")
        with replacing_folder(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o755


def test_nothing_is_renamed_anywhere_else() -> None:
    """Every file is written through the one place that knows how."""
    package = Path(elicitable.__file__).parent
    renames = re.compile(
        r"os\.(replace|rename)|\.rename\(|\.replace\(\w+(\.\w+)*\)|mkstemp|mkdtemp\(prefix|shutil\.move"
    )
    found = {path.relative_to(package).as_posix() for path in package.rglob("*.py") if renames.search(path.read_text())}
    assert found == {"cache.py"}


def test_a_folder_that_takes_the_place_of_another_takes_its_seal(tmp_path: Path) -> None:
    for name in ("old", "new"):
        with filling_folder(tmp_path) as partial:
            (partial / "parts").mkdir()
            (partial / "parts" / name).write_text(name, encoding="utf-8")
    assert check_seal(tmp_path, "")
    assert set(sealed_files(tmp_path) or ()) == {"parts/new"}
