"""Is it something that no context can do? The unbounded context, frozen patterns of attention, parts of the weights."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from elicitable.diagnosis.causes import Experiment
from elicitable.diagnosis.explaining import is_open_to_contexts
from elicitable.methods.base import Method
from elicitable.methods.unbounded import UnboundedContext
from elicitable.race.causes.study import Study, resized
from elicitable.race.elsewhere import items_elsewhere
from elicitable.race.entry import Entry
from elicitable.race.inside import again
from elicitable.race.line import leave
from elicitable.race.results import arm_result
from elicitable.records.store import identity
from elicitable.rng import generator

_WHAT: dict[str, str] = {"frozen-patterns": "all but the patterns of attention"}
WIDTH = 16  # hidden units of the unbounded context's networks
DRAWN = 1_024  # training items whose lengths are looked at


def any_context(study: Study, entry: Entry, method: UnboundedContext) -> bool:
    """Say whether more than any context may do what the context of ``entry`` does not.

    The unbounded context is trained from the best that this context came to; where that tells nothing, from nothing.
    """
    arm = arm_result(study.race, entry)
    for start, said in ((entry, f"the unbounded context, from {arm.method} on"), (None, "the unbounded context")):
        found = study.ask("", "unbounded", said, partial(_unbounded, study, entry, method, start, said))
        if is_open_to_contexts(found, arm, study.best, study.race.margin):
            return True
    return False


def _unbounded(study: Study, entry: Entry, method: UnboundedContext, start: Entry | None, said: str) -> Experiment:
    """Train the unbounded context until it has closed half of the gap, and from there until it tells.

    It tells where it is enough, and where it has closed half of the gap and still gets better. Where it gets no better,
    or has had its steps, it has failed.
    """
    race, arm = study.race, arm_result(study.race, entry)
    method = method if start is None else _starting_at(study, start, method)
    positions = positions_read(study, method)
    options = None if positions is None else {"positions": positions}
    line, most = study.looked(resized(method, race, WIDTH, options)), study.steps_to_its_end()
    is_exact = method.is_exact(race.model, positions)
    half = ((arm.mean or 0.0) + (study.best.mean or 0.0)) / 2
    tried = study.trained(line, most, is_patient=True, enough=half)
    while True:
        found = replace(study.measured("", "unbounded", said, tried, 0.0), is_exact=is_exact)
        is_over = tried.stopped != "steps" or line.steps >= most
        if found.reason or is_over or is_open_to_contexts(found, arm, study.best, race.margin):
            leave(race, line)
            return found
        tried = study.trained(line, min(2 * line.steps, most), is_patient=True)


def positions_read(study: Study, method: UnboundedContext) -> int | None:
    """Return how many positions the table of ``method`` needs where a model sets no end to them; None without a table.

    As many as the longest item has, behind the context that it starts at; for texts, as the model was trained on.
    None too where a model has so many positions and no more: its table has them all by itself.
    """
    race, most = study.race, method.most_positions(study.race.model)
    if race.model.anatomy.position_limit is not None or not most:
        return None
    drawn = race.task.sample(DRAWN, generator(race.seed, "positions", race.task.name))
    held_out = [*race.test(), *race.task.held_out("validation"), *items_elsewhere(race.model)]
    items = [*drawn, *held_out]
    longest = max(len(item.prompt) + len(item.target) for item in items)
    if any(item.is_text for item in items):
        longest = race.model.anatomy.trained_positions or most
    reach = longest + (method.started.shift if method.started is not None else 0)
    return reach if reach <= most else None


def _starting_at(study: Study, entry: Entry, method: UnboundedContext) -> UnboundedContext:
    """Return the unbounded context that starts at the best that the context of ``entry`` came to."""
    race, best = study.race, study.best_context(entry)
    assert best.trial is not None
    context = again(best.trial, best.records[0], race.model, race.task, race.store)
    return method.starting_at(race.model, context, identity(best.trial.spec(race.model, race.task)))


def probed(study: Study, method: Method, options: dict[str, Any] | None = None, said: str = "") -> Experiment:
    """Train a probe: a first look at its rates and beyond them, then as long as it leads somewhere."""
    kind: Any = method.probe
    what = said or _WHAT.get(kind) or method.summary.removeprefix("only ")

    def run() -> Experiment:
        line = study.looked(resized(method, study.race, 1, options))
        setting = {name: str(value) for name, value in (options or {}).items()}
        found = study.measured("", kind, what, study.trained(line, study.steps(times=1)), 0.0, setting)
        leave(study.race, line)
        return found

    return study.ask("", kind, what, run)


def halves(study: Study, method: Method) -> list[Experiment]:
    """Freeze the patterns of the upper half of the layers alone, and of the lower half alone."""
    depth = study.race.model.anatomy.depth
    if depth < 2:
        return []
    lower, upper = list(range(depth // 2)), list(range(depth // 2, depth))
    return [
        probed(study, method, {"layers": kept}, f"new patterns in the {free} half of the layers alone")
        for kept, free in ((upper, "lower"), (lower, "upper"))
    ]
