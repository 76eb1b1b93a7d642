"""Read rows that are to be answered, one at a time, so that memory does not grow with their number.

CSV and TSV, JSON lines, a JSON array of objects, Parquet and Arrow, a text per line, or one text; from a file (also
packed by gzip or bzip2) or from standard input. A row that cannot be read is given with what is wrong with it, and the
rows behind it are read as if nothing had been. What cannot be read on from (a JSON array that breaks off) is its last.
"""

from __future__ import annotations

import csv
import io
import json
import os
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import IO, Any, Final, Literal

from elicitable.errors import InputError, UnknownNameError
from elicitable.tasks.arrow import SUFFIXES as ARROW
from elicitable.tasks.arrow import rows_in
from elicitable.tasks.delimited import DELIMITED, delimiter_of, long_fields, quotes_are_characters, without_sep_line
from elicitable.tasks.doubled import doubled_in, object_of
from elicitable.tasks.files import BEGIN, MARKS, PACKED, check_begin, check_encoding, opened, suffix_of
from elicitable.tasks.json_rows import list_of_rows, rows_of_json

KINDS: Final = ("csv", "tsv", "jsonl", "json", "lines", "text")
STDIN: Final = "-"
LONGEST: Final = 1 << 26  # characters of a line or a cell
_CHUNK: Final = 1 << 16
_LAST: Final = "nothing behind it can be read"
_BY_SUFFIX: Final = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
_DELIMITERS: Final = {"csv": DELIMITED[".csv"], "tsv": DELIMITED[".tsv"]}


@dataclass(frozen=True, slots=True)
class Incoming:
    """Hold one row: where it stands, its values by column, its cells in their order where it has any, and its fault.

    ``fault`` says in words why the row cannot be read; it is empty where it can.
    """

    place: str
    values: Mapping[str, Any] = field(default_factory=dict)
    cells: tuple[str, ...] = ()
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Rows:
    """Hold the rows of a source, their kind, and of a table its columns and what stands between its cells."""

    source: str
    kind: str
    columns: tuple[str, ...]
    rows: Iterator[Incoming]
    delimiter: str = ""


@contextmanager
def incoming(
    source: str, kind: str | None = None, encoding: str | None = None, wanted: Sequence[str] = ()
) -> Iterator[Rows]:
    """Open a file, or ``-`` for standard input, whose rows can be read until the end of the ``with``.

    Args:
        source: the file.
        kind: one of :data:`KINDS`; by default what the file's name says, and a text per line where it says nothing.
            Standard input is a JSON array where it begins with ``[``, JSON lines where it begins with ``{``, CSV or
            TSV where its first line names all ``wanted`` columns, and else a text per line.
        encoding: of texts; UTF-8 by default. A byte order mark is honoured whatever was asked for.
        wanted: columns that a table must have. A text per line is given as the first of them.

    Raises:
        InputError: there is no such file, it is empty, or it lacks a column.
    """
    if kind is not None and kind not in KINDS:
        raise UnknownNameError("kind of input", kind, KINDS)
    path, name = Path(source), "standard input" if source == STDIN else source
    suffix = "" if source == STDIN else suffix_of(path)
    if source != STDIN and not os.path.isfile(path):
        raise InputError(
            f"{source} is a folder; name a file." if os.path.isdir(path) else f"{source}: there is no such file."
        )
    if suffix in ARROW and kind is None:
        check_encoding([path], encoding)
        with closing(rows_in(path, suffix)) as placed:
            yield Rows(name, "arrow", (), (Incoming(place, values) for place, values in placed))
        return
    with nullcontext(sys.stdin.buffer) if source == STDIN else _file(path, suffix) as file:
        yield _rows(source, name, _text(name, file, encoding), kind, suffix, wanted, encoding)


