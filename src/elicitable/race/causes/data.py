"""Is it the data? Whether the weights can at least learn a few rows by heart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from elicitable.diagnosis.causes import Experiment
from elicitable.race.causes.study import Study
from elicitable.race.entry import Entry
from elicitable.race.line import Line, advance
from elicitable.race.outlook import is_solved, longest
from elicitable.race.results import arm_result
from elicitable.race.rows_curve import FewRows, distinct_rows
from elicitable.tasks.base import HeldOut
from elicitable.values import Item

FEW, MOST_STEPS = 32, 512


class ByHeart(FewRows):
    """Hold a few training rows of a task, and validate on the very same."""

    def held_out(self, split: HeldOut, n: int | None = None) -> list[Item]:
        """Return the rows that are trained on."""
        return list(self.rows[:n])

    def fingerprint(self) -> str:
        """Identify the task, the rows, and what they are used for."""
        return f"by heart {super().fingerprint()}"


def by_heart(study: Study, entry: Entry) -> Experiment:
    """Train ``entry``'s method on a few rows at the race's rate until they are right, and score it on them."""
    rows = distinct_rows(study.race.task, FEW, seed=study.race.seed)
    what = f"{entry.method.name}, scored on the {len(rows)} rows that it is trained on"

    def run() -> Experiment:
        task: Any = ByHeart(study.race.task, rows, FEW)
        pace = replace(study.race.pace, validation_items=2 * len(rows))  # a leg looks at half of them
        race = replace(study.race, task=task, pace=pace)
        alone = Entry(entry.sized)
        assert entry.rate is not None
        line = alone.line = Line(entry.sized, entry.rate, 0)
        steps, most = 32, min(MOST_STEPS, longest(race))
        while not line.legs or (line.is_fine and line.steps < most and not is_solved(alone)):
            advance(race, line, min(steps, most))
            steps *= 2
        record = line.latest
        if record is None or not record.is_ok:
            return Experiment("", "by-heart", what, reason="the loss was no number any more", seconds=line.seconds)
        return Experiment("", "by-heart", what, mean=record.validation, steps=record.steps, seconds=line.seconds)

    if entry.rate is None or arm_result(study.race, entry).status != "ok":
        return study.lost("", "by-heart", what, f"{entry.method.name} did not run through")
    return study.ask("", "by-heart", what, run)
