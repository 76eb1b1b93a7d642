"""The geometry of the report's figures, as plain numbers; the templates draw them.

Figures that stretch with the page are given in percent of their width, small multiples in units of a fixed
:data:`PANEL`. Nothing here is markup, so nothing here can be injected.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from elicitable.report import notation, phrases, standing
from elicitable.values import ArmResult, CurvePoint, Verdict

TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
LONGEST_CURVE = 300  # points; more cannot be told apart in a small multiple
MOST_CELLS_WITH_TIPS = 1500
HEAT_LEVELS = 24


@dataclass(frozen=True, slots=True)
class Panel:
    """The plot area of a small multiple, in units of its view box."""

    width: float = 300
    height: float = 132
    left: float = 34
    right: float = 292
    top: float = 8
    bottom: float = 108

    def x(self, share: float) -> float:
        """From 0 (left) to 1 (right)."""
        return round(self.left + share * (self.right - self.left), 2)

    def y(self, share: float) -> float:
        """From 0 (bottom) to 1 (top); values outside are kept inside."""
        return round(self.bottom - min(max(share, 0.0), 1.0) * (self.bottom - self.top), 2)


PANEL = Panel()


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis: where, and what it says."""

    at: float
    text: str


# --- the race -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RaceRow:
    """One arm of the race; positions in percent of the track."""

    method: str
    is_answer: bool
    text: str
    mean: float | None
    interval: tuple[float, float] | None
    seeds: tuple[float, ...]
    trouble: str


@dataclass(frozen=True, slots=True)
class Race:
    """All arms by group, and the band of the margin under the best of them."""

    groups: tuple[tuple[str, str, tuple[RaceRow, ...]], ...]  # group, its title, its arms
    band: tuple[float, float] | None
    best: str


def race(verdict: Verdict) -> Race:
    """Every arm's mean, interval and seeds on one scale from 0 to 1."""
    chosen, best = standing.winner(verdict), standing.highest(verdict)
    groups = tuple(
        (group, standing.GROUPS[group], tuple(_race_row(arm, arm is chosen) for arm in arms))
        for group, arms in standing.grouped(verdict)
    )
    if best is None or best.mean is None:
        return Race(groups, None, "")
    return Race(groups, (_percent(best.mean - verdict.margin), _percent(best.mean)), best.method)


def _race_row(arm: ArmResult, is_answer: bool) -> RaceRow:
    interval = notation.interval_of(arm)
    return RaceRow(
        method=arm.method,
        is_answer=is_answer,
        text=notation.score(arm, digits=3),
        mean=None if arm.mean is None else _percent(arm.mean),
        interval=None if interval is None else (_percent(interval[0]), _percent(interval[1])),
        seeds=tuple(_percent(sum(hits) / len(hits)) for hits in arm.correct if hits) if arm.seeds > 1 else (),
        trouble=phrases.trouble(arm) if arm.mean is None else "",
    )


def _percent(share: float) -> float:
    return round(100 * min(max(share, 0.0), 1.0), 2)


# --- what decides ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Difference:
    """One arm minus the best, in pairs; positions in percent of the track, ``dot`` None where it lies further left."""

    method: str
    group: str
    is_answer: bool
    dot: float | None
    interval: tuple[float, float]
    text: str
    standing: str


@dataclass(frozen=True, slots=True)
class Differences:
    """Every compared arm beside the best: ``band`` is where an arm is good enough, ``zero`` where it is as good."""

    rows: tuple[Difference, ...]
    band: tuple[float, float]
    zero: float
    ticks: tuple[Tick, ...]
    best: str


MARGINS_SHOWN = (-7, 3)  # the axis around the margin, in margins: what lies further left is worse without a doubt


