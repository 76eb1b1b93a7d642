"""Train the forecast that is shipped, on the records of the planted cases: ``python -m elicitable.forecasting.train``.

A logistic regression with a ridge penalty, whose strength is found by leaving out whole families of tasks, calibrated
by two numbers (Platt) on the logits of left-out families; ridge regressions of the scores' logits; and the border of
what is known. scikit-learn fits; what is written is numbers.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import LogisticRegression, Ridge

from elicitable.errors import InputError
from elicitable.forecasting.model import (
    FARTHEST,
    FORM,
    MIDDLE,
    SHIPPED,
    STRETCH,
    Border,
    Forecaster,
    Growth,
    Line,
    constants,
)
from elicitable.forecasting.names import READ_OFF
from elicitable.forecasting.records import Known, read_known
from elicitable.records.digested import write_digested
from elicitable.records.provenance import versions
from elicitable.records.schema import to_plain

if TYPE_CHECKING:
    from collections.abc import Callable

Floats = NDArray[np.float64]
STRENGTHS = (0.01, 0.03, 0.1, 0.3)  # C of the logistic regression
PENALTIES = (3.0, 10.0, 30.0, 100.0, 300.0)  # α of the ridge regressions
INSIDE = 0.95  # of the cases of left-out families
EDGE = 0.01  # scores are kept so far from 0 and 1, where their logit has no end
RECORDS = Path("records/forecast")


def train(known: Sequence[Known], names: Sequence[str] = READ_OFF) -> Forecaster:
    """Fit everything to ``known`` cases; families of tasks are left out wherever something is chosen or estimated.

    ``names`` are the signals that it may use: by default those for which nothing has to be trained or shown.

    Raises:
        InputError: there are fewer than two families, or one kind of truth only.
    """
    table = [one.signals for one in known]
    families = np.array([one.family for one in known])
    truth = np.array([one.suffices for one in known])
    if len(set(families)) < 2 or len(set(truth)) < 2:
        raise InputError("a forecast is trained on at least two families of tasks and both kinds of truth.")
    constant = constants(table, names)
    used = tuple(name for name in names if name not in constant)
    x = np.array([[row[name] for name in used] for row in table])
    means, scales = x.mean(axis=0), x.std(axis=0)
    z = (x - means) / scales
    cut = np.clip(z, -FARTHEST, FARTHEST)
    chance, slope, offset = fit_chance(cut, truth, families)
    context, weights, residuals, rows = fit_growths(known, cut, families)
    return Forecaster(
        form=FORM,
        signals=used,
        means=_tuple(means),
        scales=_tuple(scales),
        chance=chance,
        slope=slope,
        offset=offset,
        border=fit_border(x, families, constant),
        context=context,
        weights=weights,
        residuals=residuals,
        rows=rows,
        steps=max(one.steps for one in known),
        provenance={
            "cases": [one.case for one in known],
            "families": sorted(set(families.tolist())),
            "models": sorted({one.model for one in known}),
            "kind": f"synthetic tasks of token ids, planted in models of {_depths(known)}",
            "races": sum(one.race is not None for one in known),
            "versions": versions(),
            "processor": sorted({one.processor for one in known}),
        },
    )


def _depths(known: Sequence[Known]) -> str:
    """Say of how many layers the models of ``known`` cases are."""
    counts = sorted({round(2 ** one.signals["layers"]) for one in known})
    *but_last, last = map(str, counts)
    return f"{', '.join(but_last)} and {last} layers" if but_last else f"{last} layer{'s' * (counts != [1])}"


def left_out(groups: NDArray[Any]) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Yield (known, left out) masks, one pair a group, in the groups' order."""
    for group in sorted(set(groups.tolist())):
        yield groups != group, groups == group


