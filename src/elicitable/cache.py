"""Where fetched and converted files are kept between runs, and how every file is written: whole, or not at all.

Nothing in the package writes into a file or a folder that others may read. It is written beside its place, under a
hidden name, and renamed: a reader sees the old one or the whole new one, and a killed process leaves the old one. What
a killed process leaves under a hidden name is removed by the next one that writes there.

A folder that is written is *sealed*: ``seal.json`` in it holds the SHA-256 of each of its files and is the last to come
and the first to go. So a reader knows whether what it reads is what was written, whole (:func:`check_seal`).
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elicitable.errors import InputError, StoreError, UnwritableError
from elicitable.untrusted import read_object

if TYPE_CHECKING:
    from torch import Tensor


def cache_dir() -> Path:
    """The cache folder: ``ELICITABLE_CACHE`` where it is set and not empty, else ``~/.cache/elicitable``.

    The folder need not exist; nothing is created here.

    >>> cache_dir().is_absolute()
    True
    """
    chosen = os.environ.get("ELICITABLE_CACHE")
    return (Path(os.path.expanduser(chosen)) if chosen else Path.home() / ".cache" / "elicitable").absolute()


SEAL = "seal.json"
SEAL_VERSION = 1
CACHE_ADVICE = "Free the place, or set ELICITABLE_CACHE to a folder that can be written to."


def replace_file(path: Path, data: bytes, advice: str = CACHE_ADVICE, named: str = "") -> None:
    """Write ``data`` to ``path`` by rename. Creates the folder.

    Raises:
        StoreError: that is impossible; the message ends with ``advice``.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     replace_file(Path(folder) / "new" / "file", b"data")
    ...     (Path(folder) / "new" / "file").read_bytes()
    b'data'
    """
    with replacing_file(path, advice, named) as partial:
        partial.write_bytes(data)


@contextmanager
def replacing_file(path: Path, advice: str = CACHE_ADVICE, named: str = "") -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; at the end of the ``with`` it takes the place of ``path``.

    If the body raises, ``path`` is left as it was and the partial file is removed. The file gets the permissions of
    any new file (the process's umask).

    Raises:
        StoreError: the file cannot be written. The message says so of ``named`` (by default the path) and ends with
            ``advice``.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing_file(Path(folder) / "file") as partial:
    ...         _ = partial.write_text("whole")
    ...     (Path(folder) / "file").read_text()
    'whole'
    """
    partial = _beside(path)
    try:
        with said_of(named or str(path), advice):
            path.parent.mkdir(parents=True, exist_ok=True)
            sweep(path.parent)
            mode = _mode_of_new(partial)
            yield partial
            partial.chmod(mode)
            os.replace(partial, path)
    finally:
        with suppress(OSError):
            partial.unlink()


@contextmanager
def replacing_folder(path: Path, advice: str = CACHE_ADVICE, is_sealed: bool = True) -> Iterator[Path]:
    """Yield an empty folder beside ``path`` to fill; at the end of the ``with`` it takes the place of ``path``.

    A folder cannot be renamed onto another one, so one that is there is renamed out of the way first: a process that is
    killed in between leaves none, and never half of one. With ``is_sealed`` the new one is sealed (:func:`seal`).

    Raises:
        StoreError: the folder cannot be written; the message ends with ``advice``.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing_folder(Path(folder) / "kept") as partial:
    ...         _ = (partial / "file").write_text("whole")
    ...     sorted(one.name for one in (Path(folder) / "kept").iterdir())
    ['file', 'seal.json']
    """
    with said_of(str(path), advice):
        partial, former = passing_folder(path), _beside(path)
        try:
            yield partial
            _finish(partial)
            if is_sealed:
                seal(partial, _files_in(partial), advice=advice)
            _take_the_place(partial, path, former)
        finally:
            for left in (partial, former):
                shutil.rmtree(left, ignore_errors=True)


def _take_the_place(new: Path, path: Path, former: Path) -> None:
    """Rename ``new`` to ``path``, and what is there to ``former`` first; where that fails, back again."""
    with suppress(FileNotFoundError):
        os.replace(path, former)
    try:
        os.replace(new, path)
    except OSError:
        with suppress(OSError):
            os.replace(former, path)
        raise


