"""A digit task that a tiny model learns in a few steps."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from elicitable.race import pace, trial
from elicitable.values import Item


def race_of_seconds(patch: pytest.MonkeyPatch, **settings: Any) -> None:
    """Let races read little in few steps, as ``settings`` of their pace say; side effects on the same few items."""
    small = {"batch": 8, "validation_items": 16, "test_items": 32}
    patch.setattr(pace, "DIGITS", replace(pace.DIGITS, **small | settings))
    patch.setattr(trial, "_elsewhere", lambda model: Reverse().held_out("validation", 4))
    trial._elsewhere_nats.cache_clear()


class Reverse:
    """Two digits in, the same two out, the other way round."""

    name = "reverse"

    def __init__(self, fingerprint: str = "reverse") -> None:
        self._fingerprint = fingerprint

    def labels(self) -> None:
        return None

    def _items(self) -> list[Item]:
        return [Item(pair, pair[::-1]) for pair in itertools.product(range(8), repeat=2)]

    def sample(self, n: int, rng: np.random.Generator) -> list[Item]:
        items = self._items()
        return [items[i] for i in rng.integers(0, 64, n)]

    def held_out(self, split: str, n: int | None = None) -> list[Item]:
        return self._items()[:n]

    def fingerprint(self) -> str:
        return self._fingerprint
