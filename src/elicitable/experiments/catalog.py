"""Find the experiments: every file of this folder that defines an ``EXPERIMENT``, in the order of the paper."""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Iterable, Sequence
from importlib import import_module

import elicitable.experiments as room
from elicitable.errors import UnknownNameError
from elicitable.experiments.experiment import PRESETS, Experiment, Preset


def found_in(folders: Iterable[str]) -> tuple[Experiment, ...]:
    """Return the ``EXPERIMENT`` of every file in ``folders``, which belong to this room, in the order of the paper."""
    modules = [import_module(f"{room.__name__}.{one.name}") for one in pkgutil.iter_modules(folders)]
    return tuple(sorted((one.EXPERIMENT for one in modules if hasattr(one, "EXPERIMENT")), key=place_in_the_paper))


def place_in_the_paper(experiment: Experiment) -> tuple[bool, bool, str, str]:
    """Say what to sort by: sections come before appendices, and those before what is from elsewhere; then names.

    >>> [place_in_the_paper(one)[2] for one in experiments_named(["prefix-use", "new-task"])]
    ['5.1', 'B']
    """
    found = re.match(r"(section|appendix) (\S+?),?(?: |$)", experiment.source)
    kind, place = found.groups() if found else ("", "")
    return (not kind, kind == "appendix", place, experiment.name)


EXPERIMENTS: tuple[Experiment, ...] = found_in(room.__path__)


def experiments_named(names: Sequence[str] = ()) -> tuple[Experiment, ...]:
    """Return the experiments of those names in the paper's order; all of them when none is named.

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
    """Return the preset of that name.

    Raises:
        UnknownNameError: there is none.
    """
    for preset in PRESETS:
        if preset.name == name:
            return preset
    raise UnknownNameError("preset", name, [preset.name for preset in PRESETS])
