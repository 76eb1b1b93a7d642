"""Say of one arm how far it was tried: whether it was cut off, still rose, or was hardly trained or searched at all."""

from __future__ import annotations

import math

from elicitable.values import ArmResult, CurvePoint

FEWEST_STEPS = 20  # no more than the warm-up: what was cut off earlier says nothing of what a method can do
FEWEST_CANDIDATES, FEWEST_ITEMS = 4, 16  # of a search that was cut off and still says what a method can do
LEFT = "settled"  # why an arm's training stopped that could no longer change the label


def is_rising(arm: ArmResult) -> bool:
    """Say whether an arm was cut off while its validation score still rose by a point or more in its last third."""
    return arm.stopped in ("time", "steps") and slope(arm) > 0.01


def is_barely_trained(arm: ArmResult) -> bool:
    """Say whether an arm was cut off within its first :data:`FEWEST_STEPS`, as many rows as those read usually."""
    is_short = arm.steps < fewest_steps(arm.share_of_batch)
    return arm.effort is None and arm.stopped in ("time", "steps") and is_short


def fewest_steps(share_of_batch: float) -> int:
    """Return the steps from which on an arm is more than barely trained, each on a share of the usual rows.

    >>> fewest_steps(1.0), fewest_steps(0.25)
    (20, 80)
    """
    return math.ceil(FEWEST_STEPS / share_of_batch)


def is_barely_searched(arm: ArmResult) -> bool:
    """Say whether the search of an arm was cut off after a few candidates, or chose on a few items."""
    effort = arm.effort
    if effort is None or arm.stopped not in ("time", "passes"):
        return False
    return effort.candidates < min(FEWEST_CANDIDATES, effort.offered) or effort.items < FEWEST_ITEMS


def is_barely_tried(arm: ArmResult) -> bool:
    """Say whether an arm was hardly trained, or hardly searched where it is chosen."""
    return is_barely_trained(arm) or is_barely_searched(arm)


def could_catch_up(arm: ArmResult, best: ArmResult, margin: float) -> bool:
    """Say whether an arm that was cut off would reach the best within twice its time, at the pace of its last third."""
    if arm.stopped not in ("time", "steps") or arm.mean is None or best.mean is None:
        return False
    return slope(arm) > 0.01 and arm.mean + 3 * slope(arm) >= best.mean - margin


def slope(arm: ArmResult) -> float:
    """Measure the rise of the validation score over the last third of the steps, mean over seeds."""
    rises = [_rise(curve) for curve in arm.curves if len(curve) >= 3]
    return sum(rises) / len(rises) if rises else 0.0


def _rise(curve: tuple[CurvePoint, ...]) -> float:
    """Subtract the best before the last third from the best of it."""
    border = curve[-1].step * 2 / 3
    before = [p.validation or 0.0 for p in curve if p.step <= border]
    after = [p.validation or 0.0 for p in curve if p.step > border]
    return max(after) - max(before) if before and after else 0.0
