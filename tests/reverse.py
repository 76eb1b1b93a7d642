"""A digit task that a tiny model learns in a few steps."""

from __future__ import annotations

import itertools

import numpy as np

from elicitable.values import Item


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
