"""Run experiments as arms of a race that take no part in its verdict.

An experiment is a run of a method at some size, rate and start, found in the race's folder where it is there and kept
there otherwise, so a study that was stopped goes on where it was. It is trained as long as any arm is owed, but no
longer than its curve leads somewhere, tested on the race's test items, and compared in pairs with the best arm.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from elicitable.diagnosis.causes import NO_TIME, Experiment, Kind, experiment_of
from elicitable.diagnosis.looks import level_after
from elicitable.diagnosis.verdict import OWED, SHARE, Terms, compare
from elicitable.methods.base import Method, Sized
from elicitable.race.entry import Entry, Race
from elicitable.race.line import Line, advance, ending_of, finish, leave, leg_of
from elicitable.race.look import better_half, is_better_beyond, ranked
from elicitable.race.outlook import ceiling, is_flat, is_solved, longest, marks, owed
from elicitable.race.results import arm_result
from elicitable.race.stakes import as_looked_at
from elicitable.race.timing import cooldown_of, is_there, step_seconds, test_seconds
from elicitable.records.trial import TrialRecord
from elicitable.values import ArmResult

SHORT = 64  # steps of a run that only compares rates or starts
PLANNED = 16  # experiments, about, for the progress
LONGER = 4  # times the steps of a run that asks whether more of them help


class OutOfTime(Exception):
    """What an experiment would do next takes longer than there is time."""


@dataclass
class Study:
    """The race that is asked about, its best arm, and the experiments so far.

    ``deadline`` is a reading of ``time.monotonic``. No experiment begins after it, and none does what is known to take
    longer than until then: every run goes through :meth:`advance`, and whatever else takes time asks :meth:`needs`.
    """

    race: Race
    entries: Sequence[Entry]
    best: ArmResult
    deadline: float | None = None
    found: list[Experiment] = field(default_factory=list)
    runs: dict[str, Line] = field(default_factory=dict)  # of contexts, at a better rate than the race's
    tested: list[Entry] = field(default_factory=list)  # the arms that were run
    paces: dict[str, float] = field(default_factory=dict)  # seconds of a step, by the method, as the latest leg took
    was_interrupted: bool = False

    @classmethod
    def of(cls, race: Race, entries: Sequence[Entry], best: ArmResult, seconds: float | None) -> Study:
        """Begin a study of ``race``, whose own clock does not bind it; it may take so many ``seconds``."""
        pace = replace(race.pace, steps=LONGER * race.pace.steps)
        own = replace(race, time_limit=None, pace=pace, seeds=1, warnings=[], workers=None)
        own.shelf = race.shelf
        deadline = None if seconds is None else time.monotonic() + seconds
        return cls(own, entries, best, deadline)

    def has_time(self, seconds: float = 0.0) -> bool:
        """Say whether so many ``seconds`` more are over before the deadline."""
        return self.deadline is None or time.monotonic() + seconds < self.deadline

    def needs(self, seconds: float) -> None:
        """Go on where there is time for what takes so many ``seconds``; what is kept already takes none.

        Raises:
            OutOfTime: there is not. The experiment is noted as one that did not run.
        """
        if seconds > 0.0 and not self.has_time(seconds):
            raise OutOfTime

    def ask(self, of: str, kind: Kind, what: str, run: Callable[[], Experiment]) -> Experiment:
        """Run an experiment, unless there is no time for it, and take note of it."""
        if not self.begins(of, what):
            return self.lost(of, kind, what, NO_TIME)
        try:
            self.found.append(run())
        except OutOfTime:
            return self.lost(of, kind, what, NO_TIME)
        return self.found[-1]

    def begins(self, of: str, what: str, seconds: float = 0.0) -> bool:
        """Tell whoever listens what comes next, and say whether there is time for its ``seconds``."""
        done = len(self.found)
        self.race.reporter.begin(of or self.race.task.name, f"why: {what}", done, max(PLANNED, done + 1))
        return self.has_time(seconds)

    def lost(self, of: str, kind: Kind, what: str, reason: str) -> Experiment:
        """Take note of an experiment that cannot be run."""
        self.found.append(Experiment(of, kind, what, reason=reason))
        return self.found[-1]

    def measured(
        self,
        of: str,
        kind: Kind,
        what: str,
        entry: Entry,
        gap: float,
        setting: Mapping[str, str] | None = None,
    ) -> Experiment:
        """Return the experiment of an arm that was run, compared in pairs with the best."""
        arm = arm_result(self.race, entry)
        if arm.status != "ok" or arm.mean is None:
            return Experiment(of, kind, what, reason=arm.reason or arm.status, seconds=arm.seconds)
        self.tested.append(entry)
        size = {"--size": str(entry.sized.size)} if setting and entry.method.has_size else {}
        return self.compared(of, kind, what, arm, gap, size | dict(setting or {}))

    def compared(
        self, of: str, kind: Kind, what: str, arm: ArmResult, gap: float, setting: Mapping[str, str] | None = None
    ) -> Experiment:
        """Return the experiment that ``arm`` is, compared in pairs with the best."""
        race = self.race
        terms = Terms(
            race.seed,
            lambda one: race.marking.outcome(one.correct, one.answers, race.test()),
            race.groups(),
            level_after(race.looks),
        )
        compared = compare(self.best, arm, race.margin, terms)
        return experiment_of(of, kind, what, compared, gap, setting=dict(setting or {}))

    def gap_of(self, arm: ArmResult) -> float:
        """Return how far ``arm`` is behind the best, mean over pairs."""
        return (self.best.mean or 0.0) - (arm.mean or 0.0)

    def advance(self, line: Line, steps: int, race: Race | None = None) -> TrialRecord:
        """Train ``line`` on to ``steps``, in another ``race`` where one is given, whose runs are not tested.

        Raises:
            OutOfTime: there is no time for that, and for the way down and the test behind it.
        """
        self.needs(self._seconds_to(line, steps, race))
        record = advance(race or self.race, line, steps)
        self.paces[line.sized.method.name] = line.step_seconds() or self._step_seconds(line)
        return record

    def _seconds_to(self, line: Line, steps: int, race: Race | None = None) -> float:
        """Return the seconds, about, of the leg to ``steps`` and of the end behind it; 0 where the leg is kept."""
        if is_there(race or self.race, leg_of(race or self.race, line, steps)):
            return 0.0
        leg = (steps - line.steps) * self._step_seconds(line)
        return leg if race is not None else leg + self._seconds_of_end(line, steps)

    def _seconds_of_end(self, line: Line, steps: int) -> float:
        """Return the seconds, about, of the way down from ``steps`` and the test; 0 where these are kept."""
        cooldown = cooldown_of(self.race, steps)
        if is_there(self.race, ending_of(self.race, line, cooldown, steps)):
            return 0.0
        return cooldown * self._step_seconds(line) + test_seconds(self.race, self._raced(line))

    def _step_seconds(self, line: Line) -> float:
        """Return the seconds of a step: of the run, of its method's latest run, or as the race was priced."""
        method = line.sized.method.name
        return line.step_seconds() or self.paces.get(method) or step_seconds(self.race, self._raced(line))

    def _raced(self, line: Line) -> Entry:
        """Return the race's arm of the method of ``line``; one without a run where it did not take part."""
        same = (entry for entry in self.entries if entry.method.name == line.sized.method.name)
        return next(same, Entry(line.sized))

    def short(self, sized: Sized, rate: float, seed: int = 0) -> Line:
        """Return a run of :data:`SHORT` steps."""
        line = Line(sized, rate, seed)
        self.advance(line, min(SHORT, longest(self.race)))
        return line

    def looked(self, sized: Sized) -> Line:
        """Return the run of the best rate: all rates of the method for a few steps, the better half for twice as many.

        Where the best is the lowest or the highest, the next ones beyond it are tried as long as they are better.
        """
        schedule, most = sized.method.schedule, min(SHORT, longest(self.race))
        assert schedule is not None
        tried, steps = list(schedule.learning_rates), min(self.race.pace.first_steps, most)
        lines = [Line(sized, rate, 0) for rate in tried]
        first = lines[0]
        while lines:
            for line in lines:
                self.advance(line, steps)
            lines = better_half(self.race, lines)
            if len(lines) < 2:
                break
            steps = min(2 * steps, most)
        best = lines[0] if lines else first
        while best.is_fine and (rate := schedule.wider(tried, best.rate)) is not None:
            tried.append(rate)
            beyond = Line(sized, rate, 0)
            self.advance(beyond, best.steps)
            if not is_better_beyond(self.race, beyond, best):
                leave(self.race, beyond)
                break
            leave(self.race, best)
            best = beyond
        return best

    def steps(self, at_least: int = 0, times: int = SHARE) -> int:
        """Return the steps at the constant rate that an experiment gets at most: ``times`` those of the longest run."""
        longest_run = max((entry.line.steps for entry in self.entries if entry.line is not None), default=0)
        whole = min(owed(self.race), longest(self.race) // LONGER, times * max(longest_run, OWED))
        return max(at_least, whole)

    def steps_to_its_end(self) -> int:
        """Return the steps of an experiment that has to be seen not to get better any more, where it does not."""
        return min(longest(self.race), max(self.steps(), 4 * (self.race.pace.patience_steps // 2)))

    def trained(
        self, line: Line, steps: int, *, at_least: int = 0, is_patient: bool = False, enough: float = 1.0
    ) -> Entry:
        """Train ``line`` on to ``steps``, bring it down, and test it.

        It stops before where it has solved the task, scores ``enough`` on validation, or no time is left. From
        ``at_least`` steps on it also stops where nothing gets better, or, unless it ``is_patient``, where its curve no
        longer leads to the best.

        Raises:
            OutOfTime: there is no time for any of it.
        """
        race, entry, stopped, begun = self.race, Entry(line.sized), "steps", line.steps
        entry.line = line
        everyone = [mark for other in self.entries for mark in marks(other)]
        while line.is_fine and line.steps < steps and not is_solved(entry, race):
            own = marks(entry)
            further = min(2 * line.steps, steps)
            if own and own[-1].score >= enough:
                break
            reached = as_looked_at(self.best, self.best.mean or 0.0)
            is_hopeless = ceiling(entry, race, everyone) < reached - race.margin
            if line.steps >= at_least and (is_flat(entry, race) or (is_hopeless and not is_patient)):
                stopped = "behind"
                break
            try:
                record = self.advance(line, further)
            except OutOfTime:
                stopped = "time"
                break
            if not record.is_ok:
                line.legs.pop()
                break
        if stopped == "time" and line.steps == begun:  # else the leg before was begun with time for its end
            self.needs(self._seconds_of_end(line, line.steps))
        has_ended = line.steps >= at_least and is_flat(entry, race)
        entry.stopped = "solved" if is_solved(entry, race) else "plateau" if has_ended else stopped
        if line.is_fine:
            entry.trial, record = finish(race, line, cooldown_of(race, line.steps))
            entry.records, entry.tested_at = [record], line.steps
        else:
            entry.last = line.latest
        entry.seconds = line.seconds + sum(one.timing.seconds for one in entry.records)
        return entry

    def best_context(self, entry: Entry) -> Entry:
        """Return the best run of the method of ``entry`` so far, in the race and in experiments."""
        runs = [entry, *(one for one in self.tested if one.method.name == entry.method.name)]
        return max(runs, key=lambda one: arm_result(self.race, one).mean or 0.0)

    def best_of(self, lines: Sequence[Line]) -> Line | None:
        """Return the best run by validation, and leave the others; None where none ran through."""
        fine = ranked(self.race, lines)
        for line in fine[1:]:
            leave(self.race, line)
        return next(iter(fine), None)


def resized(method: Method, race: Race, size: int, options: Mapping[str, Any] | None = None) -> Sized:
    """Return a method at a size that no budget gave it."""
    return Sized(method, size, method.numbers(race.model, size), race.budget, dict(options or {}))
