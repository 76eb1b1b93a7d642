"""Make a task of tables: check them and put them together.

Files, hub data sets and data in memory all end here, so the same data give the same task wherever they were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from elicitable.errors import InputError
from elicitable.tasks.base import Kind
from elicitable.tasks.choices import ENDINGS, unseen_choices, with_own_choices
from elicitable.tasks.classes import labelled
from elicitable.tasks.columns import (
    Columns,
    find_columns,
    mark_column,
    names_columns,
    names_like_data,
    other_reading,
)
from elicitable.tasks.labels import check_labels, label_names, label_warnings, renamed
from elicitable.tasks.options import TaskOptions
from elicitable.tasks.reading import Reading, reading_of
from elicitable.tasks.rows import behind_answers, fault_in, group_warnings, joins, row_warnings, rows_of
from elicitable.tasks.splitting import Row, split_rows
from elicitable.tasks.tables import (
    Table,
    read_as_lists,
    read_as_messages,
    without_bad_rows,
    without_unwanted,
    written_as_texts,
)
from elicitable.tasks.template import Template
from elicitable.tasks.text import TextTask
from elicitable.values import Split

TEMPLATES: Final[dict[Kind, str]] = {"classification": "{text}\nLabel:", "generation": "{prompt}"}
MIN_TEXTS: Final = 40  # below this, a split of 70/10/20 would have an empty part too often
_NONE: Final = TaskOptions()


def task_of_tables(
    name: str,
    tables: Mapping[Split, Table],
    options: TaskOptions = _NONE,
    warnings: Sequence[str] = (),
) -> TextTask:
    """Return the task of ``tables["train"]``, with ``"validation"`` and ``"test"`` where the data bring their own.

    Labels are in the order of their classes where the data say it. Raises :class:`InputError` for whatever makes the
    tables no task, with the file and, where there is one, the line.

    >>> rows = tuple((f"text {i}", "yn"[i % 2]) for i in range(60))
    >>> table = Table("t.csv", ("text", "label"), rows, tuple(f"line {i + 2}" for i in range(60)))
    >>> task_of_tables("t.csv", {"train": table}, TaskOptions(label_names={"y": "yes", "n": "no"})).labels()
    (' no', ' yes')
    """
    tables = {split: read_as_messages(table) for split, table in tables.items()}
    train = tables["train"]
    own = with_own_choices(tables, options)
    tables, columns = own or _with_columns(tables, options)
    train = tables["train"]
    if options.group_column == columns.answer:
        raise InputError(f"{train.source}: the column {columns.answer!r} is the answer and cannot group the rows too")
    template = _template(train, columns, options)
    told = [*other_reading(train, options, columns), *_choices(train, columns, template, options)]
    told += names_like_data(train, options)
    told += written_as_texts(train, (columns.text, columns.answer, *template.names))
    tables, hidden = (tables, []) if columns.choices else labelled(tables, columns.answer)
    mark = mark_column(train, columns, template.names)
    tables = {split: without_unwanted(table, mark) for split, table in tables.items()}
    tables = {split: _usable(table, columns, template, options) for split, table in tables.items()}
    rows = {split: rows_of(table, columns, template, options.group_column) for split, table in tables.items()}
    classes: tuple[str, ...] | None = None
    if columns.choices:
        classes = ()
        if options.label_names:
            raise InputError(f"{train.source}: its rows bring choices of their own, so label names do not apply to it")
    elif columns.kind == "classification":
        order = dict(train.classes).get(columns.answer, ())
        classes = renamed(train.source, rows, label_names(options.label_names or {}), order)
        check_labels(train, columns, classes, options.label_column is not None)
    elif options.label_names:
        raise InputError(f"{train.source} has prompts and targets: label names do not apply to it")
    _check_size(train, rows)
    splits, removed = split_rows(rows, is_stratified=bool(classes))
    if removed and not splits["train"]:
        raise InputError(
            f"{train.source}: every text is also in the validation or test data, so nothing is left to train on"
        )
    if options.group_column and (empty := next((split for split, some in splits.items() if not some), None)):
        raise InputError(
            f"{train.source}: rows of the same {options.group_column!r} stay together, and so the {empty} split is "
            "empty; group by a column of more values, or give a file of its own for it"
        )
    reading = reading_of(tables, columns, template, options.group_column)
    notes = [
        *warnings,
        *told,
        *hidden,
        *(note for table in tables.values() for note in table.notes),
        *_unused_warning(reading),
    ]
    notes += [*_overlap_warning(removed), *(label_warnings(splits, classes) if classes else ())]
    notes += row_warnings(splits, columns, template, options.group_column)
    notes += [*group_warnings(splits, options.group_column), *behind_answers(tables, columns)]
    notes += joins(tables, columns, template) if options.separator is None else []
    return TextTask(name, splits, template, classes=classes, warnings=notes, reading=reading)


def _with_columns(tables: Mapping[Split, Table], options: TaskOptions) -> tuple[dict[Split, Table], Columns]:
    """Return the columns, and the tables with answers that are lists as Python writes them read as lists."""
    columns = find_columns(tables["train"], options)
    return read_as_lists(tables, columns.answer), columns


def _choices(table: Table, columns: Columns, template: Template, options: TaskOptions) -> list[str]:
    """Warn of answers that are places among choices which are not shown; raise where a person has named nothing."""
    choices = unseen_choices(table, columns, template.names)
    if not choices or not template.literals:
        return []
    shown = "\\n".join(f"{{{name}}}" for name in (columns.text, *choices))
    said = (
        f"{table.source}: {columns.answer!r} holds places among {', '.join(map(repr, choices))}, which are not shown; "
        f"show them (--template '{shown}\\nAnswer:' --label-column {columns.answer}), or write the text of the right "
        "one in their place"
    )
    if options.template is None and not names_columns(options):
        raise InputError(said)
    return [said]


def _template(table: Table, columns: Columns, options: TaskOptions) -> Template:
    """Return the template of a table; that of conversations shows nothing, for they are shown by the model's own."""
    if table.holds_messages(columns.text) or table.holds_messages(columns.answer):
        if options.template is not None or options.separator is not None:
            raise InputError(
                f"{table.source}: column {columns.text!r} holds messages, which the model's chat template or a "
                "transcript shows; leave out the template and the separator"
            )
        return Template((), (), (columns.text,), "")
    default = _answered(columns) if columns.choices else TEMPLATES[columns.kind]
    if columns.form:
        default = default.replace("{text}", columns.form).replace("{prompt}", columns.form)
    asked = options.template or default
    return Template.parse(asked, columns.kind, options.separator, table.columns, columns.text)


