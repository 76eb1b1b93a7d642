"""Keep records in a resumable store: one folder per trial, named by a hash of its spec, its record written last.

    store/
      trials/<identity>/record.json      exists only if the trial is complete (or failed, with the traceback)
      trials/<identity>/state.safetensors
      <name>.jsonl                       an archive: complete records, one per line, without their tensors

A record that cannot be read, or that a newer version wrote, is named and never overwritten. Archives are read, not
written: what is run again goes to ``trials``, which counts first.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elicitable.cache import replace_file, replacing_folder, write_tensors
from elicitable.errors import StoreError
from elicitable.records.form_1 import first_form

if TYPE_CHECKING:
    from torch import Tensor

VERSION = 1
STATE = "state.safetensors"
Record = dict[str, Any]


def identity(spec: dict[str, Any]) -> str:
    """Hash the spec as canonical JSON, with the store's version, by SHA-256 (first 20 hex digits).

    >>> identity({"b": 1, "a": 2}) == identity({"a": 2, "b": 1})
    True
    """
    text = json.dumps({"version": VERSION, "spec": spec}, sort_keys=True, separators=(",", ":"), default=list)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


class Store:
    """Keep records by identity, in a folder; or in memory only, when the folder is None.

    With ``is_read_only`` the folder need not be there, nor be writable.
    """

    def __init__(self, folder: str | os.PathLike[str] | None, is_read_only: bool = False) -> None:
        self.folder = Path(folder) if folder is not None else None
        self._memory: dict[str, tuple[Record, dict[str, Tensor]]] = {}
        self._archive: dict[str, tuple[str, Record]] | None = None
        if self.folder is not None and not is_read_only:
            _check_writable(self.folder)

    def get(self, spec: dict[str, Any]) -> Record | None:
        """Return the complete record of ``spec``, or None.

        Raises:
            StoreError: there is a record, but it is corrupt, of another spec, or from a newer version.
        """
        key = self._key(spec)
        if self.folder is None:
            return self._memory[key][0] if key in self._memory else None
        path = self._place(key) / "record.json"
        if path.exists():
            return _checked(_read(path), str(path), key)
        archive = self._archived()
        return _checked(archive[key][1], archive[key][0], key) if key in archive else None

    def where(self, spec: dict[str, Any]) -> str:
        """Say where the record of ``spec`` is kept, for a message."""
        key = self._key(spec)
        path = None if self.folder is None else self._place(key) / "record.json"
        if path is None or not path.exists():
            return self._archive[key][0] if self._archive and key in self._archive else f"record {key}"
        return str(path)

    def _key(self, spec: dict[str, Any]) -> str:
        """Return the identity under which ``spec`` is kept: that of its first form where only this one is there."""
        key, former = identity(spec), first_form(spec)
        if former is None or self._has(key):
            return key
        return then if self._has(then := identity(former)) else key

    def _has(self, key: str) -> bool:
        if self.folder is None:
            return key in self._memory
        return (self._place(key) / "record.json").exists() or key in self._archived()

    def _archived(self) -> dict[str, tuple[str, Record]]:
        assert self.folder is not None
        if self._archive is None:
            self._archive = dict(_archived(self.folder))
        return self._archive

    def put(self, spec: dict[str, Any], record: Record, state: dict[str, Tensor] | None = None) -> Record:
        """Keep a complete record and its tensors; returns the record with version and spec."""
        key = identity(spec)
        whole: Record = json.loads(json.dumps({**record, "version": VERSION, "spec": spec}, default=list))
        if self.folder is None:
            self._memory[key] = (whole, state or {})
            return whole
        place = self._place(key)
        with replacing_folder(place, "The trial is not recorded.") as partial:
            _write(partial, whole, state)
        return whole

    def state(self, spec: dict[str, Any]) -> dict[str, Tensor]:
        """Return the tensors kept with a record; empty where there are none."""
        key = self._key(spec)
        if self.folder is None:
            return self._memory[key][1]
        path = self._place(key) / STATE
        if not path.exists():
            return {}
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return dict(load_file(path))
        except (SafetensorError, OSError) as error:
            raise StoreError(
                f"{path} cannot be read ({error}); move its folder away to run the trial again."
            ) from error

    def sweep(self) -> None:
        """Remove what a killed run has left half-written; only for whoever has the folder to itself."""
        if self.folder is not None:
            for path in [*self.folder.glob("trials/.*"), *self.folder.glob("running/.*")]:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    def has_state(self, spec: dict[str, Any]) -> bool:
        """Say whether tensors are kept with a record."""
        key = self._key(spec)
        return bool(self._memory[key][1]) if self.folder is None else (self._place(key) / STATE).exists()

    def __iter__(self) -> Any:
        """Return every complete record of its own (not of an archive), in no particular order."""
        if self.folder is None:
            yield from (record for record, _ in self._memory.values())
            return
        for path in sorted((self.folder / "trials").glob("*/record.json")):
            yield _read(path)

    def _place(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / "trials" / key


def _write(folder: Path, record: Record, state: dict[str, Tensor] | None) -> None:
    if state:
        write_tensors(folder / STATE, state)
    with (folder / "record.json").open("w", encoding="utf-8") as file:
        json.dump(record, file, indent=1, allow_nan=False)
        file.flush()
        os.fsync(file.fileno())


def _read(path: Path) -> Record:
    try:
        return _parsed(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{path} cannot be read ({error}); move it away to run the trial again.") from error


def _parsed(text: str, where: str) -> Record:
    try:
        record = json.loads(text)
    except ValueError as error:
        raise StoreError(f"{where} cannot be read ({error}); move it away to run the trial again.") from error
    if not isinstance(record, dict):
        raise StoreError(f"{where} is not a record; move it away to run the trial again.")
    return record


def _checked(record: Record, where: str, key: str) -> Record:
    """Return ``record``, if this version can read it and it is the one that ``key`` names."""
    version = record.get("version")
    if not isinstance(version, int):
        raise StoreError(f"{where} has version {version!r}, which is none; move it away to run the trial again.")
    if version > VERSION:
        raise StoreError(
            f"{where} was written by a newer elicitable (store version {version}, this one reads {VERSION}); update "
            "the package or choose another --out. Nothing was changed."
        )
    if identity(record.get("spec", {})) != key:
        raise StoreError(
            f"{where} is not the record of its own spec (edited or corrupt); move it away to run the trial again."
        )
    return record


def _archived(folder: Path) -> Iterator[tuple[str, tuple[str, Record]]]:
    """Find, by identity, where each record of the archives stands and what it says."""
    for path in sorted(folder.glob("*.jsonl")):
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise StoreError(f"{path} cannot be read ({error}); move it away to run its trials again.") from error
        for number, line in enumerate(lines, start=1):
            where = f"{path}:{number}"
            record = _parsed(line, where)
            key = identity(record.get("spec", {}))
            yield key, (where, _checked(record, where, key))


def write_archive(records: Iterable[Record], path: Path) -> None:
    """Write complete records as an archive, one per line, by rename.

    Raises:
        StoreError: ``path`` cannot be written.
    """
    lines = "".join(json.dumps(record, sort_keys=True, separators=(",", ":")) + "\n" for record in records)
    replace_file(path, lines.encode(), "Free the place or choose another folder.")


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(
            f"the output folder {folder} cannot be written to ({reason}); choose another --out."
        ) from error