def differences(verdict: Verdict) -> Differences | None:
    """The paired differences that decide; None when no arm was compared with another."""
    arms = [arm for _, members in standing.grouped(verdict) for arm in members if len(arm.behind) == 3]
    best = next((arm for arm in arms if arm.behind == (0.0, 0.0, 0.0)), None)
    if best is None or len(arms) < 2:
        return None
    chosen, margin = standing.winner(verdict), verdict.margin
    ticks = tuple(
        Tick(_around(step * margin, margin), _signed(step * margin).removesuffix(".0"))
        for step in (-6, -4, -2, -1, 0, 2)
    )
    return Differences(
        rows=tuple(_difference(arm, margin, arm is best, arm is chosen) for arm in arms),
        band=(_around(-margin, margin), 100.0),
        zero=_around(0.0, margin),
        ticks=ticks,
        best=best.method,
    )


def _difference(arm: ArmResult, margin: float, is_best: bool, is_answer: bool) -> Difference:
    mean, low, high = arm.behind
    left, right = _around(-high, margin), _around(-low, margin)
    where = "within the margin" if high <= margin else "behind by more" if low > margin else "not settled"
    return Difference(
        method=arm.method,
        group=arm.rung.group,
        is_answer=is_answer,
        dot=_around(-mean, margin) if -mean >= MARGINS_SHOWN[0] * margin else None,
        interval=(left, right),
        text="the best" if is_best else f"{_signed(-mean)} [{_signed(-high)}, {_signed(-low)}]",
        standing="" if is_best else where,
    )


def _signed(share: float) -> str:
    """In points, with a sign unless it is zero."""
    text = f"{100 * share:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def _around(difference: float, margin: float) -> float:
    """Place of (arm − best) on an axis around the margin, in percent; what lies outside is at the edge."""
    first, last = MARGINS_SHOWN
    return _percent((difference / margin - first) / (last - first))


# --- learning curves ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines of one quantity over steps: one text of ``x,y`` pairs a stretch, lone points, and where it broke off."""

    stretches: tuple[str, ...]
    dots: tuple[tuple[float, float], ...]
    breaks: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class CurvePanel:
    """The learning curves of one arm: validation score and training loss by step, every seed."""

    method: str
    group: str
    caption: str
    validation: Lines
    loss: Lines
    steps: tuple[Tick, ...]


def curve_panels(verdict: Verdict) -> tuple[tuple[CurvePanel, ...], tuple[Tick, ...]]:
    """One panel for each arm that has curves, and the ticks of the loss axis that they share (0 to its top)."""
    arms = [arm for _, members in standing.grouped(verdict) for arm in members if any(arm.curves)]
    losses = [point.loss_nats for arm in arms for curve in arm.curves for point in curve]
    top = nice_ceiling(max((loss for loss in losses if math.isfinite(loss)), default=1.0))
    ticks = tuple(Tick(PANEL.y(share), f"{share * top:.3g}") for share in (0.0, 0.5, 1.0))
    return tuple(_curve_panel(arm, top) for arm in arms), ticks


def _curve_panel(arm: ArmResult, loss_top: float) -> CurvePanel:
    last = max((point.step for curve in arm.curves for point in curve), default=0) or 1
    validation = [[(p.step / last, p.validation) for p in curve if p.validation is not None] for curve in arm.curves]
    loss = [[(p.step / last, p.loss_nats / loss_top) for p in _thinned(curve)] for curve in arm.curves]
    return CurvePanel(
        method=arm.method,
        group=arm.rung.group,
        caption=f"{notation.plural(len(arm.curves), 'seed')}, learning rate {notation.rate(arm.learning_rate)}",
        validation=_lines(validation),
        loss=_lines(loss),
        steps=(Tick(PANEL.x(0), "0"), Tick(PANEL.x(1), f"{last:,}")),
    )


def _thinned(curve: Sequence[CurvePoint]) -> Sequence[CurvePoint]:
    """Every n-th point and the last, at most :data:`LONGEST_CURVE` or so."""
    every = math.ceil(len(curve) / LONGEST_CURVE)
    return curve if every <= 1 else [*curve[:-1][::every], curve[-1]]


