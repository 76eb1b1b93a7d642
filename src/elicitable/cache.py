"""Where fetched and converted files are kept between runs, and how every file is written: whole, or not at all.

Nothing in the package writes into a file or a folder that others may read. It is written beside its place, under a
hidden name, and renamed: a reader sees the old one or the whole new one, and a killed process leaves the old one.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from elicitable.errors import StoreError

if TYPE_CHECKING:
    from torch import Tensor


def cache_dir() -> Path:
    """The cache folder: ``ELICITABLE_CACHE`` where it is set and not empty, else ``~/.cache/elicitable``.

    The folder need not exist; nothing is created here.

    >>> cache_dir().is_absolute()
    True
    """
    chosen = os.environ.get("ELICITABLE_CACHE")
    return (Path(chosen) if chosen else Path.home() / ".cache" / "elicitable").expanduser().absolute()


_UNFINISHED = ".unfinished-"
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
        with _said_of(named or str(path), advice):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            os.replace(partial, path)
    finally:
        with suppress(OSError):
            partial.unlink()


@contextmanager
def replacing_folder(path: Path, advice: str = CACHE_ADVICE) -> Iterator[Path]:
    """Yield an empty folder beside ``path`` to fill; at the end of the ``with`` it takes the place of ``path``.

    A folder cannot be renamed onto another one, so a folder that is there is removed first: a process that is killed
    in between leaves none, and never half of one.

    Raises:
        StoreError: the folder cannot be written; the message ends with ``advice``.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing_folder(Path(folder) / "kept") as partial:
    ...         _ = (partial / "file").write_text("whole")
    ...     [one.name for one in (Path(folder) / "kept").iterdir()]
    ['file']
    """
    partial = _beside(path)
    try:
        with _said_of(str(path), advice):
            partial.mkdir(parents=True)
            yield partial
            if path.exists():
                shutil.rmtree(path)
            os.replace(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def filling_folder(path: Path, last: Sequence[str] = (), advice: str = CACHE_ADVICE) -> Iterator[Path]:
    """Yield an empty folder to fill; its files move into ``path`` when the ``with`` ends well. Others there stay.

    The files called ``last`` are what makes the folder one that others read. They are taken away before anything
    moves, and move in at the end, in that order; so whenever the power goes, the folder is as it was, or lacks them,
    or is the new one.

    Raises:
        StoreError: ``path`` cannot be written to; the message ends with ``advice``.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     with filling_folder(Path(place) / "adapter", ["config.json"]) as folder:
    ...         _ = (folder / "weights").write_text("1 2 3")
    ...         _ = (folder / "config.json").write_text("{}")
    ...     sorted(one.name for one in (Path(place) / "adapter").iterdir())
    ['config.json', 'weights']
    """
    partial = path / f"{_UNFINISHED}{secrets.token_hex(4)}"
    try:
        with _said_of(f"to {path}", advice):
            path.mkdir(parents=True, exist_ok=True)
            for left in path.glob(f"{_UNFINISHED}*"):  # of a run that was killed
                shutil.rmtree(left, ignore_errors=True)
            partial.mkdir()
            yield partial
            _move_in(partial, path, last)
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


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")


@contextmanager
def _said_of(what: str, advice: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"cannot write {what}: {error.strerror or error}. {advice}") from error
