"""Where each arm of a race stands: its place from nothing to all weights, the best arm, the arm that is the answer.

A report compares methods by how deep they reach into the model, so the order of that list is kept here. Only the
decision itself is read (``verdict.label``), never made.
"""

from __future__ import annotations

from dataclasses import dataclass

from elicitable.values import ArmResult, Verdict


@dataclass(frozen=True, slots=True)
class Group:
    """Methods that reach equally deep: what the reader calls them, and their names, least invasive first."""

    name: str
    title: str
    methods: tuple[str, ...]


NOTHING = Group("nothing", "Nothing added", ("zero-shot",))
CONTEXT = Group(
    "context", "A context, weights untouched", ("prompt", "examples", "soft-prompt", "layer-prefix", "kv-prefix")
)
WEIGHTS = Group("weights", "Weights changed", ("lora", "full"))
OTHER = Group("other", "Other methods", ())
CONTROL = Group("control", "Control, no part in the verdict", ("value-bias",))
GROUPS = (NOTHING, CONTEXT, WEIGHTS, OTHER, CONTROL)

# The methods a label speaks of, in tiers: those of one tier reach equally deep, an earlier tier less deep.
TIERS_OF_LABEL = {
    "already-there": (("zero-shot",),),
    "prompt": (("prompt",),),
    "examples": (("examples",),),
    "soft-prompt": (("soft-prompt",),),
    "prefix": (("layer-prefix", "kv-prefix"),),
    "weights": (("lora",), ("full",)),
}


def group_of(method: str) -> Group:
    """The group of a method; :data:`OTHER` for a method this list does not know.

    >>> group_of("kv-prefix").name
    'context'
    """
    return next((group for group in GROUPS if method in group.methods), OTHER)


def grouped(verdict: Verdict) -> tuple[tuple[Group, tuple[ArmResult, ...]], ...]:
    """The arms by group, least invasive first, groups without arms left out. Arms of one method keep their order."""
    groups = []
    for group in GROUPS:
        arms = [arm for arm in verdict.arms if group_of(arm.method) is group]
        if arms:
            groups.append((group, tuple(sorted(arms, key=_place))))
    return tuple(groups)


def _place(arm: ArmResult) -> int:
    methods = group_of(arm.method).methods
    return methods.index(arm.method) if arm.method in methods else len(methods)


def is_scored(arm: ArmResult) -> bool:
    """Whether the arm ran through and has a mean."""
    return arm.status == "ok" and arm.mean is not None


def mean_of(arm: ArmResult) -> float:
    """The arm's mean, and below every score when it has none, so that it sorts last."""
    return -1.0 if arm.mean is None else arm.mean


def highest(verdict: Verdict, *groups: Group) -> ArmResult | None:
    """The scored arm with the highest mean in ``groups`` (default: all but the control); the less invasive on a tie."""
    wanted = groups or tuple(group for group in GROUPS if group is not CONTROL)
    arms = [arm for group, members in grouped(verdict) if group in wanted for arm in members if is_scored(arm)]
    return max(arms, key=mean_of, default=None)


def winner(verdict: Verdict) -> ArmResult | None:
    """The arm that the label speaks of.

    It is the arm that ``provenance["answer"]`` names; without that, the highest arm of the label's least invasive
    tier that has one within the margin of the best. None when the label names no method (``out-of-reach``,
    ``inconclusive``) or no arm of it was scored.
    """
    tiers = [
        [arm for arm in verdict.arms if arm.method in tier and is_scored(arm)]
        for tier in TIERS_OF_LABEL.get(verdict.label, ())
    ]
    arms = [arm for tier in tiers for arm in tier]
    best = highest(verdict)
    if not arms or best is None:
        return None
    named = [arm for arm in arms if arm.method == verdict.provenance.get("answer")]
    near = [[arm for arm in tier if mean_of(arm) >= mean_of(best) - verdict.margin] for tier in tiers]
    return max(next((tier for tier in [named, *near] if tier), arms), key=mean_of)
