"""Score by character n-grams that answer and target share, over all items (chrF); the point value is sacrebleu's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from elicitable.scores.scorer import Scorer, same_number

if TYPE_CHECKING:
    import numpy as np

ORDER = 6
BETA = 2


class ChrF(Scorer):
    """Compute chrF2 of n-grams of 1 to 6 characters (blanks left out), on the scale 0 to 1 (sacrebleu's is 0 to 100).

    Over all items, P_n = matched_n / written_n and R_n = matched_n / wanted_n; P and R are their means over the n that
    occur on both sides, and the score is (1+β²)PR / (β²P + R) with β = 2. Popović, WMT 2015.
    """

    name = "chrf"
    kind = "generation"
    summary = "F2 of character n-grams over all items together"

    def statistics(self, targets: Sequence[str], answers: Sequence[str]) -> np.ndarray:
        """Return (item, 3·6): n-grams written, wanted and matched, for n of 1 to 6."""
        import numpy as np
        from sacrebleu.metrics.helpers import extract_all_char_ngrams

        rows = []
        for target, answer in zip(targets, answers, strict=True):
            grams = zip(extract_all_char_ngrams(answer, ORDER), extract_all_char_ngrams(target, ORDER), strict=True)
            rows.append(
                [(a.total() if t else 0, t.total(), (a & t).total()) for a, t in grams]
            )  # an item whose target has no n-gram says nothing about precision
        return np.array(rows, dtype=float).reshape(len(rows), 3 * ORDER)

    def value(self, sums: np.ndarray) -> np.ndarray:
        """Return (1+β²)PR / (β²P + R)"""
        import numpy as np

        written, wanted, matched = np.moveaxis(sums.reshape(*sums.shape[:-1], ORDER, 3), -1, 0)
        counted = (written > 0) & (wanted > 0)
        orders = np.maximum(counted.sum(-1), 1)
        precision = (np.where(counted, matched, 0.0) / np.where(counted, written, 1.0)).sum(-1) / orders
        recall = (np.where(counted, matched, 0.0) / np.where(counted, wanted, 1.0)).sum(-1) / orders
        below = BETA**2 * precision + recall
        score: np.ndarray = (1 + BETA**2) * precision * recall / np.where(below > 0, below, 1.0)
        return score

    def point(self, targets: Sequence[str], answers: Sequence[str]) -> float:
        """Return ``sacrebleu.metrics.CHRF().corpus_score(answers, [targets]).score / 100``"""
        from sacrebleu.metrics import CHRF

        same_number(targets, answers)
        return float(CHRF(ORDER, 0, BETA).corpus_score(list(answers), [list(targets)]).score) / 100
