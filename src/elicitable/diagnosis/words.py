"""Say a decision in sentences: first why it is this one, then every other arm once, from the least invasive on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from elicitable.diagnosis.tried import LEFT, is_barely_searched, is_barely_tried, is_rising
from elicitable.values import ArmResult

if TYPE_CHECKING:
    from elicitable.diagnosis.verdict import Comparison, Evidence, Gap


@dataclass(frozen=True)
class Reason:
    """Hold a reason: its part that stays while the standings do, and what it says of the margin's own number."""

    because: str
    of_margin: str = ""


def sentence(first: Reason, about: ArmResult | None) -> str:
    """Return the first reason in full, with what else there is to say of the arm that it is ``about``."""
    return f"{first.because}{first.of_margin}{'' if about is None else _notes(about)}"


def of_all(
    evidence: Evidence, compared: Sequence[Comparison], about: ArmResult | None, margin: float
) -> tuple[str, ...]:
    """Say of every arm but the one that the first reason is ``about`` where it stands, or why it took no part."""
    found = {one.arm.method: one for one in compared}
    controls = {one.arm.method: one for one in evidence.controls}
    bare = next((one.arm for one in compared if one.arm.rung.group == "nothing" and one.standing == "enough"), None)
    arms = sorted((arm for arm in evidence.arms if arm is not about), key=lambda arm: arm.rung.depth)
    said = (_of_arm(arm, found.get(arm.method), controls.get(arm.method), evidence.best, bare, margin) for arm in arms)
    return tuple(said)


def _of_arm(
    arm: ArmResult,
    judged: Comparison | None,
    control: Gap | None,
    best: ArmResult | None,
    bare: ArmResult | None,
    margin: float,
) -> str:
    if judged is not None and best is not None:
        return f"{_standing(judged, best, margin)}{_training(judged)}{_notes(arm)}"
    if control is not None and best is not None:
        return f"{_of_control(control, best, bare, margin)}{_notes(arm)}"
    return f"{arm.method} took no part: {arm.status}{f' ({arm.reason})' if arm.reason else ''}."


def _standing(one: Comparison, best: ArmResult, margin: float) -> str:
    arm = one.arm
    if arm is best:
        return f"{arm.method} scores {_shown(arm)}, the best of all arms."
    if one.standing == "enough":
        return (
            f"{arm.method} scores {_shown(arm)}: within the margin, at most {_points(one.high)} behind {best.method}."
        )
    of_margin = ", which holds the margin" if one.low <= margin else ""
    return (
        f"{arm.method} scores {_shown(arm)}: {_points(one.mean)} behind {best.method} "
        f"(95 % interval {_between(one)}{of_margin})."
    )


def _training(one: Comparison) -> str:
    """Say how the training or the search of an arm ended, where that limits what its score says."""
    arm, quick = one.arm, one.outpaced_by
    if quick is not None:
        return f" It was still improving after {arm.steps:,} steps; {quick.method} solved the task in {quick.steps:,}."
    if arm.stopped == LEFT:
        return f" It was left after {arm.steps:,} steps, since it could not change the label."
    if is_barely_searched(arm):
        return f" It was hardly searched: {_come_to(arm)}."
    if is_barely_tried(arm):
        return f" It was cut off after {_come_to(arm)}, too few to tell."
    if is_rising(arm):
        return f" It was still improving when it was cut off after {arm.steps:,} steps; with more it may do better."
    return ""


def _notes(arm: ArmResult) -> str:
    """Say what a score must not pass over: seeds that are missing from it, and what a rule between labels adds."""
    seeds = f" {arm.reason[:1].upper()}{arm.reason[1:]}." if arm.reason else ""
    if arm.raw_mean is None or not arm.correct:
        return seeds
    share = sum(map(sum, arm.correct)) / sum(map(len, arm.correct))
    if abs(share - arm.raw_mean) < 0.005:
        return seeds
    return (
        f"{seeds} It decides between the labels by the rule {arm.rule!r} (from validation) and has {share:.3f} right; "
        f"by the plain likelihood it has {arm.raw_mean:.3f}."
    )


