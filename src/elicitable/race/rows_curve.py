"""How the contenders of a race grow with the training rows: trained again on 16, 64, 256 … of them, and tested.

Rows are distinct training items in the order that a seed draws them, so fewer are always among more. Every point is a
trial of its own beside those of the race: as many steps as the race's run had, brought down at the end, the best state
by validation.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from elicitable.diagnosis.rows import Crossing, Growth, crossing, grow
from elicitable.race.pieces import Piece
from elicitable.race.results import arm_result
from elicitable.race.trial import Trial, outcomes_of, run
from elicitable.records.store import identity
from elicitable.rng import generator
from elicitable.tasks.base import fingerprint_of, identity_of

if TYPE_CHECKING:
    import numpy as np

    from elicitable.race.entry import Entry, Race
    from elicitable.records.trial import TrialRecord
    from elicitable.tasks.base import HeldOut, Task
    from elicitable.values import Item

FIRST, TIMES, MOST = 16, 4, 4096  # rows: the fewest, how many times as many next, the most
NEXT = 200  # labels more, whose gain is foretold


@dataclass(frozen=True)
class RowsCurve:
    """Hold how each contender grows, and where the best weights overtake the best context; None if one is missing."""

    growths: tuple[Growth, ...]
    crossing: Crossing | None


class FewRows:
    """Hold a task of which only the first ``count`` of ``rows`` may be trained on."""

    def __init__(self, task: Task, rows: Sequence[Item], count: int) -> None:
        self.task, self.rows, self.count = task, tuple(rows[:count]), count
        self.name = task.name  # a trial's outcomes are found by it

    def __getattr__(self, name: str) -> Any:
        """Return what else the task says of itself: the warnings, the stops, the groups."""
        return getattr(self.task, name)

    def labels(self) -> tuple[str, ...] | None:
        """Return the task's labels."""
        return self.task.labels()

    def held_out(self, split: HeldOut, n: int | None = None) -> list[Item]:
        """Return the task's own held-out items."""
        return self.task.held_out(split, n)

    def sample(self, n: int, rng: np.random.Generator) -> list[Item]:
        """Draw ``n`` of the rows, each as often as chance has it."""
        return [self.rows[place] for place in rng.integers(0, len(self.rows), n)]

    def fingerprint(self) -> str:
        """Identify the task and the rows."""
        parts = [repr((item.prompt, item.target)) for item in self.rows]
        return fingerprint_of([identity_of(self.task), *parts])


