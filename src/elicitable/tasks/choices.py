"""Rows that bring choices of their own, of which one is right: questions of exams, endings of stories.

The choices stand in a column of lists (``choices``, ``options``, ``endings``), or in a column each (``A``, ``B``, …;
``option1``, ``option2``; ``ending0``, …). The right one is given as its text, as a letter, or as a number, which counts
from 0 or from 1 as the data show; or as one of the row's own keys beside the choices (``choices.label``). It is
replaced by its text, so that what is trained and compared are the texts, behind a prompt that does not show them. A
template that shows the choices asks for the letter or the number instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from elicitable.errors import InputError
from elicitable.tasks.columns import (
    PROMPT_NAMES,
    Columns,
    find_columns,
    first_of,
    form_of,
    names_columns,
)
from elicitable.tasks.options import TaskOptions
from elicitable.tasks.tables import Cell, Table, text_of_cell
from elicitable.tasks.written import parsed
from elicitable.values import Split

CHOICES: Final = ("choices", "choices.text", "options", "options.text", "endings")
LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
ANSWERS: Final = (
    *("answer", "label", "answerkey", "answer_key", "answer_idx", "answer_index", "correct", "correct_answer"),
    *("correct_option", "target", "gold", "gold_label", "cop"),
)
QUESTIONS: Final = (
    *("question", "question_stem", "question.stem", "stem", "query", "ctx", "goal", "premise", "sentence"),
    *("startphrase", "story", "context", *PROMPT_NAMES),
)
ENDINGS: Final = ("ending", "sol")  # choices that go on where the text ends, and answer no question
MOST: Final = 0.9  # of all rows have to be read alike; the others are bad rows
_ONE: Final = re.compile(r"(?:(option|choice|answer|ending|sol|opt|op)[ _]?)?([a-z]|\d)", re.IGNORECASE)
_PLACE: Final = re.compile(r"(\d{1,2})(?:\.0)?|([A-Za-z])")


def with_own_choices(tables: Mapping[Split, Table], options: TaskOptions) -> tuple[dict[Split, Table], Columns] | None:
    """Return the tables with every right answer as its text, and their columns; None where rows bring no choices.

    Raises :class:`InputError` where numbers may count from 0 and from 1.

    >>> rows = tuple((f"{i} + 1?", (f"{i}.", f"{i + 1}."), "B") for i in range(40))
    >>> table = Table("t.jsonl", ("question", "choices", "answer"), rows, ("",) * 40)
    >>> found, columns = with_own_choices({"train": table}, TaskOptions())
    >>> found["train"].rows[3], columns.choices
    (('3 + 1?', ('3.', '4.'), '4.'), ('choices',))
    """
    train = tables["train"]
    columns = _columns(train, options)
    if columns is None or any(name not in table.columns for table in tables.values() for name in _read(columns)):
        return None
    rows = [
        (text_of_cell(row[table.columns.index(columns.answer)]), listed(_cells(table, row, columns)), keys)
        for table in tables.values()
        for row, keys in zip(table.rows, _keys(table, columns), strict=True)
    ]
    text_of = _reader(train.source, columns.answer, rows)
    if text_of is None:
        return None
    answered, place = {}, iter(rows)
    for split, table in tables.items():
        at, texts = table.columns.index(columns.answer), [text_of(*next(place)) for _ in table.rows]
        changed = [
            (*row[:at], row[at] if text is None else text, *row[at + 1 :])
            for row, text in zip(table.rows, texts, strict=True)
        ]
        answered[split] = replace(table, rows=tuple(changed))
    return answered, columns


def listed(cells: Sequence[Cell]) -> list[str]:
    """Return the choices of a row by their places, from the cell of a list or from a cell for each; "" is none.

    A list may also be written as text, as JSON or as Python writes it.

    >>> listed([("a", " b")]), listed(['["a", "b"]']), listed(["a", None, "c"])
    (['a', 'b'], ['a', 'b'], ['a', '', 'c'])
    """
    if len(cells) > 1:
        return [text_of_cell(cell) for cell in cells]
    cell: object = cells[0]
    if isinstance(cell, str) and cell.strip().startswith("["):
        cell = tuple(parsed(cell) or ())
    if not isinstance(cell, tuple):
        return []
    return [str(one).strip() if isinstance(one, str | int | float) else "" for one in cell]


def unseen_choices(table: Table, columns: Columns, shown: Sequence[str]) -> tuple[str, ...]:
    """Return the columns of choices among which the answers are places, numbers or letters; none where one is shown.

    What nine in ten of the rows that bring choices and an answer do is taken for all.

    >>> table = Table("t", ("question", "choices", "answer"), (("1 + 1?", ("3", "2"), "B"),), ("line 1",))
    >>> unseen_choices(table, Columns("generation", "question", "answer"), ("question",))
    ('choices',)
    """
    lists = first_of(table, CHOICES, ())
    found = _of_letters(table) if lists is None else (lists,)
    if not found or columns.choices or {columns.answer, *shown}.intersection(found):
        return ()
    cells = zip(*map(table.cells, found), strict=True)
    answers = map(text_of_cell, table.cells(columns.answer))
    are_places = [
        _is_place(answer, choices)
        for choices, answer in zip(map(listed, cells), answers, strict=True)
        if answer and any(choices)
    ]
    return found if are_places and sum(are_places) >= MOST * len(are_places) else ()


def _is_place(answer: str, choices: Sequence[str]) -> bool:
    if answer in choices:
        return False
    if answer.isdecimal() and len(answer) < 3:
        return int(answer) <= len(choices)
    return len(answer) == 1 and answer.upper() in LETTERS[: len(choices)]


def fault_in_choices(answer: str, choices: Sequence[str], column: str) -> str | None:
    """Say what is wrong with a row's choices; None where nothing is."""
    different = set(filter(None, choices))
    if len(different) < 2:
        return f"has {len(different)} choice{'s' if not different else ''}, and needs two at least"
    return None if answer in different else f"column {column!r} holds {answer!r}, which is none of its choices"