@contextmanager
def filling_folder(path: Path, last: Sequence[str] = (), advice: str = CACHE_ADVICE) -> Iterator[Path]:
    """Yield an empty folder to fill; its files move into ``path`` when the ``with`` ends well. Others there stay.

    The files called ``last`` are what makes the folder one that others read. They are taken away before anything
    moves, and move in at the end, in that order, and behind them the seal of all that moved in. So whenever the power
    goes, the folder is as it was, or lacks them, or is the new one.

    Raises:
        StoreError: ``path`` cannot be written to; the message ends with ``advice``.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     with filling_folder(Path(place) / "adapter", ["config.json"]) as folder:
    ...         _ = (folder / "weights").write_text("1 2 3")
    ...         _ = (folder / "config.json").write_text("{}")
    ...     sorted(one.name for one in (Path(place) / "adapter").iterdir())
    ['config.json', 'seal.json', 'weights']
    """
    with said_of(f"to {path}", advice):
        partial = passing_folder(path / "unfinished")
        try:
            yield partial
            _finish(partial)
            made = [one.name for one in partial.iterdir()]
            seal(partial, _files_in(partial), _kept_of(path, {*made, *last}), advice)
            _move_in(partial, path, [*last, SEAL])
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _move_in(partial: Path, path: Path, last: Sequence[str]) -> None:
    made = sorted(one.name for one in partial.iterdir())
    for name in reversed(last):
        (path / name).unlink(missing_ok=True)
    for name in (*(name for name in made if name not in last), *(name for name in last if name in made)):
        if (path / name).is_dir():
            shutil.rmtree(path / name)
        os.replace(partial / name, path / name)


