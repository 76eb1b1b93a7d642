"""Runs that go on: one method at one rate and seed, trained leg by leg at a constant rate and brought down at the end.

A leg ends at some number of steps and is a trial of its own, with one look at the validation split. The next leg goes
on from where it ended, bit for bit as one run would. To finish, the rate comes down along a cosine from the end of the
latest leg, on a branch: a line that is finished can still go on. So no decision to train longer trains anything twice,
and none of a clock's readings is part of a trial.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elicitable.methods.examples import as_tuples
from elicitable.models.speed.processor import made_on
from elicitable.race.pieces import Piece
from elicitable.race.trial import Trial, known_record, run
from elicitable.records.store import identity
from elicitable.training.checkpoint import Checkpoint, Frozen
from elicitable.training.loop import Plan, taken_up, train

if TYPE_CHECKING:
    from elicitable.methods.base import Adaptation, Sized
    from elicitable.race.entry import Race
    from elicitable.records.trial import TrialRecord
    from elicitable.training.loop import Fit, Progress

NEVER = 10**9
LARGEST_STATE = 2**32  # bytes of a run that is kept between its legs; a larger one starts again from nothing
LARGEST_DOWN = 2**30  # of one that has come down, which is kept for other tests
WARMUP = 10
WRITTEN_A_SECOND = 5e7  # bytes, at least, of a file of tensors
SELDOM = 20  # times as long as it takes to write them: how long a race has run when states that go with it are written
HALVED = 16  # steps of a way down from which on there are looks on the way too: one costs as much as a few steps


class Shelf:
    """Keep the ends of legs, so that their runs can go on: in memory, and in a folder where they are small.

    Large ones are written now and then, so that a race that is killed goes on from the last of them. A worker's shelf
    ``is_shared``: all is kept in the folder, for whoever goes on, and the race alone drops it.
    """

    def __init__(self, folder: Path | None, is_shared: bool = False) -> None:
        self.folder = None if folder is None else folder / "running"
        self.is_shared = is_shared
        self._ends: dict[str, Frozen] = {}
        self._written: dict[str, str] = {}  # by an end in memory alone, the end before it that is in the folder
        self._began, self._bytes = time.monotonic(), 0  # that were written now and then

    def find(self, name: str) -> Frozen | None:
        """Return the end of the leg called ``name``, or None where it is not kept."""
        if name in self._ends or self.folder is None:
            return self._ends.get(name)
        return self._file(name).read()

    def has(self, name: str) -> bool:
        """Say whether the end of the leg called ``name`` is kept."""
        return name in self._ends or self._is_written(name)

    def keep(self, name: str, end: Frozen, is_lasting: bool, largest: int = LARGEST_STATE) -> None:
        """Keep ``end``, unless it is larger; in the folder, where there is one, if ``is_lasting``.

        Raises:
            StoreError: it cannot be written.
        """
        if end.bytes > largest:
            return
        is_asked = is_lasting or self.is_shared
        if self.folder is None or not (is_asked or self._is_due(end)):
            self._ends[name] = end.put_by()
            return
        self._file(name).write(end)
        self._bytes += 0 if is_asked else end.bytes

    def follow(self, before: str, name: str) -> None:
        """Forget the end ``before``, now that there is a further one; in the folder only when that is there too."""
        written = self._written.pop(before, before if self._is_written(before) else "")
        if name in self._ends and written:
            self._written[name] = written
            self._ends.pop(before, None)
            return
        for one in filter(None, (before, written)):
            self.drop(one)

    def drop(self, name: str) -> None:
        """Forget the end of a leg from which nothing will go on."""
        if self.is_shared:
            return
        self._ends.pop(name, None)
        if self.folder is not None:
            self._file(name).remove()

    def save(self) -> None:
        """Write down what is in memory alone, for a later race in this folder."""
        if self.folder is not None:
            for name, end in self._ends.items():
                self._file(name).write(end)
                if before := self._written.pop(name, None):
                    self._file(before).remove()

    def _is_due(self, end: Frozen) -> bool:
        """Say whether writing ``end`` too leaves it at a small share of the time so far, whatever else was written."""
        return time.monotonic() - self._began > SELDOM * (self._bytes + end.bytes) / WRITTEN_A_SECOND

    def _is_written(self, name: str) -> bool:
        return self.folder is not None and self._file(name).path.exists()

    def _file(self, name: str) -> Checkpoint:
        assert self.folder is not None
        return Checkpoint(self.folder / f"{name}.safetensors", name)


@dataclass
class Line:
    """One run that goes on. ``legs`` are its trials so far with their records, each longer than the one before."""

    sized: Sized
    rate: float
    seed: int
    legs: list[tuple[Trial, TrialRecord]] = field(default_factory=list)
    downs: list[str] = field(default_factory=list)  # names of the ways down, whose ends are kept for other tests

    @property
    def steps(self) -> int:
        """Count the steps of the latest leg that ran through, from the beginning."""
        return next((record.steps for _, record in reversed(self.legs) if record.is_ok), 0)

    @property
    def latest(self) -> TrialRecord | None:
        """Return the record of the latest leg; None before the first."""
        return self.legs[-1][1] if self.legs else None

    @property
    def is_fine(self) -> bool:
        """Say whether it can go on: its latest leg ran through."""
        return self.latest is not None and self.latest.is_ok

    @property
    def seconds(self) -> float:
        """Add up the seconds of all legs."""
        return sum(record.timing.seconds for _, record in self.legs)

    def seconds_beside(self, other: Line) -> float:
        """Add up the seconds of the legs that are not those of ``other`` too."""
        theirs = [trial for trial, _ in other.legs]
        return sum(record.timing.seconds for trial, record in self.legs if trial not in theirs)

    def step_seconds(self) -> float | None:
        """Return the seconds of a step in the latest leg, its look at the validation split included; None before it."""
        if not self.is_fine:
            return None
        before = self.legs[-2][1].steps if len(self.legs) > 1 else 0
        record = self.legs[-1][1]
        return record.timing.seconds / max(1, record.steps - before)


def leg_of(race: Race, line: Line, steps: int) -> Trial:
    """Return the trial that takes ``line`` to ``steps`` steps at the constant rate."""
    plan = replace(_plan(race, line), steps=steps, cooldown=0.0, evaluate_every=NEVER)
    return _trial(race, line, replace(plan, validation_items=race.pace.look_items))


def ending_of(race: Race, line: Line, cooldown: int, steps: int | None = None) -> Trial:
    """Return the trial that brings ``line`` down over ``cooldown`` steps, from where it is or from ``steps``."""
    whole = (line.steps if steps is None else steps) + cooldown
    every = NEVER if cooldown < HALVED else cooldown // 2
    plan = replace(_plan(race, line), steps=whole, cooldown=cooldown / whole, evaluate_every=every)
    is_first = line.seed == 0 and race.store.folder is not None
    trial = replace(_trial(race, line, plan), test_items=race.pace.test_items, marking=race.marking)
    return replace(trial, is_first=is_first)


def piece_of(race: Race, line: Line, *marks: int, cooldown: int | None = None) -> Piece:
    """Return what a worker does to take ``line`` on to all ``marks``, and then to bring it down over ``cooldown``."""
    new = [leg_of(race, line, steps) for steps in marks]
    if cooldown is not None:
        new.append(ending_of(race, line, cooldown, marks[-1] if marks else None))
    legs = (*(trial.plan.steps for trial, _ in line.legs), *marks)
    names, ends = (tuple(_name(race, one) for one in them) for them in (new, map(_untested, new)))
    options = tuple(line.sized.options.items())
    about = line.sized.method.name, line.seed, race.layout
    return Piece(*about, names, line.rate, legs, cooldown, options=options, ends=ends)


def advance(race: Race, line: Line, steps: int) -> TrialRecord:
    """Train ``line`` on to ``steps`` steps; the record, from the store where it is there."""
    trial = leg_of(race, line, steps)
    known = line.legs[-1][0] if line.legs else None
    record = race.record(trial, lambda: piece_of(race, line, steps), lambda: _run(race, line, trial))
    line.legs.append((trial, record))
    if known is not None and record.is_ok and race.shelf.has(_name(race, trial)):
        race.shelf.follow(_name(race, known), _name(race, trial))
    return record


def finish(race: Race, line: Line, cooldown: int) -> tuple[Trial, TrialRecord]:
    """Bring ``line`` down and test it; the trial and its record, from the store where it is there.

    A test on more items, or by another score, takes up the end of the way down and trains nothing.
    """
    trial = ending_of(race, line, cooldown)
    line.downs.append(_name(race, _untested(trial)))
    piece = partial(piece_of, race, line, cooldown=cooldown)
    return trial, race.record(trial, piece, lambda: _run(race, line, trial))


def note_end(race: Race, line: Line, cooldown: int) -> None:
    """Note how far a race has taken an arm, beside what others have noted, for those in its folder that need it less.

    Its name is that of the end of the way down, whatever it is tested by.
    """
    sized, name = line.sized, name_of_end(race, line, cooldown, line.steps)
    noted = _ends_noted(race, sized)
    if name in noted:
        return
    end = {
        "start": {"size": sized.size, "numbers": sized.numbers, "options": dict(sized.options)},
        "rate": line.rate,
        "marks": [trial.plan.steps for trial, _ in line.legs],
        "cooldown": cooldown,
    }
    whole = {"status": "ok", "decision": noted | {name: end}, **made_on(race.model.device)}
    race.store.put(_of_ends(race, sized), whole)


def further_end(race: Race, line: Line) -> tuple[Line, int] | None:
    """Return an arm's run as that race in this folder has taken it which took it furthest, and its way down.

    None where none took it as far as ``line`` and no further than steps are asked for, or where any of it would have to
    be trained.
    """
    ends = sorted(_ends_noted(race, line.sized).values(), key=lambda end: end["marks"][-1], reverse=True)
    for end in ends:
        marks, cooldown = end["marks"], end["cooldown"]
        if marks[-1] >= line.steps and marks[-1] + cooldown <= race.pace.steps:
            found = Line(_started(line.sized, end["start"]), end["rate"], 0)
            if _is_there(race, found, marks, cooldown):
                for steps in marks:
                    advance(race, found, steps)
                return found, cooldown
    return None


def _started(sized: Sized, start: dict[str, Any]) -> Sized:
    """Return an arm as it was noted, with tuples where JSON has lists."""
    options = {name: as_tuples(value) for name, value in start["options"].items()}
    return replace(sized, **{**start, "options": options})


def _is_there(race: Race, line: Line, marks: Sequence[int], cooldown: int) -> bool:
    """Say whether all legs of a run are there, and its end or a test of it that ran through."""
    legs = [known_record(leg_of(race, line, steps), race.model, race.task, race.store) for steps in marks]
    if not all(record is not None and record.is_ok for record in legs):
        return False
    test = known_record(ending_of(race, line, cooldown, marks[-1]), race.model, race.task, race.store)
    return race.shelf.has(name_of_end(race, line, cooldown, marks[-1])) if test is None else test.is_ok


def _ends_noted(race: Race, sized: Sized) -> dict[str, Any]:
    noted = race.store.get(_of_ends(race, sized))
    return {} if noted is None else noted["decision"]


def _of_ends(race: Race, sized: Sized) -> dict[str, Any]:
    arm = {"arm": sized.method.identity, "budget": race.budget, "seed": race.seed}
    if sized.method.stands_on is not None:
        arm["behind"] = dict(sized.options)  # what was chosen in this race
    return {"decision": "how far an arm was taken", **arm, **race.read()}


def name_of_end(race: Race, line: Line, cooldown: int, steps: int) -> str:
    """Return the name under which the end of the way down from ``steps`` is kept."""
    return _name(race, _untested(ending_of(race, line, cooldown, steps)))


def leave(race: Race, line: Line) -> None:
    """Forget what ``line`` would go on from."""
    for name in (*(_name(race, trial) for trial, _ in line.legs), *line.downs):
        race.shelf.drop(name)


def _run(race: Race, line: Line, trial: Trial) -> TrialRecord:
    def trained(adaptation: Adaptation, progress: Progress | None) -> Fit:
        name = _name(race, _untested(trial))
        there = race.shelf.find(name) if trial.test_items else None
        if there is not None:
            return taken_up(adaptation, there)
        start, plan = _end(race, line, len(line.legs) - 1), trial.plan
        fit = train(race.model, adaptation, race.task, plan, trial.seed, progress=progress, start=start, keeps_end=True)
        if fit.end is not None:
            largest = LARGEST_DOWN if trial.test_items else LARGEST_STATE
            race.shelf.keep(name, fit.end, trial.method.keeps_state, largest)
        return fit

    return run(trial, race.model, race.task, race.store, race.reporter.point, trained)


def _end(race: Race, line: Line, nth: int) -> Frozen | None:
    """Return the state after a leg; where it was not kept, by taking its steps again."""
    if nth < 0:
        return None
    trial, _ = line.legs[nth]
    kept = race.shelf.find(_name(race, trial))
    if kept is not None:
        return kept
    adaptation = trial.method.made(race.model, trial.size, seed=trial.seed, **trial.options)
    start = _end(race, line, nth - 1)
    return train(race.model, adaptation, race.task, trial.plan, trial.seed, start=start, keeps_end=True).end


def _untested(trial: Trial) -> Trial:
    """Return the run of a trial without its test: under its name the end is kept, for other tests too."""
    return replace(trial, test_items=0, marking=None)


def _name(race: Race, trial: Trial) -> str:
    return identity(trial.spec(race.model, race.task))


def _trial(race: Race, line: Line, plan: Plan) -> Trial:
    method = line.sized.method
    options = race.options_of(method) | dict(line.sized.options)
    return Trial(method, line.sized.size, plan, race.seed + line.seed, options=options)


def _plan(race: Race, line: Line) -> Plan:
    schedule, pace = line.sized.method.schedule, race.pace
    return Plan(
        learning_rate=line.rate,
        steps=pace.steps,
        batch=pace.batch,
        warmup=min(WARMUP, max(1, pace.steps // 10)),
        evaluate_every=pace.evaluate_every,
        validation_items=pace.validation_items,
        weight_decay=schedule.weight_decay if schedule else 0.0,
        patience_steps=NEVER,  # the race decides when a run has come to its end
        solved=2.0,
        perfect=2.0,
        max_tokens=pace.max_tokens,
        layout=race.layout,
    )
