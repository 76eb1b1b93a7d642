"""Draw how much attention goes to the context, per layer and head, as heat maps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from elicitable.report import standing
from elicitable.values import ArmResult, Verdict

MOST_CELLS_WITH_TIPS = 1500
HEAT_LEVELS = 24


@dataclass(frozen=True, slots=True)
class HeatCell:
    """Hold one layer and head; ``share`` of the common scale."""

    x: int
    y: int
    share: float
    tip: str


@dataclass(frozen=True, slots=True)
class HeatLevel:
    """Hold all cells of about the same share, as one path: how large maps are drawn."""

    share: float
    path: str


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Hold the attention mass on one context: layers from left to right, heads from top to bottom."""

    method: str
    layers: int
    heads: int
    cell: int
    caption: str
    cells: tuple[HeatCell, ...]
    levels: tuple[HeatLevel, ...]


def heat_maps(verdict: Verdict) -> tuple[tuple[HeatMap, ...], float]:
    """Return one map for each arm whose attention mass was measured, and the top of the scale that they share."""
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
