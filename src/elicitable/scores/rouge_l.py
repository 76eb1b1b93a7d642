"""Score by ROUGE-L: the longest common subsequence of words, from the rouge-score package."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from elicitable.errors import InputError
from elicitable.scores.scorer import MANY, MeanScorer


class RougeL(MeanScorer):
    """Score by the mean F-measure of the longest common subsequence of words, as ``rouge_scorer`` has it (no stemming).

    With a longest common subsequence of L words, P = L/|answer| and R = L/|target|, it is 2PR/(P+R). The package reads
    runs of a–z and 0–9 as words and nothing else, so targets in another script are refused: one without any such word,
    or all of them where most letters are not read. Lin, 2004.
    """

    name = "rouge-l"
    kind = "generation"
    summary = "F1 of the longest common subsequence of words"

    def check(self, targets: Sequence[str]) -> None:
        """Raise unless every target has a word in the letters that ROUGE reads."""
        from rouge_score.tokenize import tokenize

        unread = next((target for target in targets if not tokenize(target, stemmer=None)), None)
        if unread is not None:
            raise InputError(
                f"rouge-l reads only the letters a to z and digits, and the target {unread!r} has none, so every "
                "answer would score 0: use chrf, which reads any script."
            )
        letters = sum(letter.isalnum() for target in targets for letter in target)
        read = sum(len(word) for target in targets for word in tokenize(target, stemmer=None))
        if len(targets) >= MANY and 2 * read < letters:
            raise InputError(
                f"rouge-l reads only the letters a to z and digits, {read:,} of {letters:,} here: use chrf, which "
                "reads any script."
            )

    def item(self, target: str, answer: str) -> float:
        """Return ``RougeScorer(["rougeL"]).score(target, answer)["rougeL"].fmeasure``"""
        return float(_scorer().score(target, answer)["rougeL"].fmeasure)


@cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"])
