"""Named subspaces of the residual stream: the vocabulary in which the proofs are written.

A construction says *which* part of the stream a head reads and writes ("position", "embedding"); this file
turns the names into 0/1 matrices. Nothing here knows torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from elicitable.errors import InputError

Matrix = NDArray[np.float64]

#: A wider residual stream is refused: a head's matrices grow with its square.
MOST_DIMENSIONS = 5000


@dataclass(frozen=True)
class Subspaces:
    """An ordered direct sum of named coordinate subspaces.

    >>> stream = Subspaces((("embedding", 3), ("position", 2)))
    >>> stream.size, stream.slice("position")
    (5, slice(3, 5, None))
    """

    parts: tuple[tuple[str, int], ...]

    def __post_init__(self) -> None:
        if self.size > MOST_DIMENSIONS:
            sizes = " + ".join(f"{size:,} for {name}" for name, size in self.parts)
            raise InputError(
                f"these sizes need a residual stream of {self.size:,} dimensions ({sizes}), more than the "
                f"{MOST_DIMENSIONS:,} allowed here; choose smaller ones."
            )

    @property
    def size(self) -> int:
        """Dimension of the whole stream."""
        return sum(size for _, size in self.parts)

    def slice(self, name: str) -> slice:
        """Coordinates of the subspace ``name``; raises InputError for a name that is not a part."""
        start = 0
        for part, size in self.parts:
            if part == name:
                return slice(start, start + size)
            start += size
        known = ", ".join(part for part, _ in self.parts)
        raise InputError(f"no subspace {name!r} in the residual stream; it has: {known}.")

    def read(self, name: str) -> Matrix:
        """The projection P (size of ``name`` × size of the stream): ``P x`` is that part of x.

        >>> Subspaces((("embedding", 1), ("position", 2))).read("position").astype(int).tolist()
        [[0, 1, 0], [0, 0, 1]]
        """
        part = self.slice(name)
        return np.eye(part.stop - part.start, self.size, k=part.start)

    def write(self, name: str) -> Matrix:
        """The inclusion Pᵀ (size of the stream × size of ``name``)."""
        return self.read(name).T
