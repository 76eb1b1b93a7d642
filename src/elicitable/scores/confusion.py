"""Say which label was taken for which: the confusion table, and precision, recall, F1 and support of every class."""

from __future__ import annotations

from collections.abc import Sequence

from elicitable.scores.classification import numbered
from elicitable.values import ClassResult, ClassResults


def class_results(targets: Sequence[str], answers: Sequence[str], labels: tuple[str, ...]) -> ClassResults:
    """Return the confusion table of these answers and the results of every class, from scikit-learn.

    Precision is None where the label was never answered, recall where it was nobody's target, F1 where both.

    Raises:
        InputError: there are no items, not as many answers as targets, or a target is none of the labels.

    >>> found = class_results(["a", "a", "b"], ["a", "b", "none of them"], ("a", "b"))
    >>> found.counts
    ((1, 1, 0), (0, 0, 1))
    >>> found.classes[0]
    ClassResult(label='a', precision=1.0, recall=0.5, f1=0.6666666666666666, support=2)
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    wanted, given = numbered(targets, answers, labels)
    known = list(range(len(labels)))
    counts = confusion_matrix(wanted, given, labels=[*known, len(labels)])[:-1]
    scores = precision_recall_fscore_support(wanted, given, labels=known, zero_division=float("nan"))
    return ClassResults(
        labels=labels,
        counts=tuple(tuple(int(count) for count in row) for row in counts),
        classes=tuple(
            ClassResult(label, _known(precision), _known(recall), _known(f1), int(support))
            for label, precision, recall, f1, support in zip(labels, *scores, strict=True)
        ),
    )


def _known(share: float) -> float | None:
    return None if share != share else float(share)
