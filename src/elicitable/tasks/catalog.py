"""List the built-in tasks, and turn whatever a person names into a task.

Importing this and listing the tasks is cheap: a task's own file is imported when somebody asks for the task.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Final

from elicitable.errors import InputError, UnknownNameError
from elicitable.own_code import errors_named, is_own_code, load_own
from elicitable.own_digest import digest_of
from elicitable.tasks import digit_rules
from elicitable.tasks.base import Task, TaskCard
from elicitable.tasks.options import TaskOptions
from elicitable.tasks.own import check_own

#: The text tasks. The task ``my-reviews`` is what the function ``my_reviews`` in ``tasks/my_reviews.py`` returns; it
#: takes the option ``template``, which is only passed on when a person gives one.
TEXT_TASKS: Final = (
    TaskCard(
        "movie-reviews",
        "is a sentence from a film review positive or negative?",
        "classification",
        "vaderSentiment 0.5 on PyPI, fetched on first use",
    ),
)
_FILE_HINT: Final = (
    "Or name a CSV, TSV, JSON or Parquet file, a Hugging Face data set as hub:owner/name, or a task of "
    "lm-evaluation-harness as lm-eval:name."
)
_PREFIXES: Final = {"hub:": "hub", "lm-eval:": "harness"}


def catalog() -> dict[str, TaskCard]:
    """List the built-in tasks by name.

    >>> catalog()["add-1"].description
    'add 1 to each of 10 digits'
    """
    return {card.name: card for card in (*digit_rules.cards(), *TEXT_TASKS)}


def task_from(task: Any, **options: Any) -> Task:
    """Find the task that a person means.

    By a name, a path, ``hub:owner/name``, ``lm-eval:name``, ``my_task.py:MyTask``, as data, or as a task itself.

    Data are a pandas or polars frame, an Arrow table, a ``datasets`` object, a list of dictionaries, or a dictionary
    of these by split. ``options`` are the fields of :class:`~elicitable.tasks.options.TaskOptions`; those that are
    None count as not given. Raises :class:`InputError`, and :class:`UnknownNameError` with near matches for a name
    or an option that there is not.

    >>> task_from("descending")
    DigitTask('descending')
    >>> task_from("movie-review")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    elicitable.errors.UnknownNameError: unknown task 'movie-review': did you mean 'movie-reviews'? ...
    """
    given = {name: value for name, value in options.items() if value is not None}
    if not isinstance(task, str | os.PathLike):
        return _own_task(task, given)
    name = os.fspath(task)
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"a task is a name or a path, not {name!r}")
    if is_own_code(name):
        own, path = load_own(name, "my_task.py:MyTask"), Path(os.path.expanduser(name.rpartition(":")[0]))
        return _own_task(own, given, name, lambda what: errors_named(path, f"{what} "))
    kind = _kind_of(name, is_path=not isinstance(task, str))
    return _MAKERS[kind](name, TaskOptions.checked(name, kind, given))


def _kind_of(name: str, is_path: bool) -> str:
    """Say which of the makers makes the task ``name``."""
    if name in catalog() and not is_path:
        return "text" if name in {card.name for card in TEXT_TASKS} else "digits"
    if found := next((kind for prefix, kind in _PREFIXES.items() if name.startswith(prefix)), None):
        return found
    from elicitable.tasks.files import suffix_of

    if is_path or os.path.exists(name) or suffix_of(Path(name)):
        return "file"
    owner, _, rest = name.partition("/")
    if owner and rest and "/" not in rest and owner not in (".", "..", "~"):
        return "hub"
    if "/" in name or os.sep in name:
        raise InputError(f"{name}: there is no such file")
    raise UnknownNameError("task", name, catalog(), _FILE_HINT)


def _own_task(
    task: Any,
    given: dict[str, Any],
    name: str | None = None,
    asking: Callable[[str], AbstractContextManager[None]] = lambda what: nullcontext(),
) -> Task:
    """Take a ready-made task as it is, and data as a task; look at what a person wrote."""
    from elicitable.tasks.memory import is_data, memory_task

    if not isinstance(task, Task):
        if is_data(task):
            return memory_task(task, TaskOptions.checked("data", "memory", given))
        wanted = ("name", "labels", "sample", "held_out", "fingerprint")
        lacking = ", ".join(part for part in wanted if not hasattr(task, part))
        raise InputError(f"{type(task).__name__} is no task: it lacks {lacking}")
    if given:
        raise InputError(f"task {task.name!r} is given ready-made and takes no options: {', '.join(given)}")
    if digest_of(task) is not None:
        check_own(name or type(task).__name__, task, asking)
    return task


def _digits(name: str, options: TaskOptions) -> Task:
    from elicitable.tasks.digits import DigitTask

    return DigitTask(name)


def _text(name: str, options: TaskOptions) -> Task:
    function = name.replace("-", "_")
    make = getattr(importlib.import_module(f"elicitable.tasks.{function}"), function)
    task: Task = make(**({"template": options.template} if options.template else {}))
    return task


def _file(name: str, options: TaskOptions) -> Task:
    from elicitable.tasks.local_file import file_task

    return file_task(Path(os.path.expanduser(name)), options)  # pathlib's raises of a home that nobody has


def _hub(name: str, options: TaskOptions) -> Task:
    from elicitable.tasks.hub import hub_task

    return hub_task(name.removeprefix("hub:"), options)


def _harness(name: str, options: TaskOptions) -> Task:
    from elicitable.tasks.harness import harness_task

    return harness_task(name, options)


_MAKERS: Final[dict[str, Callable[[str, TaskOptions], Task]]] = {
    "digits": _digits,
    "text": _text,
    "file": _file,
    "hub": _hub,
    "harness": _harness,
}
