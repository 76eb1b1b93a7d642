"""Score by a person's own function of one target and answer, or of all of them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from elicitable.errors import InputError
from elicitable.scores.scorer import MeanScorer, Scorer, same_number
from elicitable.untrusted import is_out_of_memory
from elicitable.values import Scored

if TYPE_CHECKING:
    import numpy as np

# Words in the names of parameters, by which targets and what a model wrote are told apart.
TARGETS = frozenset({"target", "reference", "ref", "gold", "golden", "expected", "truth", "true", "label", "correct"})
WRITTEN = frozenset(
    {"prediction", "predicted", "pred", "output", "response", "generated", "hypothesis", "hyp", "completion", "model"}
)
FEWER_REPLICATES = 1_000  # the function runs once for each


@dataclass(frozen=True)
class OwnItemScore(MeanScorer):
    """Score by the mean of ``function(target, answer)``, a number from 0 to 1, over items."""

    function: Callable[[str, str], float]
    name: str
    is_swapped: bool = False  # whether it takes the answer first
    kind = "generation"
    summary = "mean of a function of one's own"

    def item(self, target: str, answer: str) -> float:
        """Return the function's value."""
        return _called(self, (target, answer))


@dataclass(frozen=True)
class OwnScore(Scorer):
    """Score by ``function(targets, answers)``, a number from 0 to 1, of all items together.

    Nothing is known of what it sums, so intervals call it again on every resample (1,000 of them).
    """

    function: Callable[[list[str], list[str]], float]
    name: str
    is_swapped: bool = False  # whether it takes the answers first
    kind = "generation"
    summary = "a function of one's own of all items"

    def statistics(self, targets: Sequence[str], answers: Sequence[str]) -> np.ndarray:
        """Refuse: a function of all items has no statistics per item; see :meth:`scored`."""
        raise InputError(f"{self.name} is a function of all items and has no statistics per item.")

    def value(self, sums: np.ndarray) -> np.ndarray:
        """Refuse, like the statistics."""
        raise InputError(f"{self.name} is a function of all items and has no statistics per item.")

    def point(self, targets: Sequence[str], answers: Sequence[str]) -> float:
        """Return the function's value."""
        same_number(targets, answers)
        return _called(self, (list(targets), list(answers)))

    def scored(self, targets: Sequence[str], answers: Sequence[str]) -> Scored:
        """Hold these answers; any number of draws per item is a list in which items stand that often."""
        same_number(targets, answers)
        return _Resampled(self, tuple(targets), tuple(answers))


@dataclass(frozen=True, eq=False)
class _Resampled:
    scorer: OwnScore
    targets: tuple[str, ...]
    answers: tuple[str, ...]
    lowest: float = 0.0
    highest: float = 1.0
    is_share: bool = False
    replicates: int = FEWER_REPLICATES

    @property
    def items(self) -> int:
        return len(self.targets)

    def under(self, counts: np.ndarray) -> np.ndarray:
        import numpy as np

        drawn = [np.repeat(np.arange(self.items), row.astype(int)).tolist() for row in counts]
        return np.array(
            [self.scorer.point([self.targets[i] for i in row], [self.answers[i] for i in row]) for row in drawn]
        )


def own_score(function: Callable[..., Any], name: str = "") -> Scorer:
    """Return the score that a person's function defines.

    It gets a target and an answer in this order, unless the names of its parameters tell another (``prediction,
    reference``). Where they are ``targets`` and something, or two such names in the plural, it gets all of them.

    Raises:
        InputError: it is not a function, or does not take two arguments by position.

    >>> own_score(lambda target, answer: float(target in answer), "contains").point(["a", "b"], ["ab", "a"])
    0.5
    """
    name = name or getattr(function, "__name__", "own")
    try:
        signature = inspect.signature(function)
        signature.bind("target", "answer")
    except (TypeError, ValueError) as error:
        raise InputError(f"the score {name} is no function of (target, answer) or (targets, answers).") from error
    first, second = (*signature.parameters, "")[:2]
    is_swapped = _told(first) > _told(second)
    is_of_all = (second if is_swapped else first) == "targets" or (_is_plural(first) and _is_plural(second))
    return (OwnScore if is_of_all else OwnItemScore)(function, name, is_swapped)


def _told(parameter: str) -> int:
    """Return by how much a name tells that answers are given there: below 0 where it tells of targets.

    ``answer`` alone is an answer beside a ``target``, and the right one beside a ``prediction``.

    >>> [_told(name) for name in ("gold_answer", "one", "answer", "predicted_label")]
    [-1, 0, 1, 2]
    """
    words = [word for part in parameter.lower().split("_") for word in (part, part.removesuffix("s"))]
    return next((-1 if word in TARGETS else 2 for word in words if word in TARGETS | WRITTEN), int("answer" in words))


def _is_plural(parameter: str) -> bool:
    """Say whether a known name is one of several."""
    return _told(parameter) != 0 and parameter.endswith("s") and not parameter.endswith("is")


def _called(scorer: OwnItemScore | OwnScore, arguments: tuple[Any, Any]) -> float:
    """Return the function's value, looked at: a finite number from 0 to 1."""
    given = "" if isinstance(scorer, OwnScore) else f" for the target {arguments[0]!r} and the answer {arguments[1]!r}"
    function: Callable[..., Any] = scorer.function
    try:
        result = function(*arguments[::-1] if scorer.is_swapped else arguments)
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error):
            raise
        raise InputError(f"the score {scorer.name} raised {type(error).__name__}{given}: {error}.") from error
    try:
        number = float(result)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(result, str) or not 0 <= number <= 1:
        raise InputError(f"the score {scorer.name} has to be a number from 0 to 1, got {result!r}{given}.")
    return number
