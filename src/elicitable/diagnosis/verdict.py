"""Decide the verdict: the least invasive way that is not worse than the best by more than a margin.

Each way is compared in pairs with the best one. With the 95 % interval [low, high] of (best − way):

    enough   high ≤ margin        worse   low > margin        open   otherwise

The verdict is the least invasive way that is not worse; if that way is still open, it is ``inconclusive``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from elicitable.diagnosis.intervals import LEVEL, Arm, Groups, gap
from elicitable.values import ArmResult, CurvePoint

OPEN_LABELS = ("out-of-reach", "inconclusive")  # the verdicts that speak of no rung
FEWEST_STEPS = 20  # no more than the warm-up: what was cut off earlier says nothing of what a method can do
LEFT = "settled"  # why an arm's training stopped that could no longer change the label
SHARE = 2  # times the steps of the arm that solved the task quickest: what every other arm is owed
FEWEST_CANDIDATES, FEWEST_ITEMS = 4, 16  # of a search that was cut off and still says what a method can do
Standing = Literal["enough", "worse", "open"]


@dataclass(frozen=True)
class Comparison:
    """Hold one arm beside the best: the mean and interval of (best − arm), and where that leaves it.

    ``outpaced_by`` solved the task in half the steps after which this arm was cut off while still improving.
    """

    arm: ArmResult
    mean: float
    low: float
    high: float
    standing: Standing
    outpaced_by: ArmResult | None = None


@dataclass(frozen=True)
class Decision:
    """Hold a label, the reasons for it in the order a person would want them, and what it rests on.

    ``answer`` is the arm that the label speaks of, if it speaks of one. ``because`` is the first reason as far as it
    does not hang on the very number of the margin.
    """

    label: str
    reasons: tuple[str, ...]
    compared: tuple[Comparison, ...] = ()
    answer: str = ""
    because: str = ""


@dataclass(frozen=True)
class Reason:
    """Hold a reason: its part that stays while the standings do, and what it says of the margin's own number."""

    because: str
    of_margin: str = ""

    def __str__(self) -> str:
        """Return the whole sentence."""
        return f"{self.because}{self.of_margin}"


def right_or_wrong(arm: ArmResult) -> Arm:
    """Take an arm's outcomes per item as they are, for a score that is the share of right answers."""
    return arm.correct


@dataclass(frozen=True)
class Gap:
    """Hold how far an arm is behind the best one, in pairs over items: mean and interval of (best − arm)."""

    arm: ArmResult
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Evidence:
    """Hold what a decision rests on, whatever the margin: it is gathered once, and decided at any margin.

    Attributes:
        arms: all of the race; ``gaps`` are those that are judged, beside ``best``.
        solver: the arm that solved the task in the fewest steps. Whoever had twice its steps had a fair share, and is
            judged by where it stands.
        floor: what always giving the one most common answer scores; the best must beat it by the margin.
        highest: the best that the score can be.
    """

    arms: tuple[ArmResult, ...]
    gaps: tuple[Gap, ...]
    best: ArmResult | None
    solver: ArmResult | None
    floor: float
    highest: float = 1.0

    def decide(self, margin: float) -> Decision:
        """Decide at ``margin``, how much worse still counts as good enough, in units of the score."""
        if self.best is None:
            reason = "No arm of the race finished; see each arm's status for the reason."
            return Decision("inconclusive", (reason,), because=reason)
        compared = tuple(_compare(self.best, gap, self.solver, margin) for gap in self.gaps)
        if is_near_the_floor(self.best, self.floor, margin):
            label, reason = _out_of_reach(self.best, self.floor, [gap.arm for gap in self.gaps])
            return Decision(label, (reason, *_missing(self.arms)), compared, because=reason)
        return _climb(compared, self, self.best, margin)


def gather(
    arms: Sequence[ArmResult],
    *,
    floor: float,
    seed: int,
    outcome: Callable[[ArmResult], Arm] = right_or_wrong,
    groups: Groups = (),
    highest: float = 1.0,
    level: float = LEVEL,
) -> Evidence:
    """Compare every arm that is judged with the best one.

    Args:
        arms: results on the same test items, in the same order of items.
        floor: what always giving the one most common answer scores; the best must beat it by the margin.
        seed: of the bootstrap.
        outcome: gives what the intervals draw from. groups: items of one of them are drawn together.
        highest: the best that the score can be.
        level: that of the intervals, so that all looks at one comparison keep 95 % together
            (:mod:`elicitable.diagnosis.looks`).
    """
    judged = [arm for arm in arms if arm.status == "ok" and arm.correct and not arm.is_control]
    best = max(judged, key=lambda arm: arm.mean or 0.0, default=None)
    solver = min((arm for arm in judged if arm.stopped == "solved"), key=lambda arm: arm.steps, default=None)

    def behind(arm: ArmResult) -> Gap:
        if best is None or arm is best:
            return Gap(arm, 0.0, 0.0, 0.0)
        return Gap(arm, *gap(outcome(best), outcome(arm), seed, groups, level))

    return Evidence(tuple(arms), tuple(map(behind, judged)), best, solver, floor, highest)


