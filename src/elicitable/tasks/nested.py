"""Lay out nested values as columns: ``answers: {"text": […]}`` is the column ``answers.text``.

An object is one column for each of its keys, a list of objects one column for each key, whose values are lists. What is
nested more than :data:`DEEPEST` objects deep, or has more than :data:`MOST` paths, stays one column that is not read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

DEEPEST: Final = 8
MOST: Final = 100  # paths of one column; with more of them the keys are data themselves


def laid_out(name: str, values: Sequence[Any]) -> dict[str, list[Any]] | None:
    """Return the columns of a column of ``values`` by their dotted paths; None where nothing in it is nested.

    Empty where there are too many paths.

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
        return {}
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
        for key in dict.fromkeys(key for one in value for key in one):
            yield from _leaves(f"{path}.{key}", [one.get(key) for one in value], depth + 1)
    else:
        yield path, value


def _is_objects(value: Any) -> bool:
    """Say whether a value is a list of objects that are no messages."""
    if not isinstance(value, list | tuple) or not value or not all(isinstance(one, Mapping) for one in value):
        return False
    return not any("role" in one or "from" in one for one in value)
