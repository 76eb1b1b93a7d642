"""Draw what was tried: the validation score of every learning rate of every arm."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from elicitable.report import notation, standing
from elicitable.report.pictures.axes import PANEL, Tick, is_number
from elicitable.values import ArmResult, Verdict


@dataclass(frozen=True, slots=True)
class SweepDot:
    """Hold one learning rate that was tried."""

    x: float
    y: float
    is_chosen: bool
    is_broken: bool
    tip: str


@dataclass(frozen=True, slots=True)
class SweepPanel:
    """Hold all learning rates tried for one arm, against the validation score."""

    method: str
    group: str
    caption: str
    dots: tuple[SweepDot, ...]
    line: str


def sweep_panels(verdict: Verdict) -> tuple[tuple[SweepPanel, ...], tuple[Tick, ...]]:
    """Return one panel for each arm that was swept over learning rates, and the decades of the axis that they share."""
    arms = [arm for _, members in standing.grouped(verdict) for arm in members if _rates(arm)]
    rates = [rate for arm in arms for rate, _ in _rates(arm)]
    if not rates:
        return (), ()
    first, last = math.floor(math.log10(min(rates)) + 1e-9), math.ceil(math.log10(max(rates)) - 1e-9)
    last = max(last, first + 1)
    span = (first, last)
    ticks = tuple(Tick(_sweep_x(power, span), notation.rate(10.0**power)) for power in _at_most(5, first, last))
    return tuple(_sweep_panel(arm, span) for arm in arms), ticks


def _at_most(number: int, first: int, last: int) -> range:
    return range(first, last + 1, max(1, math.ceil((last - first + 1) / number)))


def _rates(arm: ArmResult) -> list[tuple[float, Mapping[str, Any]]]:
    """Return the entries of the sweep that have a learning rate, from low to high."""
    entries = []
    for entry in arm.sweep:
        rate = entry.get("learning_rate")
        if is_number(rate) and rate > 0:
            entries.append((rate, entry))
    return sorted(entries, key=lambda pair: pair[0])


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
    """Return the place of a power of ten, a little inside the frame so that no dot sits on its corner."""
    return PANEL.x(0.04 + 0.92 * (power - span[0]) / (span[1] - span[0]))


def _is_at_edge(arm: ArmResult, rates: Sequence[float]) -> bool:
    """Say whether the chosen rate is the lowest or the highest of several that were tried."""
    if arm.learning_rate is None or min(rates) == max(rates):
        return False
    return arm.learning_rate <= min(rates) * (1 + 1e-6) or arm.learning_rate >= max(rates) * (1 - 1e-6)


def _chosen_entry(arm: ArmResult, entries: Sequence[tuple[float, Mapping[str, Any]]]) -> Mapping[str, Any] | None:
    """Return the best entry at the arm's learning rate: the one that the race went on with."""
    chosen = arm.learning_rate
    at_rate = [entry for rate, entry in entries if chosen is not None and math.isclose(rate, chosen, rel_tol=1e-6)]
    return max(at_rate, key=lambda e: e["validation"] if is_number(e.get("validation")) else -1.0, default=None)
