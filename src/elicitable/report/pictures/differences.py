"""Draw what decides: each arm minus the best one, in pairs over items, beside the margin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from elicitable.report import standing
from elicitable.report.pictures.axes import Tick, percent
from elicitable.values import ArmResult, Verdict


@dataclass(frozen=True, slots=True)
class Difference:
    """Hold one arm minus the best, in pairs, in percent of the track; ``dot`` is None where it lies further left."""

    method: str
    group: str
    is_answer: bool
    dot: float | None
    interval: tuple[float, float]
    text: str
    standing: str


@dataclass(frozen=True, slots=True)
class Differences:
    """Hold every arm beside the best: ``band`` is where an arm is good enough, ``zero`` where it is as good."""

    rows: tuple[Difference, ...]
    band: tuple[float, float]
    zero: float
    ticks: tuple[Tick, ...]
    best: str


STANDINGS: Final = {"enough": "within the margin", "worse": "behind by more", "open": "not settled"}
MARGINS_SHOWN = (-7, 3)  # the axis around the margin, in margins: what lies further left is worse without a doubt


def difference_chart(verdict: Verdict) -> Differences | None:
    """Return the paired differences that decide; None when no arm was compared with another."""
    arms = [arm for _, members in standing.grouped(verdict) for arm in members if len(arm.behind) == 3]
    best = next((arm for arm in arms if arm.behind == (0.0, 0.0, 0.0)), None)
    if best is None or len(arms) < 2:
        return None
    chosen, margin, now = standing.winner(verdict), verdict.margin, standing.at_margin(verdict)
    stands = {} if now is None else now.standings
    ticks = tuple(
        Tick(_around(step * margin, margin), _signed(step * margin).removesuffix(".0"))
        for step in (-6, -4, -2, -1, 0, 2)
    )
    return Differences(
        rows=tuple(_difference(arm, margin, arm is best, arm is chosen, stands.get(arm.method, "")) for arm in arms),
        band=(_around(-margin, margin), 100.0),
        zero=_around(0.0, margin),
        ticks=ticks,
        best=best.method,
    )


def _difference(arm: ArmResult, margin: float, is_best: bool, is_answer: bool, stands: str) -> Difference:
    mean, low, high = arm.behind
    left, right = _around(-high, margin), _around(-low, margin)
    return Difference(
        method=arm.method,
        group=arm.rung.group,
        is_answer=is_answer,
        dot=_around(-mean, margin) if -mean >= MARGINS_SHOWN[0] * margin else None,
        interval=(left, right),
        text="the best" if is_best else f"{_signed(-mean)} [{_signed(-high)}, {_signed(-low)}]",
        standing="" if is_best else STANDINGS.get(stands, ""),
    )


def _signed(share: float) -> str:
    """Write a difference in points, with a sign unless it is zero."""
    text = f"{100 * share:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def _around(difference: float, margin: float) -> float:
    """Place (arm − best) on an axis around the margin, in percent; what lies outside is at the edge."""
    first, last = MARGINS_SHOWN
    return percent((difference / margin - first) / (last - first))
