"""Look at what a method of a person's own says of itself, before a model is loaded for it."""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Final

from elicitable.errors import InputError
from elicitable.methods.base import Method, Schedule
from elicitable.values import Rung

_RATES: Final = "a Schedule of learning rates above 0, from low to high, or None where it is chosen and not trained"


def check_own(method: Method) -> None:
    """Compare the attributes of ``method`` with what :class:`~elicitable.methods.base.Method` asks for.

    Raises:
        InputError: one is missing or is something else, or nothing says how an adaptation is found; the message says
            what is expected.
    """
    _attribute(method, "name", _is_name, "what a person types: a text without blanks or slashes")
    _attribute(method, "summary", lambda given: isinstance(given, str), "a line of text")
    _attribute(method, "rung", lambda given: isinstance(given, Rung), "a Rung (elicitable.methods.rungs)")
    _attribute(method, "schedule", _is_schedule, _RATES)
    for name in ("options", "searched", "peft_types"):
        _attribute(method, name, _are_texts, "a tuple of texts")
    own = type(method)
    if method.schedule is None and (own.candidates, own.search) == (Method.candidates, Method.search):
        raise InputError(
            f"{method.name}: nothing says how it is found: give it a schedule of learning rates, or candidates() to "
            "choose from on the validation split."
        )


def _attribute(method: Method, name: str, is_so: Callable[[Any], bool], wanted: str) -> None:
    kind = type(method).__name__
    if not hasattr(method, name):
        raise InputError(f"{kind} has no {name}: give the class one, {wanted}.")
    if not is_so(given := getattr(method, name)):
        raise InputError(f"{kind}: {name} has to be {wanted}, and is {reprlib.repr(given)}.")


def _is_name(given: Any) -> bool:
    return isinstance(given, str) and given.isprintable() and bool(given.strip(".")) and not set(given) & set(" /\\")


def _are_texts(given: Any) -> bool:
    return isinstance(given, tuple) and all(isinstance(one, str) for one in given)


def _is_schedule(given: Any) -> bool:
    if given is None:
        return True
    if not isinstance(given, Schedule) or not isinstance(given.learning_rates, tuple | list):
        return False
    rates = list(given.learning_rates)
    are_numbers = all(isinstance(one, int | float) and not isinstance(one, bool) and 0 < one < 1e9 for one in rates)
    return bool(rates) and are_numbers and all(low < high for low, high in pairwise(rates))
