"""Hold rows from every source in one form: named columns of cells.

A cell is a text, several texts, the messages of a conversation, or None if there is nothing that can be read. What was
left out on the way (a column of numbers that only counts the rows, a column of pictures) is kept by name, so that it
can be said back.
"""

from __future__ import annotations

import datetime
import decimal
import math
import numbers
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from elicitable.errors import InputError
from elicitable.tasks.messages import messages_from, parts_left_out, tools_in, written_out
from elicitable.tasks.nested import laid_out, plain
from elicitable.tasks.written import are_lists_of_python, looks_written, parsed
from elicitable.values import TOOLS, Message, Messages, Split

Texts = tuple[str, ...]
LeftOut = tuple[tuple[str, str], ...]
Cell = str | Texts | Messages | None
MOST_NUMBERS: Final = 32  # that a list may hold before it is a vector
TALK: Final = (
    'messages are like {"role": "user", "content": "a text"}; pictures, and turns that hold no text and call no tool, '
    "are not read"
)
WANTED, UNWANTED = frozenset({"true", "1"}), frozenset({"false", "0"})  # what marks an answer
LISTED: Final = 20  # bad rows that a message names one by one

_UNNAMED: Final = re.compile(r"(Unnamed: \d+(\.\d+)*|__index_level_\d+__)?")
_WHOLE: Final = re.compile(r"\d{1,18}")


@dataclass(frozen=True, slots=True)
class Table:
    """Hold rows of cells under named columns; ``places[i]`` names row i.

    ``left_out`` are the columns that were not taken over, each with the reason; ``notes`` are what a person should
    know about the reading. ``broken`` are rows that could not be read at all, each as its place and what is wrong.
    ``classes`` are the names of the classes of columns that have them, in their order.
    """

    source: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    places: tuple[str, ...]
    left_out: LeftOut = ()
    notes: tuple[str, ...] = ()
    broken: tuple[tuple[str, str], ...] = ()
    classes: tuple[tuple[str, Texts], ...] = ()

    def cells(self, name: str) -> list[Cell]:
        """Return the cells of one column, white space at both ends of texts taken off.

        >>> Table("t.csv", ("a", "b"), (("1", " x "), ("2", None)), ("line 2", "line 3")).cells("b")
        ['x', None]
        """
        index = self.columns.index(name)
        return [cell.strip() if isinstance(cell := row[index], str) else cell for row in self.rows]

    def distinct(self, name: str) -> set[str]:
        """Return the distinct texts of one column, of several texts the first; empty and missing ones left out."""
        return {text for cell in self.cells(name) if (text := text_of_cell(cell))}

    def holds_messages(self, name: str) -> bool:
        """Say whether a column holds conversations."""
        return any(is_messages(cell) for cell in self.cells(name))

    def conversations(self, name: str) -> list[Messages]:
        """Return the conversations of one column."""
        return [found for cell in self.cells(name) if isinstance(found := said_in(cell), tuple)]

    def holds_lists(self, name: str) -> bool:
        """Say whether a column holds lists of texts."""
        return any(isinstance(cell, tuple) and not is_messages(cell) for cell in self.cells(name))


def is_messages(cell: Cell) -> bool:
    """Say whether a cell holds a conversation."""
    return isinstance(cell, tuple) and bool(cell) and isinstance(cell[0], Message)


def texts_of_cell(cell: Cell) -> Texts:
    """Return the different texts of a cell that are not empty, in their order; none of a conversation.

    >>> texts_of_cell("a"), texts_of_cell(("b", " ", "a ", "b"))
    (('a',), ('b', 'a'))
    """
    found = (cell,) if isinstance(cell, str) else tuple(one for one in cell or () if isinstance(one, str))
    return tuple(dict.fromkeys(text.strip() for text in found if text.strip()))


