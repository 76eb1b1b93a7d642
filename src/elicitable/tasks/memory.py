"""Make data in memory a task: frames, Arrow tables, ``datasets`` objects, lists of dictionaries.

A frame is known by the package of its class, so that none of these packages is imported for it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from typing import Any, Final

from elicitable.errors import InputError
from elicitable.tasks.arrow import ROWS, rows_of_batches, table_of_batches
from elicitable.tasks.files import MAX_BYTES, read_table
from elicitable.tasks.hub import split_parts, table_of_part, task_of_parts, unused_parts
from elicitable.tasks.nested import NARROW, values_of
from elicitable.tasks.options import TaskOptions
from elicitable.tasks.tables import Table, table_of_columns, table_of_objects
from elicitable.tasks.tabular import task_of_tables
from elicitable.tasks.text import TextTask
from elicitable.values import Split

NAME: Final = "data"
#: What numpy, pandas, Arrow within pandas, and polars call floats of fewer digits than Python's, and numpy's name.
_NARROW: Final = {
    **{name: name for name in NARROW},
    **{name.title(): name for name in NARROW},
    "halffloat[pyarrow]": "float16",
    "float[pyarrow]": "float32",
}
_FRAMES: Final = ("pandas", "polars", "pyarrow", "datasets")


def is_data(value: Any) -> bool:
    """Say whether ``value`` is data of a kind that :func:`memory_task` reads."""
    if isinstance(value, Mapping):
        return bool(value) and (_is_columns(value) or all(map(is_data, value.values())))
    return _package(value) in _FRAMES or _is_rows(value)


def memory_task(data: Any, options: TaskOptions) -> TextTask:
    """Return the task of data in memory; of a dictionary of such data, by the names of its splits.

    ``validation`` and ``test`` may be data too, or files. Raises :class:`InputError` for data that do not make a task.

    >>> rows = [{"text": f"text {i}", "label": "yn"[i % 2]} for i in range(60)]
    >>> memory_task(rows, TaskOptions()).labels()
    (' n', ' y')
    """
    is_split = isinstance(data, Mapping) and not _is_columns(data)
    parts: dict[Split, Any] = split_parts(NAME, data) if is_split else {"train": data}
    if options.validation is not None:
        parts["validation"] = options.validation
    if options.test is not None:
        parts["test"] = options.test
    if all(_package(part) == "datasets" for part in parts.values()):
        others = {name: part for name, part in data.items() if name not in parts} if is_split else {}
        return task_of_parts(NAME, {**parts, **others}, options)
    warnings = unused_parts(data) if is_split else []
    tables: dict[Split, Table] = {split: _table(split, part, warnings) for split, part in parts.items()}
    return task_of_tables(NAME, tables, options, warnings=warnings)


def _table(split: Split, part: Any, warnings: list[str]) -> Table:
    source, package = (NAME if split == "train" else f"{NAME} ({split})"), _package(part)
    if isinstance(part, str | os.PathLike):
        return read_table(part)
    if _is_rows(part):
        return _filled(table_of_objects(source, [(f"row {n}", row) for n, row in enumerate(part)]))
    if isinstance(part, Mapping) and _is_columns(part):
        return _filled(_of_columns(source, list(map(str, part)), [_values(one) or [] for one in part.values()]))
    if package == "datasets" and hasattr(part, "__len__"):
        return _filled(table_of_part(source, split, part, warnings))
    if package == "pyarrow" and hasattr(part, "to_batches"):
        return _filled(table_of_batches(source, part.schema, iter(part.to_batches(max_chunksize=ROWS)), MAX_BYTES))
    if (frame := _frame(part)) is not None:
        return _filled(_of_columns(source, *frame))
    raise InputError(f"{source}: {type(part).__name__} is no table whose rows can be counted and read; make it one")


def rows_of_data(data: Any) -> Iterator[Any]:
    """Yield the rows of a frame, an Arrow table or a data set as dictionaries; of anything else what it holds.

    >>> import pandas
    >>> list(rows_of_data(pandas.DataFrame({"text": ["a", "b"]}))), list(rows_of_data(["a", "b"]))
    ([{'text': 'a'}, {'text': 'b'}], ['a', 'b'])
    """
    package = _package(data)
    if package == "pyarrow" and hasattr(data, "to_batches"):
        return rows_of_batches(NAME, data.schema, data.to_batches(max_chunksize=ROWS))
    if package == "datasets" and hasattr(data, "with_format") and hasattr(data, "__len__"):
        tables = data.with_format("arrow").iter(ROWS)
        return rows_of_batches(NAME, data.features.arrow_schema, (one for own in tables for one in own.to_batches()))
    if (frame := _frame(data)) is not None:
        names, columns = frame
        return (dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True))
    return iter(data)


def _frame(part: Any) -> tuple[list[str], list[list[Any]]] | None:
    """Return the names and the values of the columns of a frame of pandas or polars; None for anything else."""
    package = _package(part)
    if package == "pandas" and hasattr(part, "iloc") and hasattr(part, "columns"):
        index = [name for name in part.index.names if name is not None and name not in part.columns]
        part = part.reset_index(level=index) if index else part
        columns = [part.iloc[:, place] for place in range(len(part.columns))]
    elif package == "polars" and hasattr(part, "get_columns"):
        columns = part.get_columns()
    else:
        return None
    return list(map(str, part.columns)), list(map(_of_series, columns))


def _of_columns(source: str, names: list[str], values: list[list[Any]]) -> Table:
    places = tuple(f"row {number}" for number in range(len(values[0]) if values else 0))
    return table_of_columns(source, zip(names, values, strict=True), places)


def _filled(table: Table) -> Table:
    if not table.rows:
        raise InputError(f"{table.source} has no rows")
    return table


def _is_rows(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(row, Mapping) for row in value)


def _is_columns(value: Mapping[Any, Any]) -> bool:
    """Say whether a dictionary holds columns: lists of one length, of values and not of rows."""
    lists = [_values(one) for one in value.values()]
    return all(one is not None and not _is_rows(one) and len(one) == len(lists[0] or ()) for one in lists)


def _values(column: Any) -> list[Any] | None:
    """Return the values of a list, a tuple, an array or a series of one dimension; None for anything else."""
    if getattr(column, "ndim", 0) == 1 and hasattr(column, "tolist"):
        return _of_series(column)
    return list(column) if isinstance(column, list | tuple) else None


def _of_series(column: Any) -> list[Any]:
    """Return the values of an array or of a series of pandas or polars, numbers by the shortest text of their type."""
    narrow = _NARROW.get(str(column.dtype))
    if narrow is None:
        return list(column.tolist() if hasattr(column, "tolist") else column.to_list())
    if _package(column) == "pandas":
        column = column.to_numpy(dtype=narrow, na_value=math.nan)
    return list(values_of(column.to_numpy() if hasattr(column, "to_numpy") else column))


def _package(value: Any) -> str:
    return type(value).__module__.partition(".")[0]
