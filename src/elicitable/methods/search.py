"""How a method that is chosen looks for its best candidate: it offers some, is told how they did, and offers edits.

A search is a generator. It yields an :class:`Offer`, receives what is :class:`Found` so far, and goes on from there;
whoever runs it (:mod:`elicitable.race.search`) decides how many of the candidates are scored, and on how many items.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from elicitable.methods.base import Adaptation


@dataclass(frozen=True, eq=False)
class Offer:
    """Candidates to be scored, the likeliest first.

    ``origin`` says in a word or two where they come from, and ``passes`` how many items were read to find them.
    """

    candidates: Sequence[Adaptation]
    origin: str = "given"
    passes: int = 0


@dataclass(frozen=True, eq=False)
class Tried:
    """A candidate that was scored: right or wrong per validation item, in their order, and nats per token."""

    adaptation: Adaptation
    origin: str
    correct: tuple[int, ...]
    nats: float

    @property
    def items(self) -> int:
        """How many validation items it was scored on; the others were left out because it did badly on these."""
        return len(self.correct)

    @property
    def score(self) -> float:
        """Share of those items that are right, in [0, 1]."""
        return sum(self.correct) / len(self.correct)

    @property
    def place(self) -> tuple[int, float, float]:
        """What candidates are ranked by, the highest first: the items, the score, and the loss where those are equal.

        Whoever did badly was scored on fewer items, so more items always rank higher.
        """
        return (self.items, self.score, -self.nats)


class Found(Protocol):
    """What a search is told after each offer."""

    @property
    def best(self) -> Sequence[Tried]:
        """All candidates that were scored up to now, the best first."""

    @property
    def left(self) -> int:
        """How many items can still be read."""

    @property
    def seconds(self) -> float:
        """How long the search may still take; infinite without a limit."""

    def slopes(self, candidate: Adaptation) -> Tensor:
        """(token, vocab): by how many nats a token of training answers gets dearer, to first order, per swap.

        Entry (i, v) is for the token at place i of the candidate's hard tokens becoming v.
        """


Search = Generator[Offer, Found, None]