def decide(arms: Sequence[ArmResult], *, margin: float, floor: float, seed: int, **more: Any) -> Decision:
    """Decide the verdict of a race at one margin: :func:`gather`, whose arguments it takes, and then decide."""
    return gather(arms, floor=floor, seed=seed, **more).decide(margin)


def is_near_the_floor(best: ArmResult, floor: float, margin: float) -> bool:
    """Say whether the best arm may not even beat always giving one answer by the margin."""
    assert best.low is not None
    assert best.mean is not None
    return best.low <= floor + margin and best.mean <= floor + 2 * margin


def has_room(arm: ArmResult, highest: float, margin: float) -> bool:
    """Say whether anything could be better than ``arm`` by more than the margin."""
    return arm.mean is not None and arm.mean + margin < highest


def _compare(best: ArmResult, gap: Gap, solver: ArmResult | None, margin: float) -> Comparison:
    arm = gap.arm
    standing: Standing = "enough" if gap.high <= margin else "worse" if gap.low > margin else "open"
    had_its_share = solver is not None and arm.steps >= SHARE * solver.steps
    if standing == "worse" and not had_its_share and (could_catch_up(arm, best, margin) or is_barely_tried(arm)):
        standing = "open"
    outpaced_by = solver if had_its_share and is_rising(arm) else None
    return Comparison(arm, gap.mean, gap.low, gap.high, standing, outpaced_by)


def _climb(compared: tuple[Comparison, ...], evidence: Evidence, best: ArmResult, margin: float) -> Decision:
    """Climb the ladder to the first rung that is not worse than the best."""
    reasons: list[str] = []
    missing = _missing(evidence.arms)

    def decided(label: str, first: Reason, *more: str, answer: str = "") -> Decision:
        return Decision(label, (str(first), *reasons, *more, *missing), compared, answer, first.because)

    for step in sorted({c.arm.rung for c in compared}):
        rung = [c for c in compared if c.arm.rung == step]
        enough = [c for c in rung if c.standing == "enough"]
        if enough:
            winner = min(enough, key=lambda c: (c.mean, c.arm.budget.numbers_trained))
            above = [c.arm for c in compared if c.arm.rung > step]
            if has_room(winner.arm, evidence.highest, margin) and _weights_had_no_chance(above):
                return decided("inconclusive", _no_chance(above, winner.arm))
            cut = _cut_short(above)
            return decided(step.label, _won(winner, best, margin), *cut, answer=winner.arm.method)
        undecided = [c for c in rung if c.standing == "open"]
        if undecided:
            return decided("inconclusive", _open(min(undecided, key=lambda c: c.mean), best, margin))
        reasons += [_lost(c, best) for c in rung]
    raise AssertionError("the best arm is never worse than itself")


def _weights_had_no_chance(above: Sequence[ArmResult]) -> bool:
    """Say whether weight methods took part, and were all hardly trained."""
    weights = [arm for arm in above if arm.rung.group == "weights"]
    return bool(weights) and all(is_barely_tried(arm) for arm in weights)


def _no_chance(above: Sequence[ArmResult], winner: ArmResult) -> Reason:
    cut = " and ".join(f"{arm.method} after {arm.steps} steps" for arm in above if arm.rung.group == "weights")
    return Reason(
        f"{winner.method} scores {_shown(winner)}, the best so far, but its rivals were cut off too early to tell: "
        f"{cut}; more time would settle it."
    )


def _cut_short(above: Sequence[ArmResult]) -> list[str]:
    rising = [
        f"{arm.method} was still improving when it was cut off after {arm.steps:,} steps; with more it may do better."
        for arm in above
        if arm.stopped == "time" and is_rising(arm)
    ]
    left = [arm for arm in above if arm.stopped == LEFT]
    if not left:
        return rising
    named = " and ".join(f"{arm.method} (after {arm.steps:,} steps)" for arm in left)
    return [*rising, f"No further training of {named} could change the label; the scores are those of then."]


def _won(winner: Comparison, best: ArmResult, margin: float) -> Reason:
    arm = winner.arm
    if arm is best:
        return Reason(
            f"{arm.method} scores {_shown(arm)}, the best of all arms, and nothing less invasive that was tried comes "
            "close."
        )
    return Reason(
        f"{arm.method} scores {_shown(arm)}; the best arm, {best.method}, is at most {_points(winner.high)} ahead "
        "(95 % interval), within the margin",
        f" of {_points(margin)}.",
    )