def crossed(
    fit: Callable[[Floats, NDArray[Any], NDArray[Any]], Callable[[Floats], Floats]],
    z: Floats,
    y: NDArray[Any],
    groups: NDArray[Any],
) -> Floats:
    """Return (case,) what ``fit`` on the other groups says of each case."""
    said = np.zeros(len(y))
    for others, own in left_out(groups):
        said[own] = fit(z[others], y[others], groups[others])(z[own])
    return said


def logistic(z: Floats, truth: NDArray[Any], strength: float) -> Line:
    """Fit σ(w·z + b) with the penalty ‖w‖² / (2 · ``strength``); the base rate alone where there is one class only."""
    if len(set(truth.tolist())) < 2:
        rate = (truth.sum() + 1) / (len(truth) + 2)
        return Line((0.0,) * z.shape[1], float(np.log(rate / (1 - rate))))
    fitted = LogisticRegression(C=strength, solver="newton-cholesky", max_iter=1_000, tol=1e-10).fit(z, truth)
    return Line(_tuple(fitted.coef_[0]), float(fitted.intercept_[0]))


def fit_chance(z: Floats, truth: NDArray[Any], groups: NDArray[Any]) -> tuple[Line, float, float]:
    """Fit the logistic regression at the strength that does best on left-out groups; slope and offset from there."""
    said = {strength: _logits(z, truth, groups, strength) for strength in STRENGTHS}
    platts = {strength: _platt(logits, truth) for strength, logits in said.items()}
    losses = {
        strength: log_loss(platts[strength][0] * said[strength] + platts[strength][1], truth) for strength in said
    }
    best = min(losses, key=lambda strength: losses[strength])
    return logistic(z, truth, best), *platts[best]


def _logits(z: Floats, truth: NDArray[Any], groups: NDArray[Any], strength: float) -> Floats:
    def fit(known: Floats, y: NDArray[Any], _: NDArray[Any]) -> Callable[[Floats], Floats]:
        line = logistic(known, y, strength)
        return lambda asked: asked @ np.array(line.weights) + line.intercept

    return crossed(fit, z, truth, groups)


def _platt(logits: Floats, truth: NDArray[Any]) -> tuple[float, float]:
    """Return slope and offset that make left-out ``logits`` likely; a slope below 0 would turn the answer round."""
    fitted = LogisticRegression(C=1.0, solver="newton-cholesky", tol=1e-10).fit(logits[:, None], truth)
    return max(0.05, float(fitted.coef_[0, 0])), float(fitted.intercept_[0])


def log_loss(logits: Floats, truth: NDArray[Any]) -> float:
    """Return the mean negative log-likelihood of ``truth`` (0 or 1) in nats.

    >>> round(log_loss(np.array([0.0, 0.0]), np.array([0, 1])), 4)
    0.6931
    """
    signs = np.where(truth, 1.0, -1.0)
    return float(np.logaddexp(0.0, -signs * logits).mean())


def fit_growths(
    known: Sequence[Known], z: Floats, families: NDArray[Any]
) -> tuple[Growth, Growth, tuple[tuple[float, ...], ...], tuple[int, ...]]:
    """Fit both scores against signals and rows; the residuals are those of families that were left out."""
    places = [(nth, rows) for nth, one in enumerate(known) for rows in one.by_rows]
    if len({known[nth].family for nth, _ in places}) < 2:
        raise InputError(
            "cases of at least two families need scores by rows: run python -m elicitable.forecasting.collect --rows."
        )
    x = np.array([_grown(z[nth], rows) for nth, rows in places])
    groups = families[[nth for nth, _ in places]]
    found, missed = [], []
    for arm in range(2):
        y = logit(np.array([known[nth].by_rows[rows][arm] for nth, rows in places]))
        penalty = min(PENALTIES, key=lambda one: float(np.square(y - _ridge_crossed(x, y, groups, one)).mean()))
        missed.append(y - _ridge_crossed(x, y, groups, penalty))
        found.append(_growth_of(ridge(x, y, penalty), z.shape[1]))
    rows = tuple(sorted({rows for _, rows in places}))
    grid = sorted({2**power for power in range(3, 17) if min(rows) <= 2**power <= max(rows)} | set(rows))
    return found[0], found[1], tuple(zip(*(_tuple(one) for one in missed), strict=True)), tuple(grid)