def _rows(
    source: str, name: str, text: _Text, kind: str | None, suffix: str, wanted: Sequence[str], encoding: str | None
) -> Rows:
    path = Path(source)
    plain = suffix.removesuffix(path.suffix.lower()) if path.suffix.lower() in PACKED else suffix
    kind = kind or _BY_SUFFIX.get(plain)
    if kind == "jsonl" and plain in _BY_SUFFIX and text.peek().lstrip().startswith("["):
        kind = "json"  # an array, whatever its file is called
    said = text.without_sep_line() if kind in _DELIMITERS or (kind is None and source == STDIN) else ""
    kind = kind or ("csv" if said else _kind_of(text, wanted, is_file=source != STDIN))
    if kind in _DELIMITERS:
        delimiter = said or delimiter_of(text.peek(), _DELIMITERS[kind], wanted)
        is_plain = delimiter == "\t" and source != STDIN and _is_plain(path, suffix, encoding)
        return _table(name, delimiter, kind, text, wanted, csv.QUOTE_NONE if is_plain else csv.QUOTE_MINIMAL)
    readers = {"json": _array, "jsonl": _lines_of_json, "lines": _lines, "text": _whole}
    return Rows(name, kind, (), readers[kind](text, wanted[0] if wanted else "text"))


def _is_plain(path: Path, suffix: str, encoding: str | None) -> bool:
    """Say whether quotes are characters in a file with tabs, as is said of one that is trained on."""
    with _file(path, suffix) as file:
        text = _text(str(path), file, encoding)
        text.without_sep_line()
        return quotes_are_characters(text.lines())


def _file(path: Path, suffix: str) -> Any:
    try:
        return opened(path, suffix)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error


class _Raw(io.RawIOBase):
    """Turn what is wrong with a file while it is read into an InputError that names it."""

    def __init__(self, file: Any, name: str) -> None:
        self.file, self.name = file, name

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = getattr(self.file, "read1", self.file.read)(len(buffer))  # what is there, without waiting for more
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise InputError(f"{self.name} cannot be read on: {error}; it is damaged or cut off.") from error
        buffer[: len(data)] = data
        return len(data)


class _Text:
    """Hold a text stream that can be looked at before it is read."""

    def __init__(self, stream: IO[str], name: str) -> None:
        self.stream, self.name = stream, name
        self.ahead: list[str] = []

    def peek(self) -> str:
        """Return the first line that is not empty, and leave everything to be read."""
        while not self.ahead or not self.ahead[-1].strip():
            line = self._line()
            if not line:
                return ""
            self.ahead.append(line)
        return next(line for line in self.ahead if line.strip())

    def without_sep_line(self) -> str:
        """Empty a first line that says the delimiter; return it, or "" where the first line says none."""
        rest, said = without_sep_line(self.peek())
        if said:
            self.ahead[-1] = rest
        return said

    def lines(self) -> Iterator[str]:
        """Yield the lines, ends included."""
        while self.ahead:
            yield self.ahead.pop(0)
        while line := self._line():
            yield line

    def read(self, size: int) -> str:
        """Return up to ``size`` characters or a line that was looked at."""
        if self.ahead:
            return self.ahead.pop(0)
        with self._named():
            return self.stream.read(size)

    def _line(self) -> str:
        with self._named():
            return self.stream.readline(LONGEST)

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except UnicodeError as error:
            raise InputError(f"{self.name} cannot be read on: {error}; name its encoding (--encoding).") from error


def _text(name: str, file: Any, asked: str | None) -> _Text:
    """Return the text of ``file``; bytes that are none of its encoding are kept, and found in their row."""
    data = io.BufferedReader(_Raw(file, name))
    begin = data.peek(BEGIN)[:BEGIN]
    check_begin(name, begin)
    marked = next((found for mark, found in MARKS if begin.startswith(mark)), None)
    encoding = marked or asked or "utf-8"
    try:
        "a".encode(encoding)  # unlike a look-up, this refuses what is no encoding of texts, such as zip
    except (LookupError, ValueError):  # ValueError: of a name with a zero byte, or with half a character
        raise InputError(f"{encoding!r} is no encoding of texts; known are utf-8, latin-1, cp1252, utf-16, …") from None
    if not begin:
        raise InputError(f"{name} is empty.")
    return _Text(io.TextIOWrapper(data, encoding=encoding, errors="surrogateescape", newline=""), name)


