"""Which attributes of a method are its settings: what it is given, and not what it notes down while it works."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import wraps
from inspect import isfunction, isgenerator
from typing import Any

from elicitable.own_digest import settings_of

#: What a race asks of a method; what these leave behind on a person's own method is no setting of it.
ASKED = (
    "numbers",
    "build",
    "candidates",
    "search",
    "from_setting",
    "start",
    "starts",
    "begun",
    "start_at",
    "standing_on",
    "read",
    "again",
)


class Settled:
    """Something whose settings are the same before and after it was asked for anything."""

    def __init_subclass__(cls, **given: Any) -> None:
        """Watch what a person's own class does to itself where it is asked for something."""
        super().__init_subclass__(**given)
        for name in ASKED if cls.__module__.split(".")[0] != "elicitable" else ():
            if isfunction(asked := vars(cls).get(name)):
                setattr(cls, name, _watched(asked))


def settings_as_given(method: Settled) -> dict[str, str]:
    """Return the public attributes of a method by name, written out, as they were given."""
    held, noted = settings_of(method), vars(method).get("_noted", {})
    given = {name: was for name, (found, was) in noted.items() if held.get(name) == found}
    return {name: told for name, told in (held | given).items() if told is not None}


def _watched(asked: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(asked)
    def watched(self: Settled, *args: Any, **options: Any) -> Any:
        given = settings_as_given(self)
        try:
            found = asked(self, *args, **options)
        finally:
            _note(self, given)
        return _to_the_end(self, found) if isgenerator(found) else found

    return watched


def _to_the_end(method: Settled, found: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    given = settings_as_given(method)
    try:
        return (yield from found)
    finally:
        _note(method, given)


def _note(method: Settled, given: dict[str, str]) -> None:
    """Note which attributes are no longer as they were ``given``: what each has become, and what it was."""
    held = settings_of(method)
    changed = {name: (held.get(name), given.get(name)) for name in held | given if held.get(name) != given.get(name)}
    if changed or "_noted" in vars(method):
        vars(method)["_noted"] = changed
