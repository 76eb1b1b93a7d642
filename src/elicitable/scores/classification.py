"""Score answers that are one of K labels: accuracy, balanced accuracy, macro-F1 and Matthews' coefficient.

All are functions of three sums per class, which is all that is kept of an item: hits h_k (target and answer are k),
answers a_k and targets t_k. An answer that is not a label counts as a miss and, where answers are counted, as one
further class. The point value is scikit-learn's.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from elicitable.errors import InputError
from elicitable.scores.scorer import MeanScorer, Scorer, same_number

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Accuracy(MeanScorer):
    """Score by the share of answers that are the target."""

    labels: tuple[str, ...]
    name: str = "accuracy"
    summary: str = "share of answers that are right"
    kind = "classification"
    is_share = True

    def check(self, targets: Sequence[str]) -> None:
        """Raise unless every target is one of the labels."""
        numbered_targets(targets, self.labels)

    def item(self, target: str, answer: str) -> float:
        """Return 1 where the answer is the target."""
        return float(target == answer)

    def point(self, targets: Sequence[str], answers: Sequence[str]) -> float:
        """Return ``sklearn.metrics.accuracy_score``."""
        from sklearn.metrics import accuracy_score

        return float(accuracy_score(*numbered(targets, answers, self.labels)))


class _OverClasses(Scorer):
    """Score by hits, answers and targets per class; the statistics of an item are three one-hot rows of K+1."""

    labels: tuple[str, ...]
    kind = "classification"

    def check(self, targets: Sequence[str]) -> None:
        """Raise unless every target is one of the labels."""
        numbered_targets(targets, self.labels)

    def statistics(self, targets: Sequence[str], answers: Sequence[str]) -> np.ndarray:
        """Return (item, 3·(K+1)): hit, answer and target, each one-hot over the labels and "no label"."""
        import numpy as np

        wanted, given = numbered(targets, answers, self.labels)
        one_hot = np.eye(len(self.labels) + 1)
        hits = one_hot[wanted] * (wanted == given)[:, None]
        return np.concatenate([hits, one_hot[given], one_hot[wanted]], axis=1)

    def value(self, sums: np.ndarray) -> np.ndarray:
        """Return the score of (…, 3·(K+1)) sums."""
        import numpy as np

        return self.of_classes(*np.split(sums, 3, axis=-1))

    @abstractmethod
    def of_classes(self, hits: np.ndarray, answered: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """Turn (…, K+1) hits, answers and targets per class into (…) scores."""

    def point(self, targets: Sequence[str], answers: Sequence[str]) -> float:
        """Ask scikit-learn, without its warnings of classes that are nobody's target or the only one."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return self.by_library(*numbered(targets, answers, self.labels))

    @abstractmethod
    def by_library(self, wanted: np.ndarray, given: np.ndarray) -> float:
        """Ask scikit-learn for its value on numbered classes."""