def read_as_messages(table: Table) -> Table:
    """Return ``table`` with the columns of which the first text is a conversation read as such."""
    firsts = [next((row[place] for row in table.rows if row[place]), None) for place in range(len(table.columns))]
    is_talk = [isinstance(first, str) and messages_from(parsed(first)) is not None for first in firsts]
    if not any(is_talk):
        return table

    def read(cell: Cell, is_read: bool) -> Cell:
        return written_out(cell) if is_read and isinstance(cell, str) else cell

    dropped = list(table.left_out)
    for name in (name for name, is_read in zip(table.columns, is_talk, strict=True) if is_read):
        dropped += parts_left_out(name, (parsed(cell) for cell in table.cells(name) if isinstance(cell, str)))
    rows = tuple(tuple(map(read, row, is_talk)) for row in table.rows)
    return replace(table, rows=rows, left_out=tuple(dropped))


def read_as_lists(tables: Mapping[Split, Table], name: str) -> dict[Split, Table]:
    """Return ``tables`` with the texts of one column as lists, where all of them are lists as Python writes them.

    >>> rows = (("['a', 'b']",), ("['c']",))
    >>> read_as_lists({"train": Table("t", ("answer",), rows, ("line 2", "line 3"))}, "answer")["train"].rows
    ((('a', 'b'),), (('c',),))
    """
    cells = [cell for table in tables.values() if name in table.columns for cell in table.cells(name) if cell]
    if not all(isinstance(cell, str) for cell in cells) or not are_lists_of_python(map(str, cells)):
        return dict(tables)
    return {split: _with_lists(table, name) if name in table.columns else table for split, table in tables.items()}


def _with_lists(table: Table, name: str) -> Table:
    at = table.columns.index(name)
    lists = [tuple(parsed(cell) or ()) if isinstance(cell, str) else cell for cell in table.cells(name)]
    rows = [(*row[:at], cell, *row[at + 1 :]) for row, cell in zip(table.rows, lists, strict=True)]
    return replace(table, rows=tuple(rows))


def written_as_texts(table: Table, names: Iterable[str]) -> list[str]:
    """Say of the columns ``names`` that their first text is a list or an object which stays the text that it is."""
    firsts = {name: next((cell for cell in table.cells(name) if cell), None) for name in dict.fromkeys(names)}
    return [
        f"{table.source}: column {name!r} holds lists or objects that are written out, and they are read as texts "
        f"({first[:40]}…); if they are conversations or several right answers, save the rows as JSON lines"
        for name, first in firsts.items()
        if isinstance(first, str) and looks_written(first)
    ]


def text_of_cell(cell: Cell) -> str:
    """Return the first text of a cell, "" where it has none."""
    return next(iter(texts_of_cell(cell)), "")


def shown_cell(cell: Cell) -> str:
    """Return a cell as a template shows it: of several texts all of them, with commas between."""
    return cell if isinstance(cell, str) else ", ".join(texts_of_cell(cell))


def said_in(cell: Cell) -> str | Messages:
    """Return the messages of a cell, else its first text."""
    messages = tuple(one for one in cell or () if isinstance(one, Message))
    return messages if is_messages(cell) else text_of_cell(cell)


def fault_of(cell: Cell) -> str | None:
    """Say what is wrong with a cell that must be read; None where nothing is.

    >>> fault_of("fine"), fault_of(" "), fault_of(None)
    (None, 'is empty', 'is missing, null or not a single value')
    """
    if cell is None:
        return "is missing, null or not a single value"
    texts: list[str] = []
    for part in (cell,) if isinstance(cell, str) else cell:
        texts += [part.role, part.content, part.parts] if isinstance(part, Message) else [part]
    said = said_in(cell)
    if not (said if isinstance(said, str) else any(turn.shown.strip() for turn in said)):
        return "is empty"
    return None if all(map(is_unicode, texts)) else "holds half a surrogate pair"


