"""Keep records in a resumable store: one folder per trial, named by a hash of its spec, its record written last.

    store/
      trials/<identity>/record.json      exists only if the trial is complete (or failed, with the traceback)
      trials/<identity>/state.safetensors
      <name>.jsonl                       an archive: complete records, one per line, without their tensors
      seal.json                          the SHA-256 of archives whose records carry no digest

A record carries the digest of its content, and that of its tensors. One that cannot be read, that is not what was
written, or that a newer version wrote, is named and never overwritten. Archives are read, not written: what is run
again goes to ``trials``, which counts first.

Records that were written before they carried digests are read from archives alone, and only where the folder's seal
vouches for the whole archive, as that of ``records/paper`` does.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elicitable.cache import (
    check_writable,
    output_folder,
    replace_file,
    replacing_folder,
    seal,
    sealed_files,
    sha256_of,
    sweep,
    write_tensors,
)
from elicitable.errors import InputError, StoreError
from elicitable.records.digested import DIGEST, is_whole, with_digest
from elicitable.records.form_1 import first_form
from elicitable.untrusted import parse_json, read_json, read_tensors

if TYPE_CHECKING:
    from torch import Tensor

VERSION = 1
RECORD = "record.json"
STATE = "state.safetensors"
STATE_DIGEST = "state_digest"  # of the tensors; stands in a file and not in what is read from it
ADVICE = "move it away to run the trial again."
Record = dict[str, Any]


def identity(spec: dict[str, Any]) -> str:
    """Hash the spec as canonical JSON, with the store's version, by SHA-256 (first 20 hex digits).

    >>> identity({"b": 1, "a": 2}) == identity({"a": 2, "b": 1})
    True
    """
    text = json.dumps({"version": VERSION, "spec": spec}, sort_keys=True, separators=(",", ":"), default=_listed)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _listed(several: Any) -> list[Any]:
    """As a list what JSON has none for; a set has another order in every process."""
    return sorted(several) if isinstance(several, Set) else list(several)


class Store:
    """Keep records by identity, in a folder; or in memory only, when the folder is None.

    With ``is_read_only`` the folder need not be there, nor be writable.
    """

    def __init__(self, folder: str | os.PathLike[str] | None, is_read_only: bool = False) -> None:
        self.folder = output_folder(folder) if folder is not None else None
        self._memory: dict[str, tuple[Record, dict[str, Tensor]]] = {}
        self._archive: dict[str, tuple[str, Record]] | None = None
        if self.folder is not None and not is_read_only:
            check_writable(self.folder)

    def get(self, spec: dict[str, Any]) -> Record | None:
        """Return the complete record of ``spec``, or None.

        Raises:
            StoreError: there is a record, but it or its tensors are not what was written, or it is of another spec or
                from a newer version.
        """
        key = self._key(spec)
        if self.folder is None:
            return self._memory[key][0] if key in self._memory else None
        if (self._place(key) / RECORD).exists():
            whole = _whole(self._place(key), key)
            return {name: held for name, held in whole.items() if name != STATE_DIGEST}
        archive = self._archived()
        return archive[key][1] if key in archive else None

    def where(self, spec: dict[str, Any]) -> str:
        """Say where the record of ``spec`` is kept, for a message."""
        key = self._key(spec)
        path = None if self.folder is None else self._place(key) / RECORD
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
        return (self._place(key) / RECORD).exists() or key in self._archived()

    def _archived(self) -> dict[str, tuple[str, Record]]:
        assert self.folder is not None
        if self._archive is None:
            self._archive = dict(_archived(self.folder))
        return self._archive

    def put(self, spec: dict[str, Any], record: Record, state: dict[str, Tensor] | None = None) -> Record:
        """Keep a complete record and its tensors; returns the record with version and spec."""
        key = identity(spec)
        whole: Record = json.loads(json.dumps({**record, "version": VERSION, "spec": spec}, default=_listed))
        if self.folder is None:
            self._memory[key] = (whole, state or {})
            return whole
        place = self._place(key)
        with replacing_folder(place, "The trial is not recorded.", is_sealed=False) as partial:  # its record seals it
            _write(partial, whole, state)
        return whole

    def state(self, spec: dict[str, Any]) -> dict[str, Tensor]:
        """Return the tensors kept with a record; empty where none were.

        Raises:
            StoreError: they are not what was written, or are gone.
        """
        key = self._key(spec)
        if self.folder is None:
            return self._memory[key][1]
        place = self._place(key)
        if not (place / RECORD).exists() or STATE_DIGEST not in _whole(place, key):
            return {}
        try:
            return read_tensors(place / STATE)
        except InputError as error:
            raise StoreError(f"{error}; move its folder away to run the trial again.") from error

    def has(self, key: str) -> bool:
        """Say whether there is a record of this identity; whether it can be read is left to :meth:`get`."""
        return self._has(key)

    def sweep(self) -> None:
        """Remove what a killed run has left half-written; only for whoever has the folder to itself."""
        if self.folder is not None:
            for folder in (self.folder, self.folder / "trials", self.folder / "running"):
                sweep(folder, is_alone=True)

    def has_state(self, spec: dict[str, Any]) -> bool:
        """Say whether tensors are kept with a record."""
        key = self._key(spec)
        return bool(self._memory[key][1]) if self.folder is None else (self._place(key) / STATE).exists()

    def __iter__(self) -> Any:
        """Return every complete record of its own (not of an archive), in no particular order."""
        if self.folder is None:
            yield from (record for record, _ in self._memory.values())
            return
        for path in sorted((self.folder / "trials").glob(f"*/{RECORD}")):
            whole = _whole(path.parent, path.parent.name)
            yield {name: held for name, held in whole.items() if name != STATE_DIGEST}

    def _place(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / "trials" / key


def _write(folder: Path, record: Record, state: dict[str, Tensor] | None) -> None:
    more = {}
    if state:
        write_tensors(folder / STATE, state)
        more[STATE_DIGEST] = sha256_of(folder / STATE)
    with (folder / RECORD).open("w", encoding="utf-8") as file:
        json.dump(with_digest({**record, **more}), file, indent=1, allow_nan=False)
        file.flush()
        os.fsync(file.fileno())


def _whole(place: Path, key: str) -> Record:
    """Read the record in a trial's folder and compare it, and the tensors beside it, with their digests.

    The digest of tensors that it speaks of is left in it. Tensors may be gone: a record is worth something alone.
    """
    path = place / RECORD
    try:
        record = _checked(_object(read_json(path), str(path)), str(path), key)
    except InputError as error:
        raise StoreError(f"{error}; {ADVICE}") from error
    beside = place / STATE
    if beside.exists() and _digest_of(beside) != record.get(STATE_DIGEST):
        raise StoreError(
            f"{beside} cannot be read (it is not what was written there); move its folder away to run the trial again."
        )
    return record


def _digest_of(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be read ({error.strerror or error}); move its folder away to run the trial again."
        ) from error


def _object(found: object, where: str) -> Record:
    if not isinstance(found, dict):
        raise StoreError(f"{where} is not a record; {ADVICE}")
    return found


def _checked(record: Record, where: str, key: str, is_vouched_for: bool = False) -> Record:
    """Return ``record`` without its digest, if this version can read it and it is, unaltered, the one of ``key``."""
    version = record.get("version")
    if not isinstance(version, int):
        raise StoreError(f"{where} has version {version!r}, which is none; {ADVICE}")
    if version > VERSION:
        raise StoreError(
            f"{where} was written by a newer elicitable (store version {version}, this one reads {VERSION}); update "
            "the package or choose another --out. Nothing was changed."
        )
    if identity(record.get("spec", {})) != key:
        raise StoreError(f"{where} is not the record of its own spec (edited or corrupt); {ADVICE}")
    if not is_whole(record) and not (is_vouched_for and DIGEST not in record):
        lacks = "carries no digest" if DIGEST not in record else "was edited, or is damaged: its digest is another"
        raise StoreError(f"{where} {lacks}; {ADVICE}")
    return {name: held for name, held in record.items() if name != DIGEST}


def _archived(folder: Path) -> Iterator[tuple[str, tuple[str, Record]]]:
    """Find, by identity, where each record of the archives stands and what it says."""
    for path in _archives_in(folder):
        yield from _lines_of(path)


def _archives_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jsonl"))


def _lines_of(path: Path) -> Iterator[tuple[str, tuple[str, Record]]]:
    is_sealed = _is_as_sealed(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{path} cannot be read ({error}); move it away to run its trials again.") from error
    for number, line in enumerate(lines, start=1):
        where = f"{path}:{number}"
        try:
            record = _object(parse_json(line), where)
        except InputError as error:
            raise StoreError(f"{where} cannot be read ({error}); {ADVICE}") from error
        if is_sealed is False and DIGEST not in record:
            raise StoreError(
                f"{path} is damaged or was altered: the seal beside it speaks of another file. Restore it."
            )
        key = identity(record.get("spec", {}))
        yield key, (where, _checked(record, where, key, bool(is_sealed)))


def _is_as_sealed(path: Path) -> bool | None:
    """Say whether an archive is the one that the folder's seal speaks of; None where it speaks of none.

    It is another one where :func:`write_archive` was killed before it came to the seal. Then every line of it has a
    digest of its own, and one without is refused.
    """
    try:
        sealed = (sealed_files(path.parent) or {}).get(path.name)
        return None if sealed is None else sealed == sha256_of(path)
    except (InputError, OSError) as error:
        raise StoreError(f"{path} cannot be compared with its seal: {error}.") from error


def write_archive(records: Iterable[Record], path: Path) -> None:
    """Write complete records as an archive, one per line, by rename.

    Raises:
        StoreError: ``path`` cannot be written.
    """
    lines = "".join(json.dumps(with_digest(record), sort_keys=True, separators=(",", ":")) + "\n" for record in records)
    replace_file(path, lines.encode(), "Free the place or choose another folder.")
    sealed = sealed_files(path.parent) or {}
    if path.name in sealed:  # it spoke of the archive that was there
        seal(path.parent, [path.name], sealed)


def add_to_archives(found: Mapping[str, Sequence[Record]], folder: Path) -> list[Path]:
    """Add complete records to the archives ``folder/NAME.jsonl``, by name; the paths.

    What stands there already stays. A trial that is there, in whichever archive, gets its new record in the same place.

    Raises:
        StoreError: an archive that is there cannot be read, or one cannot be written.
    """
    held = {path.stem: {_trial(one["spec"]): one for _, (_, one) in _lines_of(path)} for path in _archives_in(folder)}
    former = {name: dict(records) for name, records in held.items()}
    for name, records in found.items():
        own = held.setdefault(name, {})
        for record in records:
            trial = _trial(record["spec"])
            for archive in [one for one in held.values() if trial in one] or [own]:
                archive[trial] = record
    for name, kept in held.items():
        if kept != former.get(name):
            write_archive(kept.values(), folder / f"{name}.jsonl")
    return [folder / f"{name}.jsonl" for name in found]


def _trial(spec: dict[str, Any]) -> str:
    """Return the same for both forms of a trial's spec."""
    return identity(first_form(spec) or spec)
