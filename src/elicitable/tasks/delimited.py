"""Read rows of a CSV or TSV text."""

from __future__ import annotations

import csv
import io
import re
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Final, Literal

from elicitable.errors import InputError
from elicitable.tasks.tables import Table, without_index

DELIMITED: Final = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
_OTHERS: Final = ";\t|"
_LONGEST: Final = 2**31 - 1  # what a C long holds on every platform
_LIMIT: Final = threading.Lock()  # csv's limit belongs to the whole process
_SAID: Final = re.compile(r'"?sep=([^\w\s"]|\t)"?[ \t]*(?=[\r\n]|$)', re.IGNORECASE)
_LOOKED_AT: Final = 20  # rows by which a delimiter is told
_QUOTED: Final = re.compile(r'"(?:[^"]|"")*+"')
_UNCLOSED: Final = "unexpected end of data"

Records = list[tuple[int, list[str]]]
Faults = list[tuple[str, str]]


def read_delimited(source: str, text: str, delimiter: str) -> Table:
    """Read a first row of column names, then rows of the same length; empty lines are skipped.

    A row of another length, or with a quote within a quoted text, is broken, and kept as such. Raises
    :class:`InputError` for a quote that does not close, and for columns without a name.
    """
    text, said = without_sep_line(text)
    delimiter = said or delimiter_of(text, delimiter)
    records, broken, notes = _read(source, text, delimiter)
    columns = tuple(name.strip() for name in records[0][1]) if records else ()
    if not columns:
        raise InputError(f"{source} has no rows")
    rows, places = [], []
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
    return without_index(Table(source, columns, tuple(rows), tuple(places), notes=notes, broken=tuple(broken)))


def without_sep_line(text: str) -> tuple[str, str]:
    r"""Return a text without the words of a first line that says its delimiter, as Excel writes it, and the delimiter.

    The line itself stays, empty, so that lines keep their numbers.

    >>> without_sep_line("sep=;\na;b"), without_sep_line("a;b")
    (('\na;b', ';'), ('a;b', ''))
    """
    found = _SAID.match(text)
    return (text[found.end() :], found[1]) if found else (text, "")


def delimiter_of(text: str, expected: str, wanted: Iterable[str] = ()) -> str:
    r"""Return the delimiter of a table: ``expected``, or another one that alone its first row has outside of quotes.

    Spreadsheets write semicolons where the comma is the decimal point, and tabs into what they call Unicode text. Where
    the first row has several, it is one by which the first row names all ``wanted`` columns, by which most of the next
    rows are as long, behind which no blank stands as in running text, and by which there are most columns.

    >>> delimiter_of("text;label", ","), delimiter_of("text,label|x", ","), delimiter_of("text", ",")
    (';', ',', ',')
    >>> delimiter_of('"text, full";label', ","), delimiter_of("a, b;label\n1,5;x\n2;y", ",")
    (';', ';')
    """
    heads: dict[str, list[list[str]]] = {one: _head(text, one) for one in (expected, *_OTHERS)}
    found = [one for one in heads if heads[one] and len(heads[one][0]) > 1]
    if len(found) < 2:
        return found[0] if found else expected
    columns, line = frozenset(wanted), text.lstrip().partition("\n")[0]
    return max(found, key=lambda one: _fit(heads[one], columns, f"{one} " in line))


def _head(text: str, delimiter: str) -> list[list[str]]:
    """Return the first records of a text that are not empty lines, up to one that is none by ``delimiter``."""
    found: list[list[str]] = []
    try:
        with long_fields():
            records = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
            found.extend(islice((record for record in records if "".join(record).strip()), 1 + _LOOKED_AT))
    except csv.Error:
        pass
    return found


def _fit(head: Sequence[Sequence[str]], wanted: frozenset[str], in_texts: bool) -> tuple[bool, int, bool, int]:
    """Rank a delimiter by the first records that it gives; see :func:`delimiter_of`."""
    names, *rows = head
    as_long = sum(len(row) == len(names) for row in rows)
    return wanted <= {name.strip() for name in names}, as_long, not in_texts, len(names)


def _read(source: str, text: str, delimiter: str) -> tuple[Records, Faults, tuple[str, ...]]:
    """Return the records of a text, those that are broken, and what should be said about its quotes.

    Quotes are characters like others in a table with tabs in which every line is a row without them, and is none with
    them: so are GLUE's files and what many programs write.
    """
    plain = _unquoted(source, text) if delimiter == "\t" else None
    if plain is not None:
        said = "each of its lines is a row if quotes are characters like others, and so they are read"
        return plain, [], (f"{source}: {said}",)
    records, broken = _records(source, text, delimiter)
    return records, broken, _swallowed(source, records, delimiter)


