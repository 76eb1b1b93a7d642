"""Read rows of Parquet and Arrow files, a batch at a time. pyarrow is imported here only."""

from __future__ import annotations

import mmap
import sys
from collections import Counter
from collections.abc import Collection, Generator, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final

from elicitable.errors import ElicitableError, InputError, MissingPackageError
from elicitable.tasks.classes import class_names, named_in, with_class_names
from elicitable.tasks.nested import values_of
from elicitable.tasks.tables import LeftOut, Table, table_of_columns

PARQUET: Final = (".parquet", ".pq")
SUFFIXES: Final = (*PARQUET, ".arrow", ".feather", ".ipc")
ROWS: Final = 1_024
_CELL_BYTES: Final = 8  # at least, so that a column of nothing is not free


def read_arrow(path: Path, kind: str, max_bytes: int) -> Table:
    """Return the table of a file of ``kind``; pictures, vectors and the like are left out by name, also within objects.

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
    """Yield the rows of a file of ``kind``, each with its place, as :func:`rows_of_batches` does.

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
            for row in rows_of_batches(str(path), schema, batches):
                number += 1
                yield f"row {number}", row
    except ElicitableError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{path} cannot be read as {kind.removeprefix('.')}: {first}") from error


def _check_names(source: str, schema: Any) -> None:
    """Raise :class:`InputError` where two columns have one name: nobody can say which is meant."""
    if twice := [name for name, count in Counter(schema.names).items() if count > 1]:
        raise InputError(f"{source}: two columns have the name {twice[0]!r}; rename or drop one of them")


def table_of_batches(source: str, schema: Any, batches: Iterator[Any], max_bytes: int) -> Table:
    """Return the table of record batches of ``schema``, classes by their names."""
    _check_names(source, schema)
    classes = class_names(schema)
    columns: dict[str, list[Any]] = {field.name: [] for field in schema if _is_read(field.type, field.name in classes)}
    size = count = 0
    for batch in batches:
        count += batch.num_rows
        for name, values in _columns(batch, classes).items():
            size += sum(map(_size, values))
            columns[name] += values
        if size > max_bytes:
            raise InputError(f"{source} unpacks to more than {max_bytes:,} bytes, which is the most that is read")
    places = tuple(f"row {number}" for number in range(1, count + 1))
    return with_class_names(table_of_columns(source, columns.items(), places, left_out(schema)), classes)


