"""Score against numbers trained, on a logarithmic axis with a place of its own for zero."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from elicitable.report import notation, standing
from elicitable.report.pictures.axes import TICKS, Tick
from elicitable.values import ArmResult, Verdict


@dataclass(frozen=True, slots=True)
class CostPoint:
    """Hold one arm; ``x`` in percent of the width, the rest in pixels, ``label`` relative to the dot."""

    method: str
    group: str
    is_answer: bool
    x: float
    y: float
    interval: tuple[float, float] | None
    label_y: float
    anchor: str
    tip: str


@dataclass(frozen=True, slots=True)
class CostPlot:
    """Score against numbers trained: a column for "nothing trained", then a log axis."""

    height: float
    top: float
    bottom: float
    points: tuple[CostPoint, ...]
    decades: tuple[Tick, ...]
    scores: tuple[Tick, ...]
    zero_x: float
    axis_from: float


COST_TOP, COST_BOTTOM, COST_HEIGHT = 14.0, 304.0, 340.0
ZERO_X, AXIS_FROM, AXIS_TO = 12.0, 30.0, 94.0
LABEL_LINE = 16.0
NARROW, LABEL_FROM, LETTER = 288.0, 22.0, 7.2  # pixels: of a narrow picture, from a dot to its label, of a letter
LEFTWARDS = 55.0  # labels of dots further right than this stand on their left


def cost_plot(verdict: Verdict) -> CostPlot | None:
    """Return every scored arm by what it trains; None when no arm has a score."""
    arms = [arm for _, members in standing.grouped(verdict) for arm in members if standing.is_scored(arm)]
    if not arms:
        return None
    trained = [arm.budget.numbers_trained for arm in arms if arm.budget.numbers_trained > 0]
    first = math.floor(math.log10(min(trained))) if trained else 3
    last = max(math.ceil(math.log10(max(trained))) if trained else 6, first + 1)
    places = [_cost_x(arm.budget.numbers_trained, first, last) for arm in arms]
    heights = [_cost_y(standing.mean_of(arm)) for arm in arms]
    labels = _labels_apart(_spans(arms, places), heights)
    chosen = standing.winner(verdict)
    return CostPlot(
        height=COST_HEIGHT,
        top=COST_TOP,
        bottom=COST_BOTTOM,
        points=tuple(
            _cost_point(arm, x, y, label_y, arm is chosen)
            for arm, x, y, label_y in zip(arms, places, heights, labels, strict=True)
        ),
        decades=tuple(
            Tick(_cost_x(10**power, first, last), notation.count(10**power).replace(".0", ""))
            for power in range(first, last + 1)
        ),
        scores=tuple(Tick(_cost_y(tick), f"{tick:g}") for tick in TICKS),
        zero_x=ZERO_X,
        axis_from=AXIS_FROM,
    )


def _cost_point(arm: ArmResult, x: float, y: float, label_y: float, is_answer: bool) -> CostPoint:
    interval = notation.interval_of(arm)
    return CostPoint(
        method=arm.method,
        group=arm.rung.group,
        is_answer=is_answer,
        x=x,
        y=y,
        interval=None if interval is None else (_cost_y(interval[0]), _cost_y(interval[1])),
        label_y=round(label_y, 2),
        anchor="end" if x > LEFTWARDS else "start",
        tip=f"{arm.method}: {notation.score(arm, 3)}, {notation.plural(arm.budget.numbers_trained, 'number')} trained",
    )


def _cost_x(numbers: int, first: int, last: int) -> float:
    if numbers <= 0:
        return ZERO_X
    return round(AXIS_FROM + (AXIS_TO - AXIS_FROM) * (math.log10(numbers) - first) / (last - first), 2)


def _cost_y(score: float) -> float:
    return round(COST_BOTTOM - min(max(score, 0.0), 1.0) * (COST_BOTTOM - COST_TOP), 2)


def _spans(arms: Sequence[ArmResult], places: Sequence[float]) -> list[tuple[float, float]]:
    """Return from where to where each label reaches, in pixels, in a picture as narrow as a telephone's."""
    spans = []
    for arm, place in zip(arms, places, strict=True):
        dot, reach = NARROW * place / 100, LABEL_FROM + LETTER * len(arm.method)
        spans.append((dot - reach, dot) if place > LEFTWARDS else (dot, dot + reach))
    return spans


def _labels_apart(spans: Sequence[tuple[float, float]], heights: Sequence[float]) -> list[float]:
    """Move the heights of labels so that none lies on another. In a wider picture they are further apart."""
    moved = list(heights)

    def settle(order: Sequence[int], away: float, edge: Callable[[float], float]) -> None:
        for nth, i in enumerate(order):
            moved[i] = edge(moved[i])
            for j in sorted(order[:nth], key=lambda j: away * moved[j]):
                beside = spans[i][0] < spans[j][1] and spans[j][0] < spans[i][1]
                if beside and abs(moved[i] - moved[j]) < LABEL_LINE:
                    moved[i] = moved[j] + away * LABEL_LINE

    by_height = sorted(range(len(heights)), key=lambda i: heights[i])
    settle(by_height[::-1], -1, lambda height: min(height, COST_BOTTOM - LABEL_LINE / 2))  # none below the picture
    settle(sorted(by_height, key=lambda i: moved[i]), +1, lambda height: max(height, COST_TOP))  # and none above it
    return moved