def _grown(z: Floats, rows: int) -> Floats:
    t = (np.log2(rows) - MIDDLE) / STRETCH
    grown: Floats = np.concatenate([z, z * t, [t]])
    return grown


def ridge(x: Floats, y: Floats, penalty: float) -> Line:
    """Fit w·x + b with the penalty ``penalty`` · ‖w‖²."""
    fitted = Ridge(alpha=penalty).fit(x, y)
    return Line(_tuple(fitted.coef_), float(fitted.intercept_))


def _ridge_crossed(x: Floats, y: Floats, groups: NDArray[Any], penalty: float) -> Floats:
    def fit(known: Floats, of: NDArray[Any], _: NDArray[Any]) -> Callable[[Floats], Floats]:
        line = ridge(known, of, penalty)
        return lambda asked: asked @ np.array(line.weights) + line.intercept

    return crossed(fit, x, y, groups)


def _growth_of(line: Line, signals: int) -> Growth:
    level, rise = line.weights[:signals], line.weights[signals : 2 * signals]
    return Growth(Line(level, line.intercept), Line(rise, line.weights[-1]))


def logit(scores: Floats) -> Floats:
    """Return log(s / (1 − s)) of scores kept off 0 and 1 by :data:`EDGE`."""
    kept = np.clip(scores, EDGE, 1 - EDGE)
    found: Floats = np.log(kept / (1 - kept))
    return found


def fit_border(x: Floats, families: NDArray[Any], constant: dict[str, float]) -> Border:
    """Fit P, the inverse of a shrunk covariance (Ledoit and Wolf), and how far off left-out families lie."""
    distances = np.zeros(len(x))
    for others, own in left_out(families):
        means, scales = x[others].mean(axis=0), np.maximum(x[others].std(axis=0), 1e-9)
        distances[own] = distance((x[own] - means) / scales, precision_of((x[others] - means) / scales))
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    threshold = float(np.quantile(distances, INSIDE))
    precision = tuple(_tuple(row) for row in precision_of(z))
    return Border(constant, precision, threshold, float((distances > threshold).mean()))


def precision_of(z: Floats) -> Floats:
    """Return the inverse of the shrunk covariance of standardised signals."""
    found: Floats = LedoitWolf(assume_centered=True).fit(z).precision_
    return found


def distance(z: Floats, precision: Floats) -> Floats:
    """Return (case,) zᵀ P z."""
    found: Floats = np.einsum("ci,ij,cj->c", z, precision, z)
    return found


def _tuple(numbers: Any) -> tuple[float, ...]:
    return tuple(float(number) for number in numbers)


def write(forecaster: Forecaster, path: Path) -> None:
    """Write a forecast's file, with its digest, whole or not at all."""
    write_digested(path, to_plain(forecaster), "Free the place, or choose another --out.")


def main(typed: Sequence[str] | None = None) -> None:
    """Read the records, train, write the file."""
    parser = argparse.ArgumentParser(prog="python -m elicitable.forecasting.train", description=main.__doc__)
    parser.add_argument("--records", type=Path, default=RECORDS, help=f"what collect wrote [default: {RECORDS}]")
    parser.add_argument("--out", type=Path, default=SHIPPED, help="the file to write [default: the package's own]")
    given = parser.parse_args(typed)
    known = read_known(given.records)
    forecaster = train(known)
    write(replace(forecaster, provenance={**forecaster.provenance, "trained": parser.prog}), given.out)
    print(f"{given.out}: {len(known)} cases, {len(forecaster.signals)} signals")


if __name__ == "__main__":
    main()
