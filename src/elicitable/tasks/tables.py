"""Reading a person's own table: CSV, TSV or JSON lines. Nothing in a file is trusted, everything is named.

Every way a file can be wrong raises :class:`InputError` with the file, the line where there is one, what was
expected and what to do.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from elicitable.errors import InputError

DELIMITED: Final = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
JSON_LINES: Final = (".jsonl", ".ndjson", ".json")
SUFFIXES: Final = (*DELIMITED, *JSON_LINES)
MAX_BYTES: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of texts under named columns. A cell is None where it is missing; ``places[i]`` names row i."""

    source: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | None, ...], ...]
    places: tuple[str, ...]

    def column(self, name: str) -> list[str]:
        """The cells of one column, white space at both ends taken off. Raises where one is missing or empty.

        >>> Table("t.csv", ("a", "b"), (("1", " x "), ("2", None)), ("line 2", "line 3")).column("a")
        ['1', '2']
        """
        index = self.columns.index(name)
        cells = []
        for row, place in zip(self.rows, self.places, strict=True):
            cell = row[index]
            if cell is None or not cell.strip():
                what = "is empty" if cell is not None else "is missing, null or not a single value"
                raise InputError(f"{self.source}, {place}: column {name!r} {what}")
            if not _is_unicode(cell):
                raise InputError(f"{self.source}, {place}: column {name!r} holds half a surrogate pair")
            cells.append(cell.strip())
        return cells

    def distinct(self, name: str) -> set[str]:
        """The distinct cells of one column, missing ones left out."""
        index = self.columns.index(name)
        return {cell.strip() for row in self.rows if (cell := row[index]) is not None}


def read_table(path: str | Path) -> Table:
    """Read one file, by its suffix: ``.csv``, ``.tsv``, ``.tab``, or ``.jsonl``, ``.ndjson``, ``.json``.

    Raises :class:`InputError` for a file that is missing, a folder, unreadable, of another kind, larger than 1 GiB,
    not UTF-8, without rows, ragged, or not one JSON object a line.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES and path.is_file():
        raise InputError(f"{path}: cannot tell the kind of file by its name; expected {', '.join(SUFFIXES)}")
    text = _decode(path, _read_bytes(path))
    table = _read_json_lines(path, text) if suffix in JSON_LINES else _read_delimited(path, text, suffix)
    if not table.rows:
        raise InputError(f"{path} has no rows, only {'the column names' if text.strip() else 'white space'}")
    return table


def _read_bytes(path: Path) -> bytes:
    if path.is_dir():
        raise InputError(f"{path} is a folder; name one file in it ({', '.join(SUFFIXES)})")
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= MAX_BYTES else b""
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    if size > MAX_BYTES:
        raise InputError(f"{path} has {size:,} bytes; at most {MAX_BYTES:,} are read")
    if not data:
        raise InputError(f"{path} is empty")
    return data


def _decode(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}, line {line}: byte {error.start} (0x{data[error.start]:02x}) is not UTF-8; "
            "save the file as UTF-8 and try again"
        ) from error


def _read_delimited(path: Path, text: str, suffix: str) -> Table:
    """A first row of column names, then rows of the same length; empty lines are skipped."""
    delimiter = DELIMITED[suffix]
    first_line = text.lstrip().partition("\n")[0]
    if delimiter not in first_line and ";" in first_line:
        delimiter = ";"  # what spreadsheets write where the comma is the decimal point
    records = _records(path, csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    _, header = next(records, (1, []))
    columns = tuple(name.strip() for name in header)
    _check_columns(path, columns)
    rows, places = [], []
    for line, record in records:
        if len(record) != len(columns):
            raise InputError(
                f"{path}, line {line}: {len(record)} fields, but the first row names {len(columns)} columns "
                f"({', '.join(columns)}); put quotes around a text that contains {delimiter!r} or a line break"
            )
        rows.append(tuple(record))
        places.append(f"line {line}")
    return Table(str(path), columns, tuple(rows), tuple(places))


def _records(path: Path, reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of each record that is not an empty line."""
    start = 1
    try:
        for record in reader:
            if any(cell.strip() for cell in record) or len(record) > 1:
                yield start, record
            start = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}, line {start}: {error}") from error


def _check_columns(path: Path, columns: tuple[str, ...]) -> None:
    if not columns:
        raise InputError(f"{path} has no rows")
    unnamed = [index + 1 for index, name in enumerate(columns) if not name]
    if unnamed:
        raise InputError(f"{path}: column {unnamed[0]} has no name in the first row ({', '.join(columns)})")
    twice = [name for name, count in Counter(columns).items() if count > 1]
    if twice:
        raise InputError(f"{path}: two columns have the name {twice[0]!r}")


def _read_json_lines(path: Path, text: str) -> Table:
    """One object a line; the columns are all keys in order of first appearance; empty lines are skipped."""
    objects = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            objects.append((f"line {number}", _read_object(path, number, line)))
    return table_of_objects(str(path), objects)


def _read_object(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        whole = " (one object a line is expected, not one list over the whole file)" if number == 1 else ""
        raise InputError(f"{path}, line {number}: not valid JSON: {error}{whole}") from error
    if not isinstance(found, dict):
        kind = {list: "a list", str: "a text", type(None): "null", bool: "true or false"}.get(type(found), "a number")
        raise InputError(f"{path}, line {number}: expected a JSON object like {{…}}, found {kind}")
    return found


def table_of_objects(source: str, objects: Iterable[tuple[str, dict[str, Any]]]) -> Table:
    """A table of (place, object) pairs; a value that is no text, number or truth value counts as missing.

    >>> table_of_objects("x", [("line 1", {"text": "a", "label": 1}), ("line 2", {"text": "b"})]).rows
    (('a', '1'), ('b', None))
    """
    objects = list(objects)
    columns = tuple(dict.fromkeys(key for _, found in objects for key in found))
    rows = [tuple(_cell(source, place, name, found.get(name)) for name in columns) for place, found in objects]
    return Table(source, columns, tuple(rows), tuple(place for place, _ in objects))


def _cell(source: str, place: str, name: str, value: Any) -> str | None:
    """A value as text: whole numbers without a point, truth values as JSON writes them; None for all others.

    >>> [_cell("x", "line 1", "label", value) for value in ("a", 1, 1.0, 0.5, True, None)]
    ['a', '1', '1', '0.5', 'true', None]
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        return str(int(value)) if value == int(value) else repr(value)
    return None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
