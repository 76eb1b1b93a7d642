"""Decide the verdict: the least invasive way that is not worse than the best by more than a margin.

Each way is compared in pairs with the best one. With the 95 % interval [low, high] of (best − way):

    enough   high ≤ margin        worse   low > margin        open   otherwise

The verdict is the least invasive way that is not worse; if that way is still open, it is ``inconclusive``. Where the
open way is a context and a more invasive context is enough, the verdict is ``context``: the weights need not change,
and open is only which context is the least. ``inconclusive`` it is too where the interval of a way's own score still
holds what always giving the same answer scores: nothing that may be chance is called good.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from elicitable.diagnosis import words
from elicitable.diagnosis.intervals import LEVEL, Arm, Groups, gap
from elicitable.diagnosis.tried import could_catch_up, is_barely_tried, is_rising
from elicitable.diagnosis.words import Reason
from elicitable.values import ArmResult, Rung

CONTEXT = "context"  # some context is enough, whichever is the least
OPEN_LABELS = ("out-of-reach", "inconclusive")  # the verdicts that speak of no rung
OWED = 256  # steps that every arm is owed, however quick another one was
ROOM = 0.25  # of the way from the floor to the highest score: a limit above it rules little out
LAG = 8  # times its steps: what another arm may be ahead of one that waits for its turn
TELLING = 64  # steps: nobody loses for good within fewer, be they all that were asked for
SHARE = 2  # times the steps of the arm that solved the task quickest: what every other arm is owed
Standing = Literal["enough", "worse", "open"]


@dataclass(frozen=True)
class Gap:
    """Hold how far an arm is behind the best one, in pairs over items: mean and interval of (best − arm)."""

    arm: ArmResult
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison(Gap):
    """Hold where its gap leaves an arm at a margin.

    ``outpaced_by`` solved the task in half the steps after which this arm was cut off while still improving.
    """

    standing: Standing
    outpaced_by: ArmResult | None = None


@dataclass(frozen=True)
class Decision:
    """Hold a label, the reasons for it, and what it rests on.

    The first reason says why it is this label; the others say every other arm once, from the least invasive on. Of
    ``context`` the second one says why it is open which is the least. ``answer`` is the arm that the label speaks of,
    if it speaks of one; ``about`` the one that this reason is about, on which an open label hangs. ``because`` is the
    first reason as far as it does not hang on the very number
    of the margin.
    """

    label: str
    reasons: tuple[str, ...]
    compared: tuple[Comparison, ...] = ()
    answer: str = ""
    because: str = ""
    about: str = ""

    @property
    def is_open(self) -> bool:
        """Say whether it is open which rung is the least that is enough."""
        return self.label in ("inconclusive", CONTEXT)


def right_or_wrong(arm: ArmResult) -> Arm:
    """Take an arm's outcomes per item as they are, for a score that is the share of right answers."""
    return arm.correct


