"""Score by token-F1, as SQuAD's evaluation script counts it."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

from elicitable.errors import InputError
from elicitable.scores.scorer import MANY, MeanScorer

ARTICLES = re.compile(r"\b(a|an|the)\b")
UNSPACED = re.compile("[\u3040-\u30ff\u3400-\u9fff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]{8}")  # in a row
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

    def check(self, targets: Sequence[str]) -> None:
        """Raise where most targets are written without blanks between words, as Chinese, Japanese and Thai are."""
        whole = [target for target in targets if UNSPACED.search(target)]
        if len(targets) >= MANY and 2 * len(whole) > len(targets):
            raise InputError(
                f"token-f1 takes what stands between blanks for words, and {whole[0][:20]!r} is written without any, "
                "so it would be all right or all wrong: use chrf, which reads any script."
            )

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
