"""Is the context that is needed there, and was only not found? Other rates, other starts, a longer run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from elicitable.diagnosis.causes import Experiment
from elicitable.methods.base import Sized
from elicitable.race.causes.study import LONGER, OutOfTime, Study
from elicitable.race.entry import Entry
from elicitable.race.line import Line
from elicitable.race.look import is_better
from elicitable.race.results import arm_result

STRIDE, FINE = 10.0, 10.0**0.5  # between rates that look for the right size, and around the best of those
FURTHEST = 6  # strides away from the rate of the race
DULL = 2  # strides one after the other that bring nothing, after which none is taken: what is too small to see does


def other_rates(study: Study, entry: Entry) -> Experiment:
    """Look for a better rate, upwards and downwards while that helps, and train as long as the race did at the best."""
    name, own = entry.method.name, _own_rate(entry)
    what = f"at another learning rate than {own:g}"
    return study.ask(name, "rate", what, lambda: _at_best_rate(study, entry, own, what))


def _at_best_rate(study: Study, entry: Entry, own: float, what: str) -> Experiment:
    arm, sized = arm_result(study.race, entry), entry.sized
    base = study.short(sized, own)
    line = _better_rate(study, sized, base)
    if line is base:
        return Experiment(
            arm.method, "rate", what, reason="no other rate did better after as many steps", seconds=base.seconds
        )
    rate = f"{line.rate:g}"
    tried = study.trained(line, study.steps(entry.tested_at))
    what = f"at a learning rate of {rate} in the place of {own:g}"
    found = study.measured(arm.method, "rate", what, tried, study.gap_of(arm), {"--learning-rate": rate})
    if found.mean is not None and found.mean >= (arm.mean or 0.0):
        study.runs[arm.method] = line
    return found


def _better_rate(study: Study, sized: Sized, base: Line) -> Line:
    """Return the short run of the best rate that is found from that of ``base`` on; ``base`` where none is better."""
    best = base
    for stride in (STRIDE, 1 / STRIDE):
        best = _strode(study, sized, best, stride)
        if best is not base:
            break
    for stride in (FINE, 1 / FINE):
        line = study.short(sized, _rounded(best.rate * stride))
        if is_better(study.race, line, best):
            return line
    return best


def _strode(study: Study, sized: Sized, base: Line, stride: float) -> Line:
    """Return the best of the short runs at rates that lie strides away from that of ``base``."""
    best, dull = base, 0
    for nth in range(1, FURTHEST + 1):
        line = study.short(sized, _rounded(base.rate * stride**nth))
        if not line.is_fine:
            break
        best, dull = (line, 0) if is_better(study.race, line, best) else (best, dull + 1)
        if dull == DULL:
            break
    return best


def _rounded(rate: float) -> float:
    return float(f"{rate:.3g}")


def _own_rate(entry: Entry) -> float:
    """Return the rate of the race; where all of them diverged, the lowest that was tried."""
    assert entry.method.schedule is not None
    return entry.rate or min(entry.method.schedule.learning_rates)


def longer(study: Study, entry: Entry) -> Experiment:
    """Go on from the best run so far, that of the race or one at a better rate, to four times the steps.

    It goes on from there as long as its curve leads to the best arm and the race would have given it more.
    """
    name, steps = entry.method.name, max(1, entry.tested_at)
    own = study.runs.get(name) or entry.line
    if own is None or not own.is_fine:
        return study.lost(name, "longer", f"trained {LONGER} times as long", "its run did not end")

    def run() -> Experiment:
        line = Line(own.sized, own.rate, own.seed, list(own.legs))
        tried = study.trained(line, study.steps(LONGER * steps), at_least=LONGER * steps)
        if tried.stopped == "time" and line.steps == own.steps:
            raise OutOfTime
        setting = {"--learning-rate": f"{line.rate:g}", "--steps": str(tried.trial.plan.steps if tried.trial else 0)}
        rate = "" if line.rate == entry.rate else f", at {line.rate:g}"
        what = f"trained {line.steps / steps:.3g} times as long ({line.steps:,} steps{rate})"
        return study.measured(name, "longer", what, tried, study.gap_of(arm_result(study.race, entry)), setting)

    return study.ask(name, "longer", f"trained {LONGER} times as long ({LONGER * steps:,} steps)", run)


def other_starts(study: Study, entry: Entry, rate: float) -> Experiment | None:
    """Start it otherwise, at ``rate``; None for a context that has no other start."""
    name, model = entry.method.name, study.race.model
    own = {**entry.method.start(model), **entry.sized.options}
    starts = [one for one in (entry.method.start(model), *entry.method.starts(model)) if one != own]
    if not entry.method.starts(model):
        return None
    what = f"started otherwise than {_said(own)}"

    def run() -> Experiment:
        sizes = [entry.method.begun(model, entry.sized, one) for one in starts]
        base, lines = study.short(entry.sized, rate), [study.short(sized, rate) for sized in sizes]
        best = study.best_of(lines)
        if best is None or not is_better(study.race, best, base):
            return Experiment(name, "start", what, reason="no other start did better after as many steps")
        tried = study.trained(best, study.steps(entry.tested_at))
        options = {f"--{option}": str(value) for option, value in best.sized.options.items()}
        setting = {"--learning-rate": f"{rate:g}", **options}
        gap = study.gap_of(arm_result(study.race, entry))
        return study.measured(name, "start", f"started {_said(best.sized.options)}", tried, gap, setting)

    return study.ask(name, "start", what, run)


def _said(options: Mapping[str, Any]) -> str:
    told = {"random": "from random numbers", "sink": "from its first token", "vocabulary": "from words"}
    return (
        f"from {options['origin']}"
        if "origin" in options
        else told.get(str(options.get("init")), "as it does by itself")
    )


def rate_of(study: Study, entry: Entry) -> float:
    """Return the rate that did best so far for this context: the race's, or another that an experiment found."""
    line = study.runs.get(entry.method.name)
    return _own_rate(entry) if line is None else line.rate
