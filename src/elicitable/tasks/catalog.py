"""The one list of tasks, and the way from whatever a person names to a task. Importing this is cheap."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from elicitable.errors import InputError, UnknownNameError
from elicitable.own_code import is_own_code, load_own
from elicitable.tasks.base import Task, TaskCard

_DIGITS_SOURCE: Final = "section 5 of the paper, made here"
_CARDS: Final = (
    TaskCard("ascending", "sort 10 digits from low to high", "generation", _DIGITS_SOURCE),
    TaskCard("descending", "sort 10 digits from high to low", "generation", _DIGITS_SOURCE),
    TaskCard("add-1", "add 1 to each of 10 digits", "generation", _DIGITS_SOURCE),
    TaskCard("add-2", "add 2 to each of 10 digits", "generation", _DIGITS_SOURCE),
    TaskCard("ascending-add-1", "sort 10 digits, then add 1 to each", "generation", _DIGITS_SOURCE),
    TaskCard("double-histogram", "replace each of 10 digits by its count", "generation", _DIGITS_SOURCE),
    TaskCard("mixed", "ascending, descending, add-1 or add-2, unlabelled", "generation", _DIGITS_SOURCE),
    TaskCard(
        "movie-reviews",
        "is a sentence from a film review positive or negative?",
        "classification",
        "vaderSentiment 0.5 on PyPI, fetched on first use",
    ),
)
_FILE_HINT: Final = "Or name a CSV, TSV or JSON lines file, or a Hugging Face data set as hub:owner/name."
_COLUMN_OPTIONS: Final = ("text_column", "label_column", "prompt_column", "target_column")
_TABLE_OPTIONS: Final = (*_COLUMN_OPTIONS, "template", "separator", "max_words", "label_names")
OPTIONS: Final[dict[str, tuple[str, ...]]] = {
    "digits": (),
    "movie-reviews": ("template", "max_words"),
    "file": (*_TABLE_OPTIONS, "validation", "test"),
    "hub": (*_TABLE_OPTIONS, "config"),
}


def catalog() -> dict[str, TaskCard]:
    """The built-in tasks by name.

    >>> catalog()["add-1"].description
    'add 1 to each of 10 digits'
    """
    return {card.name: card for card in _CARDS}


def task_from(task: str | os.PathLike[str] | Task, **options: Any) -> Task:
    """The task that a person means by a name, a path, ``hub:owner/name``, ``my_task.py:MyTask`` or a task itself.

    Options that are None count as not given. ``movie-reviews`` takes ``template`` and ``max_words``; files and hub
    data sets take ``text_column`` and ``label_column`` or ``prompt_column`` and ``target_column``, ``template``,
    ``separator``, ``max_words``, ``label_names``; files also ``validation`` and ``test`` (other files), hub data
    sets ``config``. Raises :class:`InputError`, and :class:`UnknownNameError` with near matches for a name or an
    option that there is not.

    >>> task_from("descending")
    DigitTask('descending')
    >>> task_from("movie-review")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    elicitable.errors.UnknownNameError: unknown task 'movie-review': did you mean 'movie-reviews'? ...
    """
    options = {name: value for name, value in options.items() if value is not None}
    if not isinstance(task, str | os.PathLike):
        return _own_task(task, options)
    name = os.fspath(task)
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"a task is a name or a path, not {name!r}")
    if is_own_code(name):
        return _own_task(load_own(name, "my_task.py:MyTask"), options)
    kind = _kind_of(name, is_path=not isinstance(task, str))
    _check_options(name, kind, options)
    return _MAKERS[kind](name, options)


def _kind_of(name: str, is_path: bool) -> str:
    """Which of the makers makes the task ``name``."""
    if name == "movie-reviews" and not is_path:
        return name
    if name in catalog() and not is_path:
        return "digits"
    if name.startswith("hub:"):
        return "hub"
    from elicitable.tasks.tables import SUFFIXES

    if is_path or os.path.exists(name) or Path(name).suffix.lower() in SUFFIXES:
        return "file"
    owner, _, rest = name.partition("/")
    if owner and rest and "/" not in rest and owner not in (".", "..", "~"):
        return "hub"
    if "/" in name or os.sep in name:
        raise InputError(f"{name}: there is no such file")
    raise UnknownNameError("task", name, catalog(), _FILE_HINT)


def _check_options(name: str, kind: str, options: Mapping[str, Any]) -> None:
    known = OPTIONS[kind]
    for option in options:
        if option in known:
            continue
        if not known:
            raise InputError(f"task {name!r} takes no options, so not {option!r}")
        raise UnknownNameError(f"option of task {name!r}", option, known)


def _own_task(task: object, options: Mapping[str, Any]) -> Task:
    if not isinstance(task, Task):
        wanted = ("name", "labels", "sample", "held_out", "fingerprint")
        lacking = ", ".join(part for part in wanted if not hasattr(task, part))
        raise InputError(f"{type(task).__name__} is no task: it lacks {lacking}")
    if options:
        raise InputError(f"task {task.name!r} is given ready-made and takes no options: {', '.join(options)}")
    return task


def _digits(name: str, options: Mapping[str, Any]) -> Task:
    from elicitable.tasks.digits import DigitTask

    return DigitTask(name)


def _movie_reviews(name: str, options: Mapping[str, Any]) -> Task:
    from elicitable.tasks.movie_reviews import movie_reviews

    return movie_reviews(**options)


def _file(name: str, options: Mapping[str, Any]) -> Task:
    from elicitable.tasks.local_file import file_task

    extra = {key: options[key] for key in ("validation", "test") if key in options}
    return file_task(Path(name).expanduser(), _settings(options), **extra)


def _hub(name: str, options: Mapping[str, Any]) -> Task:
    from elicitable.tasks.hub import hub_task

    return hub_task(name.removeprefix("hub:"), _settings(options), config=options.get("config"))


def _settings(options: Mapping[str, Any]) -> Any:
    from elicitable.tasks.columns import Wanted
    from elicitable.tasks.tabular import Settings

    wanted = Wanted(**{key: options[key] for key in _COLUMN_OPTIONS if key in options})
    rest = {key: options[key] for key in _TABLE_OPTIONS if key in options and key not in _COLUMN_OPTIONS}
    if "label_names" in rest:
        rest["label_names"] = _label_names(rest["label_names"])
    return Settings(wanted, **rest)


def _label_names(names: object) -> dict[str, str]:
    """Old and new names of labels as texts, so that ``{0: "negative"}`` means label ``"0"``."""
    if not isinstance(names, Mapping):
        raise InputError(f'label_names must map labels to names, like {{"0": "negative"}}, not {names!r}')
    return {str(label): str(name) for label, name in names.items()}


_MAKERS: Final[dict[str, Callable[[str, Mapping[str, Any]], Task]]] = {
    "digits": _digits,
    "movie-reviews": _movie_reviews,
    "file": _file,
    "hub": _hub,
}
