"""Is it something that no context can do? The unbounded context, frozen patterns of attention, parts of the weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from elicitable.diagnosis.causes import Experiment
from elicitable.methods.base import Method
from elicitable.race.causes.study import Study, resized
from elicitable.race.entry import Entry

_WHAT: dict[str, str] = {
    "unbounded": "the unbounded context",
    "frozen-patterns": "all but the patterns of attention",
}


def probed(study: Study, method: Method, options: dict[str, Any] | None = None, said: str = "") -> Experiment:
    """Train a probe as an arm of the race is trained: a first look at its rates, then as long as it leads somewhere."""
    kind: Any = method.probe
    what = said or _WHAT.get(kind) or method.summary.removeprefix("only ")

    def run() -> Experiment:
        size = 16 if method.has_size else 1
        entry = Entry(resized(method, study.race, size, options))
        assert method.schedule is not None
        lines = [study.short(entry.sized, rate) for rate in _middle(method.schedule.learning_rates)]
        line = study.best_of(lines) or lines[0]
        setting = {name: str(value) for name, value in (options or {}).items()}
        return study.measured("", kind, what, study.trained(line, study.steps()), 0.0, setting)

    return study.ask("", kind, what, run)


def _middle(rates: Sequence[float]) -> list[float]:
    """Return the upper rates of a range: the lowest are for fine-tuning large models gently."""
    return list(rates[-3:])


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
