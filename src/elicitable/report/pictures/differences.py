"""Draw what decides: each arm minus the best one, in pairs over items, beside the margin."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from elicitable.report import standing
from elicitable.report.pictures.axes import Tick
from elicitable.values import ArmResult, Verdict


@dataclass(frozen=True, slots=True)
class Difference:
    """Hold one arm minus the best, in pairs, in percent of the track."""

    method: str
    group: str
    is_answer: bool
    dot: float
    interval: tuple[float, float]
    text: str
    standing: str


@dataclass(frozen=True, slots=True)
class Differences:
    """Hold every arm beside the best: ``band`` is where an arm is good enough, ``zero`` where it is as good.

    ``bend`` is where the axis begins to be pressed together, in percent, and in points; None where it is not.
    """

    rows: tuple[Difference, ...]
    band: tuple[float, float]
    zero: float
    ticks: tuple[Tick, ...]
    best: str
    bend: tuple[float, str] | None


STANDINGS: Final = {"enough": "within the margin", "worse": "behind by more", "open": "not settled"}
MARGINS_SHOWN = (-7, 3)  # the axis around the margin, in margins
BEND, PRESSED = -4, 30.0  # where all there is does not fit: every doubling further left takes as much of these percent
Knots = tuple[tuple[float, float], ...]  # differences in margins, and their places in percent; straight in between


def knots_of(margin: float) -> Knots:
    """Return the axis that holds every difference down to −100 points, with most of its room around the margin.

    >>> knots_of(0.2), [margins for margins, _ in knots_of(0.02)]
    (((-7, 0.0), (3, 100.0)), [-50.0, -32, -16, -8, -4, 3])
    """
    first, last = MARGINS_SHOWN
    if 1 / margin <= -first:
        return ((first, 0.0), (last, 100.0))
    doublings: list[float] = [BEND]
    while 2 * doublings[-1] > -1 / margin:
        doublings.append(2 * doublings[-1])
    doublings.append(-1 / margin)
    far = [(one, round(PRESSED * (1 - nth / (len(doublings) - 1)), 2)) for nth, one in enumerate(doublings)]
    return (*reversed(far), (last, 100.0))


def difference_chart(verdict: Verdict) -> Differences | None:
    """Return the paired differences that decide; None when no arm was compared with another."""
    arms = [arm for _, members in standing.grouped(verdict) for arm in members if len(arm.behind) == 3]
    best = next((arm for arm in arms if arm.behind == (0.0, 0.0, 0.0)), None)
    if best is None or len(arms) < 2:
        return None
    chosen, margin, now = standing.winner(verdict), verdict.margin, standing.at_margin(verdict)
    stands = {} if now is None else now.standings
    knots = knots_of(margin)
    bent = [one for one, _ in knots[:-2]]
    steps = sorted({*bent[:: max(1, len(bent) // 2)], BEND if bent else -6, -4, -2, -1, 0, 2})
    ticks = tuple(Tick(_around(step * margin, margin), _signed(step * margin).removesuffix(".0")) for step in steps)
    return Differences(
        rows=tuple(_difference(arm, margin, arm is best, arm is chosen, stands.get(arm.method, "")) for arm in arms),
        band=(_around(-margin, margin), 100.0),
        zero=_around(0.0, margin),
        ticks=ticks,
        best=best.method,
        bend=(PRESSED, _signed(BEND * margin).removesuffix(".0")) if bent else None,
    )


def _difference(arm: ArmResult, margin: float, is_best: bool, is_answer: bool, stands: str) -> Difference:
    mean, low, high = arm.behind
    left, right = _around(-high, margin), _around(-low, margin)
    return Difference(
        method=arm.method,
        group=arm.rung.group,
        is_answer=is_answer,
        dot=_around(-mean, margin),
        interval=(left, right),
        text="the best" if is_best else f"{_signed(-mean)} [{_signed(-high)}, {_signed(-low)}]",
        standing="" if is_best else STANDINGS.get(stands, ""),
    )


def _signed(share: float) -> str:
    """Write a difference in points, with a sign unless it is zero."""
    text = f"{100 * share:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def _around(difference: float, margin: float) -> float:
    """Place (arm − best) on the axis around the margin, in percent; what lies outside is at the edge."""
    knots, at = knots_of(margin), difference / margin
    for (low, left), (high, right) in pairwise(knots):
        if low <= at <= high:
            return round(left + (at - low) / (high - low) * (right - left), 2)
    return 0.0 if at < knots[0][0] else 100.0
