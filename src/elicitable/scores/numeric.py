"""Score numbers within a tolerance: the last number of the answer beside the target's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal

from elicitable.errors import InputError
from elicitable.scores.scorer import MeanScorer

MINUS = str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2013\u2212", "-"))  # hyphens, two dashes, the minus sign
MONEY = "[$¢£¤¥\u20a0-\u20cf]"
# Not within a word or behind another number's point or comma (a word's may stand before it: Rs.500); thousands in
# threes, or no commas at all.
NUMBER = re.compile(
    rf"(?<![\w])(?<!\d[.,])(?:[-+]{MONEY}?)?"
    r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
)
# What behind a number says that it is a part of one, or of several: 2½, 5², 1,5 and 1,2,3.
_GOES_ON = re.compile(r"[.,]\d")
# What in front of a number may say that it is below 0: "- 5", "-US$5", "(5)", and a long dash.
_DOUBT = re.compile(rf"((?<!\w)-\s*|\()([A-Z]{{1,3}}\s*)?{MONEY}?\s*$|[—―]{MONEY}?$")
EXACT = Context(prec=100, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[])


@dataclass(frozen=True)
class Numeric(MeanScorer):
    """Score by the share of answers whose last number is at most ``tolerance`` away from the target's number.

    Numbers are written with a decimal point and, if at all, commas between thousands, and with a sign right before
    them or before their currency; units and words around them do not count. They are compared as decimals, so 1.01 is
    0.01 away from 1.00. An answer without a number is wrong.
    """

    tolerance: Decimal = Decimal(0)
    kind = "generation"
    summary = "share of answers whose last number is the target's, within a tolerance"
    is_share = True

    @property
    def name(self) -> str:  # type: ignore[override]
        """Return ``numeric``, with the tolerance if there is one."""
        return f"numeric:{self.tolerance}" if self.tolerance else "numeric"

    def check(self, targets: Sequence[str]) -> None:
        """Raise unless every target holds one number, whose sign is beyond doubt, and no further digits."""
        for target in targets:
            if not _is_plain(target):
                raise InputError(
                    f"numeric compares numbers, and the target {target!r} is not one number (write 1234.5, 1,234.5 or "
                    "-5); regex:PATTERN may pick one out."
                )

    def item(self, target: str, answer: str) -> float:
        """Return 1 where |last number − target| ≤ tolerance."""
        given = numbers(answer)
        return float(bool(given) and EXACT.abs(EXACT.subtract(given[-1], numbers(target)[-1])) <= self.tolerance)


def numbers(text: str) -> list[Decimal]:
    """Return the numbers of a text, in order.

    >>> numbers("from 1,200.50 to −3e2 kg (H2O)")
    [Decimal('1200.50'), Decimal('-3E+2')]
    """
    found = [EXACT.create_decimal(re.sub(rf"{MONEY}|,", "", one[0])) for one in _found(_plain(text))]
    return [number for number in found if number.is_finite()]


def _found(text: str) -> list[re.Match[str]]:
    """Return the numbers of a text; none that goes on in digits of another kind, or behind a comma or a point."""
    found = NUMBER.finditer(text)
    return [
        one for one in found if not (text[one.end() : one.end() + 1].isnumeric() or _GOES_ON.match(text, one.end()))
    ]


def _is_plain(target: str) -> bool:
    """Say whether a target holds one number, whose sign is beyond doubt, and no further digits.

    >>> [_is_plain(target) for target in ("-$5.00", "#### 5", "- 5", "(5)", "2½")]
    [True, True, False, False, False]
    """
    text = _plain(target)
    found = _found(text)
    if len(found) != 1 or len(numbers(target)) != 1 or _DOUBT.search(text[: found[0].start()]):
        return False
    rest = text[: found[0].start()] + text[found[0].end() :]
    return not any(letter.isnumeric() and not letter.isalpha() for letter in rest)


def tolerance_from(text: str) -> Decimal:
    """Return ``0.01`` as a decimal; raises InputError for anything but a finite number of at least 0."""
    try:
        tolerance = Decimal(text)
    except ArithmeticError:
        tolerance = Decimal("NaN")
    if not tolerance.is_finite() or tolerance < 0:
        raise InputError(f"numeric:{text} has no tolerance: give a number of at least 0, as in numeric:0.01.")
    return tolerance


def _plain(text: str) -> str:
    return text.translate(MINUS)
