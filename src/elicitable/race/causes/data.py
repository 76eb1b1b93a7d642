"""Is it the data? Whether the weights can at least learn a few rows by heart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from elicitable.diagnosis.causes import Experiment
from elicitable.diagnosis.explaining import BY_HEART
from elicitable.race.causes.study import Study
from elicitable.race.entry import Entry
from elicitable.race.line import Line, leave
from elicitable.race.outlook import SOLVED, longest
from elicitable.race.results import arm_result
from elicitable.race.rows_curve import FewRows, distinct_rows
from elicitable.tasks.base import HeldOut
from elicitable.values import Item

FEW, MOST_STEPS = 32, 512
OTHER_RATES = (10.0**0.5, 10.0**-0.5)  # times that of the race


class ByHeart(FewRows):
    """Hold a few training rows of a task, and validate on the very same."""

    def held_out(self, split: HeldOut, n: int | None = None) -> list[Item]:
        """Return the rows that are trained on."""
        return list(self.rows[:n])

    def fingerprint(self) -> str:
        """Identify the task, the rows, and what they are used for."""
        return f"by heart {super().fingerprint()}"


def by_heart(study: Study, entry: Entry) -> Experiment:
    """Train ``entry``'s method on a few rows at the race's rate until they are right, and score it on them.

    Where they could be right and are not, other rates are tried, up and down.
    """
    rows = distinct_rows(study.race.task, FEW, seed=study.race.seed)
    what = f"{entry.method.name}, scored on the {len(rows)} rows that it is trained on"

    ceiling = most_right(rows)

    def run() -> Experiment:
        own = entry.rate or 0.0
        tried: list[Line] = []
        for rate in (own, *(float(f"{own * times:.3g}") for times in OTHER_RATES)):
            tried.append(_trained_on(study, entry, rows, rate))
            if ceiling < BY_HEART or _share_right(tried[-1]) >= BY_HEART:
                break
        line, seconds = max(tried, key=_share_right), sum(one.seconds for one in tried)
        record = line.latest
        if record is None or not record.is_ok:
            return Experiment("", "by-heart", what, reason="the loss was no number any more", seconds=seconds)
        at = "" if line is tried[0] else f", at a learning rate of {line.rate:g} in the place of {own:g}"
        return Experiment(
            "",
            "by-heart",
            f"{what}{at}",
            mean=record.validation,
            steps=record.steps,
            seconds=seconds,
            ceiling=ceiling,
        )

    if entry.rate is None or arm_result(study.race, entry).status != "ok":
        return study.lost("", "by-heart", what, f"{entry.method.name} did not run through")
    return study.ask("", "by-heart", what, run)


def _trained_on(study: Study, entry: Entry, rows: Sequence[Item], rate: float) -> Line:
    """Train the method of ``entry`` on ``rows`` at ``rate`` until they are right or the steps are over."""
    task: Any = ByHeart(study.race.task, rows, FEW)
    pace = replace(study.race.pace, validation_items=2 * len(rows))  # a leg looks at half of them
    race = replace(study.race, task=task, pace=pace)
    race.shelf = study.race.shelf
    line = Line(entry.sized, rate, 0)
    steps, most = 32, min(MOST_STEPS, longest(race))
    while not line.legs or (line.is_fine and line.steps < most and _share_right(line) < SOLVED):
        study.advance(line, min(steps, most), race)
        steps *= 2
    leave(race, line)
    return line


def _share_right(line: Line) -> float:
    """Return the share of the rows that is right at the end of a run; less than none where it did not run through."""
    record = line.latest
    return -1.0 if record is None or not record.is_ok else record.validation or 0.0


def most_right(rows: Sequence[Item]) -> float:
    """Return the share of ``rows`` that can be right at once, where the same text has the same answer.

    >>> most_right([Item("a", "x"), Item("a", "y"), Item("b", "x"), Item("c", "x")])
    0.75
    """
    answers: dict[Any, Counter[Any]] = {}
    for row in rows:
        answers.setdefault(row.prompt, Counter())[row.target] += 1
    return sum(max(counts.values()) for counts in answers.values()) / len(rows)
