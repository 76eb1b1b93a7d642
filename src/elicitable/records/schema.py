"""Check what is kept against one schema: frozen dataclasses say what a record holds, and plain JSON is held to them.

A dataclass is written as an object whose keys are its fields, and one of :data:`ROWS` as the list of its fields. A
field that has its default is left out, and a field that is left out has its default. A number that is not finite is
written as null, since JSON has no other name for it, and null is read as not-a-number where a number must stand.

Every key that is unknown, missing or of the wrong type is refused by its name, as ``timing.seconds`` or
``curve[3].step``.
"""

from __future__ import annotations

import math
import reprlib
import sys
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from elicitable.errors import InputError
from elicitable.values import CurvePoint

T = TypeVar("T")
ROWS = (CurvePoint,)
_NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def to_plain(value: Any) -> Any:
    """Turn ``value`` into what JSON can hold.

    >>> to_plain(CurvePoint(5, float("inf")))
    [5, None, None]
    """
    if isinstance(value, ROWS):
        return [to_plain(getattr(value, field.name)) for field in fields(value)]
    if is_dataclass(value) and not isinstance(value, type):
        kept = ((field.name, getattr(value, field.name)) for field in fields(value) if not _is_default(field, value))
        return {name: to_plain(held) for name, held in kept}
    if isinstance(value, Mapping):
        return {str(key): to_plain(held) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(held) for held in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def from_plain(kind: type[T], plain: object) -> T:
    """Read a ``kind``, a dataclass, from what JSON held.

    Raises:
        InputError: a key is unknown, missing or of the wrong type; the message names it.

    >>> from elicitable.values import Budget
    >>> from_plain(Budget, {"numbers_trained": 3, "bytes_stored": 12, "keys_per_layer": "one"})
    Traceback (most recent call last):
    elicitable.errors.InputError: keys_per_layer must be a whole number, not 'one'
    """
    read: T = _read(kind, plain, "")
    return read


def _read(kind: Any, plain: object, at: str) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return plain
    if origin in (Union, UnionType):
        [one] = [part for part in inner if part is not type(None)]
        return None if plain is None else _read(one, plain, at)
    if origin is Literal:
        return _checked(plain, isinstance(plain, str) and plain in inner, f"one of {', '.join(inner)}", at)
    if origin is tuple:
        rows = _checked(plain, isinstance(plain, list), "a list", at)
        return tuple(_read(inner[0], one, f"{at}[{nth}]") for nth, one in enumerate(rows))
    if origin is Mapping:
        return {name: _read(inner[1], one, _below(at, name)) for name, one in _object(plain, at).items()}
    if is_dataclass(kind):
        return _dataclass(kind, plain, at)
    return _scalar(kind, plain, at)


def _dataclass(kind: Any, plain: object, at: str) -> Any:
    types = _types(kind)
    if kind in ROWS:
        _checked(plain, isinstance(plain, list) and len(plain) == len(types), f"a list of {', '.join(types)}", at)
        given = dict(zip(types, plain, strict=True))  # type: ignore[call-overload]
    else:
        given = _object(plain, at)
    for name in given:
        if name not in types:
            raise InputError(f"{_below(at, name)} is no key of a record; known here: {', '.join(types)}")
    for field in fields(kind):
        if field.name not in given and field.default is MISSING and field.default_factory is MISSING:
            raise InputError(f"{_below(at, field.name)} is missing")
    read = {name: _read(types[name], one, _below(at, name)) for name, one in given.items()}
    try:
        return kind(**read)
    except InputError as error:  # a rule of the dataclass's own
        raise InputError(f"{at or 'the record'}: {error}") from error


def _scalar(kind: Any, plain: object, at: str) -> Any:
    if kind is float:
        if plain is None:
            return math.nan
        number = _checked(plain, isinstance(plain, int | float) and not isinstance(plain, bool), _NAMES[float], at)
        return float(_checked(number, abs(number) <= sys.float_info.max, "a number that a float holds", at))
    return _checked(plain, type(plain) is kind, _NAMES[kind], at)


def _object(plain: object, at: str) -> dict[str, Any]:
    found: dict[str, Any] = _checked(plain, isinstance(plain, dict), "an object", at)
    return found


def _checked(plain: Any, is_fine: bool, wanted: str, at: str) -> Any:
    if not is_fine:
        shown = reprlib.repr(plain)  # of a bounded length and depth
        raise InputError(
            f"{at or 'the record'} must be {wanted}, not {shown if len(shown) <= 40 else f'{shown[:40]}…'}"
        )
    return plain


def _below(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name


@cache
def _types(kind: Any) -> dict[str, Any]:
    """Return the types of a dataclass's fields, by name, in their order."""
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _is_default(field: Field[Any], value: Any) -> bool:
    held = getattr(value, field.name)
    if field.default_factory is not MISSING:
        return bool(held == field.default_factory())
    return field.default is not MISSING and bool(held == field.default)
