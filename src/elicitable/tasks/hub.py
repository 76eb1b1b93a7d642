"""Make a data set of the Hugging Face hub a task, when a person names one.

Goes through ``datasets`` (imported here only), which runs no code of the data set. Its own train, validation and
test splits are used where they carry labels; what is missing is split off by the hash of the text. Names of class
labels come from the data set.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from elicitable.errors import InputError, MissingPackageError
from elicitable.rng import generator
from elicitable.tasks.arrow import ROWS, table_of_batches
from elicitable.tasks.options import TaskOptions
from elicitable.tasks.tables import Table
from elicitable.tasks.tabular import task_of_tables
from elicitable.tasks.text import TextTask
from elicitable.untrusted import is_out_of_memory
from elicitable.values import Split

SPLIT_NAMES: Final[dict[Split, tuple[str, ...]]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}
MAX_ROWS: Final = 200_000
_NONE: Final = TaskOptions()


def hub_task(name: str, options: TaskOptions = _NONE) -> TextTask:
    """Return the task of the data set ``name`` (``owner/name``, or a folder of data files); ``config`` is its subset.

    At most 200,000 rows of a split are used, a fixed random choice. Raises :class:`InputError` where the data set
    cannot be had or is not a task.
    """
    return task_of_parts(name, _load(name, options.config), options)


def task_of_parts(name: str, parts: Mapping[Any, Any], options: TaskOptions) -> TextTask:
    """Make a task of ``datasets`` objects by split. Raises :class:`InputError` without a train split."""
    found = split_parts(f"data set {name!r}", parts)
    warnings = unused_parts(parts)
    tables: dict[Split, Table] = {}
    for split, part in found.items():
        table = table_of_part(f"data set {name!r} ({split})", split, part, warnings)
        if table.rows:
            tables[split] = table
        else:
            warnings.append(f"the {split} split of the data set has no rows and is not used")
    if "train" not in tables:
        raise InputError(f"data set {name!r}: its train split has no rows")
    return task_of_tables(name, tables, options, warnings=warnings)


def split_parts(source: str, parts: Mapping[Any, Any]) -> dict[Split, Any]:
    """Return the parts under the names of the three splits; raises :class:`InputError` where train is not there."""
    by_name = {str(name).lower(): part for name, part in parts.items()}
    found = {split: next((by_name[n] for n in names if n in by_name), None) for split, names in SPLIT_NAMES.items()}
    if found["train"] is None:
        raise InputError(f"{source} has no train split; it has {', '.join(sorted(map(str, parts)))}")
    return {split: part for split, part in found.items() if part is not None}


def unused_parts(parts: Mapping[Any, Any]) -> list[str]:
    """Say what is said of splits under names that are none of the three.

    >>> unused_parts({"train": 1, "unsupervised": 2})
    ['splits of the data that are not used: unsupervised']
    """
    known = {name for names in SPLIT_NAMES.values() for name in names}
    others = [str(name) for name in parts if str(name).lower() not in known]
    return [f"splits of the data that are not used: {', '.join(others)}"] if others else []


def _load(name: str, config: str | None) -> Mapping[str, Any]:
    """Return the parts of the data set by name."""
    try:
        import datasets
    except ImportError as error:
        raise MissingPackageError("hub data sets need the package datasets: python -m pip install datasets") from error
    try:
        loaded = datasets.load_dataset(name, name=config)
    except Exception as error:  # a library's own and its network's errors have no common root
        if is_out_of_memory(error):
            raise
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"data set {name!r} could not be loaded: {first}. Check the name (owner/name), the config and the "
            "network; or save the data as CSV or JSON lines and name that file."
        ) from error
    return dict(loaded)


def table_of_part(source: str, split: Split, part: Any, warnings: list[str]) -> Table:
    """Return the rows of one part as texts, class labels by their names."""
    if not hasattr(part, "__len__"):
        raise InputError(f"{source} is a stream without an end; take rows of it: Dataset.from_list(list(part.take(n)))")
    if len(part) > MAX_ROWS:
        warnings.append(f"{MAX_ROWS:,} of {len(part):,} rows of the {split} split are used, chosen at random")
        chosen = generator(0, "hub", split).choice(len(part), MAX_ROWS, replace=False)
        part = part.select(sorted(chosen.tolist()))
    schema = part.features.arrow_schema
    batches = (batch for own in part.with_format("arrow").iter(ROWS) for batch in own.to_batches())
    table = table_of_batches(source, schema, batches, sys.maxsize)
    return replace(table, places=tuple(f"row {number}" for number in range(len(table.rows))))
