"""Draw the race: every arm by group, its mean and interval, and the margin under the best."""

from __future__ import annotations

import math
from dataclasses import dataclass

from elicitable.report import notation, standing
from elicitable.report.pictures.axes import percent
from elicitable.values import ArmResult, Verdict


@dataclass(frozen=True, slots=True)
class RaceRow:
    """Hold one arm of the race; positions in percent of the track. ``trouble`` is the status of one without a score."""

    method: str
    is_answer: bool
    text: str
    mean: float | None
    interval: tuple[float, float] | None
    seeds: tuple[float, ...]
    trouble: str


@dataclass(frozen=True, slots=True)
class RaceChart:
    """Hold all arms by group, and the band of the margin under the best of them."""

    groups: tuple[tuple[str, str, tuple[RaceRow, ...]], ...]  # group, its title, its arms
    band: tuple[float, float] | None
    best: str


def race_chart(verdict: Verdict) -> RaceChart:
    """Return every arm's mean, interval and seeds on one scale from 0 to 1."""
    chosen, best = standing.winner(verdict), standing.highest(verdict)
    groups = tuple(
        (group, standing.GROUPS[group], tuple(_race_row(arm, arm is chosen) for arm in arms))
        for group, arms in standing.grouped(verdict)
    )
    if best is None or best.mean is None:
        return RaceChart(groups, None, "")
    return RaceChart(groups, (percent(best.mean - verdict.margin), percent(best.mean)), best.method)


def _race_row(arm: ArmResult, is_answer: bool) -> RaceRow:
    interval = notation.interval_of(arm)
    return RaceRow(
        method=arm.method,
        is_answer=is_answer,
        text=notation.score(arm, digits=3),
        mean=None if arm.mean is None else percent(arm.mean),
        interval=None if interval is None else (percent(interval[0]), percent(interval[1])),
        seeds=_seeds(arm),
        trouble=arm.status if arm.mean is None else "",
    )


def _seeds(arm: ArmResult) -> tuple[float, ...]:
    """Return where each seed stands: nothing for one, or where the score is no share of answers that are right."""
    shares = [sum(hits) / len(hits) for hits in arm.correct if hits]
    if arm.seeds < 2 or arm.mean is None or not math.isclose(sum(shares) / len(shares), arm.mean, abs_tol=1e-9):
        return ()
    return tuple(map(percent, shares))
