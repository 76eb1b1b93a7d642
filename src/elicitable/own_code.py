"""A person's own code, named on a command line or in a call as ``file.py:Name``.

``my_method.py:MyMethod`` runs the file ``my_method.py`` as a module of its own and takes ``MyMethod`` from it; a class
is instantiated without arguments, anything else is taken as it is. Such a file is code and is run with all that it
contains, which is said on standard error before it happens. Names without ``.py`` are none of this file's business.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import current_process
from pathlib import Path
from types import ModuleType
from typing import Any

from elicitable.errors import InputError
from elicitable.untrusted import in_one_line

RUN_AGAIN = 86  # the exit code of a process that runs a script once more, where that would begin another run
NO_GUARD = (
    "every process that is started runs the script again, which would start processes itself: put the call under "
    "`if __name__ == '__main__':` in the script."
)
_PREFIX = "elicitable_own_code_"
_NAMED = re.compile(r"(?P<file>.+\.py):(?P<name>[^\W\d]\w*)")
_loaded: dict[tuple[str, str], Any] = {}  # by the module's and the object's name
_digests: dict[int, tuple[Any, str]] = {}  # by identity; the object is held, so that no other takes its place


def is_own_code(name: object) -> bool:
    """Whether ``name`` points into a Python file.

    >>> is_own_code("my_task.py:MyTask"), is_own_code("ascending"), is_own_code("rows.csv")
    (True, False, False)
    """
    return isinstance(name, str) and (".py:" in name or name.endswith(".py"))


def load_own(name: str, example: str) -> Any:
    """The object that ``name`` points to; the same file with the same content gives the same object again.

    Args:
        name: ``file.py:Name``.
        example: how such a name looks here, for the message, such as ``"my_task.py:MyTask"``.

    Raises:
        InputError: not of that form, no such file, no such name in it, or the file's own code raised, with the line;
            whether the object is what was asked for is left to the caller.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "mine.py"
        ...     _ = path.write_text("class Mine:\\n    name = 'mine'\\n")
        ...     load_own(f"{path}:Mine", "my_task.py:MyTask").name
        'mine'
    """
    match = _NAMED.fullmatch(name)
    if match is None:
        raise InputError(f"{name!r} names no object of a Python file; write file.py:Name, as in {example}.")
    path = Path(os.path.expanduser(match["file"]))  # pathlib's raises of a home that nobody has
    content = _content(path, name)
    place = hashlib.sha256(str(path.resolve()).encode() + b"\0" + content).hexdigest()
    module = f"{_PREFIX}{place[:16]}_{path.stem}"
    if (module, match["name"]) not in _loaded:
        found = _made(_module(path, module, content), match["name"], path)
        _loaded[module, match["name"]] = found
        _digests[id(found)] = (found, hashlib.sha256(content).hexdigest())
    return _loaded[module, match["name"]]


def digest_of(thing: object) -> str | None:
    """SHA-256 (hex) of the code that ``thing`` is, for the identity of trials; None for this package's own.

    What :func:`load_own` gave has the digest of its whole file. An object of a class that a person wrote in a program
    or a notebook has that of its class, and of the classes it inherits from: so another line of the program changes
    nothing, and a change of the class is not passed over. Where no source is kept, its name stands for it.
    """
    if id(thing) in _digests and _digests[id(thing)][0] is thing:
        return _digests[id(thing)][1]
    kind, *bases = [thing] if inspect.isfunction(thing) else type(thing).__mro__
    if _top(kind) == "elicitable":
        return None
    own = [kind, *(base for base in bases if _top(base) not in {"elicitable", *sys.stdlib_module_names})]
    return hashlib.sha256("\n".join(map(_source, own)).encode()).hexdigest()


def loaded_modules() -> list[ModuleType]:
    """Return the modules of a person's files that were run."""
    return [module for name, module in sys.modules.items() if name.startswith(_PREFIX)]


def told_of(error: BaseException) -> str | None:
    """Say what a person's own file raised, with the line; None where ``error`` did not come out of one."""
    for module in loaded_modules():
        path = Path(str(module.__file__))
        if line := _line(error, path):
            return f"{path}{line}: raised {_reason(error)}"
    return None


def vouch(thing: object, digest: str | None) -> None:
    """Take ``digest`` for what :func:`digest_of` says of ``thing``, which another process has read from its source."""
    if digest is not None:
        _digests[id(thing)] = (thing, digest)


def end_if_run_again() -> None:
    """End this process where it is one that was just started and runs a person's script again, down to its call.

    So Python starts processes that are not forked. The run that started this one sees by the exit code what is wrong.
    """
    if getattr(current_process(), "_inheriting", False):
        print(NO_GUARD, file=sys.stderr, flush=True)
        os._exit(RUN_AGAIN)


def _source(thing: Any) -> str:
    try:
        return inspect.getsource(thing)
    except (OSError, TypeError):
        return str(thing.__qualname__)


def _top(kind: Any) -> str:
    return str(kind.__module__).split(".")[0]


def _content(path: Path, name: str) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{name}: the file {path} cannot be read ({reason}).") from error


def _module(path: Path, name: str, content: bytes) -> ModuleType:
    """Run ``content`` as a module called ``name``; files beside it can be imported while it runs."""
    if name in sys.modules:
        return sys.modules[name]
    print(f"{in_one_line(path)} is code and is run.", file=sys.stderr)
    spec = importlib.util.spec_from_loader(name, loader=None, origin=str(path))
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__file__ = str(path.resolve())
    sys.modules[name] = module  # dataclasses and pickles look their module up
    try:
        with errors_named(path), _beside(path):
            exec(compile(content, str(path.resolve()), "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextmanager
def _beside(path: Path) -> Iterator[None]:
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _made(module: ModuleType, name: str, path: Path) -> Any:
    if not hasattr(module, name):
        public = sorted(key for key in vars(module) if not key.startswith("_"))
        raise InputError(f"{path} has no {name!r}; it has {', '.join(public) or 'nothing'}.")
    found = getattr(module, name)
    if not isinstance(found, type):
        return found
    with errors_named(path, f"{name}() "):
        return found()


@contextmanager
def errors_named(path: Path, what: str = "") -> Iterator[None]:
    """Turn what a person's code raises, or is called with in vain, into one InputError with the line of their file."""
    try:
        yield
    except (Exception, SystemExit) as error:
        raise InputError(f"{path}{_line(error, path)}: {what}raised {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    return traceback.format_exception_only(error)[-1].strip()


def _line(error: BaseException, path: Path) -> str:
    """The last line of the file at ``path`` that ``error`` went through."""
    own = str(path.resolve())
    if isinstance(error, SyntaxError) and error.filename == own:
        return f", line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == own]
    return f", line {lines[-1]}" if lines else ""
