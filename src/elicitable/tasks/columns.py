"""Which columns of a table are the text and the label, or the prompt and the target.

Named columns are taken as named. Otherwise, in this order: the usual names; where both readings fit
(``input``/``target``), the one that the values suggest; where a table has just two columns, the one with fewer
distinct values is the label, if they are few enough to be labels, else the first is the prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from elicitable.errors import InputError
from elicitable.tasks.base import Kind
from elicitable.tasks.tables import Table

TEXT_NAMES: Final = ("text", "sentence", "review", "content", "input", "question")
LABEL_NAMES: Final = ("label", "labels", "sentiment", "class", "category", "target")
PROMPT_NAMES: Final = ("prompt", "instruction", "input", "question")
TARGET_NAMES: Final = ("target", "completion", "output", "response", "answer")
MAX_LABELS: Final = 50


@dataclass(frozen=True, slots=True)
class Columns:
    """The column that is read and the column that is answered."""

    kind: Kind
    text: str
    answer: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a person asked for; None is to be found."""

    text_column: str | None = None
    label_column: str | None = None
    prompt_column: str | None = None
    target_column: str | None = None


def find_columns(table: Table, wanted: Wanted) -> Columns:
    """The columns of ``table`` as the head of this module says.

    Raises :class:`InputError` for a column that is not there, for names that contradict each other, and where the
    columns cannot be told.

    >>> table = Table("t.csv", ("body", "stars"), (("Fine.", "5"), ("Dull.", "1"), ("Grand.", "5")), ("", "", ""))
    >>> find_columns(table, Wanted())
    Columns(kind='classification', text='body', answer='stars')
    """
    named = [name for name in _names(wanted) if name is not None]
    for name in named:
        if name not in table.columns:
            raise InputError(f"{table.source} has no column {name!r}; it has {_listed(table)}")
    if len(set(named)) < len(named):
        raise InputError(f"{table.source}: the column {named[0]!r} cannot be both what is read and the answer")
    classifies = wanted.text_column is not None or wanted.label_column is not None
    generates = wanted.prompt_column is not None or wanted.target_column is not None
    if classifies and generates:
        raise InputError("give text and label columns (classification), or prompt and target columns, not both")
    if classifies:
        return _complete(table, "classification", wanted.text_column, wanted.label_column)
    if generates:
        return _complete(table, "generation", wanted.prompt_column, wanted.target_column)
    return _by_usual_names(table) or _of_two_columns(table) or _give_up(table)


def looks_like_labels(table: Table, column: str) -> bool:
    """Few distinct values that come again: at most 50, and at most half as many as there are rows."""
    distinct = len(table.distinct(column))
    return distinct <= MAX_LABELS and 2 * distinct <= max(len(table.rows), 4)


def _names(wanted: Wanted) -> tuple[str | None, ...]:
    return wanted.text_column, wanted.label_column, wanted.prompt_column, wanted.target_column


def _complete(table: Table, kind: Kind, text: str | None, answer: str | None) -> Columns:
    """Find the partner of a named column: by its usual names, else the other one of two."""
    texts, answers = (TEXT_NAMES, LABEL_NAMES) if kind == "classification" else (PROMPT_NAMES, TARGET_NAMES)
    text = text or _first(table, texts, answer) or _other(table, answer)
    answer = answer or _first(table, answers, text) or _other(table, text)
    if text is None or answer is None:
        return _give_up(table)
    return Columns(kind, text, answer)


def _by_usual_names(table: Table) -> Columns | None:
    label = _first(table, LABEL_NAMES, None)
    text = _first(table, TEXT_NAMES, label)
    target = _first(table, TARGET_NAMES, None)
    prompt = _first(table, PROMPT_NAMES, target)
    classifies = text is not None and label is not None
    generates = prompt is not None and target is not None
    if classifies and generates and label is not None:
        classifies = looks_like_labels(table, label)
    if classifies and text is not None and label is not None:
        return Columns("classification", text, label)
    if generates and prompt is not None and target is not None:
        return Columns("generation", prompt, target)
    return None


def _of_two_columns(table: Table) -> Columns | None:
    if len(table.columns) != 2:
        return None
    first, second = table.columns
    sizes = {name: (len(table.distinct(name)), _length(table, name)) for name in table.columns}
    label = first if sizes[first] < sizes[second] else second
    if looks_like_labels(table, label):
        return Columns("classification", second if label == first else first, label)
    return Columns("generation", first, second)


def _give_up(table: Table) -> Columns:
    raise InputError(
        f"{table.source}: cannot tell which columns to use; it has {_listed(table)}. Name them: a text column and "
        "a label column (--text-column, --label-column), or a prompt column and a target column "
        "(--prompt-column, --target-column)."
    )


def _first(table: Table, names: tuple[str, ...], taken: str | None) -> str | None:
    """The first column, in the order of ``names`` and whatever its case, that is not ``taken``."""
    by_name = {column.lower(): column for column in reversed(table.columns) if column != taken}
    return next((by_name[name] for name in names if name in by_name), None)


def _other(table: Table, taken: str | None) -> str | None:
    return next(name for name in table.columns if name != taken) if len(table.columns) == 2 else None


def _length(table: Table, name: str) -> int:
    return sum(map(len, table.distinct(name)))


def _listed(table: Table) -> str:
    return ("the columns " if len(table.columns) > 1 else "only the column ") + ", ".join(table.columns)