def _of_control(one: Gap, best: ArmResult, bare: ArmResult | None, margin: float) -> str:
    """Say what a control tells: how much of the task is a push, unless the ``bare`` model does it without any."""
    arm = one.arm
    numbers = f"{arm.budget.numbers_trained:,} numbers that attend to nothing"
    does = f"The control, {arm.method}, is {numbers}, and does {_shown(arm)}"
    if bare is not None:
        return f"{does}: {bare.method} does the task without any push, so this tells nothing."
    if one.high <= margin:
        return f"{does}, not worse than {best.method}: this task needs little more than a push in one direction."
    if one.low > margin:
        return f"{does}, {_points(one.mean)} behind {best.method}: a push in one direction is not enough."
    return f"{does}: whether a push in one direction is enough is not settled."


def no_chance(above: Sequence[ArmResult], winner: ArmResult) -> Reason:
    """Say that the best so far had no rival among the weights that was trained long enough."""
    cut = " and ".join(f"{arm.method} after {arm.steps} steps" for arm in above if arm.rung.group == "weights")
    return Reason(
        f"{winner.method} scores {_shown(winner)}, the best so far, but its rivals were cut off too early to tell: "
        f"{cut}; more time would settle it."
    )


def won(winner: Comparison, best: ArmResult, margin: float, is_lowest: bool = False) -> Reason:
    """Say by what the answer's arm is good enough; ``is_lowest`` where no other arm is less invasive."""
    arm = winner.arm
    if arm is best:
        closing = "." if is_lowest else ", and nothing less invasive that was tried comes close."
        return Reason(f"{arm.method} scores {_shown(arm)}, the best of all arms{closing}")
    return Reason(
        f"{arm.method} scores {_shown(arm)}; the best arm, {best.method}, is at most {_points(winner.high)} ahead "
        "(95 % interval), within the margin",
        f" of {_points(margin)}.",
    )


def left_open(closest: Comparison, best: ArmResult, margin: float) -> Reason:
    """Say why an arm leaves the verdict open, and what would settle it."""
    arm = closest.arm
    if closest.low > margin and is_barely_tried(arm):
        return Reason(
            f"{arm.method} is {_points(closest.mean)} behind {best.method} but was cut off after {_come_to(arm)}, "
            f"too few to tell; {_more([arm])} would settle it."
        )
    if closest.low > margin:
        return Reason(
            f"{arm.method} is {_points(closest.mean)} behind {best.method} but was still improving when "
            f"{_up([arm])} would settle it."
        )
    return Reason(
        f"{arm.method} is {_points(closest.mean)} behind {best.method}, but the 95 % interval "
        f"({_between(closest)}) holds the margin",
        f" of {_points(margin)}; {_settle(closest, margin)} would settle it.",
    )


def a_context(enough: ArmResult | None, closest: ArmResult | None) -> tuple[str, ...]:
    """Say that a context is enough for sure, and of which less invasive one that is open."""
    if enough is None or closest is None:
        return ()
    return (f"A context is enough: {enough.method} is. Open is only whether {closest.method} is too.",)


def _settle(closest: Comparison, margin: float) -> str:
    """Count how many more test items or seeds would shrink the interval off the margin (width falls as 1/√n)."""
    half = (closest.high - closest.low) / 2
    distance = abs(margin - closest.mean)
    if distance < 0.1 * half:
        return "no reasonable number of items (the gap is the margin itself): another --margin"
    factor = max(2, math.ceil((half / distance) ** 2))
    more_items = f"about {factor * closest.arm.items:,} test items (now {closest.arm.items:,})"
    return f"{more_items} or more seeds (now {closest.arm.seeds})"


