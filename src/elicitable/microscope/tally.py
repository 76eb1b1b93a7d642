"""Sum up what one layer does over calls: everything that a scope says of a layer is a sum, a maximum or a histogram.

Sums add up over batches, so a tally of any length is a few small tensors. What grows with a watch is the prefix mass
that a scope keeps beside it: a number for each layer, head and query.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from elicitable.attention.positions import BINS


@dataclass(eq=False)
class Tally:
    """Hold the sums of one layer over batch and queries that are not padding; (head, …) in float64."""

    heads: int
    d_value: int
    queries: int = 0
    drift_queries: int = 0
    later_queries: int = 0
    prefix_length: int = 0
    visible: float = 0.0
    sums: dict[str, Tensor] = field(default_factory=dict)
    largest: dict[str, Tensor] = field(default_factory=dict)
    position_mass: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.float64))
    _counts: Tensor | None = None  # the histogram, sparse: most bins of most positions are empty

    def add(self, name: str, value: Tensor) -> None:
        """Add to a sum, from zero."""
        value = value.cpu().double()
        self.sums[name] = self.sums[name] + value if name in self.sums else value

    def raise_to(self, name: str, value: Tensor) -> None:
        """Keep the larger of what is there and ``value``; a NaN stays."""
        value = value.cpu().double()
        self.largest[name] = torch.maximum(self.largest[name], value) if name in self.largest else value

    def add_positions(self, mass: Tensor, histogram: Tensor) -> None:
        """Add per-position sums (head, prefix); contexts of different length are aligned at the content."""
        self.position_mass = _add_aligned(self.position_mass, mass.cpu().double())
        if self._counts is not None:
            histogram = _add_aligned(self.histogram, histogram)
        self._counts = histogram.flatten().to_sparse()
        self.prefix_length = max(self.prefix_length, mass.shape[1])

    @property
    def histogram(self) -> Tensor:
        """Return the counts of each position's share, (head, prefix, BINS)."""
        assert self._counts is not None
        return self._counts.to_dense().reshape(self.heads, -1, BINS)


def _add_aligned(old: Tensor, new: Tensor) -> Tensor:
    if old.shape[0] == 0:
        return new
    length = max(old.shape[1], new.shape[1])
    total = new.new_zeros(new.shape[0], length, *new.shape[2:])
    total[:, length - old.shape[1] :] += old
    total[:, length - new.shape[1] :] += new
    return total