@dataclass(frozen=True)
class Evidence:
    """Hold what a decision rests on, whatever the margin: it is gathered once, and decided at any margin.

    Attributes:
        arms: all of the race; ``gaps`` are those that are judged, beside ``best``, and ``controls`` those that are not.
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
    controls: tuple[Gap, ...] = ()

    def decide(self, margin: float) -> Decision:
        """Decide at ``margin``, how much worse still counts as good enough, in units of the score."""
        best = self.best
        compared = () if best is None else tuple(_stand(best, one, self.solver, margin) for one in self.gaps)
        first = self._first(compared, margin)
        others = words.of_all(self, compared, first.about, margin)
        lead = words.a_context(first.answer, first.about) if first.label == CONTEXT else ()
        reasons = (*lead, words.sentence(first.reason, first.about), *others)
        about, answer = ("" if arm is None else arm.method for arm in (first.about, first.answer))
        return Decision(first.label, reasons, compared, answer, "".join(lead) or first.reason.because, about)

    def _first(self, compared: tuple[Comparison, ...], margin: float) -> _First:
        if self.best is None:
            reason = Reason("No arm that could be the answer finished; see each arm's status for the reason.")
            return _First("inconclusive", reason)
        if is_near_the_floor(self.best, self.floor, self.highest, margin):
            return self._out_of_reach(self.best, margin)
        return self._climb(compared, self.best, margin)

    def _climb(self, compared: tuple[Comparison, ...], best: ArmResult, margin: float) -> _First:
        """Climb the ladder to the first rung that is not worse than the best."""
        lowest, *_ = steps = sorted({c.arm.rung for c in compared})
        for step in steps:
            rung = [c for c in compared if c.arm.rung == step]
            enough = [c for c in rung if c.standing == "enough"]
            if enough:
                winner = min(enough, key=lambda c: (c.mean, c.arm.budget.numbers_trained))
                if may_be_chance(winner.arm, self.floor):
                    return _First("inconclusive", words.may_be_chance(winner.arm, self.floor), winner.arm)
                above = [c.arm for c in compared if c.arm.rung > step]
                if has_room(winner.arm, self.highest, margin) and _weights_had_no_chance(above, winner.arm):
                    return _First("inconclusive", words.no_chance(above, winner.arm), winner.arm)
                return _First(step.label, words.won(winner, best, margin, step == lowest), winner.arm, winner.arm)
            undecided = [c for c in rung if c.standing == "open"]
            if undecided:
                closest = min(undecided, key=lambda c: c.mean)
                reason, settled = words.left_open(closest, best, margin), self._settled(compared, step, margin)
                if settled is not None:
                    return _First(CONTEXT, reason, closest.arm, settled)
                return _First("inconclusive", reason, closest.arm)
        raise AssertionError("the best arm is never worse than itself")

    def _settled(self, compared: tuple[Comparison, ...], step: Rung, margin: float) -> ArmResult | None:
        """Return the least context above an open one that is enough for sure; None where none is."""
        above = [c for c in compared if c.arm.rung > step and c.arm.rung.group == step.group == "context"]
        enough = [c for c in above if c.standing == "enough" and not may_be_chance(c.arm, self.floor)]
        least = min(enough, key=lambda c: (c.arm.rung, c.mean, c.arm.budget.numbers_trained), default=None)
        if least is None:
            return None
        further = [c.arm for c in compared if c.arm.rung > least.arm.rung]
        is_unasked = has_room(least.arm, self.highest, margin) and _weights_had_no_chance(further, least.arm)
        return None if is_unasked else least.arm

    def _out_of_reach(self, best: ArmResult, margin: float) -> _First:
        """Nothing beats the floor; more time, a weight method or more test items may still do it."""
        if self.floor >= self.highest:
            return _First("inconclusive", words.nothing_above(self.floor))
        judged = [one.arm for one in self.gaps]
        rising = [arm for arm in judged if is_rising(arm)]
        short = [arm for arm in judged if is_barely_tried(arm) or _had_less_than_owed(arm)]
        seems_better = is_above_the_floor(best, self.floor, self.highest, margin)
        if seems_better and not (rising or short):
            return _First("inconclusive", words.may_be_chance(best, self.floor), best)
        if rising or short or not any(arm.rung.group == "weights" for arm in judged):
            return _First("inconclusive", words.nothing_yet(self.floor, rising, short))
        if may_be_far_above(best, self.floor, self.highest, margin):
            limit = _room_above(self.floor, self.highest, margin)
            return _First("inconclusive", words.too_few_items(best, self.floor, limit), best)
        return _First("out-of-reach", words.out_of_reach(best, self.floor), best)


def _had_less_than_owed(arm: ArmResult) -> bool:
    """Say whether the clock ended an arm's training before the steps that every arm is owed, or a few steps did."""
    return arm.effort is None and ((arm.stopped == "time" and arm.steps < OWED) or _had_few_steps(arm))


def _had_few_steps(arm: ArmResult) -> bool:
    """Say whether the steps that were asked for ended an arm's training before they can tell anything."""
    return arm.effort is None and arm.stopped == "steps" and arm.steps < TELLING


@dataclass(frozen=True)
class _First:
    """Hold a label with the reason that gives it, the arm that this reason is about, and the one that is the answer."""

    label: str
    reason: Reason
    about: ArmResult | None = None
    answer: ArmResult | None = None


@dataclass(frozen=True)
class Terms:
    """Hold what a comparison rests on besides the arms.

    ``outcome`` gives what the intervals draw from; items of one of the ``groups`` are drawn together.
    ``level`` is that of the intervals, so that all looks at one comparison keep 95 % together
    (:mod:`elicitable.diagnosis.looks`).
    """

    seed: int
    outcome: Callable[[ArmResult], Arm] = right_or_wrong
    groups: Groups = ()
    level: float = LEVEL


def compare(best: ArmResult, arm: ArmResult, margin: float, terms: Terms) -> Comparison:
    """Compare ``arm`` with ``best``, in pairs over items, and say where that leaves it at ``margin``."""
    return _stand(best, _behind(best, arm, terms), None, margin)


def _behind(best: ArmResult, arm: ArmResult, terms: Terms) -> Gap:
    if arm is best:
        return Gap(arm, 0.0, 0.0, 0.0)
    return Gap(arm, *gap(terms.outcome(best), terms.outcome(arm), terms.seed, terms.groups, terms.level))


