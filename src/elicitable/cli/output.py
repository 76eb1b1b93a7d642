"""Where the results of a command go: a folder, standard output, and progress on standard error."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elicitable.errors import ElicitableError

if TYPE_CHECKING:
    from rich.console import Console

RUNS = Path("elicitable-runs")


def default_folder(what: str, model: str, task: str) -> Path:
    """Where results go without ``--out``: a folder named after the question.

    >>> default_folder("verdict", "models/tiny.gguf", "mail.csv").as_posix()
    'elicitable-runs/verdict-tiny-mail'
    """
    name = "-".join((what, Path(model).stem if Path(model).suffix else model, re.sub(r"\.\w+(?=:|$)", "", _last(task))))
    return RUNS / re.sub(r"[^\w.-]+", "-", name)


def _last(path: str) -> str:
    return Path(path).name


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


def print_json(record: Any) -> None:
    """Print one JSON object on standard output."""
    json.dump(record, sys.stdout, allow_nan=False)
    sys.stdout.write("\n")


def write_json(path: Path, record: Any) -> None:
    """Write one JSON object to ``path``, whole or not at all."""
    from elicitable.cache import replace_file

    data = (json.dumps(record, indent=1, allow_nan=False) + "\n").encode()
    replace_file(path, data, "Free the place, or choose another --out.")
