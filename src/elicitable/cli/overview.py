"""What ``reproduce`` says while it runs: what every worker does, how much is done, and about how long the rest takes.

Jobs run in other processes, perhaps on other machines, so what they do is read from their heartbeats in the folder.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from elicitable.lab.heartbeat import Beat, read_beat
from elicitable.lab.jobs import Job
from elicitable.lab.reproduce import Watcher
from elicitable.records.store import Store
from elicitable.records.trial import TrialRecord, kept_trial
from elicitable.report.progress import clock
from elicitable.report.table import print_hanging
from elicitable.untrusted import in_one_line

LOOK_SECONDS = 1.0
SAY_SECONDS = 60.0  # without a terminal: a line at least so often
MOST_SHOWN = 16
WELL_UNDER_WAY = 0.2


class Overview(Watcher):
    """Progress on standard error: live on a terminal, a line now and then where there is none."""

    def __init__(self, console: Console, workers: int) -> None:
        self.console, self.workers = console, workers
        self._forecast = Forecast(workers)
        self._todo: dict[str, Job] = {}
        self._left_over: dict[str, Beat] = {}
        self._jobs, self._failed = 0, 0
        self._folder = Path()
        self._over = threading.Event()
        self._live: Live | None = None
        self._began = self._said = time.monotonic()

    @contextmanager
    def watching(self, jobs: Sequence[Job], todo: Sequence[Job], store: Store) -> Iterator[None]:
        """Show how things stand until the end of the ``with``."""
        assert store.folder is not None
        self._folder, self._jobs = store.folder, len(jobs)
        self._todo = {job.identity: job for job in todo}
        self._left_over = self._beats(self._todo)  # of a run that was killed: nobody is at work on them
        self._began = self._said = time.monotonic()
        for job in jobs:
            if job.identity not in self._todo and (record := kept_trial(store, job.spec())) is not None:
                self._forecast.learn(job, record)
        if self.console.is_terminal and todo:
            self._live = Live(console=self.console, transient=True, auto_refresh=False)
            self._live.start()
        looking = threading.Thread(target=self._look, daemon=True)
        looking.start()
        try:
            yield
        finally:
            self._over.set()
            looking.join()
            if self._live is not None:
                self._live.stop()

    def done(self, job: Job, record: TrialRecord) -> None:
        """Leave one line behind."""
        self._todo.pop(job.identity, None)
        self._forecast.learn(job, record)
        self._failed += record.status == "failed"
        ended = _outcome(record) if record.is_ok else record.status
        seconds = clock(record.timing.seconds)
        line = f"[{self._jobs - len(self._todo)}/{self._jobs}] {job.describe()}: {ended} ({seconds})"
        print_hanging(line, self.console)

    def _look(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            lines = self.lines()
            if self._live is not None:
                self._live.update(
                    Group(*(Text(line, overflow="ellipsis", no_wrap=True) for line in lines)), refresh=True
                )
            elif time.monotonic() - self._said > SAY_SECONDS:
                self._said = time.monotonic()
                self.console.print(lines[-1], highlight=False, markup=False, soft_wrap=True)

    def lines(self) -> list[str]:
        """One line for every job that runs now, and one for the whole."""
        todo = dict(self._todo)
        beats = self._beats(todo)
        running = {key: beat for key, beat in beats.items() if beat != self._left_over.get(key)}
        shown = [
            f"  {todo[key].describe()}: {in_one_line(beat.text)} ({beat.share:.0%})" for key, beat in running.items()
        ]
        done = self._jobs - len(todo)
        spent = time.monotonic() - self._began
        left = self._forecast.left([(job, beats.get(key)) for key, job in todo.items()])
        rest = f"about {clock(left)} left" if left is not None else f"{clock(spent)} so far"
        failed = f", {self._failed} failed" if self._failed else ""
        return [*shown[:MOST_SHOWN], f"{done} of {self._jobs} trials done{failed}, {len(running)} under way, {rest}"]

    def _beats(self, keys: Iterable[str]) -> dict[str, Beat]:
        return {key: beat for key in keys if (beat := read_beat(self._folder, key)) is not None}


def _outcome(record: TrialRecord) -> str:
    """The validation score, or how it ended."""
    score = record.validation
    return record.stopped if score is None else f"{record.stopped}, validation {score:.3f}"


class Forecast:
    """Seconds that are left, from how long trials of the same kind took.

    A job is expected to take what the median of its own trial took at other seeds, rates and restarts; else, on a toy,
    its work at the pace of its method, or of all. One that is well under way takes what its own pace says (the start
    of a worker blurs it at first). Of what is like nothing seen yet nothing is known, and nothing is said.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._taken: dict[str, list[float]] = {}
        self._paces: dict[str, list[float]] = {}

    def learn(self, job: Job, record: TrialRecord) -> None:
        """Take note of one that is done."""
        seconds, work = record.timing.seconds, job.work
        self._taken.setdefault(job.trial.name, []).append(seconds)
        if work:
            for name in {_method(job), ""}:
                self._paces.setdefault(name, []).append(seconds / work)

    def left(self, jobs: Sequence[tuple[Job, Beat | None]]) -> float | None:
        """Seconds until all are done, at so many at a time, as far as it is known; None where nothing is."""
        rests = [self._rest(job, beat) for job, beat in jobs]
        known = [rest for rest in rests if rest is not None]
        if not known:
            return None if rests else 0.0
        return max(sum(known) / max(1, min(self.workers, len(jobs))), max(known))

    def _rest(self, job: Job, beat: Beat | None) -> float | None:
        whole = self._whole(job)
        if beat is not None and beat.share > (WELL_UNDER_WAY if whole is not None else 0.0):
            return beat.seconds * (1 - beat.share) / beat.share
        return None if whole is None else max(0.0, whole - (beat.seconds if beat else 0.0))

    def _whole(self, job: Job) -> float | None:
        taken, work = self._taken.get(job.trial.name), job.work
        if taken:
            return statistics.median(taken)
        paces = self._paces.get(_method(job)) or self._paces.get("")
        return work * statistics.median(paces) if work and paces else None


def _method(job: Job) -> str:
    return getattr(job.trial, "method", "pretraining")