def _kind_of(text: _Text, wanted: Sequence[str], is_file: bool) -> str:
    line = text.peek()
    if is_file:
        return "lines"
    if line.lstrip()[:1] in ("[", "{"):
        return "json" if line.lstrip().startswith("[") else "jsonl"
    for kind, delimiter in _DELIMITERS.items():
        columns = {
            cell.strip() for cell in next(csv.reader([line], delimiter=delimiter_of(line, delimiter, wanted)), [])
        }
        if wanted and columns >= set(wanted) and (len(wanted) > 1 or len(columns) > 1 or kind == "csv"):
            return kind
    return "lines"


def _table(name: str, delimiter: str, kind: str, text: _Text, wanted: Sequence[str], quoting: Literal[0, 3]) -> Rows:
    """Return the rows of a table; its first row names the columns."""
    records = _records(text, delimiter, quoting)
    _, header, fault = next(records, (1, [], "it has no rows"))
    if fault:
        raise InputError(f"{name}, line 1: {fault}.")
    columns = tuple(cell.strip() for cell in header)
    for column in wanted:
        if columns.count(column) != 1:
            what = "two columns have" if column in columns else "no column has"
            raise InputError(
                f"{name}: {what} the name {column!r}; it has {', '.join(columns)}. Rename it, or name the one that is "
                "read: --column."
            )
    return Rows(name, kind, columns, (_row(columns, delimiter, *record) for record in records), delimiter)


def _row(columns: tuple[str, ...], delimiter: str, line: int, record: list[str], fault: str) -> Incoming:
    if not fault and len(record) != len(columns):
        fault = (
            f"{len(record)} fields, but the first row names {len(columns)} columns; put quotes around a text that "
            f"contains {delimiter!r} or a line break"
        )
    cells = (*record, *[""] * len(columns))[: len(columns)]
    values = dict(zip(columns, cells, strict=True))
    return Incoming(f"line {line}", values, tuple(cells), fault or _fault(values.values()))


def _records(text: _Text, delimiter: str, quoting: Literal[0, 3]) -> Iterator[tuple[int, list[str], str]]:
    """Yield the line, the cells and the fault of each record that is not an empty line.

    Where tabs are between cells and a quote opens what is no quoted text, lines that are rows by themselves are rows:
    standard input is read but once, so it cannot be told before that its quotes are characters.
    """
    held: list[str] = []  # the lines of the record that is being read
    lines = (held.append(line) or line for line in text.lines())  # type: ignore[func-returns-value]
    reader = csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=True, quoting=quoting)
    start, width = 1, 0
    while True:
        fault: str = ""
        record: list[str] = []
        held.clear()
        try:
            with long_fields(LONGEST):
                record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            fault = str(error)
        rows = [line.rstrip("\r\n").split("\t") for line in held] if delimiter == "\t" else []
        if width > 1 and (fault or len(rows) > 1) and rows and all(len(row) == width for row in rows):
            yield from ((start + place, row, "") for place, row in enumerate(rows))
        elif fault or len(record) > 1 or any(cell.strip() for cell in record):
            yield start, record, fault
            width = width or len(record)
        start = reader.line_num + 1


def _lines_of_json(text: _Text, main: str) -> Iterator[Incoming]:
    for number, line in enumerate(text.lines(), start=1):
        if line.strip():
            yield _parsed(f"line {number}", line, main)


def _parsed(place: str, line: str, main: str) -> Incoming:
    try:
        found = json.loads(line, object_pairs_hook=object_of)
    except (ValueError, RecursionError) as error:
        return Incoming(place, fault=f"not valid JSON: {error}")
    return _of_json(place, found, main)


