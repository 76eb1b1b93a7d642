"""Is it something that no context can do? The unbounded context, frozen patterns of attention, parts of the weights."""

from __future__ import annotations

from typing import Any

from elicitable.diagnosis.causes import Experiment
from elicitable.methods.base import Method
from elicitable.race.causes.optimisation import better_rate
from elicitable.race.causes.study import LONGER, Study, resized
from elicitable.race.entry import Entry

_WHAT: dict[str, str] = {
    "unbounded": "the unbounded context",
    "frozen-patterns": "all but the patterns of attention",
}


def probed(
    study: Study, method: Method, options: dict[str, Any] | None = None, said: str = "", is_patient: bool = False
) -> Experiment:
    """Train a probe: a first look at its rates and beyond them, then as long as it leads somewhere.

    One that ``is_patient`` goes on for as long as it gets better, so that it can be said to have failed.
    """
    kind: Any = method.probe
    what = said or _WHAT.get(kind) or method.summary.removeprefix("only ")

    def run() -> Experiment:
        size = 16 if method.has_size else 1
        entry = Entry(resized(method, study.race, size, options))
        assert method.schedule is not None
        rates = method.schedule.learning_rates[-3:]  # the lowest are for fine-tuning large models gently
        lines = [study.short(entry.sized, rate) for rate in rates]
        line = better_rate(study, entry.sized, study.best_of(lines) or lines[0])
        steps = study.steps() * (LONGER if is_patient else 1)
        setting = {name: str(value) for name, value in (options or {}).items()}
        return study.measured(
            "", kind, what, study.trained(line, steps, "flat" if is_patient else "hopeless"), 0.0, setting
        )

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