def distinct_rows(task: Task, most: int = MOST, *, seed: int) -> list[Item]:
    """Draw up to ``most`` different training items; fewer where the task has no more."""
    rng, found = generator(seed, "rows", task.name), dict[tuple[Any, Any], "Item"]()
    while len(found) < most:
        before = len(found)
        for item in task.sample(max(64, 2 * most), rng):
            found.setdefault((item.prompt, item.target), item)
        if len(found) < before + max(1, most // 100):
            break
    return list(found.values())[:most]


def numbers_of_rows(available: int) -> list[int]:
    """Return the numbers of rows that are tried: 16, 64, 256 … and at last all there are.

    >>> numbers_of_rows(300), numbers_of_rows(256)
    ([16, 64, 300], [16, 64, 256])
    """
    numbers = []
    rows = FIRST
    while rows <= available:
        numbers.append(rows)
        rows *= TIMES
    if not numbers or available / numbers[-1] >= TIMES / 2:
        numbers.append(available)
    elif numbers[-1] != available:
        numbers[-1] = available
    return numbers


def grown_with_rows(
    race: Race, entries: Sequence[Entry], seconds: float | None = None, most: int = MOST
) -> RowsCurve | None:
    """Train and test the best context and the best of the weights at every number of rows; None if nothing grows.

    Few rows come first. After ``seconds`` no further run begins, which is said; the same folder goes on from there.
    """
    started = time.monotonic()
    contenders = _contenders(race, entries)
    rows = distinct_rows(race.task, most, seed=race.seed)
    numbers = numbers_of_rows(len(rows))
    if not contenders or len(numbers) < 2:
        why = "no arm that hangs on the training rows ran through" if not contenders else f"there are {len(rows)} rows"
        race.warnings.append(f"there is no rows curve: {why}, and it takes one that does, at {FIRST} rows and more")
        return None
    arms: dict[str, dict[int, Any]] = {}
    race.ahead(lambda: [_piece(race, one, FewRows(race.task, rows, count)) for one in contenders for count in numbers])
    for nth, count in enumerate(numbers):
        for entry in contenders:
            if seconds is not None and time.monotonic() > started + seconds:
                race.warnings.append(
                    f"the rows curve was given as long again as the time limit and did not come to {count:,} rows for "
                    f"{entry.method.name}; the same --out goes on from here"
                )
                return _told(race, contenders, arms)
            race.reporter.begin(entry.method.name, f"on {count} rows", nth, len(numbers))
            record = _record(race, entry, FewRows(race.task, rows, count))
            if record.is_ok:
                arms.setdefault(entry.method.name, {})[count] = _outcome(race, record)
            else:
                lost = f"{record.status} ({record.stopped})"
                race.warnings.append(f"the rows curve has no {entry.method.name} at {count:,} rows: {lost}")
    return _told(race, contenders, arms)


def _told(race: Race, contenders: Sequence[Entry], arms: Mapping[str, Mapping[int, Any]]) -> RowsCurve | None:
    """Judge the arms that were tested at two numbers of rows at least; None where none was."""
    grown = {name: by_rows for name, by_rows in arms.items() if len(by_rows) > 1}
    return _judged(race, contenders, grown) if grown else None


def _judged(race: Race, contenders: Sequence[Entry], arms: Mapping[str, Mapping[int, Any]]) -> RowsCurve:
    groups, highest = race.groups(), race.marking.scorer.highest
    growths = grow(arms, seed=race.seed, next_rows=NEXT, groups=groups, highest=highest)
    order = [entry.method.name for entry in contenders if entry.method.name in arms]
    if len(order) < 2:
        return RowsCurve(growths, None)
    return RowsCurve(growths, crossing(arms, *order[:2], seed=race.seed, groups=groups, highest=highest))


def _contenders(race: Race, entries: Sequence[Entry]) -> list[Entry]:
    """Return the best context and the best of the others, of those whose result hangs on the training rows."""
    tested = [entry for entry in entries if entry.records and entry.records[0].is_ok and entry.method.reads_rows]
    # what stands on another arm's choice has rows of that choice in it, whatever rows it is trained on
    judged = [entry for entry in tested if not entry.method.is_control and entry.method.stands_on is None]
    best = []
    for is_context in (True, False):
        own = [entry for entry in judged if entry.method.is_context is is_context]
        best += sorted(own, key=lambda entry: arm_result(race, entry).mean or 0.0, reverse=True)[:1]
    return best


def from_the_beginning(trial: Trial) -> Trial:
    """Return the trial of an arm of the race as one run of as many steps, of which the last third is the way down."""
    if not trial.method.is_trained:
        return replace(trial, is_first=False)  # it is not deployed
    steps = trial.plan.steps
    plan = replace(trial.plan, cooldown=max(1, steps // 3) / steps, evaluate_every=max(1, steps // 8))
    return replace(trial, plan=plan, is_first=False)


def _on_rows(race: Race, entry: Entry) -> Trial:
    """Return the trial of a point, whatever the rows: that of the race from the beginning."""
    assert entry.trial is not None
    trial = from_the_beginning(entry.trial)
    if entry.line is None:
        return trial
    return replace(trial, options=race.options_of(entry.method) | _own_options(race, entry))


def _own_options(race: Race, entry: Entry) -> dict[str, Any]:
    """Return the options of an arm's start; where that is what another arm chose from all rows, the method's own."""
    options = dict(entry.sized.options)
    return options if options in entry.method.starts(race.model) else {}


def _record(race: Race, entry: Entry, task: FewRows) -> TrialRecord:
    assert entry.trial is not None
    trial, few = _on_rows(race, entry), cast("Task", task)
    return race.record(
        trial,
        lambda: _piece(race, entry, task),
        lambda: run(trial, race.model, few, race.store, race.reporter.point),
        few,
    )


def _piece(race: Race, entry: Entry, task: FewRows) -> Piece:
    """Return what a worker does for a point: the run of the race is told by its steps and its way down."""
    assert entry.trial is not None
    trial, steps = entry.trial, entry.tested_at
    name = identity(_on_rows(race, entry).spec(race.model, cast("Task", task)))
    whole = Piece(entry.method.name, 0, trial.plan.layout, (name,), rows=task.count)
    if entry.line is None:
        return whole
    options = tuple(_own_options(race, entry).items())
    return replace(whole, rate=entry.line.rate, legs=(steps,), cooldown=trial.plan.steps - steps, options=options)


def _outcome(race: Race, record: TrialRecord) -> Any:
    written = (record.answers,)
    return race.marking.outcome((outcomes_of(record).items,), written, race.test())