def passing_folder(path: Path, days: float = 1.0) -> Path:
    """Make an empty folder beside ``path`` for as long as this process wants it; raises OSError where it cannot.

    What killed processes left there goes; what another machine left does after so many ``days`` (:func:`sweep`).
    """
    folder = _beside(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent, days=days)
    folder.mkdir()
    return folder


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write ``tensors`` to ``path`` as safetensors; meant for the inside of :func:`replacing_file` and its sibling.

    Raises:
        OSError: they cannot be written (safetensors has an exception of its own for a full disk).
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, path, metadata)
    except SafetensorError as error:
        raise OSError(str(error)) from error


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal. Raises OSError where it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of_json(plain: Any) -> str:
    """Return the SHA-256 of plain data as canonical JSON: the same for the same content, however it is laid out.

    >>> digest_of_json({"a": 1, "b": [2.0]}) == digest_of_json({"b": [2.0], "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def seal(
    folder: Path, names: Iterable[str], others: Mapping[str, str] | None = None, advice: str = CACHE_ADVICE
) -> None:
    """Write ``seal.json`` into ``folder``: the SHA-256 of the files called ``names``, besides those of ``others``.

    Raises:
        OSError: a file cannot be read, or the seal not be written.
    """
    files = {**(others or {}), **{name: sha256_of(folder / name) for name in names}}
    text = json.dumps({"version": SEAL_VERSION, "files": dict(sorted(files.items()))}, indent=1) + "\n"
    with replacing_file(folder / SEAL, advice) as partial:
        partial.write_text(text, encoding="utf-8")


def sealed_files(folder: Path) -> dict[str, str] | None:
    """Return the SHA-256 of each file that the seal of ``folder`` speaks of; None where there is no seal.

    Raises:
        InputError: the seal cannot be read, or a newer version wrote it; the message names it.
    """
    path = folder / SEAL
    if not os.path.exists(path):
        return None
    told = read_object(path)
    files = told.get("files")
    if told.get("version") != SEAL_VERSION or not isinstance(files, dict):
        raise InputError(f"{path} is no seal of version {SEAL_VERSION}, which is what this elicitable reads")
    return files


def check_seal(folder: Path, advice: str, only: Collection[str] = ()) -> bool:
    """Compare every file of ``folder`` that its seal speaks of; False where there is no seal, so nothing to compare.

    ``only`` names the files to compare, for a reader of a few; by default all of them.

    Raises:
        StoreError: a file is not what was written there, or is gone; the message names it and ends with ``advice``.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     with replacing_folder(Path(place) / "kept") as folder:
    ...         _ = (folder / "weights").write_text("1 2 3")
    ...     check_seal(Path(place) / "kept", "Delete it.")
    True
    """
    try:
        files = sealed_files(folder)
        for name, digest in (files or {}).items():
            if only and name not in only:
                continue
            if not _is_inside(name) or not (folder / name).is_file():
                raise InputError(f"there is no file {name}")
            if sha256_of(folder / name) != digest:
                raise InputError(f"{folder / name} is not what was written there")
    except (InputError, OSError, ValueError) as error:
        raise StoreError(f"{folder} is damaged or was altered: {error}. {advice}") from error
    return files is not None


def _is_inside(name: str) -> bool:
    return not Path(name).is_absolute() and ".." not in Path(name).parts


def _files_in(folder: Path) -> list[str]:
    files = (one.relative_to(folder).as_posix() for one in folder.rglob("*") if one.is_file())
    return sorted(name for name in files if name != SEAL)


def _kept_of(path: Path, goes: Collection[str]) -> dict[str, str]:
    """Return what the seal of a folder says of files that stay in it; a seal that cannot be read says nothing.

    What is called as one of ``goes``, or lies below such a folder, does not stay.
    """
    try:
        sealed = sealed_files(path) or {}
    except InputError:
        return {}
    stay = (name for name in sealed if Path(name).parts[:1] and Path(name).parts[0] not in goes)
    return {name: sealed[name] for name in stay if (path / name).is_file()}


def _finish(folder: Path) -> None:
    """Give every new file the permissions of any new file here: some writers make theirs for the owner alone."""
    mode = _mode_of_new(folder / "mode")
    for one in folder.rglob("*"):
        if one.is_file():
            one.chmod(mode)


def _mode_of_new(path: Path) -> int:
    """Return the permissions that a new file gets, by making ``path`` and removing it again."""
    path.touch()
    mode = path.stat().st_mode & 0o777
    path.unlink()
    return mode


_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
_LEFT = re.compile(r"\..+\.(?P<host>[0-9a-f]{8})-(?P<process>\d+)-[0-9a-f]{8}", re.DOTALL)
_DAY = 86_400.0


def sweep(folder: Path, is_alone: bool = False, days: float = 1.0) -> None:
    """Remove from ``folder`` what killed processes left half-written there, as far as that is certain.

    A name says which process writes it on which machine. What a process writes that is still there is left alone; so is
    what another machine wrote within so many ``days``. ``is_alone`` says that nobody else can be writing, so all goes.
    """
    with suppress(OSError):
        for path in folder.iterdir():
            match = _LEFT.fullmatch(path.name)
            if match and (is_alone or not _may_be_written(path, match, days)):
                _remove(path)


def _may_be_written(path: Path, match: re.Match[str], days: float) -> bool:
    if match["host"] != _HOST:
        with suppress(OSError):
            return path.stat().st_mtime > time.time() - days * _DAY
        return True
    try:
        os.kill(int(match["process"]), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # somebody else's process: it is there
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{_HOST}-{os.getpid()}-{secrets.token_hex(4)}")


@contextmanager
def said_of(what: str, advice: str) -> Iterator[None]:
    """Turn whatever keeps ``what`` from being written, such as a full disk, into an UnwritableError that says so."""
    try:
        yield
    except OSError as error:
        raise UnwritableError(f"cannot write {what}: {error.strerror or error}. {advice}") from error
    except Exception as error:
        if type(error).__name__ != "SafetensorError":  # its own exception for a full disk
            raise
        raise UnwritableError(f"cannot write {what}: {error}. {advice}") from error


def output_folder(out: Any) -> Path:
    """Return the folder that a person gave. Raises InputError for what is no path, or an empty one.

    >>> output_folder("runs/one").name
    'one'
    """
    if not isinstance(out, str | os.PathLike) or not os.fspath(out):
        raise InputError(f"an output folder is a path, got {out!r}.")
    return Path(out)


def check_writable(folder: Path, what: str = "the output folder", advice: str = "choose another --out.") -> None:
    """Make ``folder`` and write a file in it, before minutes are spent on something that cannot be kept.

    Raises:
        StoreError: that is impossible.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _mode_of_new(_beside(folder / "probe"))
    except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise StoreError(f"{what} {folder} cannot be written to ({reason}); {advice}") from error
