"""A person's own code, named on a command line or in a call as ``file.py:Name``.

``my_method.py:MyMethod`` runs the file ``my_method.py`` as a module of its own and takes ``MyMethod`` from it; a class
is instantiated without arguments, anything else is taken as it is. Such a file is code and is run with all that it
contains, which is said on standard error before it happens. Names without ``.py`` are none of this file's business.

What it imports from files beside it belongs to it: they count in what records call it, travel to workers with it, and
are imported anew where they have changed.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib.abc import ExecutionLoader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from multiprocessing import current_process
from pathlib import Path
from types import ModuleType
from typing import Any

from elicitable.errors import InputError
from elicitable.own_digest import vouch
from elicitable.untrusted import in_one_line

RUN_AGAIN = 86  # the exit code of a process that runs a script once more, where that would begin another run
NO_GUARD = (
    "every process that is started runs the script again, which would start processes itself: put the call under "
    "`if __name__ == '__main__':` in the script."
)
_PREFIX = "elicitable_own_code_"
_NAMED = re.compile(r"(?P<file>.+\.py):(?P<name>[^\W\d]\w*)")
_loaded: dict[tuple[str, str], Any] = {}  # by the module's and the object's name
_imported: dict[str, bytes] = {}  # by path, what a file beside a person's held when it was imported


def is_own_code(name: object) -> bool:
    """Whether ``name`` points into a Python file.

    >>> is_own_code("my_task.py:MyTask"), is_own_code("ascending"), is_own_code("rows.csv")
    (True, False, False)
    """
    return isinstance(name, str) and (".py:" in name or name.endswith(".py"))


def load_own(name: str, example: str) -> Any:
    """The object that ``name`` points to; the same files with the same content give the same object again.

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
    beside = _files_beside(path.resolve(), content)
    code = _digest_of_files(path.resolve(), content, beside)
    place = hashlib.sha256(os.fsencode(path.resolve()) + b"\0" + code.encode()).hexdigest()
    module = f"{_PREFIX}{place[:16]}_{path.stem}"
    if (module, match["name"]) not in _loaded:
        ran = _module(path, module, content, beside)
        found = _loaded[module, match["name"]] = _made(ran, match["name"], path)
        vouch(found, hashlib.sha256(f"{code}:{_first_name(ran, match['name'])}".encode()).hexdigest())
    return _loaded[module, match["name"]]


def loaded_modules() -> list[ModuleType]:
    """Return the modules of a person's files that were run, and of the files beside them that they imported.

    The packages that these lie in are among them, as a folder without ``__init__.py`` is one without a file.
    """
    own = [name for name in list(sys.modules) if name.startswith(_PREFIX) or _path_of(name) in _imported]
    whole = dict.fromkeys(".".join(name.split(".")[:end]) for name in own for end in range(1, name.count(".") + 2))
    return [sys.modules[name] for name in whole if name in sys.modules]


def told_of(error: BaseException) -> str | None:
    """Say what a person's own file raised, with the line; None where ``error`` did not come out of one."""
    for file in filter(None, map(_path_of, [module.__name__ for module in loaded_modules()])):
        path = Path(file)
        if line := _line(error, path):
            return f"{path}{line}: raised {_reason(error)}"
    return None


def tell_that_it_runs(path: object) -> None:
    """Say on standard error that the file at ``path`` is code; whoever is about to run it says so."""
    print(f"{in_one_line(path)} is code and is run.", file=sys.stderr)


def end_if_run_again() -> None:
    """End this process where it is one that was just started and runs a person's script again, down to its call.

    So Python starts processes that are not forked. The run that started this one sees by the exit code what is wrong.
    """
    if getattr(current_process(), "_inheriting", False):
        print(NO_GUARD, file=sys.stderr, flush=True)
        os._exit(RUN_AGAIN)


def _content(path: Path, name: str) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{name}: the file {path} cannot be read ({reason}).") from error


def _files_beside(path: Path, content: bytes) -> dict[Path, bytes]:
    """Read the files in the folder of ``path`` that its imports can mean, and those that these import in turn."""
    found: dict[Path, bytes] = {}
    waiting = [(path, content)]
    while waiting:
        importer, text = waiting.pop()
        for level, parts in _imports(text):
            folder = importer.parents[min(level, len(importer.parents)) - 1] if level else path.parent
            for file in _candidates(folder, parts):
                if file != path and file not in found and file.is_file():
                    found[file] = _content(file, str(path))
                    waiting.append((file, found[file]))
    return found