def _lines(curves: Iterable[Sequence[tuple[float, float]]]) -> Lines:
    """Curves of (share of the steps, share of the height); they break where a value is not finite."""
    stretches: list[str] = []
    dots: list[tuple[float, float]] = []
    breaks: list[tuple[float, float]] = []
    for curve in curves:
        stretch: list[tuple[float, float]] = []
        for x, y in [*curve, (math.nan, math.nan)]:
            if math.isfinite(y):
                stretch.append((PANEL.x(x), PANEL.y(y)))
                continue
            if math.isfinite(x):
                breaks.append(stretch[-1] if stretch else (PANEL.x(x), PANEL.y(0)))
            if len(stretch) == 1:
                dots.append(stretch[0])
            elif stretch:
                stretches.append(" ".join(f"{a:g},{b:g}" for a, b in stretch))
            stretch = []
    return Lines(tuple(stretches), tuple(dots), tuple(breaks))


def nice_ceiling(value: float) -> float:
    """The next of 1, 2, 2.5, 5 times a power of ten.

    >>> [nice_ceiling(value) for value in (0.07, 1.0, 2.2, 3.0)]
    [0.1, 1.0, 2.5, 5.0]
    """
    if not value > 0 or not math.isfinite(value):
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next((step * power for step in (1.0, 2.0, 2.5, 5.0) if value <= step * power * (1 + 1e-9)), 10.0 * power)


# --- score against numbers trained ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CostPoint:
    """One arm; ``x`` in percent of the width, the rest in pixels, ``label`` relative to the dot."""

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


def cost_plot(verdict: Verdict) -> CostPlot | None:
    """Every scored arm by what it trains; None when no arm has a score."""
    arms = [arm for _, members in standing.grouped(verdict) for arm in members if standing.is_scored(arm)]
    if not arms:
        return None
    trained = [arm.budget.numbers_trained for arm in arms if arm.budget.numbers_trained > 0]
    first = math.floor(math.log10(min(trained))) if trained else 3
    last = max(math.ceil(math.log10(max(trained))) if trained else 6, first + 1)
    places = [_cost_x(arm.budget.numbers_trained, first, last) for arm in arms]
    heights = [_cost_y(standing.mean_of(arm)) for arm in arms]
    labels = _labels_apart(places, heights)
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
        anchor="end" if x > 55 else "start",
        tip=f"{arm.method}: {notation.score(arm, 3)}, {notation.plural(arm.budget.numbers_trained, 'number')} trained",
    )


def _cost_x(numbers: int, first: int, last: int) -> float:
    if numbers <= 0:
        return ZERO_X
    return round(AXIS_FROM + (AXIS_TO - AXIS_FROM) * (math.log10(numbers) - first) / (last - first), 2)


def _cost_y(score: float) -> float:
    return round(COST_BOTTOM - min(max(score, 0.0), 1.0) * (COST_BOTTOM - COST_TOP), 2)


def _labels_apart(places: Sequence[float], heights: Sequence[float], near: float = 20.0) -> list[float]:
    """Heights for the labels, moved so that labels of dots at about the same place do not overlap."""
    moved = list(heights)
    left = sorted(range(len(places)), key=lambda i: places[i])
    while left:
        column = [i for i in left if places[i] - places[left[0]] < near]
        left = left[len(column) :]
        column.sort(key=lambda i: heights[i])
        lowest = COST_BOTTOM - LABEL_LINE / 2
        for i in reversed(column):  # from the bottom up, so that no label leaves the picture below
            moved[i] = min(moved[i], lowest)
            lowest = moved[i] - LABEL_LINE
        highest = COST_TOP
        for i in column:
            moved[i] = max(moved[i], highest)
            highest = moved[i] + LABEL_LINE
    return moved


# --- what was tried -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SweepDot:
    """One learning rate that was tried."""

    x: float
    y: float
    is_chosen: bool
    is_broken: bool
    tip: str


