"""From tables to a task: the settings a person can give, the checks, and the assembly.

Local files and hub data sets both end here, so that the same data give the same task wherever they lay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite
from typing import Final

from elicitable.errors import InputError, UnknownNameError
from elicitable.tasks.base import Kind
from elicitable.tasks.columns import MAX_LABELS, Columns, Wanted, find_columns
from elicitable.tasks.splitting import Pair, split_pairs
from elicitable.tasks.tables import Table
from elicitable.tasks.text import Template, TextTask, cut_words, word_limit
from elicitable.values import Split

TEMPLATES: Final[dict[Kind, str]] = {"classification": "{text}\nLabel:", "generation": "{prompt}"}
MAX_WORDS: Final = 60
MIN_TEXTS: Final = 40  # below this, a split of 70/10/20 would have an empty part too often


@dataclass(frozen=True, slots=True)
class Settings:
    """What a person can say about a table.

    ``max_words`` None means 60 for classification and no cutting for generation (the end of a prompt matters
    there); 0 means no cutting. ``label_names`` renames labels, and two labels of one name become one.
    """

    wanted: Wanted = field(default_factory=Wanted)
    template: str | None = None
    separator: str | None = None
    max_words: int | None = None
    label_names: Mapping[str, str] = field(default_factory=dict)


def task_of_tables(
    name: str,
    tables: Mapping[Split, Table],
    settings: Settings,
    order: Sequence[str] = (),
    warnings: Sequence[str] = (),
) -> TextTask:
    """The task of ``tables["train"]``, with ``"validation"`` and ``"test"`` where the data bring their own.

    ``order`` is the order of the labels where the data say it. Raises :class:`InputError` for whatever makes the
    tables no task, with the file and, where there is one, the line.

    >>> rows = tuple((f"text {i}", "yn"[i % 2]) for i in range(60))
    >>> table = Table("t.csv", ("text", "label"), rows, tuple(f"line {i + 2}" for i in range(60)))
    >>> task_of_tables("t.csv", {"train": table}, Settings(label_names={"y": "yes", "n": "no"})).labels()
    (' no', ' yes')
    """
    train = tables["train"]
    columns = find_columns(train, settings.wanted)
    max_words = word_limit(settings.max_words, MAX_WORDS if columns.kind == "classification" else None)
    pairs: dict[Split, list[Pair]] = {}
    cut = 0
    for split, table in tables.items():
        texts, answers = _read_columns(table, columns)
        shown = [cut_words(text, max_words) for text in texts]
        cut += sum(a != b for a, b in zip(texts, shown, strict=True))
        pairs[split] = list(zip(shown, answers, strict=True))
    classes = None
    if columns.kind == "classification":
        classes = _rename(train.source, pairs, settings.label_names, order)
        _check_labels(train, columns, classes)
    elif settings.label_names:
        raise InputError(f"{train.source} has prompts and targets: label names do not apply to it")
    _check_size(train, pairs)
    splits, removed = split_pairs(pairs)
    if removed and not splits["train"]:
        raise InputError(
            f"{train.source}: every text is also in the validation or test data, so nothing is left to train on"
        )
    template = Template.parse(settings.template or TEMPLATES[columns.kind], columns.kind, settings.separator)
    notes = [*warnings, *_cut_warning(cut, pairs, max_words), *_overlap_warning(removed)]
    if classes is not None:
        notes += _contradictions(pairs)
    return TextTask(name, splits, template, classes=classes, warnings=notes)


def _read_columns(table: Table, columns: Columns) -> tuple[list[str], list[str]]:
    for name in (columns.text, columns.answer):
        if name not in table.columns:
            raise InputError(
                f"{table.source} has no column {name!r}, unlike the training data; it has the columns "
                f"{', '.join(table.columns)}"
            )
    return table.column(columns.text), table.column(columns.answer)


def _rename(
    source: str, pairs: dict[Split, list[Pair]], names: Mapping[str, str], order: Sequence[str]
) -> tuple[str, ...]:
    """Give the labels in ``pairs`` their names, in place; return the distinct ones, numbers by size."""
    found = {label for rows in pairs.values() for _, label in rows}
    for unknown in sorted(set(names) - found):
        raise UnknownNameError("label", unknown, found, f"(in the label names for {source})")
    ranked = [label for label in order if label in found] + sorted(found - set(order), key=_rank)
    for split, rows in pairs.items():
        pairs[split] = [(text, names.get(label, label)) for text, label in rows]
    return tuple(dict.fromkeys(names.get(label, label) for label in ranked))


def _rank(label: str) -> tuple[float, str]:
    try:
        number = float(label)
    except ValueError:
        number = inf
    return (number if isfinite(number) else inf), label


def _check_labels(table: Table, columns: Columns, classes: Sequence[str]) -> None:
    if columns.answer in classes:
        raise InputError(
            f"{table.source}: {columns.answer!r} is the name of the label column and also a label: the first row "
            "seems to be data; put column names above it"
        )
    if len(classes) == 1:
        raise InputError(
            f"{table.source}: every row has the label {classes[0]!r} in column {columns.answer!r}; "
            "a task needs at least two"
        )
    if len(classes) > MAX_LABELS:
        raise InputError(
            f"{table.source}: column {columns.answer!r} has {len(classes)} distinct values, too many for labels "
            f"(at most {MAX_LABELS}). If they are answers to be written, name the columns as prompt and target: "
            f"--prompt-column {columns.text} --target-column {columns.answer}"
        )


def _check_size(table: Table, pairs: Mapping[Split, Sequence[Pair]]) -> None:
    distinct = len({text for text, _ in pairs["train"]})
    missing = [split for split in ("validation", "test") if split not in pairs]
    if missing and distinct < MIN_TEXTS:
        raise InputError(
            f"{table.source} has {distinct} different texts, too few to split off {' and '.join(missing)}: "
            f"at least {MIN_TEXTS} are needed, or files of their own ({', '.join(f'--{s} FILE' for s in missing)})"
        )


def _contradictions(pairs: Mapping[Split, Sequence[Pair]]) -> list[str]:
    answers: dict[str, set[str]] = {}
    for rows in pairs.values():
        for text, answer in rows:
            answers.setdefault(text, set()).add(answer)
    count = sum(len(found) > 1 for found in answers.values())
    return [f"texts that occur with different labels: {count} (they stay in the data)"] if count else []


def _cut_warning(cut: int, pairs: Mapping[Split, Sequence[Pair]], max_words: int | None) -> list[str]:
    total = sum(map(len, pairs.values()))
    return [f"{cut} of {total} texts are cut to their first {max_words} words (max_words)"] if cut else []


def _overlap_warning(removed: int) -> list[str]:
    what = "rows are left out because their text is also in a later split (test before validation before train)"
    return [f"{removed} {what}"] if removed else []
