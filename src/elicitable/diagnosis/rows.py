"""Fit how a score grows with the training rows, and say what more rows would buy.

The curve is the usual one of learning with data,

    score(n) = c − a · n⁻ᵇ,    a ≥ 0,  c ≤ the highest score,

fitted by least squares to the scores at a few numbers of rows. Its intervals come from fitting it again to every
bootstrap replicate of the test items, the same ones for all numbers of rows and all methods; so what two curves have
in common falls out of where they cross. A curve through few points says little far away from them, and its interval
does not know that the form may be wrong. The scores themselves have the intervals of the race
(:func:`~elicitable.diagnosis.intervals.interval`), and where all answers are the same at all numbers of rows, so that
no replicate has a gain, the gain may still be as large as so few items cannot tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from elicitable.diagnosis.intervals import TIED, Arm, Groups, by_seed, interval, point, replicates
from elicitable.diagnosis.shares import kish, tango
from elicitable.errors import InputError

if TYPE_CHECKING:
    import numpy as np

REPLICATES = 1_000
POWERS = tuple(0.1 * step for step in range(1, 21))  # b, searched on a grid
AHEAD = 4  # times the most rows that a crossing is looked for


@dataclass(frozen=True, slots=True)
class Estimate:
    """Hold a number with its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Growth:
    """Hold how one method grows: the scores at the rows tried, the curve there and ahead, and what comes next.

    ``scores`` and ``curve`` are by number of rows; ``next_rows`` more rows than the most that was tried bring ``gain``.
    """

    method: str
    scores: Mapping[int, Estimate]
    curve: Mapping[int, Estimate]
    next_rows: int
    gain: Estimate


@dataclass(frozen=True, slots=True)
class Crossing:
    """Hold where the second method overtakes the first: in ``share`` of the replicates, at ``rows`` in these."""

    first: str
    second: str
    share: float
    rows: Estimate | None


def grow(
    arms: Mapping[str, Mapping[int, Arm]], *, seed: int, next_rows: int = 200, groups: Groups = (), highest: float = 1.0
) -> tuple[Growth, ...]:
    """Fit the curve of every method in ``arms`` (outcomes on the same test items, by number of rows).

    Raises:
        InputError: a method has fewer than two numbers of rows.
    """
    fits = _fits(arms, seed, groups, highest)
    return tuple(_growth(name, arms[name], *fits[name], next_rows, seed, groups) for name in arms)


def crossing(
    arms: Mapping[str, Mapping[int, Arm]],
    first: str,
    second: str,
    *,
    seed: int,
    groups: Groups = (),
    highest: float = 1.0,
) -> Crossing:
    """Find the fewest rows from which ``second`` stays above ``first``, up to :data:`AHEAD` times the most tried."""
    import numpy as np

    fits = _fits({name: arms[name] for name in (first, second)}, seed, groups, highest)
    most = max(arms[first])
    grid = np.unique(np.geomspace(min(arms[first]), AHEAD * most, 400).round())
    ahead = _at(fits[second][1], grid) > _at(fits[first][1], grid)  # (replicate, rows)
    stays = np.flip(np.logical_and.accumulate(np.flip(ahead, 1), axis=1), 1)
    found = stays.any(axis=1)
    if not found.any():
        return Crossing(first, second, 0.0, None)
    rows = grid[stays.argmax(axis=1)[found]]
    return Crossing(first, second, float(found.mean()), _estimate(float(np.median(rows)), rows))


def _fits(
    arms: Mapping[str, Mapping[int, Arm]], seed: int, groups: Groups, highest: float
) -> dict[str, tuple[dict[int, np.ndarray], np.ndarray]]:
    """Return for every method its replicates by rows, and (replicate, 3) limits, amounts and powers of their curves."""
    import numpy as np

    if any(len(by_rows) < 2 for by_rows in arms.values()):
        raise InputError("a curve over rows needs at least two numbers of rows of every method.")
    flat = {f"{name} {rows}": arm for name, by_rows in arms.items() for rows, arm in by_rows.items()}
    drawn = replicates(flat, seed, REPLICATES, groups)
    fits = {}
    for name, by_rows in arms.items():
        own = {rows: drawn[f"{name} {rows}"] for rows in sorted(by_rows)}
        fits[name] = own, fitted(np.array(list(own), dtype=float), np.stack(list(own.values()), axis=1), highest)
    return fits


def fitted(rows: np.ndarray, scores: np.ndarray, highest: float = 1.0) -> np.ndarray:
    """Fit (replicate, rows) ``scores`` at ``rows``; (replicate, 3): c, a and b of the best curve each.

    >>> import numpy as np
    >>> n = np.array([16.0, 64.0, 256.0])
    >>> [[round(float(x), 3) for x in fit] for fit in fitted(n, (0.9 - 2.0 * n**-0.5)[None])]
    [[0.9, 2.0, 0.5]]
    """
    import numpy as np

    best, least = np.zeros((len(scores), 3)), np.full(len(scores), np.inf)
    for power in POWERS:
        x = rows**-power
        spread = x - x.mean()
        amount = np.maximum(0.0, -(scores @ spread) / (spread @ spread))
        limit = scores.mean(axis=1) + amount * x.mean()
        is_above = limit > highest
        amount = np.where(is_above, np.maximum(0.0, (highest - scores) @ x / (x @ x)), amount)
        limit = np.where(is_above, highest, limit)
        error = ((scores - limit[:, None] + amount[:, None] * x) ** 2).sum(axis=1)
        better = error < least - 1e-15
        best[better] = np.stack([limit, amount, np.full(len(scores), power)], axis=1)[better]
        least = np.minimum(least, error)
    return best


def _at(fits: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return (replicate, rows) what the curves say at ``rows``."""
    limit, amount, power = (fits[:, [nth]] for nth in range(3))
    found: np.ndarray = limit - amount * rows[None, :] ** -power
    return found


def _growth(
    name: str,
    by_rows: Mapping[int, Arm],
    own: Mapping[int, np.ndarray],
    fits: np.ndarray,
    next_rows: int,
    seed: int,
    groups: Groups,
) -> Growth:
    import numpy as np

    most = max(own)
    places = sorted({*own, *(int(n) for n in np.geomspace(min(own), AHEAD * most, 24).round())})
    lines = _at(fits, np.array(places, dtype=float))
    gains = _at(fits, np.array([most + next_rows], dtype=float))[:, 0] - _at(fits, np.array([most], dtype=float))[:, 0]
    return Growth(
        method=name,
        scores={rows: Estimate(point(by_rows[rows]), *interval(by_rows[rows], seed, groups)) for rows in own},
        curve={rows: _estimate(float(np.median(lines[:, nth])), lines[:, nth]) for nth, rows in enumerate(places)},
        next_rows=next_rows,
        gain=_gain(gains, by_rows[most], groups),
    )


def _gain(gains: np.ndarray, arm: Arm, groups: Groups) -> Estimate:
    """Return the gain with its interval: of equal answers, up to where that many items cannot tell."""
    import numpy as np

    found, scored = _estimate(float(np.median(gains)), gains), by_seed(arm)[0]
    if found.high > TIED:
        return found
    _, unseen = tango(0, 0, kish(groups, scored.items))
    return Estimate(found.mean, found.low, unseen * (scored.highest - scored.lowest))


def _estimate(mean: float, drawn: Sequence[float] | np.ndarray) -> Estimate:
    import numpy as np

    low, high = np.quantile(np.asarray(drawn), [0.025, 0.975])
    return Estimate(mean, float(low), float(high))
