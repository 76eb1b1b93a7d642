"""Read rows of a JSON text: one object per line, or one array of objects, or the forms that pandas writes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from elicitable.errors import InputError
from elicitable.tasks.doubled import Doubled, doubled_in, object_of
from elicitable.tasks.messages import is_said
from elicitable.tasks.tables import Table, table_of_objects


@dataclass(frozen=True, slots=True)
class Placed:
    """Hold a row of a JSON text: where it stands, its value, and why there is none."""

    place: str
    value: Any = None
    fault: str = ""


def read_json(source: str, text: str) -> Table:
    """Return the table of a JSON text; its columns are all keys in order of first appearance.

    A row that is no object is broken, and kept as such, unless none is one; so is one in which a key stands twice, at
    whatever depth. Raises :class:`InputError` with the line or the row.
    """
    placed: list[tuple[str, Mapping[str, Any]]] = []
    broken: list[tuple[str, str]] = []
    for row in rows_of_json(source, text):
        if fault := row.fault or _fault(row.value):
            broken.append((row.place, fault))
        else:
            placed.append((row.place, row.value))
    if broken and not placed:
        raise InputError(f"{source}, {': '.join(broken[0])}")
    return replace(table_of_objects(source, placed), broken=tuple(broken))


def rows_of_json(source: str, text: str) -> list[Placed]:
    """Return the rows of a JSON text, in their order.

    A text that begins with ``[`` is one array. Otherwise every line is a value, empty lines are skipped; a text whose
    first line is not an object by itself may be one object that holds the rows: ``{"data": [...]}``, or columns by name
    (``DataFrame.to_json``); or it is one row. Raises :class:`InputError` where an array, or such an object, cannot be
    read as a whole.
    """
    if text.lstrip().startswith("["):
        return _numbered(_whole(source, text))
    if (found := _of_one_object(source, text)) is not None:
        return found
    return [_of_line(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]


def _numbered(rows: Iterable[Any]) -> list[Placed]:
    return [Placed(f"row {number}", row) for number, row in enumerate(rows, start=1)]


def _whole(source: str, text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=object_of)
    except RecursionError as error:
        raise InputError(f"{source}, line 1: not valid JSON: nested too deeply") from error
    except ValueError as error:
        line = getattr(error, "lineno", 1)
        raise InputError(f"{source}, line {line}: not valid JSON: {error}") from error


def _of_one_object(source: str, text: str) -> list[Placed] | None:
    """Return the rows of a text that is one object as a whole and holds them; None for every other text."""
    try:
        whole = json.loads(text, object_pairs_hook=object_of)
    except (ValueError, RecursionError):
        return None
    if isinstance(whole, Doubled):
        raise InputError(f"{source}: it is one object, and {whole.fault}")
    if not isinstance(whole, dict):
        return None
    if (rows := list_of_rows(whole)) is not None:
        return _numbered(rows)
    rows = _by_columns(source, whole)
    return rows or ([Placed("row 1", whole)] if "\n" in text.strip() else None)


def list_of_rows(whole: Mapping[str, Any]) -> list[Any] | None:
    """Return the one list of objects that an object holds, where they are no messages; None where there is none."""
    values = whole.values()
    lists = [value for value in values if isinstance(value, list) and value and isinstance(value[0], dict)]
    return lists[0] if len(lists) == 1 and not any(map(is_said, lists[0])) else None


def _by_columns(source: str, whole: Mapping[str, Any]) -> list[Placed] | None:
    """Return the rows of an object in one of the forms that pandas writes."""
    values = list(whole.values())
    if isinstance(names := whole.get("columns"), list):
        rows = whole.get("data")
        if isinstance(rows, list) and all(isinstance(row, list) and len(row) == len(names) for row in rows):
            return _numbered(dict(zip(map(str, names), row, strict=True)) for row in rows)
    if values and all(isinstance(value, dict) for value in values):
        keys = dict.fromkeys(key for value in values for key in value)
        if len(values) > len(keys) and not all(key.isdigit() for key in keys):
            return [Placed(f"row {key}", row) for key, row in whole.items()]
        for name, column in whole.items():
            if isinstance(column, Doubled):
                raise InputError(f"{source}: it is one object, and of its column {name!r} {column.fault}")
        return [Placed(f"row {key}", {name: column.get(key) for name, column in whole.items()}) for key in keys]
    if values and all(isinstance(value, list) and len(value) == len(values[0]) for value in values):
        plain = all(not isinstance(cell, dict) for value in values for cell in value)
        return _numbered(dict(zip(whole, row, strict=True)) for row in zip(*values, strict=True)) if plain else None
    return None


def _of_line(number: int, line: str) -> Placed:
    try:
        return Placed(f"line {number}", json.loads(line, object_pairs_hook=object_of))
    except (ValueError, RecursionError) as error:
        hint = " (expected: one object a line, or one array of objects)" if number == 1 else ""
        return Placed(f"line {number}", fault=f"not valid JSON: {error}{hint}")


def _fault(value: Any) -> str:
    """Say what is wrong with a value that is no object, or has a key twice."""
    if not isinstance(value, dict):
        return f"expected a JSON object like {{…}}, found {_kind(value)}"
    return doubled_in(value)


def _kind(value: Any) -> str:
    return {list: "a list", str: "a text", type(None): "null", bool: "true or false"}.get(type(value), "a number")
