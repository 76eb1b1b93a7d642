"""Read rows of a JSON text: one object per line, or one array of objects, or the forms that pandas writes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from elicitable.errors import InputError
from elicitable.tasks.messages import is_said
from elicitable.tasks.tables import Table, table_of_objects

Placed = list[tuple[str, Mapping[str, Any]]]


class Doubled(dict[str, Any]):
    """Hold an object in which keys stand twice, of which nobody can say which value is meant."""

    fault = ""


def object_of(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object of ``pairs``, for json to call: a :class:`Doubled` one with its fault where a key comes twice.

    >>> json.loads('{"a": 1, "a": 2}', object_pairs_hook=object_of).fault
    "the key 'a' stands in it twice"
    """
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    doubled, keys = Doubled(found), [key for key, _ in pairs]
    doubled.fault = f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands in it twice"
    return doubled


def read_json(source: str, text: str) -> Table:
    """Return the table of a JSON text; its columns are all keys in order of first appearance.

    A text that begins with ``[`` is one array. Otherwise every line is an object, empty lines are skipped; a text
    whose first line is not an object by itself may be one object that holds the rows: ``{"data": [...]}``, or columns
    by name (``DataFrame.to_json``). A line or an element that is no object is broken, and kept as such, unless none is
    one; so is one in which a key stands twice. Raises :class:`InputError` with the line or the row.
    """
    if text.lstrip().startswith("["):
        return _of_array(source, _whole(source, text))
    if (found := _of_one_object(source, text)) is not None:
        return found
    lines = ((number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip())
    return _table(source, "line", ((number, _of_line(number, line)) for number, line in lines))


def _table(source: str, what: str, rows: Iterable[tuple[int, Mapping[str, Any] | str]]) -> Table:
    """Return the table of numbered rows, each an object, or what is wrong with it in words."""
    placed: Placed = []
    broken: list[tuple[str, str]] = []
    for number, row in rows:
        if isinstance(row, str):
            broken.append((f"{what} {number}", row))
        else:
            placed.append((f"{what} {number}", row))
    if broken and not placed:
        raise InputError(f"{source}, {': '.join(broken[0])}")
    return replace(table_of_objects(source, placed), broken=tuple(broken))


def _whole(source: str, text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=object_of)
    except RecursionError as error:
        raise InputError(f"{source}, line 1: not valid JSON: nested too deeply") from error
    except ValueError as error:
        line = getattr(error, "lineno", 1)
        raise InputError(f"{source}, line {line}: not valid JSON: {error}") from error


def _of_array(source: str, rows: Iterable[Any]) -> Table:
    return _table(source, "row", ((number, _object(row)) for number, row in enumerate(rows, start=1)))


def _of_one_object(source: str, text: str) -> Table | None:
    """Return the table of a text that is one object as a whole and holds them; None for every other text."""
    try:
        whole = json.loads(text, object_pairs_hook=object_of)
    except (ValueError, RecursionError):
        return None
    if isinstance(whole, Doubled):
        raise InputError(f"{source}: it is one object, and {whole.fault}")
    values = list(whole.values()) if isinstance(whole, dict) else []
    if isinstance(whole, dict) and (rows := list_of_rows(whole)) is not None:
        return _of_array(source, rows)
    placed = _by_columns(whole, values) if isinstance(whole, dict) else None
    return None if placed is None else table_of_objects(source, placed)


def list_of_rows(whole: Mapping[str, Any]) -> list[Any] | None:
    """Return the one list of objects that an object holds, where they are no messages; None where there is none."""
    values = whole.values()
    lists = [value for value in values if isinstance(value, list) and value and isinstance(value[0], dict)]
    return lists[0] if len(lists) == 1 and not any(map(is_said, lists[0])) else None


def _by_columns(whole: Mapping[str, Any], values: Sequence[Any]) -> Placed | None:
    """Return the rows of an object of ``values`` in one of the forms that pandas writes."""
    if isinstance(names := whole.get("columns"), list):
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


def _of_line(number: int, line: str) -> Mapping[str, Any] | str:
    try:
        return _object(json.loads(line, object_pairs_hook=object_of))
    except (ValueError, RecursionError) as error:
        hint = " (expected: one object a line, or one array of objects)" if number == 1 else ""
        return f"not valid JSON: {error}{hint}"


def _object(value: Any) -> Mapping[str, Any] | str:
    """Return an object, or what is wrong with a value that is none, or has a key twice."""
    if isinstance(value, Doubled):
        return value.fault
    return value if isinstance(value, dict) else f"expected a JSON object like {{…}}, found {_kind(value)}"


def _kind(value: Any) -> str:
    return {list: "a list", str: "a text", type(None): "null", bool: "true or false"}.get(type(value), "a number")
