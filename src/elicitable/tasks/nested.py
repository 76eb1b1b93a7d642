"""Lay out nested values as columns: ``answers: {"text": […]}`` is the column ``answers.text``.

An object is one column for each of its keys, a list of objects one column for each key, whose values are lists. What is
nested more than :data:`DEEPEST` objects deep, or has more than :data:`MOST` paths, stays one column that is not read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from elicitable.tasks.messages import is_said

DEEPEST: Final = 8
MOST: Final = 100  # paths of one column; with more of them the keys are data themselves
NARROW: Final = ("float16", "float32")  # of numpy's numbers, whose shortest texts are not those of a Python float
_MISSING: Final = ("NAType", "NaTType")  # of pandas


def plain(value: Any, depth: int = 0) -> Any:
    """Return a value with the arrays in it as lists, which is what a frame that was read from Parquet holds.

    What a frame writes where there is no value is None, and so is what is nested deeper than anything that is read.

    >>> import numpy as np
    >>> plain(np.array([{"text": np.array(["a", "b"]), "at": np.int64(3)}], dtype=object))
    [{'text': ['a', 'b'], 'at': 3}]
    >>> plain(float("nan")) is None, plain(np.float32(0.6))
    (True, 0.6)
    """
    if isinstance(value, str):
        return value
    if hasattr(value, "tolist") and hasattr(value, "ndim"):
        value = values_of(value)  # an array or a number of numpy's
    if isinstance(value, Mapping | list | tuple):
        if depth > 3 * DEEPEST:
            return None
        if isinstance(value, Mapping):
            return {key: plain(inner, depth + 1) for key, inner in value.items()}
        return [plain(inner, depth + 1) for inner in value]
    is_missing = type(value).__name__ in _MISSING or (isinstance(value, float) and math.isnan(value))
    return None if is_missing else value


def values_of(array: Any) -> Any:
    """Return an array or a number of numpy's as Python's; what has fewer digits than Python's floats gets no more.

    >>> import numpy as np
    >>> values_of(np.array([0.1, 0.6], dtype=np.float32)), values_of(np.arange(2))
    ([0.1, 0.6], [0, 1])
    """
    if str(array.dtype) in NARROW:
        array = array.astype(str).astype(float)
    return array.tolist()


def laid_out(name: str, values: Sequence[Any]) -> dict[str, list[Any]] | str | None:
    """Return the columns of a column of ``values`` by their dotted paths; None where nothing in it is nested.

    Where there are too many paths, or none, say so in words.

    >>> laid_out("answers", [{"text": ["a", "b"], "at": 1}, None])
    {'answers.text': [['a', 'b'], None], 'answers.at': [1, None]}
    >>> laid_out("qas", [[{"text": "a"}, {"text": "b"}]])
    {'qas.text': [['a', 'b']]}
    """
    if not any(isinstance(value, Mapping) or _is_objects(value) for value in values):
        return None
    rows = [dict(_leaves(name, value, 0)) for value in values]
    paths = dict.fromkeys(path for row in rows for path, leaf in row.items() if path != name or leaf is not None)
    if len(paths) > MOST:
        return f"objects of more than {MOST} different keys"
    if not paths:
        return "objects without keys"
    return {path: [row.get(path) for row in rows] for path in paths}


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return one row with its nested values under their dotted paths too.

    >>> flat({"meta": {"title": "Bath"}})["meta.title"]
    'Bath'
    """
    return {**{path: leaf for name, value in row.items() for path, leaf in _leaves(str(name), value, 0)}, **row}


def _leaves(path: str, value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    if depth == DEEPEST and (isinstance(value, Mapping) or _is_objects(value)):
        yield path, None
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(f"{path}.{key}", inner, depth + 1)
    elif _is_objects(value):
        rows = [one or {} for one in value]
        for key in dict.fromkeys(key for one in rows for key in one):
            yield from _leaves(f"{path}.{key}", [one.get(key) for one in rows], depth + 1)
    else:
        yield path, value


def _is_objects(value: Any) -> bool:
    """Say whether a value is a list of objects that are no messages; some of them may be missing."""
    if not isinstance(value, list | tuple) or not any(isinstance(one, Mapping) for one in value):
        return False
    return all(isinstance(one, Mapping) or one is None for one in value) and not any(map(is_said, value))
