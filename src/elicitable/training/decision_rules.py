"""Turn the costs of labels into an answer: a likelihood ranks texts, and a decision between labels may need more.

A rule divides each label's cost by a length and takes an offset off it, and answers with the least:

    answer = argmin_k ( nats_k / d_k − b_k )

* ``sum``: d = 1, b = 0, the log-likelihood as it is;
* ``per token``, ``per character`` (lm-evaluation-harness's ``acc_norm``), ``per byte`` (its ``acc_bytes``): d is the
  label's length;
* ``prior-corrected``: b_k is the label's mean cost over validation texts, whose own labels are not looked at;
* ``fitted``: b_k maximises the likelihood of validation's labels (:func:`fitted`).

Whether a person gains from a rule is decided on validation, for every arm alike (:func:`choose`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from elicitable.errors import InputError

FOLDS = 5
NO_LENGTH = 1e-300  # of a label that is its lead alone: it costs more than any other, as where one divides by 0
Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
Value = Callable[[Labels, Labels], float]


@dataclass(frozen=True, slots=True)
class DecisionRule:
    """Answer argmin_k nats_k / d_k − b_k, with ``divisors`` d and ``offsets`` b, one per label.

    Where items bring their own choices, both are empty, and :meth:`of_lengths` gives an item's own.
    """

    name: str
    divisors: tuple[float, ...]
    offsets: tuple[float, ...]

    @property
    def numbers(self) -> int:
        """Count the numbers taken from validation: K − 1 with offsets, as adding one to all of them changes nothing."""
        return len(self.offsets) - 1 if self.name in ("prior-corrected", "fitted") else 0

    def costs(self, nats: Any) -> Floats:
        """Return (item, label) nats_k / d_k − b_k.

        Raises:
            InputError: the matrix has another number of labels than the rule.
        """
        matrix = _matrix(nats)
        if matrix.shape[1] != len(self.divisors):
            raise InputError(f"the rule is for {len(self.divisors)} labels, the costs are of {matrix.shape[1]}.")
        found: Floats = matrix / np.array(self.divisors) - np.array(self.offsets)
        return found

    def decide(self, nats: Any) -> Labels:
        """Decide (item,) labels, one per item; the first of those that are equally good."""
        answers: Labels = self.costs(nats).argmin(axis=1)
        return answers

    def of_lengths(self, lengths: Lengths) -> DecisionRule:
        """Return the rule for labels of these ``lengths``, where it has none yet.

        >>> DecisionRule("per byte", (), ()).of_lengths(Lengths.of(("no", "naïve"), (1, 2))).divisors
        (2.0, 6.0)
        """
        return self if self.divisors else by_length(self.name, lengths)

    def record(self) -> dict[str, Any]:
        """Return the rule as plain JSON values; :meth:`of_record` reads it back, bit for bit."""
        return {"name": self.name, "divisors": list(self.divisors), "offsets": list(self.offsets)}

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> DecisionRule:
        """Return the rule that :meth:`record` wrote.

        >>> rule = DecisionRule("prior-corrected", (1.0, 1.0), (0.25, 3.5))
        >>> DecisionRule.of_record(rule.record()) == rule
        True
        """
        return cls(str(record["name"]), tuple(map(float, record["divisors"])), tuple(map(float, record["offsets"])))


@dataclass(frozen=True, slots=True)
class Lengths:
    """Say how long each label is, without the separator before it: in tokens, characters and bytes of UTF-8."""

    tokens: tuple[int, ...]
    characters: tuple[int, ...]
    bytes: tuple[int, ...]

    @classmethod
    def of(cls, labels: Sequence[str], tokens: Sequence[int], lead: str | None = None) -> Lengths:
        """Measure ``labels`` behind the ``lead`` that all of them begin with; ``tokens`` are counted by the caller.

        Where no lead is given, white space at either end is not counted.

        >>> Lengths.of((" no", " naïve"), (1, 2))
        Lengths(tokens=(1, 2), characters=(2, 5), bytes=(2, 6))
        >>> Lengths.of((" no ", " naïve"), (1, 2), lead=" ").characters
        (3, 5)
        """
        bare = [label.strip() or label if lead is None else label.removeprefix(lead) for label in labels]
        for label, length in zip(labels, tokens, strict=True):
            if not label or length < 1:
                raise InputError(f"the label {label!r} has no length ({length} tokens).")
        return cls(tuple(tokens), tuple(map(len, bare)), tuple(len(text.encode()) for text in bare))


def by_length(name: str, lengths: Lengths) -> DecisionRule:
    """Return a rule of :data:`BY_LENGTH`, which takes no numbers from validation."""
    count = len(lengths.tokens)
    divisors = {
        "sum": (1,) * count,
        "per token": lengths.tokens,
        "per character": lengths.characters,
        "per byte": lengths.bytes,
    }
    return DecisionRule(name, tuple(float(length) or NO_LENGTH for length in divisors[name]), (0.0,) * count)


@dataclass(frozen=True, slots=True)
class ChosenRule:
    """Hold the rule that did best on validation, and what each did there, cross-validated."""

    rule: DecisionRule
    estimates: Mapping[str, float]


def candidates(nats: Any, truth: Any, lengths: Lengths) -> tuple[DecisionRule, ...]:
    """Return every rule, the simplest first, with its numbers from these validation items.

    Args:
        nats: (item, label) costs.
        truth: (item,) the place of the right label.
        lengths: of the labels.
    """
    matrix, right = _checked(nats, truth)
    return (*(by_length(name, lengths) for name in BY_LENGTH), prior_corrected(matrix), fitted(matrix, right))


def decide_by_length(nats: Any, lengths: Sequence[Sequence[float]]) -> Labels:
    """(item,) argmin_k nats_ik / lengths_ik, for items that bring their own choices, the first of equals.

    ``lengths[i]`` are those of item i's choices. What stands behind them in a row of ``nats`` is no choice.

    >>> decide_by_length([[2.0, 3.0], [2.0, float("inf")]], [(1, 2), (1,)]).tolist()
    [1, 0]
    """
    matrix = _matrix(nats)
    if len(lengths) != len(matrix):
        raise InputError(f"{len(lengths)} items have lengths and {len(matrix)} have costs; give one row each.")
    rows = [row[: len(own)] / np.array(own) for row, own in zip(matrix, lengths, strict=True)]
    return np.array([int(row.argmin()) for row in rows], dtype=np.int64)


def prior_corrected(nats: Any) -> DecisionRule:
    """Return the rule that takes off each label's mean cost over texts, which need no labels.

    >>> prior_corrected([[1.0, 5.0], [3.0, 5.0]]).decide([[1.9, 5.0], [2.1, 5.0]]).tolist()
    [0, 1]
    """
    matrix = _matrix(nats)
    return DecisionRule("prior-corrected", (1.0,) * matrix.shape[1], tuple(matrix.mean(axis=0).tolist()))


def fitted(nats: Any, truth: Any, penalty: float = 1.0) -> DecisionRule:
    """Fit offsets that make validation's labels likely: logistic regression with one slope for all labels.

    With c_k = nats_k − (label k's mean), the slope s and biases δ minimise

        −Σ_i log softmax(−s·c_i + δ)[y_i] + penalty/2 · (‖δ‖² + (log s)²),

    and b_k = mean_k + δ_k / s: an argmin does not see the slope. Without evidence δ is 0, which is the prior-corrected
    rule. The problem is smooth and small and is solved in float64 by L-BFGS from δ = 0, s = 1, so that the same numbers
    give the same rule.
    """
    matrix, right = _checked(nats, truth)
    mean = matrix.mean(axis=0)
    costs, target = torch.from_numpy(matrix - mean), torch.from_numpy(right)
    bias = torch.zeros(matrix.shape[1], dtype=torch.float64, requires_grad=True)
    log_slope = torch.zeros((), dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS(
        [bias, log_slope], max_iter=200, tolerance_grad=1e-9, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        with torch.enable_grad():
            solver.zero_grad()
            wrong = torch.nn.functional.cross_entropy(bias - log_slope.exp() * costs, target, reduction="sum")
            total = wrong + penalty / 2 * (bias.square().sum() + log_slope.square())
            total.backward()  # type: ignore[no-untyped-call]
        return total

    solver.step(loss)  # type: ignore[arg-type]
    offsets = mean + (bias / log_slope.exp()).detach().numpy()
    return DecisionRule("fitted", (1.0,) * matrix.shape[1], tuple(offsets.tolist()))


def choose(
    nats: Any, truth: Any, lengths: Lengths, *, groups: Sequence[Any] | None = None, value: Value | None = None
) -> ChosenRule:
    """Choose the best rule on validation; of equally good ones the simplest.

    A rule that takes numbers from validation is estimated on items that they were not taken from: in
    :data:`FOLDS` parts, the same for every arm, and with ``groups`` (the same text twice) whole groups together. The
    rule that is returned has its numbers from all of validation.

    Args:
        nats: (item, label) costs on validation.
        truth: (item,) the place of the right label.
        lengths: of the labels.
        groups: what belongs together, one per item; every item is its own group by default.
        value: score of (truth, answers), larger is better; the share of right answers by default.
    """
    matrix, right = _checked(nats, truth)
    score = value or _accuracy
    folds = _folds(len(right), groups)
    answers = np.zeros((len(RULES), len(right)), dtype=np.int64)
    for fold in range(int(folds.max()) + 1):
        out = folds == fold
        known = ~out if bool((~out).any()) else out
        for place, rule in enumerate(candidates(matrix[known], right[known], lengths)):
            answers[place, out] = rule.decide(matrix[out])
    estimates = {name: float(score(right, given)) for name, given in zip(RULES, answers, strict=True)}
    best = max(RULES, key=lambda name: estimates[name])  # the first of equals
    rules = {rule.name: rule for rule in candidates(matrix, right, lengths)}
    return ChosenRule(rules[best], estimates)


BY_LENGTH = ("sum", "per token", "per character", "per byte")
RULES = (*BY_LENGTH, "prior-corrected", "fitted")
SUM = DecisionRule("sum", (), ())


def _folds(items: int, groups: Sequence[Any] | None) -> Labels:
    """Return (item,) which fold: every fifth group, in the items' own order."""
    if groups is None:
        return np.arange(items, dtype=np.int64) % min(FOLDS, items)
    if len(groups) != items:
        raise InputError(f"{len(groups)} groups were given for {items} items.")
    places = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    return np.array([places[group] for group in groups], dtype=np.int64) % min(FOLDS, len(places))


def _accuracy(truth: Labels, answers: Labels) -> float:
    return float((truth == answers).mean())


def _matrix(nats: Any) -> Floats:
    matrix = np.asarray(nats, dtype=np.float64)
    if matrix.ndim != 2 or not matrix.size:
        raise InputError(f"costs are (item, label), at least one of each; got shape {matrix.shape}.")
    return matrix


def _checked(nats: Any, truth: Any) -> tuple[Floats, Labels]:
    matrix, right = _matrix(nats), np.asarray(truth, dtype=np.int64)
    if right.shape != (len(matrix),):
        raise InputError(f"{len(matrix)} items have {right.size} right labels; give one each.")
    if right.min() < 0 or right.max() >= matrix.shape[1]:
        raise InputError(f"a right label is at place {right.max()}, but there are {matrix.shape[1]} labels from 0.")
    if not np.isfinite(matrix).all():
        raise InputError("a label's cost is not a number; a model that gives NaN or infinity cannot be calibrated.")
    return matrix, right