def without_bad_rows(table: Table, fault: Callable[[tuple[Cell, ...]], str | None], skip: bool) -> Table:
    """Return ``table`` without the rows in which ``fault`` finds something, in words; all of them are named.

    Raises :class:`InputError` where there are such rows and they are not to be skipped, or nothing is left.
    """
    found = [(number, fault(row)) for number, row in enumerate(table.rows)]
    bad = {number: f"{table.places[number]}: {why}" for number, why in found if why}
    bad |= {-number: f"{place}: {why}" for number, (place, why) in enumerate(table.broken, start=1)}
    if not bad:
        return table
    listed = "; ".join(list(bad.values())[:LISTED]) + (f"; and {len(bad) - LISTED:,} more" if len(bad) > LISTED else "")
    if not skip:
        count = "" if len(bad) == 1 else f" ({len(bad):,} such rows)"
        raise InputError(
            f"{table.source}, {listed}{count}. Mend them, or leave such rows out: --skip-bad-rows (skip_bad_rows=True)"
        )
    kept = [number for number in range(len(table.rows)) if number not in bad]
    if not kept:
        raise InputError(f"{table.source}: no row is left without the bad ones: {listed}")
    whole = len(table.rows) + len(table.broken)
    note = f"{table.source}: {len(bad):,} of {whole:,} rows are left out: {listed}"
    return replace(only_rows(table, kept), broken=(), notes=(*table.notes, note))


def without_unwanted(table: Table, mark: str | None) -> Table:
    """Return ``table`` without the rows whose answers the column ``mark`` says are not wanted, which is noted.

    Raises :class:`InputError` where none is left.

    >>> table = Table("t", ("completion", "label"), (("2", "true"), ("3", "false")), ("line 1", "line 2"))
    >>> without_unwanted(table, "label").rows
    (('2', 'true'),)
    """
    if mark is None or mark not in table.columns:
        return table
    kept = [number for number, cell in enumerate(table.cells(mark)) if shown_cell(cell).casefold() not in UNWANTED]
    left = len(table.rows) - len(kept)
    if not kept:
        raise InputError(f"{table.source}: the column {mark!r} says of every answer that it is not wanted")
    note = (
        f"{table.source}: {left:,} of {len(table.rows):,} rows are left out: {mark!r} marks their answers as not wanted"
    )
    return replace(only_rows(table, kept), notes=(*table.notes, note)) if left else table


def only_rows(table: Table, kept: Sequence[int]) -> Table:
    """Return ``table`` with some of its rows, by number."""
    rows = tuple(table.rows[number] for number in kept)
    return replace(table, rows=rows, places=tuple(table.places[number] for number in kept))


def without_index(table: Table) -> Table:
    """Return ``table`` without columns that have no name and only count its rows, as pandas and R write, or are empty.

    Raises :class:`InputError` for a column without a name that holds something else, and for a name that comes twice.

    >>> table = Table("t.csv", ("", "text"), (("0", "a"), ("1", "b")), ("line 2", "line 3"))
    >>> without_index(table).columns, without_index(table).left_out
    (('text',), (('', 'it only numbers the rows'),))
    """
    nameless = [index for index, name in enumerate(table.columns) if _UNNAMED.fullmatch(name)]
    reasons = {index: why for index in nameless if (why := _why_useless([row[index] for row in table.rows]))}
    kept = [index for index in range(len(table.columns)) if index not in reasons]
    for index in kept:
        if not table.columns[index]:
            raise InputError(
                f"{table.source}: column {index + 1} has no name in the first row ({', '.join(table.columns)})"
            )
    twice = [name for name, count in Counter(table.columns[index] for index in kept).items() if count > 1]
    if twice:
        raise InputError(f"{table.source}: two columns have the name {twice[0]!r}")
    if not reasons:
        return table
    return replace(
        table,
        columns=tuple(table.columns[index] for index in kept),
        rows=tuple(tuple(row[index] for index in kept) for row in table.rows),
        left_out=(*table.left_out, *((table.columns[index], why) for index, why in reasons.items())),
    )


def _why_useless(cells: Sequence[Cell]) -> str:
    """Say why a column without a name is not missed: it is empty, or holds different whole numbers in any order."""
    texts = [cell.strip() for cell in cells if isinstance(cell, str)]
    if not any(cells) or (len(texts) == len(cells) and not any(texts)):
        return "it is empty"
    is_numbering = len(texts) == len(cells) > 1 and len(set(texts)) == len(texts) and all(map(_WHOLE.fullmatch, texts))
    return "it only numbers the rows" if is_numbering else ""