def _lost(lost: Comparison, best: ArmResult) -> str:
    arm = lost.arm
    rising = ""
    if arm.stopped == LEFT:
        rising = f" It was left after {arm.steps:,} steps, since its learning curve does not lead there."
    if lost.outpaced_by is not None:
        quick = lost.outpaced_by
        rising = (
            f" It was still improving after {arm.steps:,} steps; {quick.method} solved the task in {quick.steps:,}."
        )
    return (
        f"{arm.method} scores {_shown(arm)}: {_points(lost.mean)} behind {best.method} "
        f"(95 % interval {_points(lost.low)} to {_points(lost.high)}).{rising}{_hardly_searched(arm)}"
    )


def _hardly_searched(arm: ArmResult) -> str:
    return f" It was hardly searched: {_come_to(arm)}." if is_barely_searched(arm) else ""


def _come_to(arm: ArmResult) -> str:
    """Say how far an arm came that was cut off: its steps, or its candidates and the items of the best one."""
    if arm.effort is None:
        return f"{arm.steps} steps"
    return f"{arm.effort.candidates} of {arm.effort.offered} candidates on {arm.effort.items} items"


def _open(closest: Comparison, best: ArmResult, margin: float) -> Reason:
    arm = closest.arm
    if closest.low > margin and is_barely_tried(arm):
        return Reason(
            f"{arm.method} is {_points(closest.mean)} behind {best.method} but was cut off after {_come_to(arm)}, "
            "too few to tell; more time (--time-limit or --steps) would settle it."
        )
    if closest.low > margin:
        return Reason(
            f"{arm.method} is {_points(closest.mean)} behind {best.method} but was still improving when its time was "
            "up; more time (--time-limit or --steps) would settle it."
        )
    return Reason(
        f"{arm.method} is {_points(closest.mean)} behind {best.method}, but the 95 % interval "
        f"({_points(closest.low)} to {_points(closest.high)}) holds the margin",
        f" of {_points(margin)}; {_settle(closest, margin)} would settle it.",
    )


def _settle(closest: Comparison, margin: float) -> str:
    """Count how many more test items or seeds would shrink the interval off the margin (width falls as 1/√n)."""
    half = (closest.high - closest.low) / 2
    distance = abs(margin - closest.mean)
    if distance < 0.1 * half:
        return "no reasonable number of items (the gap is the margin itself): another --margin"
    factor = max(2, math.ceil((half / distance) ** 2))
    more_items = f"about {factor * closest.arm.items:,} test items (now {closest.arm.items:,})"
    return f"{more_items} or more seeds (now {closest.arm.seeds})"


def _out_of_reach(best: ArmResult, floor: float, judged: list[ArmResult]) -> tuple[str, str]:
    """Return label and reason where nothing beats the floor: whether more time or a weight method may still do it."""
    rising = ", ".join(arm.method for arm in judged if is_rising(arm))
    short = ", ".join(f"{arm.method} ({_come_to(arm)})" for arm in judged if is_barely_tried(arm))
    if rising:
        return "inconclusive", (
            f"Nothing beats always giving one answer ({floor:.2f}) yet, but {rising} was still improving when its "
            "time was up; more time would settle it."
        )
    if short:
        return "inconclusive", (
            f"Nothing beats always giving one answer ({floor:.2f}) yet, but some arms were cut off too early to tell: "
            f"{short}; more time would settle it."
        )
    if not any(arm.rung.group == "weights" for arm in judged):
        return "inconclusive", (
            f"Nothing that was tried beats always giving one answer ({floor:.2f}), and no method that changes the "
            "weights ran through; one would settle it."
        )
    return "out-of-reach", (
        f"The best arm, {best.method}, scores {_shown(best)}; always giving the most common answer scores "
        f"{floor:.2f}. Neither context nor weights get this model there with these data and this budget."
    )


def _missing(arms: Sequence[ArmResult]) -> list[str]:
    """Say what the reasons owe the reader besides: arms that took no part, and seeds that are missing from a score."""
    lost = [
        f"{arm.method} took no part: {arm.status}{f' ({arm.reason})' if arm.reason else ''}."
        for arm in arms
        if arm.status != "ok"
    ]
    return [*lost, *(f"{arm.method}: {arm.reason}." for arm in arms if arm.status == "ok" and arm.reason)]


def is_rising(arm: ArmResult) -> bool:
    """Say whether an arm was cut off while its validation score still rose by a point or more in its last third."""
    return arm.stopped in ("time", "steps") and slope(arm) > 0.01


def is_barely_trained(arm: ArmResult) -> bool:
    """Say whether an arm was cut off within its first :data:`FEWEST_STEPS`."""
    return arm.effort is None and arm.stopped in ("time", "steps") and arm.steps < FEWEST_STEPS


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


def _shown(arm: ArmResult) -> str:
    return f"{arm.mean:.3f} [{arm.low:.3f}, {arm.high:.3f}]"


def _points(share: float) -> str:
    return f"{100 * share:.1f} points"
