"""Score by exact match: the whole answer is the target."""

from __future__ import annotations

from elicitable.scores.scorer import MeanScorer


class ExactMatch(MeanScorer):
    """Score by the share of answers that are the target, letter for letter, but for blanks around both."""

    name = "exact-match"
    kind = "generation"
    summary = "share of answers that are the target, letter for letter"
    is_share = True

    def item(self, target: str, answer: str) -> float:
        """Return 1 where the two texts are equal without what is blank around them."""
        return float(target.strip() == answer.strip())