def nothing_yet(floor: float, rising: Sequence[ArmResult], short: Sequence[ArmResult]) -> Reason:
    """Say that nothing beats the floor, and whether more time or a weight method may still do it."""
    if rising:
        return Reason(
            f"Nothing beats always giving one answer ({floor:.2f}) yet, but {', '.join(arm.method for arm in rising)} "
            f"was still improving when {_up(rising)} would settle it."
        )
    if short:
        named = ", ".join(f"{arm.method} ({_come_to(arm)})" for arm in short)
        return Reason(
            f"Nothing beats always giving one answer ({floor:.2f}) yet, but some arms were cut off too early to tell: "
            f"{named}; {_more(short)} would settle it."
        )
    return Reason(
        f"Nothing that was tried beats always giving one answer ({floor:.2f}), and no method that changes the "
        "weights ran through; one would settle it."
    )


def may_be_chance(arm: ArmResult, floor: float) -> Reason:
    """Say that an arm's interval holds the floor, and how many items would bring its lower limit above it."""
    assert arm.mean is not None
    assert arm.low is not None
    half, distance = arm.mean - arm.low, arm.mean - floor
    found = f"{arm.method} scores {_shown(arm)}, and that may be no more than always giving one answer ({floor:.2f})"
    if distance <= 0.1 * half:
        return Reason(f"{found}; no reasonable number of test items would settle it (now {arm.items:,}).")
    wanted = math.ceil((half / distance) ** 2 * (arm.items + 4))  # Wilson's width falls as 1/√(n + z²)
    seeds = f" or more seeds (now {arm.seeds})" if arm.steps else ""
    return Reason(f"{found}; about {wanted:,} test items (now {arm.items:,}){seeds} would settle it.")


def too_few_items(best: ArmResult, floor: float, limit: float) -> Reason:
    """Say that so few items do not rule out a score far above the floor; how many would bring it under ``limit``."""
    assert best.mean is not None
    assert best.high is not None
    half, distance = best.high - best.mean, limit - best.mean
    wanted = math.ceil(
        (half / max(distance, 0.1 * half)) ** 2 * (best.items + 4)
    )  # Wilson's width falls as 1/√(n + z²)
    return Reason(
        f"Nothing beats always giving one answer ({floor:.2f}), but with {best.items:,} test items the best arm, "
        f"{best.method}, may have anything in {_shown(best)}",
        f"; about {wanted:,} test items would settle it.",
    )


def nothing_above(floor: float) -> Reason:
    """Say that nothing can beat always giving one answer on these test items."""
    return Reason(
        f"Always giving one answer scores {floor:.2f} on these test items, the best that can be had, so they tell "
        "nothing of the arms; test items of more than one answer would."
    )


def out_of_reach(best: ArmResult, floor: float) -> Reason:
    """Say that nothing beats the floor, weights included."""
    return Reason(
        f"The best arm, {best.method}, scores {_shown(best)}; always giving the most common answer scores "
        f"{floor:.2f}. Neither context nor weights get this model there with these data and this budget."
    )


def _up(rising: Sequence[ArmResult]) -> str:
    """Say what was up while arms still rose, and what they need more of."""
    if all(arm.stopped == "steps" for arm in rising):
        return "its steps were up; more of them (--steps)"
    return "its time was up; more time (--time-limit or --steps)"


def _more(cut: Sequence[ArmResult]) -> str:
    """Say what arms need that were cut off: more passes where a search had used those that it was given, else time."""
    passes = ["more passes (--search-passes)"] if any(arm.stopped == "passes" for arm in cut) else []
    time = ["more time (--time-limit or --steps)"] if any(arm.stopped != "passes" for arm in cut) else []
    return " and ".join([*time, *passes])


def _come_to(arm: ArmResult) -> str:
    """Say how far an arm came that was cut off: its steps, or its candidates and the items of the best one."""
    if arm.effort is None:
        return f"{arm.steps} steps"
    return f"{arm.effort.candidates} of {arm.effort.offered} candidates on {arm.effort.items} items"


def _shown(arm: ArmResult) -> str:
    return f"{arm.mean:.3f} [{arm.low:.3f}, {arm.high:.3f}]"


def _points(share: float) -> str:
    return f"{100 * share:.1f} points"


def _between(one: Gap) -> str:
    return f"{100 * one.low:.1f} to {_points(one.high)}"
