"""Draw learning curves as small multiples: validation score and training loss of every seed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from elicitable.report import notation, standing
from elicitable.report.pictures.axes import PANEL, Tick
from elicitable.values import ArmResult, CurvePoint, Verdict

LONGEST_CURVE = 300  # points; more cannot be told apart in a small multiple


@dataclass(frozen=True, slots=True)
class Lines:
    """Hold one quantity over steps: ``x,y`` pairs as a text per stretch, lone points, and where it broke off."""

    stretches: tuple[str, ...]
    dots: tuple[tuple[float, float], ...]
    breaks: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class CurvePanel:
    """Hold the learning curves of one arm: validation score and training loss by step, every seed."""

    method: str
    group: str
    caption: str
    validation: Lines
    loss: Lines
    steps: tuple[Tick, ...]


def curve_panels(verdict: Verdict) -> tuple[tuple[CurvePanel, ...], tuple[Tick, ...]]:
    """Return one panel for each arm that has curves, and the ticks of the loss axis that they share (0 to its top)."""
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
    """Return every n-th point and the last, at most :data:`LONGEST_CURVE` or so."""
    every = math.ceil(len(curve) / LONGEST_CURVE)
    return curve if every <= 1 else [*curve[:-1][::every], curve[-1]]


def _lines(curves: Iterable[Sequence[tuple[float, float]]]) -> Lines:
    """Draw curves of (share of the steps, share of the height); they break where a value is not finite."""
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
    """Return the next of 1, 2, 2.5, 5 times a power of ten.

    >>> [nice_ceiling(value) for value in (0.07, 1.0, 2.2, 3.0)]
    [0.1, 1.0, 2.5, 5.0]
    """
    if not value > 0 or not math.isfinite(value):
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next((step * power for step in (1.0, 2.0, 2.5, 5.0) if value <= step * power * (1 + 1e-9)), 10.0 * power)
