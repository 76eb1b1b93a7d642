"""The one list of experiments, in the order of the paper."""

from __future__ import annotations

from collections.abc import Sequence

from elicitable.errors import UnknownNameError
from elicitable.experiments import (
    combine_skills,
    elicit,
    llm_identity,
    new_task,
    prefix_use,
    same_budget,
    token_reach,
)
from elicitable.experiments.experiment import PRESETS, Experiment, Preset

EXPERIMENTS: tuple[Experiment, ...] = (
    token_reach.EXPERIMENT,
    llm_identity.EXPERIMENT,
    new_task.EXPERIMENT,
    elicit.EXPERIMENT,
    combine_skills.EXPERIMENT,
    same_budget.EXPERIMENT,
    prefix_use.EXPERIMENT,
)


def experiments_named(names: Sequence[str] = ()) -> tuple[Experiment, ...]:
    """The experiments of those names in the paper's order; all of them when none is named.

    Raises:
        UnknownNameError: there is none of that name; the message lists near matches.

    >>> [one.name for one in experiments_named(["same-budget", "new-task"])]
    ['new-task', 'same-budget']
    """
    known = [one.name for one in EXPERIMENTS]
    for name in names:
        if name not in known:
            raise UnknownNameError("experiment", name, known)
    return tuple(one for one in EXPERIMENTS if not names or one.name in names)


def preset_named(name: str) -> Preset:
    """The preset of that name.

    Raises:
        UnknownNameError: there is none.
    """
    for preset in PRESETS:
        if preset.name == name:
            return preset
    raise UnknownNameError("preset", name, [preset.name for preset in PRESETS])
