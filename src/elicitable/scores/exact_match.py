"""Score by exact match: the whole answer is the target."""

from __future__ import annotations

from dataclasses import dataclass

from elicitable.scores.scorer import MeanScorer


@dataclass(frozen=True)
class ExactMatch(MeanScorer):
    """Score by the share of answers that are the target, letter for letter, but for blanks around both."""

    name: str = "exact-match"
    summary: str = "share of answers that are the target, letter for letter"
    kind = "generation"
    is_share = True
    is_exact = True

    def item(self, target: str, answer: str) -> float:
        """Return 1 where the two texts are equal without what is blank around them."""
        return float(target.strip() == answer.strip())