@dataclass(frozen=True)
class BalancedAccuracy(_OverClasses):
    """Score by the mean over classes of recall, h_k / t_k: every class counts alike, however rare.

    A class without targets among the items is left out.
    """

    labels: tuple[str, ...]
    name = "balanced-accuracy"
    summary = "share of answers that are right, mean over classes"

    def of_classes(self, hits: np.ndarray, answered: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """Compute Σ_k (h_k / t_k) / #{k: t_k > 0}"""
        return _mean_of_ratios(hits, wanted)

    def by_library(self, wanted: np.ndarray, given: np.ndarray) -> float:
        """Return ``sklearn.metrics.balanced_accuracy_score``."""
        from sklearn.metrics import balanced_accuracy_score

        return float(balanced_accuracy_score(wanted, given))


@dataclass(frozen=True)
class MacroF1(_OverClasses):
    """Score by the mean over classes of F1, 2 h_k / (a_k + t_k).

    A label that is neither a target nor an answer among the items has no F1 and is left out. An answer that is not a
    label lowers the recall of the target's class and is not a class of its own.
    """

    labels: tuple[str, ...]
    name = "macro-f1"
    summary = "harmonic mean of precision and recall, mean over classes"

    def of_classes(self, hits: np.ndarray, answered: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """Compute Σ_k 2 h_k / (a_k + t_k) / #{k: a_k + t_k > 0}"""
        return _mean_of_ratios(2 * hits[..., :-1], (answered + wanted)[..., :-1])

    def by_library(self, wanted: np.ndarray, given: np.ndarray) -> float:
        """Return ``sklearn.metrics.f1_score`` over the labels, with ``zero_division=nan`` (left out of the mean)."""
        from sklearn.metrics import f1_score

        known = list(range(len(self.labels)))
        return float(f1_score(wanted, given, labels=known, average="macro", zero_division=float("nan")))


@dataclass(frozen=True)
class SecondF1(_OverClasses):
    """Score by the F1 of the second of two labels, 2 h_1 / (a_1 + t_1); 0 where it is neither target nor answer.

    It is what lm-evaluation-harness calls ``f1`` of choices.
    """

    labels: tuple[str, ...]
    name: str = "f1"
    summary: str = "harmonic mean of precision and recall of the second label"

    def of_classes(self, hits: np.ndarray, answered: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """Compute 2 h_1 / (a_1 + t_1)"""
        return _mean_of_ratios(2 * hits[..., 1:2], (answered + wanted)[..., 1:2])

    def by_library(self, wanted: np.ndarray, given: np.ndarray) -> float:
        """Return ``sklearn.metrics.f1_score`` of the second label, with ``zero_division=0``."""
        from sklearn.metrics import f1_score

        return float(f1_score(wanted, given, labels=[1], average="macro", zero_division=0.0))


@dataclass(frozen=True)
class MCC(_OverClasses):
    """Compute Matthews' correlation coefficient for K classes: 1 all right, 0 no better than chance, down to −1.

    With n items and h = Σ_k h_k, (h n − Σ a_k t_k) / √((n² − Σ a_k²)(n² − Σ t_k²)); 0 where one of the two factors is
    (always one answer). All answers that are not labels are one further class. Gorodkin, Comput. Biol. Chem. 28, 2004.
    """

    labels: tuple[str, ...]
    name: str = "mcc"
    summary: str = "Matthews' correlation of answers and targets"
    lowest = -1.0

    def of_classes(self, hits: np.ndarray, answered: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """Compute (h n − Σ a_k t_k) / √((n² − Σ a_k²)(n² − Σ t_k²))"""
        import numpy as np

        n = wanted.sum(-1)
        together = hits.sum(-1) * n - (answered * wanted).sum(-1)
        spread = (n**2 - (answered**2).sum(-1)) * (n**2 - (wanted**2).sum(-1))
        apart = spread > 0
        coefficient: np.ndarray = np.where(apart, together, 0.0) / np.sqrt(np.where(apart, spread, 1.0))
        return coefficient

    def by_library(self, wanted: np.ndarray, given: np.ndarray) -> float:
        """Return ``sklearn.metrics.matthews_corrcoef``."""
        from sklearn.metrics import matthews_corrcoef

        return float(matthews_corrcoef(wanted, given))


def numbered(targets: Sequence[str], answers: Sequence[str], labels: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return (item,) each: the numbers of targets and answers among ``labels``; K for an answer that is not a label."""
    import numpy as np

    same_number(targets, answers)
    places = {label: number for number, label in enumerate(labels)}
    wanted = numbered_targets(targets, labels)
    return np.array(wanted), np.array([places.get(answer, len(labels)) for answer in answers])


def numbered_targets(targets: Sequence[str], labels: tuple[str, ...]) -> list[int]:
    """Return the number of each target among ``labels``; raises InputError for a target that is none of them."""
    places = {label: number for number, label in enumerate(labels)}
    strange = next((target for target in targets if target not in places), None)
    if strange is not None:
        shown = ", ".join(map(repr, labels[:6])) + (", …" if len(labels) > 6 else "")
        raise InputError(f"the target {strange!r} is not one of the {len(labels)} labels ({shown}).")
    return [places[target] for target in targets]


def _mean_of_ratios(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Average above/below over the classes where below is not 0: (…, K) each to (…)."""
    import numpy as np

    counted = below > 0
    ratios = np.where(counted, above, 0.0) / np.where(counted, below, 1.0)
    mean: np.ndarray = ratios.sum(-1) / np.maximum(counted.sum(-1), 1)
    return mean
