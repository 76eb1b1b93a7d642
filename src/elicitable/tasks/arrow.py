"""Read rows of Parquet and Arrow files, a batch at a time. pyarrow is imported here only."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import IO, Any, Final

from elicitable.errors import ElicitableError, InputError, MissingPackageError
from elicitable.tasks.tables import Table, table_of_columns

PARQUET: Final = (".parquet", ".pq")
SUFFIXES: Final = (*PARQUET, ".arrow", ".feather", ".ipc")
_ROWS: Final = 1_024
_CELL_BYTES: Final = 8  # at least, so that a column of nothing is not free


def read_arrow(path: Path, kind: str, max_bytes: int) -> Table:
    """Return the table of a file of ``kind``; columns of pictures, vectors and the like are left out by name.

    Raises :class:`InputError` where the file is damaged, or its cells take more than ``max_bytes`` unpacked: what a
    Parquet file states of itself is compared first, then the cells are counted batch by batch.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise MissingPackageError(f"{path} needs the package pyarrow: python -m pip install pyarrow") from error
    try:
        with path.open("rb") as file:
            held = _mapped(file)
            return _table(path, _parquet(path, held, max_bytes) if kind in PARQUET else _ipc(held), max_bytes)
    except ElicitableError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{path} cannot be read as {kind.removeprefix('.')}: {first}") from error


def rows_in(path: Path, kind: str) -> Generator[tuple[str, dict[str, Any]]]:
    """Yield the rows of a file of ``kind``, each with its place; columns that are neither texts nor numbers left out.

    Raises :class:`InputError` where the file is damaged, and :class:`MissingPackageError` without pyarrow.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise MissingPackageError(f"{path} needs the package pyarrow: python -m pip install pyarrow") from error
    number = 0
    try:
        with path.open("rb") as file:
            held = _mapped(file)
            schema, batches = _parquet(path, held, sys.maxsize) if kind in PARQUET else _ipc(held)
            names = [field.name for field in schema if _is_read(field.type)]
            for batch in batches:
                for row in batch.select(names).to_pylist():
                    number += 1
                    yield f"row {number}", row
    except ElicitableError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{path} cannot be read as {kind.removeprefix('.')}: {first}") from error


def table_of_batches(source: str, schema: Any, batches: Iterator[Any], max_bytes: int) -> Table:
    """Return the table of record batches of ``schema``."""
    names = [field.name for field in schema if _is_read(field.type)]
    dropped = [(f.name, f"no texts or numbers, but {f.type}"[:80]) for f in schema if not _is_read(f.type)]
    columns: dict[str, list[Any]] = {name: [] for name in names}
    size = count = 0
    for batch in batches:
        count += batch.num_rows
        for name, own in columns.items():
            values = batch.column(name).to_pylist()
            size += sum(map(_size, values))
            own += values
        if size > max_bytes:
            raise InputError(f"{source} unpacks to more than {max_bytes:,} bytes, which is the most that is read")
    places = tuple(f"row {number}" for number in range(1, count + 1))
    return table_of_columns(source, columns.items(), places, tuple(dropped))


def _size(value: Any) -> int:
    """Return about how many bytes a value takes."""
    if isinstance(value, dict | list):
        return _CELL_BYTES + sum(map(_size, value.values() if isinstance(value, dict) else value))
    return _CELL_BYTES + (len(value) if isinstance(value, str) else 0)


def _table(path: Path, opened: tuple[Any, Iterator[Any]], max_bytes: int) -> Table:
    return table_of_batches(str(path), *opened, max_bytes)


def _mapped(file: IO[bytes]) -> Any:
    """Map a file, so that a length in it that leads beyond its end is an error before any memory is asked for."""
    import pyarrow

    return pyarrow.BufferReader(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _parquet(path: Path, file: Any, max_bytes: int) -> tuple[Any, Iterator[Any]]:
    from pyarrow import parquet

    found = parquet.ParquetFile(file)
    groups = (found.metadata.row_group(index) for index in range(found.metadata.num_row_groups))
    stated = sum(group.total_byte_size for group in groups)
    if stated > max_bytes:
        raise InputError(f"{path} unpacks to {stated:,} bytes; at most {max_bytes:,} are read")
    names = [field.name for field in found.schema_arrow if _is_read(field.type)]
    return found.schema_arrow, found.iter_batches(batch_size=_ROWS, columns=names)


def _ipc(file: Any) -> tuple[Any, Iterator[Any]]:
    """Return an Arrow file, or a stream, which is how ``datasets`` keeps its tables."""
    import pyarrow

    if file.read(6) == b"ARROW1":
        file.seek(0)
        found = pyarrow.ipc.open_file(file)
        whole = (found.get_batch(index) for index in range(found.num_record_batches))
    else:
        file.seek(0)
        found = pyarrow.ipc.open_stream(file)
        whole = iter(found)
    return found.schema, (part for batch in whole for part in _slices(batch))


def _slices(batch: Any) -> Iterator[Any]:
    """Yield parts of a batch once its offsets are known to fit: Arrow itself takes a file's word for them."""
    batch.validate(full=True)
    yield from (batch.slice(start, _ROWS) for start in range(0, batch.num_rows, _ROWS))


def _is_read(kind: Any, is_inside: bool = False) -> bool:
    """Say whether values of an Arrow type can be cells: texts, numbers, truth values, dates, lists of texts or objects.

    Lists of numbers are read inside of objects alone: elsewhere they are vectors.
    """
    from pyarrow import types

    if types.is_dictionary(kind):
        return _is_read(kind.value_type)
    if types.is_struct(kind):
        return all(_is_read(kind.field(index).type, True) for index in range(kind.num_fields))
    texts = (types.is_string, types.is_large_string, types.is_string_view)
    if types.is_list(kind) or types.is_large_list(kind):
        held = kind.value_type
        names = {held.field(index).name for index in range(held.num_fields)} if types.is_struct(held) else set()
        is_talk = {"role", "content"} <= names or {"from", "value"} <= names
        is_plain = is_inside or types.is_struct(held) or any(is_text(held) for is_text in texts)
        return is_talk or (is_plain and not types.is_list(held) and _is_read(held, True))
    numbers = (types.is_integer, types.is_floating, types.is_boolean)
    return any(is_kind(kind) for is_kind in (*texts, *numbers, types.is_date, types.is_timestamp, types.is_decimal))
