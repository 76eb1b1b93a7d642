"""Say where each arm of a race stands, which one is best, and which one is the answer.

A report compares arms by how deep they reach into the model, which each arm's record says itself. The decision is read
from the verdict (``verdict.label``, ``verdict.answer``); it is never made here.
"""

from __future__ import annotations

from typing import Final

from elicitable.values import ArmResult, Group, Stretch, Verdict

GROUPS: Final[dict[Group, str]] = {
    "nothing": "Nothing added",
    "context": "A context, weights untouched",
    "other": "Other methods",
    "weights": "Weights changed",
    "control": "Control, no part in the verdict",
}


def grouped(verdict: Verdict) -> tuple[tuple[Group, tuple[ArmResult, ...]], ...]:
    """Sort the arms into groups, least invasive first, and leave out groups without arms."""
    arms = sorted(verdict.arms, key=lambda arm: arm.rung.depth)
    members = {group: tuple(arm for arm in arms if arm.rung.group == group) for group in GROUPS}
    return tuple((group, own) for group, own in members.items() if own)


def is_scored(arm: ArmResult) -> bool:
    """Say whether the arm ran through and has a mean."""
    return arm.status == "ok" and arm.mean is not None


def mean_of(arm: ArmResult) -> float:
    """Return the arm's mean, and below every score when it has none, so that it sorts last."""
    return -1.0 if arm.mean is None else arm.mean


def highest(verdict: Verdict, *groups: Group) -> ArmResult | None:
    """Return the best scored arm of ``groups`` (default: all but controls), the less invasive one on a tie."""
    wanted = groups or tuple(group for group in GROUPS if group != "control")
    arms = [arm for group, members in grouped(verdict) if group in wanted for arm in members if is_scored(arm)]
    return max(arms, key=mean_of, default=None)


def winner(verdict: Verdict) -> ArmResult | None:
    """Return the arm that the label speaks of; None where it speaks of none (``out-of-reach``, ``inconclusive``)."""
    return next((arm for arm in verdict.arms if arm.method == verdict.answer), None)


def at_margin(verdict: Verdict) -> Stretch | None:
    """Return what is decided at the race's own margin, with the standing of each arm; None where no table was kept."""
    return next((one for one in reversed(verdict.margins) if one.start <= verdict.margin), None)