def _unquoted(source: str, text: str) -> Records | None:
    """Return the lines of a table with tabs in which quotes are characters; None where they may well be more."""
    if '"' not in text or not quotes_are_characters(io.StringIO(text, newline="")):
        return None
    return _records(source, text, "\t", csv.QUOTE_NONE)[0]


def quotes_are_characters(lines: Iterable[str]) -> bool:
    """Say whether every line of a table with tabs is a row without quotes around its texts, and is none with them.

    Where most cells that begin with a quote are quoted texts, quotes are quotes, and the others are broken: one stray
    quote says nothing about them.

    >>> quotes_are_characters(["a\\tb\\n", 'x\\t"y\\n']), quotes_are_characters(["a\\tb\\n", 'x\\t"y"\\n'])
    (True, False)
    """
    widths: Counter[int] = Counter()
    heads: list[str] = []
    is_quoted: Counter[bool] = Counter()

    def counted() -> Iterator[str]:
        for line in lines:
            if len(cells := line.split("\t")) > 1 or line.strip():
                widths[len(cells)] += 1
                heads[1:] = [line]  # the first line stays
                opened = [cell.strip() for cell in cells if cell.lstrip().startswith('"')]
                is_quoted.update(_QUOTED.fullmatch(cell) is not None for cell in opened)
            yield line

    rest, quoted, is_broken = counted(), 0, False
    with long_fields():
        try:
            for record in csv.reader(rest, delimiter="\t", strict=True, skipinitialspace=True):
                quoted += any(cell.strip() for cell in record) or len(record) > 1
        except csv.Error:
            is_broken = True
    for _ in rest:
        pass
    is_plain = len(widths) == 1 and 1 not in widths and '"' not in heads[0]
    return is_plain and is_quoted[False] >= is_quoted[True] and (is_broken or quoted < widths.total())


def _records(
    source: str, text: str, delimiter: str, quoting: Literal[0, 3] = csv.QUOTE_MINIMAL
) -> tuple[Records, Faults]:
    """Return the line number and fields of each record that is not an empty line, and those with a stray quote."""
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=True, quoting=quoting)
    found: Records = []
    broken: Faults = []
    start = 1
    with long_fields():
        while True:
            try:
                record = next(reader)
                if any(cell.strip() for cell in record) or len(record) > 1:
                    found.append((start, record))
            except StopIteration:
                return found, broken
            except csv.Error as error:
                if not found or str(error) == _UNCLOSED:
                    raise InputError(f"{source}, line {start}: {error}") from error
                broken.append((f"line {start}", f"{error}; a quote within a quoted text is written twice"))
            start = reader.line_num + 1


def _swallowed(source: str, records: Records, delimiter: str) -> tuple[str, ...]:
    """Warn of quoted texts whose lines would each be a row with a value that other rows have in its column."""
    width = len(records[0][1]) if records else 0
    several = [(line, cells) for line, cells in records[1:] if any("\n" in cell or "\r" in cell for cell in cells)]
    if not several or width < 2:
        return ()
    seen = Counter((place, cell) for _, record in records[1:] for place, cell in enumerate(record))
    found = []
    for line, cells in several:
        pieces = [one.split(delimiter) for one in delimiter.join(cells).splitlines()]
        if all(_is_row(one, width, seen, cells) for one in pieces):
            found.append(line)
    if not found:
        return ()
    return (
        f"{source}: {len(found):,} quoted texts hold lines that look like rows, the first in line {found[0]}; if its "
        "quotes are characters, write each of them twice and quotes around the text, or save the file as JSON lines",
    )


def _is_row(cells: Sequence[str], width: int, seen: Mapping[tuple[int, str], int], own: Sequence[str]) -> bool:
    """Say whether ``cells``, of the record ``own``, are as many as columns, and one of them stands in others' too."""
    others = (
        seen[place, cell] - (own[place : place + 1] == [cell]) for place, cell in enumerate(cells) if cell.strip()
    )
    return len(cells) == width and any(count > 0 for count in others)


@contextmanager
def long_fields(longest: int = _LONGEST) -> Iterator[None]:
    """Let fields be longer than csv's 131,072 characters, here and for now only."""
    with _LIMIT:
        before = csv.field_size_limit(longest)
        try:
            yield
        finally:
            csv.field_size_limit(before)
