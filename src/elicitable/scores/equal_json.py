"""Score by equal JSON: answer and target are the same value, however it is written."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from elicitable.errors import InputError
from elicitable.scores.scorer import MeanScorer

_NUMBER = re.compile(r"(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?")


class EqualJSON(MeanScorer):
    """Score by the share of answers that are JSON and equal to the target's.

    The order of keys, blanks and the way a number is written (1.0 and 1) do not count; the order of a list does, and
    true is not 1. An answer that is not JSON as a whole (prose around it, NaN, a key that occurs twice) is wrong.
    """

    name = "equal-json"
    kind = "generation"
    summary = "share of answers that are the target as JSON"
    is_share = True

    def check(self, targets: Sequence[str]) -> None:
        """Raise unless every target is JSON."""
        for target in targets:
            try:
                _read(target)
            except (ValueError, RecursionError) as error:
                raise InputError(f"equal-json compares JSON, and the target {target!r} is none: {error}.") from error

    def item(self, target: str, answer: str) -> float:
        """Return 1 where the two are equal."""
        try:
            return float(_read(answer) == _read(target))
        except (ValueError, RecursionError):
            return 0.0


def _read(text: str) -> Any:
    """Return the value, with numbers exactly and kinds kept apart (Python takes True for 1)."""
    value = json.loads(text, parse_int=_number, parse_float=_number, parse_constant=_refused, object_pairs_hook=_keyed)
    return _kept_apart(value)


def _number(text: str) -> tuple[str, str, int]:
    """Return sign, digits without zeros at the ends, and exponent, so that equal numbers are equal whatever their size.

    >>> _number("1.50e2") == _number("150"), _number("-0.0") == _number("0e9"), _number("1e99999999999999999999")
    (True, True, ('', '1', 99999999999999999999))
    """
    sign, whole, fraction, power = _NUMBER.fullmatch(text).groups(default="")  # type: ignore[union-attr]
    digits = (whole + fraction).lstrip("0")
    short = digits.rstrip("0")
    return (sign, short, int(power or 0) - len(fraction) + len(digits) - len(short)) if short else ("", "", 0)


def _refused(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _keyed(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keyed = dict(pairs)
    if len(keyed) < len(pairs):
        raise ValueError("a key occurs twice")
    return keyed


def _kept_apart(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _kept_apart(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_kept_apart(inner) for inner in value]
    return ("boolean", value) if isinstance(value, bool) else value
