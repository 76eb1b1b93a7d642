"""Read rows of a JSON text: one object per line, or one array of objects, or the forms that pandas writes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from elicitable.errors import InputError
from elicitable.tasks.messages import is_said
from elicitable.tasks.tables import Table, table_of_objects

Placed = list[tuple[str, Mapping[str, Any]]]


def read_json(source: str, text: str) -> Table:
    """Return the table of a JSON text; its columns are all keys in order of first appearance.

    A text that begins with ``[`` is one array. Otherwise every line is an object, empty lines are skipped; a text
    whose first line is not an object by itself may be one object that holds the rows: ``{"data": [...]}``, or columns
    by name (``DataFrame.to_json``). A line that is no object is broken, and kept as such, unless none is one. Raises
    :class:`InputError` with the line or the row.
    """
    if text.lstrip().startswith("["):
        return table_of_objects(source, _of_array(source, _whole(source, text), "row"))
    if (columns := _of_one_object(source, text)) is not None:
        return table_of_objects(source, columns)
    placed: Placed = []
    faults: list[InputError] = []
    broken: list[tuple[str, str]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            placed.append((f"line {number}", _of_line(source, number, line)))
        except InputError as fault:
            faults.append(fault)
            broken.append((f"line {number}", str(fault).removeprefix(f"{source}, line {number}: ")))
    if faults and not placed:
        raise faults[0]
    return replace(table_of_objects(source, placed), broken=tuple(broken))


def _whole(source: str, text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError as error:
        raise InputError(f"{source}, line 1: not valid JSON: nested too deeply") from error
    except ValueError as error:
        line = getattr(error, "lineno", 1)
        raise InputError(f"{source}, line {line}: not valid JSON: {error}") from error


def _of_array(source: str, rows: Any, what: str) -> Placed:
    placed: Placed = []
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise InputError(f"{source}, {what} {number}: expected a JSON object like {{…}}, found {_kind(row)}")
        placed.append((f"{what} {number}", row))
    return placed


def _of_one_object(source: str, text: str) -> Placed | None:
    """Return the rows of a text that is one object as a whole and holds them; None for every other text."""
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        return None
    values = list(whole.values()) if isinstance(whole, dict) else []
    lists = [value for value in values if isinstance(value, list) and value and isinstance(value[0], dict)]
    if len(lists) == 1 and not any(map(is_said, lists[0])):
        return _of_array(source, lists[0], "row")
    if isinstance(names := whole.get("columns") if isinstance(whole, dict) else None, list):
        rows = whole.get("data")
        if isinstance(rows, list) and all(isinstance(row, list) and len(row) == len(names) for row in rows):
            return [(f"row {n}", dict(zip(map(str, names), row, strict=True))) for n, row in enumerate(rows, start=1)]
    if values and all(isinstance(value, dict) for value in values):
        keys = dict.fromkeys(key for value in values for key in value)
        if len(values) > len(keys) and not all(key.isdigit() for key in keys):
            return [(f"row {key}", row) for key, row in whole.items()]
        return [(f"row {key}", {name: column.get(key) for name, column in whole.items()}) for key in keys]
    if values and all(isinstance(value, list) and len(value) == len(values[0]) for value in values):
        plain = all(not isinstance(cell, dict) for value in values for cell in value)
        rows = [dict(zip(whole, row, strict=True)) for row in zip(*values, strict=True)]
        return [(f"row {n}", row) for n, row in enumerate(rows, start=1)] if plain else None
    return None


def _of_line(source: str, number: int, line: str) -> Mapping[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        hint = " (expected: one object a line, or one array of objects)" if number == 1 else ""
        raise InputError(f"{source}, line {number}: not valid JSON: {error}{hint}") from error
    if not isinstance(found, dict):
        raise InputError(f"{source}, line {number}: expected a JSON object like {{…}}, found {_kind(found)}")
    return found


def _kind(value: Any) -> str:
    return {list: "a list", str: "a text", type(None): "null", bool: "true or false"}.get(type(value), "a number")
