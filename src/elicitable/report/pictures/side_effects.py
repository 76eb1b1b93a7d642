"""Draw what an arm costs elsewhere: the nats lost on texts of another kind."""

from __future__ import annotations

import math
from dataclasses import dataclass

from elicitable.report import standing
from elicitable.values import Verdict


@dataclass(frozen=True, slots=True)
class SideEffect:
    """Count how many nats other text got harder under one arm; the bar runs from ``start`` for ``width`` percent."""

    method: str
    group: str
    text: str
    start: float
    width: float


def side_effects(verdict: Verdict) -> tuple[tuple[SideEffect, ...], float]:
    """Return the arms whose side effect was measured, and where zero lies, in percent of the track."""
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