def table_of_objects(source: str, objects: Iterable[tuple[str, Mapping[Any, Any]]]) -> Table:
    """Make a table of (place, object) pairs, objects within objects as columns of dotted names.

    A value that is neither text, number, truth value, messages nor a list of such values is missing.

    >>> table_of_objects("x", [("line 1", {"text": "a", "label": 1}), ("line 2", {"text": "b"})]).rows
    (('a', '1'), ('b', None))
    """
    objects = list(objects)
    keys = list(dict.fromkeys(key for _, found in objects for key in found))
    columns = [(str(key), [found.get(key) for _, found in objects]) for key in keys]
    return table_of_columns(source, columns, tuple(place for place, _ in objects))


def table_of_columns(
    source: str, columns: Iterable[tuple[str, Sequence[Any]]], places: Texts, left_out: LeftOut = ()
) -> Table:
    """Make a table of named columns of values, one for each of ``places``.

    A column of a dotted name comes before a key of objects that would have the same one. Tools are one text of JSON.
    """
    given = [(name, [None if _is_vector(value) else plain(value) for value in values]) for name, values in columns]
    given = [(name, _as_json(values) if is_of_tools(name) else values) for name, values in given]
    laid = {place: laid_out(name, values) for place, (name, values) in enumerate(given)}
    taken = {name for place, (name, _) in enumerate(given) if laid[place] is None}
    names: list[str] = []
    cells: list[list[Cell]] = []
    dropped = list(left_out)
    for place, (name, values) in enumerate(given):
        inner = laid[place]
        if isinstance(inner, str):
            dropped.append((name, inner))
            continue
        for path, own in ({name: values} if inner is None else inner).items():
            if inner is not None and path in taken:
                dropped.append((name, f"of its keys one that is the column {path!r} too"))
                continue
            taken.add(path)
            names.append(path)
            cells.append([cell_of(value) for value in own])
            dropped += parts_left_out(path, own)
    rows = tuple(zip(*cells, strict=True)) if cells else ((),) * len(places)
    return without_index(Table(source, tuple(names), rows, places, tuple(dropped)))


def is_of_tools(name: str) -> bool:
    """Say whether a column has the name of the tools that a conversation may call."""
    return name.casefold() == TOOLS


def _as_json(values: Sequence[Any]) -> list[Any]:
    """Return the tools among ``values`` as a text of JSON, and all else as it is."""
    return [tools_in(value) or value if isinstance(value, list | tuple) else value for value in values]


def _is_vector(value: Any) -> bool:
    """Say whether a value is a long list of numbers, such as an embedding, which is no text and no list of answers."""
    is_long = isinstance(value, list | tuple) or getattr(value, "ndim", 0) == 1
    return is_long and len(value) > MOST_NUMBERS and isinstance(value[0], numbers.Number)


def cell_of(value: Any) -> Cell:
    """Return a value as a cell: whole numbers without a point, truth values as JSON writes them; None for all others.

    >>> [cell_of(value) for value in ("a", 1, 1.0, 0.5, True, None, ["a", 1])]
    ['a', '1', '1', '0.5', 'true', None, ('a', '1')]
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float | decimal.Decimal):
        return _number(value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return messages_from(value) or _texts(value)


def _texts(value: Any) -> Texts | None:
    """Return the values of a list as texts; None where one of them is none."""
    if not isinstance(value, list | tuple) or any(isinstance(one, list | tuple | Mapping) for one in value):
        return None
    found = [cell_of(one) for one in value if one is not None]
    return tuple(one for one in found if isinstance(one, str)) if all(isinstance(one, str) for one in found) else None


def _number(value: float | decimal.Decimal) -> str | None:
    try:
        if not math.isfinite(value):
            return None
        if isinstance(value, float):
            return str(int(value)) if value == int(value) else repr(value)
        return str(value)
    except (OverflowError, ValueError):  # a whole number of more digits than Python converts
        return None


def is_unicode(text: str) -> bool:
    """Say whether ``text`` can be written in UTF-8: half of a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