def _stand(best: ArmResult, one: Gap, solver: ArmResult | None, margin: float) -> Comparison:
    """Say where a gap leaves its arm. Whoever had what an arm is owed beside the ``solver`` had a fair share."""
    arm = one.arm
    standing: Standing = "enough" if one.high <= margin else "worse" if one.low > margin else "open"
    had_its_share = solver is not None and arm.steps >= max(OWED, SHARE * solver.steps)
    may_come = could_catch_up(arm, best, margin) or is_barely_tried(arm) or (is_rising(arm) and _had_few_steps(arm))
    if standing == "worse" and not had_its_share and may_come:
        standing = "open"
    outpaced_by = solver if had_its_share and is_rising(arm) else None
    return Comparison(arm, one.mean, one.low, one.high, standing, outpaced_by)


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
    """Compare every arm with the best one that is judged.

    Args:
        arms: results on the same test items, in the same order of items.
        floor: what always giving the one most common answer scores; the best must beat it by the margin.
        seed: of the bootstrap.
        outcome: gives what the intervals draw from. groups: items of one of them are drawn together.
        highest: the best that the score can be.
        level: that of the intervals, so that all looks at one comparison keep 95 % together
            (:mod:`elicitable.diagnosis.looks`).
    """
    scored = [arm for arm in arms if arm.status == "ok" and arm.correct]
    judged = [arm for arm in scored if not arm.is_control]
    best = best_of(judged)
    solver = min((arm for arm in judged if arm.stopped == "solved"), key=lambda arm: arm.steps, default=None)

    def behind(arm: ArmResult) -> Gap:
        assert best is not None
        return _behind(best, arm, Terms(seed, outcome, groups, level))

    controls = [arm for arm in scored if arm.is_control and best is not None]
    gaps = tuple(map(behind, judged))
    return Evidence(tuple(arms), gaps, best, solver, floor, highest, tuple(map(behind, controls)))


def decide(arms: Sequence[ArmResult], *, margin: float, floor: float, seed: int, **more: Any) -> Decision:
    """Decide the verdict of a race at one margin: :func:`gather`, whose arguments it takes, and then decide."""
    return gather(arms, floor=floor, seed=seed, **more).decide(margin)


def best_of(arms: Iterable[ArmResult]) -> ArmResult | None:
    """Return the arm of the highest mean, of equals the least invasive, in whatever order they come."""
    return max(arms, key=lambda arm: (arm.mean or 0.0, -arm.rung.depth), default=None)


def is_near_the_floor(best: ArmResult, floor: float, highest: float, margin: float) -> bool:
    """Say whether the best arm may be chance, or not even beat always giving one answer by the margin.

    Where one answer is right more often than not, little is left above it, and the margin counts as :data:`ROOM` of
    that at most: else not even an arm without a mistake could pass.
    """
    assert best.low is not None
    if may_be_chance(best, floor):
        return True
    return best.low <= floor + _over(floor, highest, margin) and not is_above_the_floor(best, floor, highest, margin)


def _over(floor: float, highest: float, margin: float) -> float:
    return min(margin, ROOM * (highest - floor)) if floor > highest / 2 else margin


def may_be_chance(arm: ArmResult, floor: float) -> bool:
    """Say whether an arm's interval still holds what always giving one answer scores."""
    assert arm.low is not None
    return arm.low <= floor


def is_above_the_floor(best: ArmResult, floor: float, highest: float, margin: float) -> bool:
    """Say whether the mean of the best arm is above always giving one answer by more than twice the margin."""
    assert best.mean is not None
    return best.mean > floor + 2 * _over(floor, highest, margin)


def may_be_far_above(best: ArmResult, floor: float, highest: float, margin: float) -> bool:
    """Say whether the upper limit of the best arm leaves much room above the floor: so few items rule nothing out.

    Much is :data:`ROOM` of the way to the highest score, or twice the margin where that is more.
    """
    return best.high is not None and best.high > _room_above(floor, highest, margin)


def _room_above(floor: float, highest: float, margin: float) -> float:
    return floor + max(2 * _over(floor, highest, margin), ROOM * (highest - floor))


def has_room(arm: ArmResult, highest: float, margin: float) -> bool:
    """Say whether anything could be better than ``arm`` by more than the margin."""
    return arm.mean is not None and arm.mean + margin < highest


def is_outrun(arm: ArmResult, winner: ArmResult) -> bool:
    """Say whether the clock cut an arm off before it had what it is owed, and far behind the steps of ``winner``."""
    return arm.stopped == "time" and _had_less_than_owed(arm) and LAG * arm.steps <= winner.steps


def _weights_had_no_chance(above: Sequence[ArmResult], winner: ArmResult) -> bool:
    """Say whether weight methods took part, and were all hardly trained, by themselves or beside ``winner``."""
    weights = [arm for arm in above if arm.rung.group == "weights"]
    return bool(weights) and all(is_barely_tried(arm) or is_outrun(arm, winner) for arm in weights)
