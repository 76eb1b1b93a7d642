"""Score by ROUGE-L: the longest common subsequence of words, from the rouge-score package."""

from __future__ import annotations

from collections.abc import Sequence

from elicitable.errors import InputError
from elicitable.scores.scorer import MANY, MeanScorer


class RougeL(MeanScorer):
    """Score by the mean F-measure of the longest common subsequence of words, as ``rouge_scorer`` has it (no stemming).

    With a longest common subsequence of L words, P = L/|answer| and R = L/|target|, it is 2PR/(P+R). The package reads
    runs of a–z and 0–9 as words and nothing else, so targets in another script are refused: one without any such word,
    or all of them where most letters are not read. Its table of |target| × |answer| cells takes a gigabyte and seconds
    where both have thousands of words, so L is counted here. Lin, 2004.
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
        from rouge_score.scoring import fmeasure
        from rouge_score.tokenize import tokenize

        wanted, written = tokenize(target, stemmer=None), tokenize(answer, stemmer=None)
        if not wanted or not written:
            return 0.0
        shared = longest_common(wanted, written)
        return float(fmeasure(shared / len(written), shared / len(wanted)))


def longest_common(first: Sequence[str], second: Sequence[str]) -> int:
    """Return the length of the longest common subsequence.

    A row of the usual table grows by 0 or 1 from word to word of ``first``, so it is as many bits, here a 0 where it
    grows, and a word of ``second`` turns one row into the next by one addition. Hyyrö, "Bit-parallel LCS-length
    computation revisited", 2004.

    >>> longest_common("the cat sat".split(), "the sat cat".split())
    2
    """
    at: dict[str, int] = {}
    for place, word in enumerate(first):
        at[word] = at.get(word, 0) | 1 << place
    whole = (1 << len(first)) - 1
    row = whole
    for word in second:
        met = row & at.get(word, 0)
        row = (row + met | row - met) & whole
    return len(first) - row.bit_count()