def _columns(table: Table, options: TaskOptions) -> Columns | None:
    """Return the columns of a table whose rows bring choices that no template shows."""
    if options.prompt_column is not None or options.target_column is not None:
        return None
    choices = _of_lists(table) or _of_letters(table)
    if not choices or any(f"{{{name}}}" in (options.template or "") for name in choices):
        return None
    answer = options.label_column or first_of(table, ANSWERS, choices)
    if answer is None or answer in choices or answer not in table.columns:
        return None
    if options.template is not None or names_columns(options):
        named = options if options.label_column else replace(options, label_column=answer)
        return replace(find_columns(table, named), choices=choices)
    found = form_of(table, answer)
    if found is not None and found[0] not in choices and found[1] not in choices:
        return Columns("classification", found[0], answer, found[2], choices)
    text = first_of(table, QUESTIONS, (answer, *choices))
    return None if text is None else Columns("classification", text, answer, "", choices)


def _read(columns: Columns) -> tuple[str, ...]:
    return columns.answer, *columns.choices


def _of_lists(table: Table) -> tuple[str, ...]:
    column = first_of(table, CHOICES, ())
    if column is None or not table.rows:
        return ()
    several = sum(len(listed([cell])) > 1 for cell in table.cells(column))
    return (column,) if several >= MOST * len(table.rows) else ()


def _of_letters(table: Table) -> tuple[str, ...]:
    """Return columns that are one choice each: A, B, …, or numbered from 0 or 1 behind the same word."""
    found: dict[str, dict[str, str]] = {}
    for name in table.columns:
        if (one := _ONE.fullmatch(name.strip())) and (one[1] or one[2].isalpha()):
            found.setdefault((one[1] or "").lower(), {})[one[2].upper()] = name
    for places in found.values():
        for order in (LETTERS, "0123456789", "123456789"):
            count = next((nth for nth, place in enumerate(order) if place not in places), len(order))
            if count == len(places) > 1:
                return tuple(places[place] for place in order[:count])
    return ()


def _cells(table: Table, row: Sequence[Cell], columns: Columns) -> list[Cell]:
    return [row[table.columns.index(name)] for name in columns.choices]


def keys_column(table: Table, columns: Columns) -> str | None:
    """Return the column of the names that rows have for their choices, as ARC's ``choices.label``; None without one."""
    name = columns.choices[0].replace(".text", ".label") if len(columns.choices) == 1 else ""
    return name if name in table.columns and name not in columns.choices else None


def _keys(table: Table, columns: Columns) -> list[list[str]]:
    name = keys_column(table, columns)
    return [[]] * len(table.rows) if name is None else [listed([cell]) for cell in table.cells(name)]


_Row = tuple[str, list[str], list[str]]  # the answer, the choices by their places, and what they are called
_Reader = Callable[[str, list[str], list[str]], "str | None"]


def _reader(source: str, column: str, rows: Sequence[_Row]) -> _Reader | None:
    """Return what finds the text of a right answer, as most rows give it; None where they give none of the choices."""
    read = [row for row in rows if row[0]]

    def by_key(answer: str, choices: list[str], keys: list[str]) -> str | None:
        return choices[keys.index(answer)] if answer in keys and len(keys) == len(choices) else None

    def by_text(answer: str, choices: list[str], keys: list[str]) -> str | None:
        return answer if answer in choices else None

    def by_place(answer: str, choices: list[str], keys: list[str], first: int = 0) -> str | None:
        found = _PLACE.fullmatch(answer)
        if found is None:
            return None
        place = LETTERS.index(found[2].upper()) if found[2] else int(found[1]) - first
        return choices[place] if 0 <= place < len(choices) else None

    def most(reader: _Reader) -> bool:
        return bool(read) and sum(bool(reader(*row)) for row in read) >= MOST * len(read)

    for reader in (by_key, by_text):
        if most(reader):
            return reader
    numbers = [
        (int(found[1]), len(choices)) for answer, choices, _ in read if (found := _PLACE.fullmatch(answer)) and found[1]
    ]
    has_zero, has_last = any(number == 0 for number, _ in numbers), any(number == count for number, count in numbers)
    first = int(has_last and not has_zero)
    if not most(lambda answer, choices, keys: by_place(answer, choices, keys, first)):
        return None
    if numbers and not has_zero and not has_last:
        raise InputError(
            f"{source}: column {column!r} holds places among the choices, and none is the first or the last: they may "
            "count from 0 or from 1; write letters, or the texts of the right ones"
        )
    return lambda answer, choices, keys: by_place(answer, choices, keys, first)
