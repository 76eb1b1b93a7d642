"""Is the context too small? Four and sixteen times the virtual tokens, and what numbers do wherever they are put."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from elicitable.diagnosis.causes import Experiment
from elicitable.diagnosis.sizes import ANYWHERE, SizeCurve, size_curve
from elicitable.methods.base import Method
from elicitable.race.causes.study import Study, resized
from elicitable.race.elsewhere import items_elsewhere
from elicitable.race.entry import Entry
from elicitable.race.line import leave
from elicitable.race.results import arm_result
from elicitable.values import ArmResult

TIMES = (4, 16)
MOST_TOKENS = 1_024  # virtual tokens, where a model's positions set no limit


def larger(study: Study, entry: Entry, times: int, rate: float) -> Experiment | None:
    """Give a context ``times`` the virtual tokens, or as many as the positions allow; None where that is no more.

    None too for a method that has no size.
    """
    if not entry.method.has_size:
        return None
    limit, name = study.race.model.anatomy.trained_positions, entry.method.name
    size = min(times * entry.sized.size, MOST_TOKENS if limit is None else limit - _longest_item(study, limit))
    what = f"with {size} virtual tokens in the place of {entry.sized.size}"
    if size <= entry.sized.size or any((one.of, one.what) == (name, what) for one in study.found):
        return None

    def run() -> Experiment:
        sized = resized(entry.method, study.race, size, entry.sized.options)
        lines = [study.short(sized, float(f"{one:.3g}")) for one in (rate, rate / 3)]
        line = study.best_of(lines) or lines[0]
        tried = study.trained(line, study.steps(entry.tested_at))
        setting = {"--learning-rate": f"{line.rate:g}", "--size": str(size)}
        return study.measured(name, "size", what, tried, study.gap_of(arm_result(study.race, entry)), setting)

    return study.ask(name, "size", what, run)


def _longest_item(study: Study, limit: int) -> int:
    """Return the positions that whatever is read takes, at least; half of all where items are texts."""
    items = [*study.race.test(), *items_elsewhere(study.race.model)]
    if any(item.is_text for item in items):
        return limit // 2
    return max(len(item.prompt) + len(item.target) for item in items)


def in_subspaces(study: Study, method: Method, sizes: Sequence[int]) -> list[Experiment]:
    """Train random subspaces of so many dimensions, the smallest first, until one is as good as the best arm."""
    found: list[Experiment] = []
    for size in sizes:
        if found and found[-1].is_enough:
            break
        what = f"{size:,} numbers anywhere in the weights"
        found.append(study.ask("", "subspace", what, partial(_in_subspace, study, method, size, what)))
    return found


def _in_subspace(study: Study, method: Method, size: int, what: str) -> Experiment:
    line = study.looked(resized(method, study.race, size))
    found = study.measured("", "subspace", what, study.trained(line, study.steps(times=1)), 0.0)
    leave(study.race, line)
    return found


def curves(study: Study, arms: Sequence[ArmResult], base: float) -> tuple[SizeCurve, ...]:
    """Fit how the score of each context, and of random subspaces, grows with the numbers trained."""
    top, found = study.best.mean or 0.0, []
    for arm in arms:
        points = {arm.budget.numbers_trained: arm.mean or 0.0}
        points |= {
            one.numbers_trained: one.mean
            for one in study.found
            if one.of == arm.method and one.kind == "size" and one.mean is not None
        }
        found.append(size_curve(arm.method, points, base, top))
    anywhere = {one.numbers_trained: one.mean for one in study.found if one.kind == "subspace" and one.mean is not None}
    if anywhere:
        found.append(size_curve(ANYWHERE, anywhere, base, top))
    return tuple(one for one in found if len(one.points) > 1)
