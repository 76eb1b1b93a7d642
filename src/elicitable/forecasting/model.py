"""The shipped forecast: a few hundred numbers in a JSON file, and what follows from them for one table of signals.

With the signals x, z = (x − mean) / scale, kept within ±4,

    P(a context suffices) = σ(slope · (w·z + b) + offset),

a logistic regression whose logit is calibrated by two numbers. Each score grows with the rows n it is trained on as

    score(n) = σ(a·z + a₀ + (c·z + c₀) · t),    t = (log₂ n − 8) / 4,

with intervals from what was missed on tasks that it was not fitted to. A case is *outside* of what the forecast knows
if a signal that had one value only in training has another here, or if z lies further off than 95 of 100 cases of
tasks that were left out do, by Mahalanobis' distance (zᵀ P z). There it says that it does not know.

The file is data, never code: it holds its own digest, and a file that was altered is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elicitable.errors import InputError, StoreError
from elicitable.records.digested import read_digested
from elicitable.records.schema import from_plain

if TYPE_CHECKING:
    import numpy as np

FORM = 2
FARTHEST = 4.0  # standard deviations that a signal counts at most
SHIPPED = Path(__file__).with_name("shipped.json")
MIDDLE, STRETCH = 8.0, 4.0  # t = (log2 rows − MIDDLE) / STRETCH


@dataclass(frozen=True)
class Line:
    """Hold a linear form of the standardised signals."""

    weights: tuple[float, ...]
    intercept: float


@dataclass(frozen=True)
class Growth:
    """Hold how one score grows with rows, in logits: where it stands at 256 rows, and what 16 times as many add."""

    level: Line
    rise: Line


@dataclass(frozen=True)
class Border:
    """Hold what is known: ``constant`` signals and their value; P, and the distance from which on a case is outside.

    ``refused`` is the share of cases of left-out tasks that lie beyond it.
    """

    constant: Mapping[str, float]
    precision: tuple[tuple[float, ...], ...]
    threshold: float
    refused: float


@dataclass(frozen=True)
class Forecaster:
    """Hold everything that a forecast needs, as the JSON file does.

    ``signals`` are standardised by ``means`` and ``scales``; ``chance`` with ``slope`` and ``offset`` gives the
    probability; ``context`` and ``weights`` the scores, and ``residuals`` what both missed, in logits, on the cases of
    tasks that they were not fitted to; both are scores after so many ``steps``. ``provenance`` says what it was
    trained on, with what.
    """

    form: int
    signals: tuple[str, ...]
    means: tuple[float, ...]
    scales: tuple[float, ...]
    chance: Line
    slope: float
    offset: float
    border: Border
    context: Growth
    weights: Growth
    residuals: tuple[tuple[float, ...], ...]
    rows: tuple[int, ...]
    steps: int
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that all parts are of one size.

        Raises:
            InputError: they are not, or the form is another.
        """
        if self.form != FORM:
            raise InputError(f"form must be {FORM}, not {self.form}; install the version that wrote it.")
        count = len(self.signals)
        lines = (self.chance, self.context.level, self.context.rise, self.weights.level, self.weights.rise)
        sizes = [len(self.means), len(self.scales), len(self.border.precision), *(len(one.weights) for one in lines)]
        sizes += [len(row) for row in self.border.precision]
        if set(sizes) != {count}:
            raise InputError(f"there are {count} signals, and parts of {sorted(set(sizes))} numbers.")
        if any(scale <= 0 for scale in self.scales) or any(len(pair) != 2 for pair in self.residuals):
            raise InputError("scales must be more than 0, and residuals pairs.")
        if not self.residuals or not self.rows or min(self.rows) < 1:
            raise InputError("there must be residuals, and numbers of rows of at least 1.")

    def standardised(self, values: Mapping[str, float]) -> np.ndarray:
        """Return z (signal,) of ``values`` by name, not yet cut off.

        Raises:
            InputError: a signal is missing or not a number.
        """
        import numpy as np

        wanted = (*self.signals, *self.border.constant)
        missing = [name for name in wanted if not np.isfinite(values.get(name, np.nan))]
        if missing:
            raise InputError(f"the forecast needs the signal {missing[0]!r}, which is missing or not a number.")
        x = np.array([values[name] for name in self.signals])
        z: np.ndarray = (x - np.array(self.means)) / np.array(self.scales)
        return z

    def predict(self, values: Mapping[str, float]) -> Prediction:
        """Return what follows from the signals ``values``, which hold the constant ones too."""
        import numpy as np

        z = self.standardised(values)
        cut = np.clip(z, -FARTHEST, FARTHEST)
        logit = self.slope * _at(self.chance, cut) + self.offset
        pushes = {name: self.slope * w * x for name, w, x in zip(self.signals, self.chance.weights, cut, strict=True)}
        distance = float(z @ np.array(self.border.precision) @ z)
        reasons = self._reasons(values, distance, z)
        return Prediction(
            probability=float(_sigmoid(logit)),
            is_known=not reasons,
            reasons=tuple(reasons),
            distance=distance,
            threshold=self.border.threshold,
            pushes={name: float(push) for name, push in pushes.items()},
            growth=self._growth(cut),
        )

    def _reasons(self, values: Mapping[str, float], distance: float, z: np.ndarray) -> list[str]:
        """Return the signals that no case in training had so, and the distance where it is too great."""
        found = [name for name, value in self.border.constant.items() if abs(values[name] - value) > 1e-6]
        if distance > self.border.threshold:
            far = max(range(len(z)), key=lambda nth: abs(z[nth]))
            found += [self.signals[far]] if self.signals[far] not in found else []
        return found

    def _growth(self, z: np.ndarray) -> ScoreGrowth:
        import numpy as np

        rows = np.array(self.rows, dtype=float)
        t = (np.log2(rows) - MIDDLE) / STRETCH
        lines = [_at(one.level, z) + _at(one.rise, z) * t for one in (self.context, self.weights)]
        missed = np.array(self.residuals)  # (case, arm)
        drawn = [_sigmoid(line[None, :] + missed[:, nth, None]) for nth, line in enumerate(lines)]  # (case, rows)
        bounds = [np.quantile(one, [0.05, 0.95], axis=0) for one in drawn]
        means = [_sigmoid(line) for line in lines]
        context, weights = (
            tuple(Expected(int(n), *map(float, of_n)) for n, *of_n in zip(rows, mean, low, high, strict=True))
            for mean, (low, high) in zip(means, bounds, strict=True)
        )
        return ScoreGrowth(context, weights, *_crossing(drawn[0], drawn[1], rows), self.steps)


