"""Let one run at a time have an output folder; the next one is told who is there."""

from __future__ import annotations

import functools
import os
import platform
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Any, ParamSpec, TypeVar

from elicitable.cache import check_writable, output_folder
from elicitable.errors import StoreError
from elicitable.own_code import end_if_run_again
from elicitable.untrusted import in_one_line

LOCK = ".lock"
P = ParamSpec("P")
T = TypeVar("T")
_held: dict[str, tuple[int, int]] = {}  # by folder: the thread that holds it, and how often


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock for the length of a ``with``; the system lets go of it when the process dies.

    A thread that holds it may take it again, so a command and the function that it calls can both ask for it. The file
    goes with the lock.

    Raises:
        StoreError: another run holds it; the message says which, where and since when. Or the folder cannot be written
            to.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     with alone(Path(place)), alone(Path(place)):
    ...         [one.name for one in Path(place).iterdir()]
    ['.lock']
    """
    end_if_run_again()
    name, me = str(folder.absolute()), threading.get_ident()
    thread, depth = _held.get(name, (me, 0))
    if depth and thread == me:
        _held[name] = (me, depth + 1)
        try:
            yield
        finally:
            _held[name] = (me, depth)
        return
    check_writable(folder)
    with _locked(folder):
        _held[name] = (me, 1)
        try:
            yield
        finally:
            del _held[name]


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        yield
        return
    file = _opened(folder, lambda file: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB))
    with file:
        try:
            yield
        finally:
            with suppress(OSError):
                (folder / LOCK).unlink()


def _opened(folder: Path, lock: Callable[[IO[str]], None]) -> IO[str]:
    """Return the open file, locked; again where whoever held it has just removed it."""
    while True:
        try:
            file = (folder / LOCK).open("a+", encoding="utf-8", errors="replace")
        except OSError as error:
            raise StoreError(f"{folder} cannot be written to ({error.strerror or error}).") from error
        try:
            lock(file)
            if os.fstat(file.fileno()).st_ino == (folder / LOCK).stat().st_ino:
                _sign(file)
                return file
        except FileNotFoundError:
            pass
        except OSError as error:
            file.seek(0)
            told = in_one_line(file.read(200))
            file.close()
            who = f" ({told})" if told else ""
            raise StoreError(f"another run is using {folder}{who}; wait for it or choose another --out.") from error
        file.close()


def _sign(file: IO[str]) -> None:
    now = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S")
    with suppress(OSError):  # the lock holds on a full disk too
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}, since {now}")
        file.flush()


def is_in_use(folder: Path) -> bool:
    """Say whether a run holds the folder now."""
    if not (folder / LOCK).exists():
        return False
    try:
        with alone(folder):
            return False
    except StoreError:
        return True


def alone_in_out(run: Callable[P, T]) -> Callable[P, T]:
    """Let ``run`` hold the lock of the folder that it is given as ``out``, while it lasts; none where there is none."""

    @functools.wraps(run)
    def held(*args: P.args, **given: P.kwargs) -> T:
        end_if_run_again()
        out: Any = given.get("out")
        if out is None:
            return run(*args, **given)
        with alone(output_folder(out)):
            return run(*args, **given)

    return held