@dataclass(frozen=True, slots=True)
class SweepPanel:
    """All learning rates tried for one arm, against the validation score."""

    method: str
    group: str
    caption: str
    dots: tuple[SweepDot, ...]
    line: str


def sweep_panels(verdict: Verdict) -> tuple[tuple[SweepPanel, ...], tuple[Tick, ...]]:
    """One panel for each arm that was swept over learning rates, and the decades of the axis that they share."""
    arms = [arm for _, members in standing.grouped(verdict) for arm in members if _rates(arm)]
    rates = [rate for arm in arms for rate, _ in _rates(arm)]
    if not rates:
        return (), ()
    first, last = math.floor(math.log10(min(rates)) + 1e-9), math.ceil(math.log10(max(rates)) - 1e-9)
    last = max(last, first + 1)
    span = (first, last)
    ticks = tuple(Tick(_sweep_x(power, span), f"1e{power}") for power in _at_most(5, first, last))
    return tuple(_sweep_panel(arm, span) for arm in arms), ticks


def _at_most(number: int, first: int, last: int) -> range:
    return range(first, last + 1, max(1, math.ceil((last - first + 1) / number)))


def _rates(arm: ArmResult) -> list[tuple[float, Mapping[str, Any]]]:
    """The entries of the sweep that have a learning rate, from low to high."""
    entries = []
    for entry in arm.sweep:
        rate = entry.get("learning_rate")
        if is_number(rate) and rate > 0:
            entries.append((rate, entry))
    return sorted(entries, key=lambda pair: pair[0])


def is_number(value: Any) -> TypeGuard[float]:
    """Whether ``value`` is a finite number (and no bool)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _sweep_panel(arm: ArmResult, span: tuple[int, int]) -> SweepPanel:
    entries = _rates(arm)
    best = _chosen_entry(arm, entries)
    dots = []
    for rate, entry in entries:
        validation = entry.get("validation")
        score = validation if is_number(validation) else None
        dots.append(
            SweepDot(
                x=_sweep_x(math.log10(rate), span),
                y=PANEL.y(score or 0.0),
                is_chosen=entry is best,
                is_broken=score is None,
                tip=f"learning rate {notation.rate(rate)}: " + ("no score" if score is None else f"{score:.3f}"),
            )
        )
    line = " ".join(f"{dot.x:g},{dot.y:g}" for dot in dots if not dot.is_broken)
    caption = f"{notation.plural(len(arm.sweep), 'trial')}, chosen {notation.rate(arm.learning_rate)}"
    if _is_at_edge(arm, [rate for rate, _ in entries]):
        caption += ", at the edge of what was tried: a wider sweep may do better"
    return SweepPanel(arm.method, arm.rung.group, caption, tuple(dots), line)


def _sweep_x(power: float, span: tuple[int, int]) -> float:
    """The place of a power of ten, a little inside the frame so that no dot sits on its corner."""
    return PANEL.x(0.04 + 0.92 * (power - span[0]) / (span[1] - span[0]))


def _is_at_edge(arm: ArmResult, rates: Sequence[float]) -> bool:
    """Whether the chosen rate is the lowest or the highest of several that were tried."""
    if arm.learning_rate is None or min(rates) == max(rates):
        return False
    return arm.learning_rate <= min(rates) * (1 + 1e-6) or arm.learning_rate >= max(rates) * (1 - 1e-6)


def _chosen_entry(arm: ArmResult, entries: Sequence[tuple[float, Mapping[str, Any]]]) -> Mapping[str, Any] | None:
    """The best entry at the arm's learning rate: the one that the race went on with."""
    chosen = arm.learning_rate
    at_rate = [entry for rate, entry in entries if chosen is not None and math.isclose(rate, chosen, rel_tol=1e-6)]
    return max(at_rate, key=lambda e: e["validation"] if is_number(e.get("validation")) else -1.0, default=None)