@dataclass(frozen=True)
class Expected:
    """Hold a score that is expected at a number of rows, with its 90 % interval."""

    rows: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class ScoreGrowth:
    """Hold how the scores of a context and of low-rank weights are expected to grow with rows.

    Each is that of one arm (:func:`elicitable.forecasting.steps.arms`) after ``steps`` at one learning rate, and not of
    a finished race: it tells of the pace, and ``probability`` of where it ends.
    In ``overtaken`` of the cases that what was missed stands for, the weights get ahead and stay there by more than
    :data:`LEAD`, at ``crossing`` rows (median, and 90 % of those cases between the others); empty where in none.
    """

    context: tuple[Expected, ...]
    weights: tuple[Expected, ...]
    overtaken: float
    crossing: tuple[int, ...]
    steps: int = 0


@dataclass(frozen=True)
class Prediction:
    """Hold a forecast. ``pushes`` are what each signal adds to the logit of ``probability``.

    ``is_known`` is False where the case lies outside of what was trained on; ``reasons`` are then the signals that say
    so, and ``distance`` is held against ``threshold``.
    """

    probability: float
    is_known: bool
    reasons: tuple[str, ...]
    distance: float
    threshold: float
    pushes: Mapping[str, float]
    growth: ScoreGrowth


LEAD = 0.02  # by which weights have to be ahead: a verdict's margin


def _crossing(context: np.ndarray, weights: np.ndarray, rows: np.ndarray) -> tuple[float, tuple[int, ...]]:
    """Find, case by case of (case, rows), the fewest rows from which on ``weights`` are ahead."""
    import numpy as np

    ahead = weights > context + LEAD
    stays = np.flip(np.logical_and.accumulate(np.flip(ahead, 1), axis=1), 1)
    found = stays.any(axis=1)
    if not found.any():
        return 0.0, ()
    at = np.sort(rows[stays.argmax(axis=1)[found]])
    low, middle, high = (int(at[round(q * (len(at) - 1))]) for q in (0.05, 0.5, 0.95))
    return float(found.mean()), (middle, low, high)


def _at(line: Line, z: np.ndarray) -> float:
    import numpy as np

    return float(np.array(line.weights) @ z + line.intercept)


def _sigmoid(x: Any) -> Any:
    import numpy as np

    return 1.0 / (1.0 + np.exp(-np.asarray(x, dtype=np.float64)))


def read_forecaster(path: Path = SHIPPED) -> Forecaster:
    """Read a forecast's file.

    Raises:
        StoreError: the file is not there, was altered, or is no forecast; the message names it.
    """
    advice = "Install the package again, or train it anew: python -m elicitable.forecasting.train."
    try:
        return from_plain(Forecaster, read_digested(path, advice))
    except InputError as error:
        raise StoreError(f"{path} is no forecast ({error}). {advice}") from error


@cache
def shipped() -> Forecaster:
    """Return the forecast that comes with the package."""
    return read_forecaster()


def constants(table: Sequence[Mapping[str, float]], names: Sequence[str]) -> dict[str, float]:
    """Return the signals that have one value in the whole ``table``, and that value.

    >>> constants([{"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 3.0}], ["a", "b"])
    {'a': 1.0}
    """
    return {name: table[0][name] for name in names if len({row[name] for row in table}) == 1}
