"""Score by token-F1, as SQuAD's evaluation script counts it."""

from __future__ import annotations

import re
import string
from collections import Counter

from elicitable.scores.scorer import MeanScorer

ARTICLES = re.compile(r"\b(a|an|the)\b")
NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class TokenF1(MeanScorer):
    """Score by the mean of 2·|common words| / (|answer's words| + |target's words|), as multisets after normalisation.

    Normalised as SQuAD does (Rajpurkar et al., EMNLP 2016): lower case, ASCII punctuation taken out, the English
    articles a, an, the taken out, split at blanks. Where one of the two has no word left, the score is 1 if neither
    has, else 0.
    """

    name = "token-f1"
    kind = "generation"
    summary = "F1 of the words that answer and target share (SQuAD)"

    def item(self, target: str, answer: str) -> float:
        """Compute 2·|common| / (|answer| + |target|)"""
        wanted, given = words(target), words(answer)
        if not wanted or not given:
            return float(wanted == given)
        common = (Counter(wanted) & Counter(given)).total()
        return 2 * common / (len(wanted) + len(given))


def words(text: str) -> list[str]:
    """Return the words of a text after SQuAD's normalisation.

    >>> words("The U.S.  army, an idea")
    ['us', 'army', 'idea']
    """
    return ARTICLES.sub(" ", text.lower().translate(NO_PUNCTUATION)).split()