@lru_cache(maxsize=1024)
def _imports(content: bytes) -> tuple[tuple[int, tuple[str, ...]], ...]:
    """Return every name that a file's import statements can mean, in parts, and how many folders up it begins."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # said when it is run
        return ()
    found: dict[tuple[int, tuple[str, ...]], None] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {(0, tuple(one.name.split("."))): None for one in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = tuple((node.module or "").split(".")) if node.module else ()
            found |= {(node.level, (*base, one.name)): None for one in node.names}
    return tuple((level, parts) for level, parts in found if level or parts[0] != "elicitable")


def _candidates(folder: Path, parts: tuple[str, ...]) -> Iterator[Path]:
    """Yield the files that an import of that name runs, where they are there: packages, and the module in them."""
    for end in range(1, len(parts) + 1):
        yield folder.joinpath(*parts[: end - 1], f"{parts[end - 1]}.py")
        yield folder.joinpath(*parts[:end], "__init__.py")


def _digest_of_files(path: Path, content: bytes, beside: Mapping[Path, bytes]) -> str:
    """SHA-256 (hex) of a file and of those beside it, wherever their folder is; of one alone that of its bytes."""
    digest = hashlib.sha256(content)
    for file in sorted(beside):
        digest.update(b"\0" + os.fsencode(os.path.relpath(file, path.parent)))
        digest.update(hashlib.sha256(beside[file]).digest())
    return digest.hexdigest()


def _forget_stale(folder: Path, beside: Mapping[Path, bytes]) -> None:
    """Let files be imported again where one of them has changed since, or its name is taken by another folder's."""
    held = {name: path for file in beside for name in [_name_of(folder, file)] if (path := _path_of(name)) in _imported}
    current = {_name_of(folder, file): (str(file), content) for file, content in beside.items()}
    if any(current[name] != (path, _imported[path]) for name, path in held.items()):
        for name in held:
            parent, _, own = name.rpartition(".")
            if vars(sys.modules.get(parent, sys)).get(own) is sys.modules.pop(name):
                delattr(sys.modules[parent], own)  # a folder stays, and would give what it holds


class Beside(MetaPathFinder):
    """Import files beside a person's own as they were read, also where a function does so when it is called."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[str, bytes | None]] = {}  # by module, its path and content; a folder has none

    def hold(self, files: Mapping[str, tuple[str, bytes | None]]) -> None:
        """Import these from now on, by their modules' names."""
        self.files.update(files)
        if self not in sys.meta_path:
            sys.meta_path.insert(sys.meta_path.index(PathFinder) if PathFinder in sys.meta_path else 0, self)

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Say how a module is made, where it is one of these."""
        if name not in self.files:
            return None
        file, content = self.files[name]
        if content is not None:
            return importlib.util.spec_from_file_location(name, file, loader=_AsRead(file, content))
        found = PathFinder.find_spec(name, path)
        if found is not None and found.loader is not None:  # a package that is installed comes before a mere folder
            return found
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = list(
            dict.fromkeys([file, *((found and found.submodule_search_locations) or ())])
        )
        return spec


class _AsRead(ExecutionLoader):
    """Run a file as it was read, whatever has become of it."""

    def __init__(self, path: str, content: bytes) -> None:
        self.path, self.content = path, content

    def get_filename(self, name: str) -> str:
        return self.path

    def get_source(self, name: str) -> str:
        return importlib.util.decode_source(self.content)

    def is_package(self, name: str) -> bool:
        return Path(self.path).name == "__init__.py"

    def exec_module(self, module: ModuleType) -> None:
        _imported[self.path] = self.content
        super().exec_module(module)


BESIDE = Beside()


def _modules_of(folder: Path, beside: Mapping[Path, bytes]) -> dict[str, tuple[str, bytes | None]]:
    """Return the modules that files beside a person's are, and the folders without a file that these lie in."""
    files: dict[str, tuple[str, bytes | None]] = {
        _name_of(folder, file): (str(file), one) for file, one in beside.items()
    }
    for name in list(files):
        parts = name.split(".")
        for end in range(1, len(parts)):
            files.setdefault(".".join(parts[:end]), (str(folder.joinpath(*parts[:end])), None))
    return {name: file for name, file in files.items() if name}


def _name_of(folder: Path, file: Path) -> str:
    """Return what a file is called when it is imported while ``folder`` is looked in."""
    inside = file.parent if file.name == "__init__.py" else file.with_suffix("")
    return ".".join(inside.relative_to(folder).parts) if inside.is_relative_to(folder) else ""


def _path_of(name: str) -> str:
    """Return the file that the module of that name was imported from; an empty text where there is none."""
    return str(getattr(sys.modules.get(name), "__dict__", {}).get("__file__") or "")


def _module(path: Path, name: str, content: bytes, beside: Mapping[Path, bytes]) -> ModuleType:
    """Run ``content`` as a module called ``name``; files beside it can be imported while it runs."""
    if name in sys.modules:
        return sys.modules[name]
    folder = path.resolve().parent
    _forget_stale(folder, beside)
    BESIDE.hold(_modules_of(folder, beside))
    tell_that_it_runs(path)
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


def _first_name(module: ModuleType, name: str) -> str:
    """Return the first of the names that a module has for what it calls ``name``."""
    return next((first for first, one in vars(module).items() if one is getattr(module, name)), name)


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
