"""Let the reader move the margin: the page holds what Python decided at every margin, and its script looks it up.

Nothing is decided in the browser, so there is one decision rule (:mod:`elicitable.diagnosis.verdict`).
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from elicitable.report import standing
from elicitable.report.pictures.differences import MARGINS_SHOWN, STANDINGS, Differences, knots_of
from elicitable.report.script import script_data
from elicitable.untrusted import visible
from elicitable.values import Stretch, Verdict

STEP = 0.1  # points that one press of an arrow key moves the margin


@dataclass(frozen=True, slots=True)
class Margins:
    """Hold what the section shows: what is decided at the race's own ``margin``, and the table for all others.

    ``first`` and ``last`` (points) are the ends of the slider. ``left`` are arms whose training ended early because it
    could not change the label at the race's margin. ``data`` is JSON that may stand inside a script element.
    """

    now: Stretch
    first: float
    last: float
    left: tuple[str, ...]
    data: str


def margins(verdict: Verdict, differences: Differences | None) -> Margins | None:
    """Return what moves the margin beside the picture of differences; None where the record has no table of margins."""
    now = standing.at_margin(verdict)
    if now is None or differences is None:
        return None
    arms = [row.method for row in differences.rows]
    record = {
        "arms": [visible(arm) for arm in arms],
        "margin": verdict.margin,
        "points": in_points(verdict.margin),
        "knots": knots_of(verdict.margin),
        "words": STANDINGS,
        "stretches": [
            {
                "from": one.start,
                "label": visible(one.label),
                "answer": arms.index(one.answer) if one.answer in arms else None,
                "reason": visible(one.reason),
                "standings": [one.standings.get(arm, "") for arm in arms],
            }
            for one in verdict.margins
        ],
    }
    last = min(-MARGINS_SHOWN[0] * 100 * verdict.margin, 99.0)
    left = tuple(arm.method for arm in verdict.arms if arm.stopped == "settled")
    return Margins(now, STEP, max(round(last, 1), STEP), left, script_data(record))


def in_points(share: float) -> str:
    """Write a share in points, exactly: its decimal point is moved.

    >>> in_points(0.023), in_points(0.02), in_points(1e-7)
    ('2.3', '2', '0.00001')
    """
    return f"{Decimal(repr(share)).scaleb(2).normalize():f}"
