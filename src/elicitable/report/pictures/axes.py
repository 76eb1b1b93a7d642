"""Share what the figures have in common: the plot area of a small multiple, ticks, and places in percent."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeGuard

TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, slots=True)
class Panel:
    """Hold the plot area of a small multiple, in units of its view box."""

    width: float = 300
    height: float = 132
    left: float = 34
    right: float = 292
    top: float = 8
    bottom: float = 108

    def x(self, share: float) -> float:
        """Place a value from 0 (left) to 1 (right)."""
        return round(self.left + share * (self.right - self.left), 2)

    def y(self, share: float) -> float:
        """Place a value from 0 (bottom) to 1 (top); values outside are kept inside."""
        return round(self.bottom - min(max(share, 0.0), 1.0) * (self.bottom - self.top), 2)


PANEL = Panel()


@dataclass(frozen=True, slots=True)
class Tick:
    """Hold a mark on an axis: where, and what it says."""

    at: float
    text: str


def percent(share: float) -> float:
    return round(100 * min(max(share, 0.0), 1.0), 2)


def is_number(value: Any) -> TypeGuard[float]:
    """Say whether ``value`` is a finite number (and no bool)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
