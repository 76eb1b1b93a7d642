"""A resumable store: one folder a trial, its identity a hash of its spec, its record written last and by rename.

    store/
      trials/<identity>/record.json      exists only if the trial is complete (or failed, with the traceback)
      trials/<identity>/state.safetensors

A record that cannot be read, or that a newer version wrote, is named and never overwritten.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elicitable.errors import StoreError

if TYPE_CHECKING:
    from torch import Tensor

VERSION = 1
Record = dict[str, Any]


def identity(spec: dict[str, Any]) -> str:
    """SHA-256 (first 20 hex digits) of the spec as canonical JSON, with the store's version.

    >>> identity({"b": 1, "a": 2}) == identity({"a": 2, "b": 1})
    True
    """
    text = json.dumps({"version": VERSION, "spec": spec}, sort_keys=True, separators=(",", ":"), default=list)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


class Store:
    """Records by identity, in a folder; or in memory only, when the folder is None."""

    def __init__(self, folder: str | os.PathLike[str] | None) -> None:
        self.folder = Path(folder) if folder is not None else None
        self._memory: dict[str, tuple[Record, dict[str, Tensor]]] = {}
        if self.folder is not None:
            _check_writable(self.folder)

    def get(self, spec: dict[str, Any]) -> Record | None:
        """The complete record of ``spec``, or None.

        Raises:
            StoreError: there is a record, but it is corrupt, of another spec, or from a newer version.
        """
        key = identity(spec)
        if self.folder is None:
            return self._memory[key][0] if key in self._memory else None
        path = self._place(key) / "record.json"
        if not path.exists():
            return None
        record: Record = _read(path)
        if not isinstance(record.get("version"), int):
            raise StoreError(
                f"{path} has version {record.get('version')!r}, which is none; move it away to run the trial again."
            )
        if record["version"] > VERSION:
            raise StoreError(
                f"{path} was written by a newer elicitable (store version {record['version']}, this one reads "
                f"{VERSION}); update the package or choose another --out. Nothing was changed."
            )
        if identity(record.get("spec", {})) != key:
            raise StoreError(
                f"{path} is not the record of its own spec (edited or corrupt); move it away to run the trial again."
            )
        return record

    def put(self, spec: dict[str, Any], record: Record, state: dict[str, Tensor] | None = None) -> Record:
        """Keep a complete record and its tensors; returns the record with version and spec."""
        key = identity(spec)
        whole: Record = json.loads(json.dumps({**record, "version": VERSION, "spec": spec}, default=list))
        if self.folder is None:
            self._memory[key] = (whole, state or {})
            return whole
        place = self._place(key)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(prefix=f".{key}-", dir=place.parent))
            try:
                _write(partial, whole, state)
                if place.exists():
                    shutil.rmtree(place)
                partial.replace(place)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        except OSError as error:
            raise StoreError(f"cannot write {place}: {error.strerror or error}. The trial is not recorded.") from error
        return whole

    def state(self, spec: dict[str, Any]) -> dict[str, Tensor]:
        """The tensors kept with a record; empty where there are none."""
        key = identity(spec)
        if self.folder is None:
            return self._memory[key][1]
        path = self._place(key) / "state.safetensors"
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

    def __iter__(self) -> Any:
        """Every complete record, in no particular order."""
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
        from safetensors.torch import save_file

        save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "state.safetensors")
    with (folder / "record.json").open("w", encoding="utf-8") as file:
        json.dump(record, file, indent=1, allow_nan=False)
        file.flush()
        os.fsync(file.fileno())


def _read(path: Path) -> Record:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read ({error}); move it away to run the trial again.") from error
    if not isinstance(record, dict):
        raise StoreError(f"{path} is not a record; move it away to run the trial again.")
    return record


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
