"""Score by what a task brings of its own: a value per item that its library computes, and its library's aggregation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from elicitable.errors import InputError
from elicitable.scores.scorer import Scorer, same_number
from elicitable.untrusted import is_out_of_memory

if TYPE_CHECKING:
    import numpy as np

CORPUS: Final = ("bleu", "chrf", "chrf++")
PERCENT: Final = 100.0  # the scale of sacrebleu's scores
SCALES: Final = (5.0, 10.0, PERCENT, 1000.0)  # that are usual beside 1
_SLACK: Final = 1e-9  # of a value that was summed in floating point


@dataclass(frozen=True, eq=False)
class TaskScore(Scorer):
    """Score free answers by a task's own functions, which are given each item's reference and its answer verbatim.

    ``values`` returns the library's value of every answer. Where ``aggregation`` is "mean" they are numbers from 0 to
    ``scale``, and the score is Σ value / (scale · items). Where it is one of :data:`CORPUS` they are pairs of the
    references and the answer, and the score is sacrebleu's of them all, over 100. ``aggregate`` is the library's own
    aggregation of the values.
    """

    name: str
    summary: str
    values: Callable[[Sequence[Any], Sequence[str]], list[Any]]
    aggregate: Callable[[list[Any]], float]
    aggregation: str = "mean"
    scale: float = 1.0
    is_share: bool = False
    kind = "generation"
    reads_references = True

    def statistics(self, targets: Sequence[Any], answers: Sequence[str]) -> np.ndarray:
        """Return (item, 2): the item's value over ``scale``, and 1; (item, number) sacrebleu's statistics of a corpus.

        Raises:
            InputError: the library cannot compute a value, or it is no number from 0 to ``scale``.
        """
        import numpy as np

        same_number(targets, answers)
        values = self.values(targets, answers)
        if self.aggregation in CORPUS:
            return self._of_corpus(values)
        scores = [self._number(value) for value in values]
        return np.stack([np.array(scores), np.ones(len(scores))], axis=1)

    def value(self, sums: np.ndarray) -> np.ndarray:
        """Compute Σ value / Σ 1, or sacrebleu's score of summed statistics."""
        import numpy as np

        if self.aggregation not in CORPUS:
            mean: np.ndarray = sums[..., 0] / sums[..., 1]
            return mean
        metric = _sacrebleu(self.aggregation)
        rows = [metric._compute_score_from_stats(row.tolist()).score for row in sums.reshape(-1, sums.shape[-1])]
        return np.minimum(np.array(rows).reshape(sums.shape[:-1]) / PERCENT, 1.0)

    def point(self, targets: Sequence[Any], answers: Sequence[str]) -> float:
        """Return what the library's own aggregation makes of the values.

        Raises:
            InputError: it cannot.
        """
        same_number(targets, answers)
        values = self.values(targets, answers)
        scale = PERCENT if self.aggregation in CORPUS else self.scale
        try:
            return min(1.0, float(self.aggregate(values)) / scale)
        except Exception as error:  # an aggregation is a program, which raises whatever it likes
            if is_out_of_memory(error):
                raise
            raise InputError(f"the score {self.name} cannot be aggregated: {type(error).__name__}: {error}") from error

    def check(self, targets: Sequence[Any]) -> None:
        """Raise where an answer that says nothing cannot be scored."""
        self.statistics(targets, [""] * len(targets))

    def _number(self, value: Any) -> float:
        number = number_of(value) / self.scale
        if not -_SLACK <= number <= 1 + _SLACK:
            raise InputError(
                f"the score {self.name} gave an answer {value!r}, and a score of a race lies between 0 and "
                f"{self.scale:g}, which right answers get; declare another scale (of a task of lm-eval: metadata: "
                f"{{scale: 5}}), or give another score (--score)."
            )
        return min(max(number, 0.0), 1.0)

    def _of_corpus(self, values: Sequence[Any]) -> np.ndarray:
        import numpy as np

        try:
            given = [one[0] if isinstance(one[0], list | tuple) else [one[0]] for one in values]
            answers = [one[1] if isinstance(one[1], str) else one[1][0] for one in values]
            streams = list(zip(*given, strict=True))
            rows = _sacrebleu(self.aggregation)._extract_corpus_statistics(answers, streams)
        except (TypeError, ValueError, LookupError) as error:
            raise InputError(
                f"the score {self.name} needs a pair of references and an answer from every item, as many references "
                f"for each: {error}"
            ) from error
        return np.array(rows, dtype=float)


def scale_of(values: Sequence[Any]) -> float:
    """Say what the best answer gets, judging by the ``values`` of right answers, where nobody has declared it.

    At most 1 is on the scale of 1. Otherwise the highest value is full marks where half of the right answers get it,
    and elsewhere the least of :data:`SCALES` that holds them all.

    >>> scale_of([0.5, 1.0]), scale_of([5, 5, 4]), scale_of([37.5, 73.0, 100.0])
    (1.0, 5.0, 100.0)
    """
    numbers = [number for number in map(number_of, values) if not math.isnan(number)]
    best = max(numbers, default=0.0)
    if best <= 1 + _SLACK:
        return 1.0
    if 2 * sum(number >= best * (1 - _SLACK) for number in numbers) >= len(numbers):
        return best
    return next((scale for scale in SCALES if best <= scale * (1 + _SLACK)), best)


def number_of(value: Any) -> float:
    """Return a number, or one of numpy's, as a float; not-a-number for anything else."""
    is_number = isinstance(value, int | float) or (hasattr(value, "item") and getattr(value, "size", 1) == 1)
    return float(value) if is_number else math.nan


def _sacrebleu(aggregation: str) -> Any:
    """Return sacrebleu's metric of that name, with its defaults."""
    from sacrebleu.metrics import BLEU, CHRF

    return {"bleu": BLEU, "chrf": CHRF, "chrf++": lambda: CHRF(word_order=2)}[aggregation]()
