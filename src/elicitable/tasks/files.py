"""Read a person's own file: CSV, TSV, JSON lines, a JSON array, Parquet or Arrow; texts also packed by gzip or bzip2.

Nothing in a file is trusted, and every fault is named: whatever is wrong with a file raises :class:`InputError` with
the file, the line if there is one, what was expected, and what to do. At most 1 GiB is read, counted unpacked.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import os
import re
import zlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import IO, Final

from elicitable.errors import InputError
from elicitable.tasks.arrow import SUFFIXES as ARROW
from elicitable.tasks.arrow import read_arrow
from elicitable.tasks.delimited import DELIMITED, read_delimited
from elicitable.tasks.json_rows import read_json
from elicitable.tasks.tables import Table

JSON: Final = (".jsonl", ".ndjson", ".json")
TEXTS: Final = (*DELIMITED, *JSON)
PACKED: Final = (".gz", ".bz2")
SUFFIXES: Final = (*TEXTS, *ARROW, *(text + packed for packed in PACKED for text in TEXTS))
MAX_BYTES: Final = 1 << 30
_CHUNK: Final = 1 << 20

CONTROLS: Final = frozenset(map(chr, range(0x80, 0xA0)))  # which no text means

MARKS: Final = (  # of UTF-32 before UTF-16, which begins it
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

BEGIN: Final = 10  # bytes by which it is told what a file is
KINDS: Final = (  # what a file begins with that is no text, what that is, and what to do
    (re.compile(rb"\x1f\x8b"), "packed by gzip", "end its name with .gz, or unpack it"),
    (re.compile(rb"BZh[1-9]1AY&SY"), "packed by bzip2", "end its name with .bz2, or unpack it"),
    (re.compile(rb"\xfd7zXZ\0"), "packed by xz", "unpack it"),
    (re.compile(rb"\x28\xb5\x2f\xfd"), "packed by zstd", "unpack it"),
    (re.compile(rb"PK\x03\x04"), "a zip archive, which Excel's .xlsx is too", "unpack it, or save it as CSV"),
    (re.compile(rb"PAR1\x15"), "Parquet", "end its name with .parquet"),
    (re.compile(rb"ARROW1\0"), "Arrow", "end its name with .arrow"),
)


def suffix_of(path: Path) -> str:
    """Return the end of a file's name that says what it holds, in lower case; empty where it says nothing known.

    >>> suffix_of(Path("Mail.CSV.gz")), suffix_of(Path("notes.txt"))
    ('.csv.gz', '')
    """
    ends = [suffix.lower() for suffix in path.suffixes[-2:]]
    return next((end for end in ("".join(ends), ends[-1] if ends else "") if end in SUFFIXES), "")


def check_encoding(paths: Iterable[str | os.PathLike[str]], encoding: str | None) -> None:
    """Raise :class:`InputError` where an encoding is given and no file is a text that it could be the encoding of."""
    if encoding is not None and all(suffix_of(Path(path)) in ARROW for path in paths):
        raise InputError("an encoding (--encoding) is of texts, and Parquet and Arrow bring their own: leave it out")


def read_table(path: str | os.PathLike[str], encoding: str | None = None) -> Table:
    """Read one file, by its suffix: ``.csv``, ``.tsv``, ``.tab``; ``.jsonl``, ``.ndjson``, ``.json``; ``.parquet``, ….

    ``encoding`` is that of a text: None is UTF-8. A byte order mark is honoured whatever was asked for.

    Raises :class:`InputError` for a file that is missing, a folder, unreadable, of another kind, larger than 1 GiB
    (unpacked), not in its encoding, without rows, ragged, or not JSON.
    """
    path = Path(path)
    kind = suffix_of(path)
    if not kind and os.path.isfile(path):
        raise InputError(f"{path}: cannot tell the kind of file by its name; expected {', '.join(SUFFIXES)}")
    _check_file(path)
    if kind in ARROW:
        return _checked(path, read_arrow(path, kind, MAX_BYTES))
    data = _read_bytes(path, kind)
    check_begin(str(path), data)
    text, notes = _decode(path, data, encoding)
    plain = kind.removesuffix(path.suffix.lower()) if path.suffix.lower() in PACKED else kind
    table = read_json(str(path), text) if plain in JSON else read_delimited(str(path), text, DELIMITED[plain])
    return _checked(path, table, text, notes, encoding)


def _checked(
    path: Path, table: Table, text: str = " -", notes: tuple[str, ...] = (), encoding: str | None = None
) -> Table:
    if not table.rows and table.broken:
        place, why = table.broken[0]
        raise InputError(f"{path}, {place}: {why} (no row of the file can be read)")
    if not table.rows:
        read = f", read as {encoding}: is that the encoding it was saved in?" if encoding else ""
        raise InputError(f"{path} has no rows, only {'the column names' if text.strip() else 'white space'}{read}")
    return replace(table, notes=(*table.notes, *notes))


def _check_file(path: Path) -> None:
    if os.path.isdir(path):
        raise InputError(f"{path} is a folder; name one file in it ({', '.join(SUFFIXES)})")
    if not os.path.isfile(path):
        raise InputError(f"{path}: there is no such file")
    try:
        size = path.stat().st_size
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    if size > MAX_BYTES:
        raise InputError(f"{path} has {size:,} bytes; at most {MAX_BYTES:,} are read")
    if not size:
        raise InputError(f"{path} is empty")


def _read_bytes(path: Path, kind: str) -> bytes:
    """Return the bytes of a text, unpacked up to the limit and no further: a small file can unpack to anything."""
    pieces, size = [], 0
    try:
        with opened(path, kind) as file:
            while size <= MAX_BYTES and (piece := file.read(_CHUNK)):
                pieces.append(piece)
                size += len(piece)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path} cannot be unpacked: {error}; it is damaged or cut off") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    if size > MAX_BYTES:
        raise InputError(f"{path} unpacks to more than {MAX_BYTES:,} bytes, which is the most that is read")
    if not size:
        raise InputError(f"{path} is empty")
    return b"".join(pieces)


def opened(path: Path, kind: str) -> IO[bytes] | gzip.GzipFile:
    """Open a file whose name ends with ``kind``, unpacking it where it is packed."""
    if kind.endswith(".gz"):
        return gzip.open(path, "rb")
    return bz2.open(path, "rb") if kind.endswith(".bz2") else path.open("rb")


def check_begin(name: str, data: bytes) -> None:
    """Raise :class:`InputError` where the first bytes of what should be a text are those of something else."""
    for begin, what, remedy in KINDS:
        if begin.match(data):
            raise InputError(f"{name} is no text but {what}: {remedy}")


def _decode(path: Path, data: bytes, asked: str | None) -> tuple[str, tuple[str, ...]]:
    """Return the text, and what should be said about its encoding."""
    marked = next((name for mark, name in MARKS if data.startswith(mark)), None)
    encoding = marked or asked or "utf-8"
    try:
        text = data.decode(encoding)
    except UnicodeError as error:
        if not isinstance(error, UnicodeEncodeError):  # which speaks of the encoding's name
            raise InputError(_not_in(path, data, encoding, error)) from error
        raise InputError(_no_encoding(encoding)) from None
    except (LookupError, ValueError):  # ValueError: of a name with a zero byte
        raise InputError(_no_encoding(encoding)) from None
    if "\0" in text[:_CHUNK]:
        raise InputError(
            f"{path} holds characters of value 0, so {encoding} is not its encoding; if it is a table saved as "
            "Unicode, try --encoding utf-16-le or utf-16-be"
        )
    return text, _doubts(path, data, text, encoding) if asked and not marked else ()


def _no_encoding(name: str) -> str:
    known = "utf-8, latin-1, cp1252, utf-16, shift_jis, gb18030, …"
    return f"{name!r} is no encoding of texts; known are {known}"


def _not_in(path: Path, data: bytes, encoding: str, error: UnicodeError) -> str:
    """Return the message for bytes that are not text of ``encoding``: where, and what to try."""
    if not isinstance(error, UnicodeDecodeError):
        return f"{path} is not in {encoding}: {error}; try --encoding with another name"
    before = data[: error.start].decode(encoding, "ignore")
    name = "UTF-8" if encoding.startswith("utf-8") else encoding
    one_byte = "cp1252, latin-1" if _speaks_cp1252(data) else "latin-1, cp1252"
    others = f"{one_byte} or utf-16" if name == "UTF-8" else f"utf-8, {one_byte.replace(', ', ' or ')}"
    found = f"byte {error.start} (0x{data[error.start]:02x})" if error.start < len(data) else "the end"
    return (
        f"{path}, line {before.count(chr(10)) + 1}: {found} is not {name}; save the file as UTF-8, or name the "
        f"encoding it was saved in: --encoding {others}"
    )


def _speaks_cp1252(data: bytes) -> bool:
    """Say whether bytes that are no UTF-8 are text of cp1252 where latin-1 has control characters."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        try:
            return not CONTROLS.isdisjoint(data.decode("latin-1")) and bool(data.decode("cp1252"))
        except UnicodeDecodeError:
            return False
    return False


def _doubts(path: Path, data: bytes, text: str, encoding: str) -> tuple[str, ...]:
    """Warn of a one-byte encoding, which reads whatever bytes there are: text of another comes out as nonsense."""
    if codecs.lookup(encoding).name == "utf-8" or data.isascii():
        return ()
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        count = sum(map(text.count, CONTROLS))
        if not count:
            return ()
        named = "; try --encoding cp1252, which has quotes and dashes there" if _speaks_cp1252(data) else ""
        return (f"{path}, read as {encoding}, as asked, holds {count:,} control characters (U+0080 to U+009F){named}",)
    return (f"{path} is read as {encoding}, as asked, but is valid UTF-8: look at its accents in the example",)
