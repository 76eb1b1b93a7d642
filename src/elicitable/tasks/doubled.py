"""Notice objects in which a key stands twice, of which nobody can say which value is meant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any


class Doubled(dict[str, Any]):
    """Hold an object in which keys stand twice, of which nobody can say which value is meant."""

    fault = ""


def object_of(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object of ``pairs``, for json to call: a :class:`Doubled` one with its fault where a key comes twice.

    >>> import json
    >>> json.loads('{"a": 1, "a": 2}', object_pairs_hook=object_of).fault
    "the key 'a' stands in it twice"
    """
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    doubled, counts = Doubled(found), Counter(key for key, _ in pairs)
    doubled.fault = f"the key {next(key for key in counts if counts[key] > 1)!r} stands in it twice"
    return doubled


def doubled_in(value: Any) -> str:
    """Return the fault of the first :class:`Doubled` object that ``value`` is or holds, however deep; "" without one.

    >>> import json
    >>> doubled_in(json.loads('{"m": [{"a": 1, "a": 2}]}', object_pairs_hook=object_of))
    "the key 'a' stands in it twice"
    """
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, Doubled):
            return one.fault
        inner = one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
        left.extend(reversed(list(inner)))
    return ""
