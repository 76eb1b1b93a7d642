"""What records call the code that a person wrote: a digest of its source, and of all that it was made with."""

from __future__ import annotations

import copyreg
import hashlib
import inspect
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cached_property, partial
from numbers import Number
from pathlib import PurePath
from types import FunctionType, MethodType
from typing import Any

_NAMED = frozenset({"elicitable", *sys.stdlib_module_names})  # whose code is told by its name
_digests: dict[int, tuple[Any, str]] = {}  # by identity; the object is held, so that no other takes its place


def digest_of(thing: object, settings: Mapping[str, str] | None = None) -> str | None:
    """SHA-256 (hex) of the code that ``thing`` is, for the identity of trials; None for this package's own.

    What :func:`elicitable.own_code.load_own` gave has the digest of its whole file, of the files beside it that it
    imports, and of its name there. An object of a class that a person wrote in a program or a notebook has that of its
    class, and of the classes it inherits from: so another line of the program changes nothing, and a change of the
    class is not passed over. Where no source is kept, its name stands for it. ``settings`` count too, as
    :func:`settings_of` gives them. A function counts with what it closes over, and whatever else is called with what it
    wraps, or is bound to.
    """
    if id(thing) in _digests and _digests[id(thing)][0] is thing:
        return _digests[id(thing)][1]
    code = _code(thing)
    if (code is None or isinstance(thing, FunctionType)) and _top(thing if code else type(thing)) == "elicitable":
        return None
    told = _written(code or (*_sources(type(thing)), dict(settings or {})))
    return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()


def vouch(thing: object, digest: str | None) -> None:
    """Take ``digest`` for what :func:`digest_of` says of ``thing``, from whoever has read its source."""
    if digest is not None:
        _digests[id(thing)] = (thing, digest)


def settings_of(thing: Any) -> dict[str, str]:
    """Write the public attributes of an object by name, without what was worked out from them.

    Equal data is written alike. What is no data is told by its class, a function by its code.

    >>> class Mine:
    ...     def __init__(self): self.rates, self.near, self._seen = [0.1, 0.2], {"k": []}, 3
    >>> settings_of(Mine())
    {'rates': 'list(0.1, 0.2)', 'near': "dict(tuple('k', list()))"}
    """
    held = {name: one for name, one in getattr(thing, "__dict__", {}).items() if not name.startswith("_")}
    return {
        name: _written(one)
        for name, one in held.items()
        if not isinstance(getattr(type(thing), name, None), cached_property)
    }


def _code(thing: Any) -> tuple[Any, ...] | None:
    """Return what tells one thing that is called from another; None for an object that its class alone tells of."""
    if isinstance(thing, FunctionType):
        return _source(thing), _closed_over(thing), settings_of(thing)
    if isinstance(thing, MethodType):
        return thing.__func__, *(_code(thing.__self__) or _object(thing.__self__))
    if isinstance(thing, partial):
        return thing.func, thing.args, thing.keywords
    if isinstance(thing, type):
        return _sources(thing)
    if callable(thing) and hasattr(thing, "__wrapped__"):
        return *_object(thing), thing.__wrapped__
    name = getattr(thing, "__qualname__", getattr(thing, "__name__", None))
    if callable(thing) and name is not None:  # not written in Python
        return str(thing.__module__ if hasattr(thing, "__module__") else ""), name, getattr(thing, "__self__", None)
    return None


def _object(thing: Any) -> tuple[Any, ...]:
    return *_sources(type(thing)), settings_of(thing)


def _sources(kind: type) -> tuple[str, ...]:
    bases = [base for base in kind.__mro__[1:] if _top(base) not in _NAMED]
    return tuple(map(_source, (kind, *bases)))


def _source(thing: Any) -> str:
    """Return the source of a class or function; of this function, whatever it wraps, and of one lambda in its line."""
    code = getattr(thing, "__code__", None)
    with suppress(OSError, TypeError):
        if _top(thing) not in _NAMED:
            source = inspect.getsource(code or thing)
            return f"{source}, to {max(end or 0 for *_, end in code.co_positions())}" if code else source
    return f"{thing.__module__}.{thing.__qualname__}"


def _closed_over(function: FunctionType) -> dict[str, Any]:
    held: dict[str, Any] = {"": function.__defaults__, "*": function.__kwdefaults__}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # nothing is in it yet
            held[name] = cell.cell_contents
    return {name: one for name, one in held.items() if one is not None}


def _written(thing: Any, within: tuple[int, ...] = ()) -> str:
    """Write data so that equal data is written alike, code by its source, and other objects by their class."""
    if thing is None or isinstance(thing, Number | str | bytes | PurePath | Enum):
        return repr(thing)
    if id(thing) in within:
        return "..."
    kind, within = type(thing), (*within, id(thing))
    if isinstance(thing, Mapping):
        return _joined(kind, thing.items(), within, is_ordered=False)
    if isinstance(thing, list | tuple | set | frozenset):
        return _joined(kind, thing, within, is_ordered=isinstance(thing, list | tuple))
    if is_dataclass(thing) and not isinstance(thing, type):
        return _joined(kind, [(field.name, getattr(thing, field.name, None)) for field in fields(thing)], within)
    if (code := _code(thing)) is not None:
        return _written(code, within)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if not hasattr(thing, "__dict__"):  # a pattern, a type of numbers, an array: it says what it is made again from
        made_of = copyreg.dispatch_table.get(kind, lambda one: one.__reduce_ex__(4))
        with suppress(Exception):  # some cannot be made again, and say so in any way
            return f"{name}{_written(made_of(thing), within)}"
    return name


def _joined(kind: type, parts: Any, within: tuple[int, ...], is_ordered: bool = True) -> str:
    written = [_written(part, within) for part in parts]
    return f"{kind.__qualname__}({', '.join(written if is_ordered else sorted(written))})"


def _top(kind: Any) -> str:
    return str(kind.__module__).split(".")[0]