def _answered(columns: Columns) -> str:
    """Return the template of rows that bring their own choices: endings go on, others answer."""
    goes_on = columns.choices[0].lower().startswith(ENDINGS)
    return "{text}" if goes_on else "{text}\nAnswer:"


def _usable(table: Table, columns: Columns, template: Template, options: TaskOptions) -> Table:
    """Return ``table`` with its columns looked for, and without its bad rows where they are to be skipped."""
    group = [] if options.group_column is None else [options.group_column]
    for name in (columns.text, columns.answer, *template.names, *group):
        if name not in table.columns:
            raise InputError(
                f"{table.source} has no column {name!r}, unlike the training data; it has the columns "
                f"{', '.join(table.columns)}"
            )
    return without_bad_rows(table, fault_in(table, columns, template), bool(options.skip_bad_rows))


def _check_size(table: Table, rows: Mapping[Split, Sequence[Row]]) -> None:
    distinct = len({row.text for row in rows["train"]})
    missing = [split for split in ("validation", "test") if split not in rows]
    if missing and distinct < MIN_TEXTS:
        raise InputError(
            f"{table.source} has {distinct} different texts, too few to split off {' and '.join(missing)}: "
            f"at least {MIN_TEXTS} are needed, or files of their own ({', '.join(f'--{s} FILE' for s in missing)})"
        )


def _unused_warning(reading: Reading) -> list[str]:
    unused = [name for name, why in reading.unused if not why]
    if not unused:
        return []
    what = "columns that are not used" if len(unused) > 1 else "a column that is not used"
    hint = f" (a template can show them, by name: {{{unused[0]}}})" if reading.template else ""
    return [f"{what}: {', '.join(unused)}{hint}"]


def _overlap_warning(removed: int) -> list[str]:
    what = "rows are left out because their text is also in a later split (test before validation before train)"
    return [f"{removed} {what}"] if removed else []
