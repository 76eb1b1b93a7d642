"""Races drawn at random for tests of the decision: every rule of the verdict meets its edges among them."""

from __future__ import annotations

import numpy as np

from elicitable.diagnosis.intervals import interval
from elicitable.diagnosis.tried import LEFT
from elicitable.diagnosis.verdict import Evidence, gather
from elicitable.methods.catalog import METHODS
from elicitable.values import ArmResult, Budget, CurvePoint, Effort

STOPPED = ("solved", "plateau", "steps", "time", "passes", LEFT)


def race(seed: int) -> Evidence:
    """A race of two to all built-in methods on 30 to 300 items, and what its decision rests on."""
    rng = np.random.default_rng(seed)
    items = int(rng.integers(30, 300))
    hardness = rng.random(items)
    methods = [one for one in METHODS if rng.random() < 0.7][:9] or list(METHODS[:2])
    arms = [_arm(one, rng, hardness) for one in methods]
    floor = float(rng.choice([0.0, 0.1, 0.5]))
    return gather(arms, floor=floor, seed=0, highest=float(rng.choice([1.0, 0.9])))


def margins_of(evidence: Evidence, starts: tuple[float, ...], seed: int) -> list[float]:
    """Margins to compare at: every start with its neighbours, the numbers of the record, and some in between."""
    rng = np.random.default_rng(seed)
    edges = [*starts, *(number for gap in evidence.gaps for number in (gap.low, gap.high, gap.mean))]
    beside = [float(np.nextafter(edge, to)) for edge in edges for to in (0.0, edge, 1.0)]
    drawn = (10 ** rng.uniform(-3, 0, 5)).tolist()
    return [margin for margin in (*beside, *drawn, 0.01, 0.02, 0.05) if 0.0 < margin < 1.0]


def _arm(method: object, rng: np.random.Generator, hardness: np.ndarray) -> ArmResult:
    skill = float(rng.choice([0.05, 0.3, 0.85, 0.9, 0.92, 1.1])) + 0.02 * float(rng.normal())
    seeds = int(rng.integers(1, 3))
    noise = rng.normal(0, 0.08, (seeds, len(hardness)))
    correct = tuple(tuple(int(right) for right in own) for own in (hardness + noise < skill))
    status = str(rng.choice(["ok", "ok", "ok", "ok", "ok", "ok", "diverged"]))
    is_trained = bool(getattr(method, "is_trained"))  # noqa: B009
    rises = rng.random() < 0.4
    scores = np.linspace(0.1, skill, 6) if rises else np.full(6, skill)
    low, high = interval(correct, 0)
    return ArmResult(
        method=method.name,
        rung=method.rung,
        setting={},
        budget=Budget(int(rng.integers(0, 3)) * 100, 0, 0),
        status=status,
        stopped=str(rng.choice(STOPPED)),
        mean=float(np.mean(correct)),
        low=low,
        high=high,
        items=len(hardness),
        seeds=seeds,
        steps=int(rng.choice([8, 60, 400])) if is_trained else 0,
        correct=correct if status == "ok" else (),
        curves=(tuple(CurvePoint(10 * nth, 1.0, float(one)) for nth, one in enumerate(scores)),) if is_trained else (),
        effort=None if is_trained else Effort(int(rng.integers(1, 9)), 9, 64, int(rng.choice([8, 64])), 1.0, 0.5, 0.4),
    )