def _of_json(place: str, found: Any, main: str) -> Incoming:
    if isinstance(found, str):
        found = {main: found}
    if not isinstance(found, dict):
        return Incoming(place, fault="expected a JSON object like {…}, or a text")
    if doubled := doubled_in(found):
        return Incoming(place, fault=doubled)
    return Incoming(place, found, fault=_fault(value for value in found.values() if isinstance(value, str)))


def _array(text: _Text, main: str) -> Iterator[Incoming]:
    """Yield the elements of an array one by one; a text that is no array is JSON lines, or one object of rows."""
    if not text.peek().lstrip().startswith("["):
        yield from _objects(text, main)
        return
    decoder, held, number, is_open = json.JSONDecoder(object_pairs_hook=object_of), "", 0, False
    size = _CHUNK
    while True:
        piece = text.read(size)
        held += piece
        while True:
            held = held.lstrip()
            if held and not is_open:
                held, is_open = held[1:].lstrip(), True
            if held.startswith("]"):
                if any(map(str.strip, chain([held[1:]], iter(lambda: text.read(_CHUNK), "")))):
                    yield Incoming(f"row {number + 1}", fault=f"it stands behind the end of the array; {_LAST}")
                return
            if number and held and not held.startswith(","):
                yield Incoming(f"row {number + 1}", fault=f"not valid JSON: there is no comma before it; {_LAST}")
                return
            begin = len(held) - len(held[bool(number) :].lstrip())
            try:
                found, end = decoder.raw_decode(held, begin)
            except RecursionError as error:
                yield Incoming(f"row {number + 1}", fault=f"not valid JSON: {error}")
                return
            except ValueError as error:
                if not piece:
                    yield Incoming(f"row {number + 1}", fault=f"not valid JSON: {error}; {_LAST}")
                    return
                break
            number, held, size = number + 1, held[end:], _CHUNK
            yield _of_json(f"row {number}", found, main)
        size *= 2  # of one long element, each look at which begins anew


def _objects(text: _Text, main: str) -> Iterator[Incoming]:
    first = text.peek()
    try:
        row = json.loads(first)
    except (ValueError, RecursionError):
        row = None
    if isinstance(row, dict) and not _holds_rows(row, main):
        yield from _lines_of_json(text, main)
        return
    for one in rows_of_json(text.name, "".join(text.lines())):
        yield Incoming(one.place, fault=one.fault) if one.fault else _of_json(one.place, one.value, main)


def _holds_rows(row: dict[str, Any], main: str) -> bool:
    """Say whether an object holds rows, as columns or in a list of objects, and is none itself: ``main`` is one's."""
    if all(isinstance(value, list | dict) for value in row.values()):
        return True
    return main not in row and list_of_rows(row) is not None


def _lines(text: _Text, main: str) -> Iterator[Incoming]:
    """Yield a row for every line, so that answers stand beside them; empty ones at the end are none."""
    empty: list[int] = []
    for number, line in enumerate(text.lines(), start=1):
        one = line.rstrip("\r\n")
        if not one.strip():
            empty.append(number)
            continue
        yield from (Incoming(f"line {place}", {main: ""}, fault="it is empty") for place in empty)
        empty.clear()
        yield Incoming(f"line {number}", {main: one}, fault=_fault([one]))


def _whole(text: _Text, main: str) -> Iterator[Incoming]:
    whole = "".join(text.lines()).rstrip("\r\n")
    yield Incoming("the text", {main: whole}, fault=_fault([whole]))


def _fault(texts: Any) -> str:
    """Say of texts that hold a byte which was none of their encoding; see :func:`_text`."""
    for text in texts:
        if not text.isascii() and (bad := [letter for letter in text if "\udc80" <= letter <= "\udcff"]):
            name = "cp1252" if min(bad) < "\udca0" else "latin-1"
            return f"it holds bytes that are not text in this encoding; name the one it was saved in: --encoding {name}"
    return ""
