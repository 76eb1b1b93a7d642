"""Where the results of a command go: a folder, standard output, and progress on standard error."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from elicitable.errors import ElicitableError

if TYPE_CHECKING:
    from rich.console import Console

RUNS = Path("elicitable-runs")
_results: Final[ContextVar[TextIO | None]] = ContextVar("results", default=None)
LONGEST = 200  # bytes of a folder's name; file systems take 255


def default_folder(what: str, model: str, task: str, *more: str) -> Path:
    """Where results go without ``--out``: a folder named after the question, whose file names lose their endings.

    >>> default_folder("verdict", "tiny.gguf", "mail.csv").as_posix()
    'elicitable-runs/verdict-tiny-mail'
    >>> default_folder("verdict", "Qwen/Qwen2.5-7B", "hub:mine/mail-1.5").as_posix()
    'elicitable-runs/verdict-Qwen-Qwen2.5-7B-hub-mine-mail-1.5'
    """
    from elicitable.tasks.files import suffix_of

    data = re.sub(r"\.py(?=:)", "", task)[: -len(suffix_of(Path(task))) or None]
    return folder_named(what, model.removesuffix(".gguf"), data, *more)


def folder_named(*parts: str) -> Path:
    """A folder of runs that is named after ``parts``; where that is more than a name may be long, after a digest too.

    >>> folder_named("pretrain", "planted:adder", "0").as_posix()
    'elicitable-runs/pretrain-planted-adder-0'
    """
    name = re.sub(r"[^\w.-]+", "-", "-".join(parts))
    return RUNS / (name if len(name.encode()) <= LONGEST else f"{name[: LONGEST // 5]}-{digest_of(*parts)}")


def digest_of(*parts: Any) -> str:
    """Eight characters that tell ``parts`` from others, for a name."""
    from elicitable.cache import digest_of_json

    return digest_of_json(list(map(str, parts)))[:8]


@contextmanager
def output(folder: Path) -> Iterator[None]:
    """A folder that can be written to, which is said before minutes are spent; one that stays empty is removed.

    Nobody else can write there meanwhile, and what killed runs left half-written there is removed.
    """
    from elicitable.records.lock import alone
    from elicitable.records.store import Store

    made = [path for path in (folder, *folder.parents) if not os.path.exists(path)]
    try:
        with alone(folder):
            Store(folder).sweep()
            yield
    except (ElicitableError, KeyboardInterrupt):
        for path in made:
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        raise


def progress_console() -> Console:
    """Standard error, as wide as the terminal, where no text can be taken for markup or obeyed by the terminal."""
    from elicitable.report.terminal import terminal

    return terminal(is_error=True)


def result_console() -> Console:
    """Standard output, as wide as the terminal, where no text can be taken for markup or obeyed by the terminal."""
    from elicitable.report.terminal import terminal

    return terminal()


def status(what: str, is_quiet: bool) -> AbstractContextManager[Any]:
    """Show ``what`` is being done for the length of a ``with``; nothing, and None, where ``is_quiet``."""
    return nullcontext() if is_quiet else progress_console().status(what)


@contextmanager
def counted(what: str, is_quiet: bool) -> Iterator[Callable[[float], None] | None]:
    """Show ``what`` is being done, how much of it is done and about how long the rest takes.

    It gives what hears the share that is done, from 0 to 1; None where ``is_quiet``.
    """
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    if is_quiet:
        yield None
        return
    told = TextColumn("{task.description}"), TextColumn("{task.percentage:.1f} %, left:")
    console = progress_console()
    columns = SpinnerColumn(), *told, TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as shown:
        task = shown.add_task(what, total=1.0)
        yield lambda share: shown.update(task, completed=share)


def say(text: str, console: Console | None = None) -> None:
    """Print ``text`` as it is, without styles and line breaks of its own."""
    (console or result_console()).print(text, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def json_alone() -> Iterator[None]:
    """Keep standard output for :func:`print_json`: what else is printed, as by a person's own task, is no result."""
    kept = _results.set(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _results.reset(kept)


def print_json(record: Any) -> None:
    """Print one JSON object on standard output."""
    out = _results.get() or sys.stdout
    json.dump(record, out, allow_nan=False)
    out.write("\n")


def write_json(path: Path, record: Any) -> None:
    """Write one JSON object to ``path``, whole or not at all."""
    from elicitable.cache import replace_file

    data = (json.dumps(record, indent=1, allow_nan=False) + "\n").encode()
    replace_file(path, data, "Free the place, or choose another --out.")