def rows_of_batches(source: str, schema: Any, batches: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """Yield the rows of record batches of ``schema``, classes by their names, without what is no text or number."""
    _check_names(source, schema)
    classes = class_names(schema)
    for batch in batches:
        columns = _columns(batch, classes)
        if classes:
            columns = {name: named_in(name, values, classes) for name, values in columns.items()}
        for values in zip(*columns.values(), strict=True) if columns else [()] * batch.num_rows:
            yield dict(zip(columns, values, strict=True))


def left_out(schema: Any) -> LeftOut:
    """Return what of a schema is not read, each by its dotted path and with the reason."""
    classes = class_names(schema)
    found = (one for field in schema for one in _unread(field.name, field.type, field.name in classes))
    return tuple((path, f"no texts or numbers, but {kind}"[:80]) for path, kind in found)


def _columns(batch: Any, classes: Collection[str]) -> dict[str, list[Any]]:
    """Return the values of what is read of a batch, by column; ``classes`` are columns that have them."""
    return {
        field.name: _values(batch.column(place), field.type)
        for place, field in enumerate(batch.schema)
        if _is_read(field.type, field.name in classes)
    }


def _values(array: Any, kind: Any) -> list[Any]:
    """Return the values of an array, objects without the keys that are not read."""
    from pyarrow import compute, types

    if types.is_struct(kind):
        kept = {field.name: own for field, own in zip(kind, array.flatten(), strict=True) if _is_read(field.type, True)}
        rows = zip(*(_values(own, own.type) for own in kept.values()), strict=True)
        there = array.is_valid().to_pylist()
        return [dict(zip(kept, row, strict=True)) if one else None for row, one in zip(rows, there, strict=True)]
    if types.is_float16(kind) or types.is_float32(kind):
        return list(values_of(array.to_numpy(zero_copy_only=False)))  # what is missing is nan, which is missing too
    if _is_list(kind) and (types.is_struct(kind.value_type) or types.is_floating(kind.value_type)):
        inner = iter(_values(array.flatten(), kind.value_type))
        lengths = compute.list_value_length(array).to_pylist()
        return [None if length is None else list(islice(inner, length)) for length in lengths]
    values: list[Any] = array.to_pylist()
    return values


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
    classes = class_names(found.schema_arrow)
    wanted = ((field.type, _is_read(field.type, field.name in classes)) for field in found.schema_arrow)
    leaves = [is_read for kind, is_kept in wanted for is_read in _leaves(kind, is_kept)]
    columns = found.metadata.num_columns
    kept = [place for place in range(columns) if len(leaves) != columns or leaves[place]]
    groups = (found.metadata.row_group(index) for index in range(found.metadata.num_row_groups))
    stated = sum(group.column(place).total_uncompressed_size for group in groups for place in kept)
    if stated > max_bytes:
        raise InputError(f"{path} unpacks to {stated:,} bytes; at most {max_bytes:,} are read")
    names = [found.schema.column(place).path for place in kept]
    return found.schema_arrow, found.iter_batches(batch_size=ROWS, columns=names)


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
    yield from (batch.slice(start, ROWS) for start in range(0, batch.num_rows, ROWS))


def _leaves(kind: Any, is_read: bool) -> Iterator[bool]:
    """Say of each of Parquet's columns that values of an Arrow type take whether it is read, in their order."""
    from pyarrow import BaseExtensionType, types

    if isinstance(kind, BaseExtensionType):
        yield from _leaves(kind.storage_type, is_read)
    elif types.is_struct(kind):
        for field in kind:
            yield from _leaves(field.type, is_read and _is_read(field.type, True))
    elif types.is_map(kind):
        yield from (*_leaves(kind.key_type, is_read), *_leaves(kind.item_type, is_read))
    elif _is_list(kind):
        yield from _leaves(kind.value_type, is_read)
    else:
        yield is_read


def _unread(path: str, kind: Any, is_inside: bool = False) -> Iterator[tuple[str, Any]]:
    """Yield what values of an Arrow type hold that is not read, by its dotted path."""
    from pyarrow import types

    inner = kind.value_type if _is_list(kind) else kind
    if not _is_read(kind, is_inside):
        yield path, kind
    elif types.is_struct(inner):
        for field in inner:
            yield from _unread(f"{path}.{field.name}", field.type, True)


def _is_read(kind: Any, is_inside: bool = False) -> bool:
    """Say whether values of an Arrow type can be cells: texts, numbers, truth values, dates, lists of texts or objects.

    An object is read if anything in it is. Lists of numbers are read inside of objects alone: elsewhere they are
    vectors. A file as ``datasets`` keeps it, bytes and a path, is a picture or a sound.
    """
    from pyarrow import types

    if types.is_dictionary(kind):
        return _is_read(kind.value_type)
    if types.is_struct(kind):
        fields = {field.name: field.type for field in kind}
        is_file = fields.keys() == {"bytes", "path"} and types.is_binary(fields["bytes"])
        return not is_file and any(_is_read(one, True) for one in fields.values())
    if _is_list(kind):
        held = kind.value_type
        is_plain = is_inside or types.is_struct(held) or _is_text(held)
        return is_plain and not _is_list(held) and _is_read(held, True)
    numbers = (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal)
    return _is_text(kind) or any(is_kind(kind) for is_kind in (*numbers, types.is_date, types.is_timestamp))


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _is_list(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))