# --- attention mass -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HeatCell:
    """One layer and head; ``share`` of the common scale."""

    x: int
    y: int
    share: float
    tip: str


@dataclass(frozen=True, slots=True)
class HeatLevel:
    """All cells of about the same share, as one path: how large maps are drawn."""

    share: float
    path: str


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Attention mass on one context: layers from left to right, heads from top to bottom."""

    method: str
    layers: int
    heads: int
    cell: int
    caption: str
    cells: tuple[HeatCell, ...]
    levels: tuple[HeatLevel, ...]


def heat_maps(verdict: Verdict) -> tuple[tuple[HeatMap, ...], float]:
    """One map for each arm whose attention mass was measured, and the top of the scale that they share."""
    arms = [arm for _, members in standing.grouped(verdict) for arm in members if any(arm.prefix_mass)]
    measured = [mass for arm in arms for row in arm.prefix_mass for mass in row if math.isfinite(mass)]
    top = min(max(math.ceil(10 * max(measured, default=1.0) - 1e-9) / 10, 0.1), 1.0)
    return tuple(_heat_map(arm, top) for arm in arms), top


def _heat_map(arm: ArmResult, top: float) -> HeatMap:
    layers, heads = len(arm.prefix_mass), max(map(len, arm.prefix_mass))
    places = [
        (layer, head, mass)
        for layer, row in enumerate(arm.prefix_mass)
        for head, mass in enumerate(row)
        if math.isfinite(mass)
    ]
    has_tips = len(places) <= MOST_CELLS_WITH_TIPS
    return HeatMap(
        method=arm.method,
        layers=layers,
        heads=heads,
        cell=max(6, min(34, 460 // layers)),
        caption=_heat_caption(places),
        cells=tuple(
            HeatCell(layer, head, round(min(mass / top, 1.0), 3), f"layer {layer}, head {head}: {mass:.3f}")
            for layer, head, mass in (places if has_tips else ())
        ),
        levels=() if has_tips else _levels(places, top),
    )


def _heat_caption(places: Sequence[tuple[int, int, float]]) -> str:
    if not places:
        return "not measured"
    layer, head, most = max(places, key=lambda place: place[2])
    mean = sum(mass for _, _, mass in places) / len(places)
    return f"mean {mean:.2f}, most {most:.2f} (layer {layer}, head {head})"


def _levels(places: Iterable[tuple[int, int, float]], top: float) -> tuple[HeatLevel, ...]:
    paths: dict[int, list[str]] = {}
    for layer, head, mass in places:
        paths.setdefault(round(min(mass / top, 1.0) * HEAT_LEVELS), []).append(f"M{layer} {head}h1v1h-1z")
    return tuple(HeatLevel(round(level / HEAT_LEVELS, 3), "".join(paths[level])) for level in sorted(paths) if level)


# --- side effects ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SideEffect:
    """How many nats other text got harder under one arm; the bar runs from ``start`` for ``width`` percent."""

    method: str
    group: str
    text: str
    start: float
    width: float


def side_effects(verdict: Verdict) -> tuple[tuple[SideEffect, ...], float]:
    """The arms whose side effect was measured, and where zero lies, in percent of the track."""
    arms = [
        (arm, arm.side_effect_nats)
        for _, members in standing.grouped(verdict)
        for arm in members
        if arm.side_effect_nats is not None and math.isfinite(arm.side_effect_nats)
    ]
    low = min([0.0, *(effect for _, effect in arms)])
    high = max([0.0, *(effect for _, effect in arms)])
    span = (high - low) or 1.0
    zero = round(-100 * low / span, 2)
    return tuple(
        SideEffect(
            method=arm.method,
            group=arm.rung.group,
            text=f"{effect:+.3f}",
            start=round(100 * (min(effect, 0.0) - low) / span, 2),
            width=round(100 * abs(effect) / span, 2),
        )
        for arm, effect in arms
    ), zero
