"""A data set of the Hugging Face hub as a task, when a person names one.

Goes through ``datasets`` (imported here only), which runs no code of the data set. Its own train, validation and
test splits are used where they carry labels; what is missing is split off by the hash of the text. Names of class
labels come from the data set.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from elicitable.errors import InputError, MissingPackageError
from elicitable.rng import generator
from elicitable.tasks.tables import Table, table_of_objects
from elicitable.tasks.tabular import Settings, task_of_tables
from elicitable.tasks.text import TextTask
from elicitable.values import Split

SPLIT_NAMES: Final[dict[Split, tuple[str, ...]]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}
MAX_ROWS: Final = 200_000


def hub_task(name: str, settings: Settings | None = None, *, config: str | None = None) -> TextTask:
    """The task of the data set ``name`` (``owner/name``, or a folder of data files); ``config`` is its subset.

    At most 200,000 rows of a split are used, a fixed random choice. Raises :class:`InputError` where the data set
    cannot be had or is no task.
    """
    parts = _load(name, config)
    found = {split: _find_part(parts, names) for split, names in SPLIT_NAMES.items()}
    if found["train"] is None:
        raise InputError(f"data set {name!r} has no train split; it has {', '.join(sorted(parts))}")
    warnings: list[str] = []
    tables: dict[Split, Table] = {}
    for split, part in found.items():
        if part is not None:
            table = _table(f"data set {name!r} ({split})", split, part, warnings)
            if table.rows:
                tables[split] = table
            else:
                warnings.append(f"the {split} split of the data set has no labels and is not used")
    if "train" not in tables:
        raise InputError(f"data set {name!r}: its train split has no labelled rows")
    return task_of_tables(name, tables, settings or Settings(), _label_order(found["train"]), warnings)


def _load(name: str, config: str | None) -> Mapping[str, Any]:
    """The parts of the data set by name."""
    try:
        import datasets
    except ImportError as error:
        raise MissingPackageError("hub data sets need the package datasets: python -m pip install datasets") from error
    try:
        loaded = datasets.load_dataset(name, name=config)
    except Exception as error:  # a library's own and its network's errors have no common root
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"data set {name!r} could not be loaded: {first}. Check the name (owner/name), the config and the "
            "network; or save the data as CSV or JSON lines and name that file."
        ) from error
    return dict(loaded)


def _find_part(parts: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((parts[name] for name in names if name in parts), None)


def _table(source: str, split: Split, part: Any, warnings: list[str]) -> Table:
    """The rows of one part as texts, class labels by their names, rows with a hidden label (−1) left out."""
    if len(part) > MAX_ROWS:
        warnings.append(f"{MAX_ROWS:,} of {len(part):,} rows of the {split} split are used, chosen at random")
        chosen = generator(0, "hub", split).choice(len(part), MAX_ROWS, replace=False)
        part = part.select(sorted(chosen.tolist()))
    part = part.select_columns(_plain_columns(part))
    names = _class_names(part)
    objects = []
    for index, row in enumerate(part):
        if all(row[column] is not None and row[column] >= 0 for column in names):
            named = {column: known[row[column]] for column, known in names.items()}
            objects.append((f"row {index}", {**row, **named}))
    return table_of_objects(source, objects)


def _plain_columns(part: Any) -> list[str]:
    """The columns of texts, numbers and classes; images, sounds and lists are not even decoded."""
    return [name for name, feature in part.features.items() if type(feature).__name__ in ("Value", "ClassLabel")]


def _class_names(part: Any) -> dict[str, list[str]]:
    """Names of the classes of each column that has them."""
    return {
        column: list(feature.names)
        for column, feature in part.features.items()
        if getattr(feature, "names", None) and hasattr(feature, "int2str")
    }


def _label_order(part: Any) -> list[str]:
    """The order of the labels where exactly one column has classes."""
    names = list(_class_names(part).values())
    return names[0] if len(names) == 1 else []
