"""Define what a score is: a vector of statistics per item, and a value of the vectors' sum.

A mean over items is the simplest case: its vector is the value and 1. Macro-F1, MCC and chrF are not means, yet each is
a function of sums over items: of hits, answers and items per class, or of n-grams matched, written and wanted. So a
bootstrap replicate, which draws item i ``counts[i]`` times, does not have to look at the texts again: its score is
``value(counts @ statistics)``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from elicitable.errors import InputError
from elicitable.values import Scored

if TYPE_CHECKING:
    import numpy as np

Kind = Literal["classification", "generation"]
REPLICATES = 4_000
MANY = 20  # targets from which on a script that most of them are in is that of the task
CONSTANTS = 10  # answers that the floor tries: the most common ones


class Scorer(ABC):
    """Score answers against targets in one way; higher is better for every one of them.

    ``kind`` is "classification" where an answer must be one of the labels, else "generation". The score lies between
    ``lowest`` and ``highest``. ``is_share`` says that it is the mean of outcomes that are 0 or 1, ``is_exact`` that an
    outcome is 1 exactly where the answer is the target, and ``reads_references`` that an item's reference stands in
    the place of its target, and answers are given with the blanks around them. ``takes_several`` says that a target is
    all right answers of an item.
    """

    name: str
    kind: Kind
    summary: str
    lowest: float = 0.0
    highest: float = 1.0
    is_share: bool = False
    is_exact: bool = False
    reads_references: bool = False
    takes_several: bool = False

    @abstractmethod
    def statistics(self, targets: Sequence[Any], answers: Sequence[str]) -> np.ndarray:
        """Return (item, number) what each item adds to the sums that :meth:`value` reads."""

    @abstractmethod
    def value(self, sums: np.ndarray) -> np.ndarray:
        """Turn (…, number) sums over items into (…) scores, for all replicates at once."""

    @abstractmethod
    def point(self, targets: Sequence[Any], answers: Sequence[str]) -> float:
        """Return the score of these answers, as the library that defines it computes it."""

    def check(self, targets: Sequence[Any]) -> None:  # noqa: B027 (most scores take any text)
        """Look at the targets before anything is trained.

        Raises:
            InputError: a target cannot be scored (no number for ``numeric``, no label for ``accuracy``, …).
        """

    def scored(self, targets: Sequence[Any], answers: Sequence[str]) -> Scored:
        """Hold these answers as the intervals need them: their score under any number of draws per item.

        Raises:
            InputError: there are no items, not as many answers as targets, or a target cannot be scored.
        """
        same_number(targets, answers)
        return Sums(self.statistics(targets, answers), self.value, self.lowest, self.highest, self.is_share)


class MeanScorer(Scorer):
    """Score by the mean of a value per item."""

    @abstractmethod
    def item(self, target: str, answer: str) -> float:
        """Return the score of one answer."""

    def statistics(self, targets: Sequence[Any], answers: Sequence[str]) -> np.ndarray:
        """Return (item, 2): the item's score, and 1."""
        import numpy as np

        self.check(targets)
        scores = [self.item(target, answer) for target, answer in zip(targets, answers, strict=True)]
        return np.stack([np.array(scores, dtype=float), np.ones(len(scores))], axis=1)

    def value(self, sums: np.ndarray) -> np.ndarray:
        """Compute Σ score / Σ 1."""
        mean: np.ndarray = sums[..., 0] / sums[..., 1]
        return mean

    def point(self, targets: Sequence[Any], answers: Sequence[str]) -> float:
        """Return the mean over items."""
        same_number(targets, answers)
        return float(self.statistics(targets, answers)[:, 0].mean())


@dataclass(frozen=True, eq=False)
class Sums:
    """Hold answers as statistics (item, number) and the value of their sums; see :class:`elicitable.values.Scored`."""

    statistics: np.ndarray
    value: Callable[[np.ndarray], np.ndarray]
    lowest: float
    highest: float
    is_share: bool
    replicates: int = REPLICATES

    @property
    def items(self) -> int:
        """Count how many items were answered."""
        return len(self.statistics)

    def under(self, counts: np.ndarray) -> np.ndarray:
        """Return (replicate,) scores where item i counts ``counts[:, i]`` times: value(counts @ statistics)."""
        return self.value(counts @ self.statistics)


@dataclass(frozen=True)
class Floor:
    """Hold the best score that always giving the same answer gets, and that answer."""

    value: float
    answer: str


def floor(scorer: Scorer, targets: Sequence[Any], offered: Sequence[str] | None = None) -> Floor:
    """Say what always giving the same answer scores, in the same score.

    The answer is the best one of the ten most common texts among ``offered`` (the targets themselves by default), ties
    in the order of the alphabet.

    Raises:
        InputError: there are no targets, or one cannot be scored.

    >>> from elicitable.scores.classification import MacroF1
    >>> floor(MacroF1(("no", "yes")), ["yes", "yes", "yes", "no"])
    Floor(value=0.42857142857142855, answer='yes')
    """
    scorer.check(targets)
    counts = Counter(targets if offered is None else offered)
    common = [text for text, _ in sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:CONSTANTS]]
    values = [scorer.point(targets, [text] * len(targets)) for text in common or [""]]
    best = max(values)
    return Floor(best, (common or [""])[values.index(best)])


def same_number(targets: Sequence[Any], answers: Sequence[str]) -> None:
    """Refuse to score nothing, and answers that do not stand beside targets."""
    if not targets or len(targets) != len(answers):
        raise InputError(
            f"a score needs one answer for each target and at least one, got {len(answers)} for {len(targets)}."
        )
