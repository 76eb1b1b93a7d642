"""Score an answer by the best of its scores against all answers that are right, as SQuAD does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from elicitable.errors import InputError
from elicitable.scores.scorer import MeanScorer, Scorer


@dataclass(frozen=True)
class BestOf(MeanScorer):
    """Compute max_t inner(t, answer) over the accepted answers t of an item; its targets are sequences of them.

    Rajpurkar et al., EMNLP 2016, call it the maximum over ground truths.

    >>> from elicitable.scores.token_f1 import TokenF1
    >>> best_of(TokenF1()).point([("the city of Bath", "Bath")], ["Bath"])
    1.0
    """

    inner: MeanScorer
    name: str
    summary: str
    lowest: float
    highest: float
    is_share: bool
    kind = "generation"
    takes_several = True

    def item(self, target: Any, answer: str) -> float:
        """Return the best score of the answer against one of the accepted ones."""
        return max(self.inner.item(one, answer) for one in target)

    def check(self, targets: Sequence[Any]) -> None:
        """Raise where one of the accepted answers cannot be scored."""
        self.inner.check([one for accepted in targets for one in accepted])


def best_of(scorer: Scorer) -> BestOf:
    """Return ``scorer`` against the best of several right answers.

    Raises:
        InputError: it is no mean of a score per item, and so has no best answer for each.
    """
    if not isinstance(scorer, MeanScorer):
        raise InputError(
            f"the rows have several right answers each, and the score {scorer.name} compares all items with one answer "
            "each; give a score that is a mean over items, such as exact-match, token-f1 or rouge-l."
        )
    said = f"{scorer.summary}; against the best of all right answers"
    return BestOf(scorer, scorer.name, said, scorer.lowest, scorer.highest, scorer.is_share)
