"""Give classes their names: ``datasets`` keeps numbers in its tables, and the names in the metadata of a schema."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from elicitable.errors import InputError
from elicitable.tasks.tables import Cell, Table, Texts, is_messages, only_rows
from elicitable.values import Split

_KEY: Final = b"huggingface"
_DEEPEST: Final = 32
_LISTS: Final = ("Sequence", "List", "LargeList")


def class_names(schema: Any) -> dict[str, Texts]:
    """Return the names of the classes of each column of an Arrow schema that has them, by its dotted path.

    >>> import pyarrow
    >>> said = '{"info": {"features": {"y": {"names": ["no", "yes"], "_type": "ClassLabel"}}}}'
    >>> class_names(pyarrow.schema([("y", pyarrow.int64())], metadata={"huggingface": said}))
    {'y': ('no', 'yes')}
    """
    try:
        features = json.loads((schema.metadata or {}).get(_KEY, b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return {path: names for name, one in _items(features) for path, names in _classes(name, one, 0)}


def with_class_names(table: Table, classes: Mapping[str, Texts]) -> Table:
    """Return ``table`` with classes by their names; a number that has none (−1 hides a label) is missing.

    >>> table = Table("t", ("y",), (("1",), ("-1",), (("0", "1"),)), ("row 1", "row 2", "row 3"))
    >>> with_class_names(table, {"y": ("no", "yes")}).rows
    (('yes',), (None,), (('no', 'yes'),))
    """
    known = {name: classes[name] for name in table.columns if name in classes}
    if not known:
        return table
    names = [dict(zip(map(str, range(len(own))), own, strict=True)) for own in map(known.get, table.columns) if own]
    by_place = dict(zip((place for place, name in enumerate(table.columns) if name in known), names, strict=True))
    rows = tuple(tuple(_named(cell, by_place.get(place)) for place, cell in enumerate(row)) for row in table.rows)
    return replace(table, rows=rows, classes=tuple(known.items()))


def named_in(path: str, value: Any, classes: Mapping[str, Texts]) -> Any:
    """Return the ``value`` of a column, or of what is nested in one, with classes by their names; None without one.

    >>> named_in("meta", {"genre": 1, "stars": [0, -1], "year": 1}, {"meta.genre": ("a", "b"), "meta.stars": ("one",)})
    {'genre': 'b', 'stars': ['one', None], 'year': 1}
    """
    if isinstance(value, Mapping):
        return {key: named_in(f"{path}.{key}", inner, classes) for key, inner in value.items()}
    if isinstance(value, list):
        return [named_in(path, inner, classes) for inner in value]
    names = classes.get(path)
    if names is None or not isinstance(value, int):
        return value
    return names[value] if 0 <= value < len(names) else None


def labelled(tables: Mapping[Split, Table], answer: str) -> tuple[dict[Split, Table], list[str]]:
    """Return ``tables`` without the rows whose label is hidden, where ``answer`` has classes, and what to say of it.

    Splits of which no row is left go. Raises :class:`InputError` where that is the training data.
    """
    found: dict[Split, Table] = {}
    notes = []
    for split, table in tables.items():
        has_classes = answer in dict(table.classes)
        cells = table.cells(answer) if has_classes else [""] * len(table.rows)
        kept = [number for number, cell in enumerate(cells) if cell is not None and cell != ()]
        left = len(table.rows) - len(kept)
        if kept:
            found[split] = only_rows(table, kept) if left else table
        elif split == "train":
            raise InputError(f"{table.source.removesuffix(' (train)')}: its train split has no labelled rows")
        if left and kept:
            notes.append(
                f"{table.source}: {left:,} of {len(table.rows):,} rows are left out: their {answer!r} is hidden (-1)"
            )
        elif left:
            notes.append(f"the {split} split of the data set has no labels and is not used")
    return found, notes


def _named(cell: Cell, names: Mapping[str, str] | None) -> Cell:
    if names is None or cell is None or is_messages(cell):
        return cell
    if isinstance(cell, str):
        return names.get(cell)
    return tuple(names[one] for one in cell if isinstance(one, str) and one in names)


def _classes(path: str, feature: Any, depth: int) -> Iterator[tuple[str, Texts]]:
    """Yield the classes of a feature as ``datasets`` writes it, of lists those of what they hold."""
    if depth > _DEEPEST:
        return
    if isinstance(feature, list) and len(feature) == 1:
        yield from _classes(path, feature[0], depth + 1)
    elif isinstance(feature, dict) and feature.get("_type") == "ClassLabel":
        names = feature.get("names")
        if isinstance(names, list) and all(isinstance(one, str) for one in names):
            yield path, tuple(names)
    elif isinstance(feature, dict) and feature.get("_type") in _LISTS:
        yield from _classes(path, feature.get("feature"), depth + 1)
    else:
        for name, one in _items(feature):
            yield from _classes(f"{path}.{name}", one, depth + 1)


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    yield from value.items() if isinstance(value, dict) else ()
