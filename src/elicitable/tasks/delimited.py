"""Read rows of a CSV or TSV text."""

from __future__ import annotations

import csv
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from elicitable.errors import InputError
from elicitable.tasks.tables import Table, without_index

DELIMITED: Final = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
_OTHERS: Final = ";\t|"
_LONGEST: Final = 2**31 - 1  # what a C long holds on every platform
_LIMIT: Final = threading.Lock()  # csv's limit belongs to the whole process


def read_delimited(source: str, text: str, delimiter: str) -> Table:
    """Read a first row of column names, then rows of the same length; empty lines are skipped.

    A row of another length is broken, and kept as such. Raises :class:`InputError` for a quote that does not close, and
    for columns without a name.
    """
    delimiter = delimiter_of(text.lstrip().partition("\n")[0], delimiter)
    records = _records(source, text, delimiter)
    columns = tuple(name.strip() for name in records[0][1]) if records else ()
    if not columns:
        raise InputError(f"{source} has no rows")
    rows, places, broken = [], [], []
    for line, record in records[1:]:
        if len(record) != len(columns):
            why = (
                f"{len(record)} fields, but the first row names {len(columns)} columns ({', '.join(columns)}); put "
                f"quotes around a text that contains {delimiter!r} or a line break"
            )
            broken.append((f"line {line}", why))
            continue
        rows.append(tuple(record))
        places.append(f"line {line}")
    return without_index(Table(source, columns, tuple(rows), tuple(places), broken=tuple(broken)))


def delimiter_of(line: str, expected: str) -> str:
    """Return the delimiter of a table's first line: what is ``expected``, or another one that alone it has.

    Spreadsheets write semicolons where the comma is the decimal point, and tabs into what they call Unicode text.

    >>> delimiter_of("text;label", ","), delimiter_of("text,label|x", ","), delimiter_of("text", ",")
    (';', ',', ',')
    """
    return next((one for one in (expected, *_OTHERS) if one in line), expected)


def _records(source: str, text: str, delimiter: str) -> list[tuple[int, list[str]]]:
    """Return the line number and fields of each record that is not an empty line."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    found, start = [], 1
    try:
        with long_fields():
            for record in reader:
                if any(cell.strip() for cell in record) or len(record) > 1:
                    found.append((start, record))
                start = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{source}, line {start}: {error}") from error
    return found


@contextmanager
def long_fields(longest: int = _LONGEST) -> Iterator[None]:
    """Let fields be longer than csv's 131,072 characters, here and for now only."""
    with _LIMIT:
        before = csv.field_size_limit(longest)
        try:
            yield
        finally:
            csv.field_size_limit(before)
