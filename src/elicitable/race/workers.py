"""Run a race's trials on workers, ahead of the decisions that ask for them.

The race decides in one process, in one order, whoever computes. What it is about to ask for is begun by workers before
it asks; a decision waits for its own trials alone. What was begun and is not asked for in the end changes nothing: it
is a record more in the folder. So a label is the same with one worker and with a thousand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from elicitable.errors import InputError
from elicitable.executors.executor import Executor, executor_named
from elicitable.executors.processes import cores, is_free
from elicitable.methods.settings import settings_as_given
from elicitable.models.whereabouts import whereabouts
from elicitable.own_digest import digest_of
from elicitable.race.reporter import Silent
from elicitable.race.work import Briefing, do
from elicitable.records.store import Store

if TYPE_CHECKING:
    from elicitable.methods.base import Sized
    from elicitable.models.model import Model
    from elicitable.race.entry import Race
    from elicitable.race.pieces import Piece
    from elicitable.records.trial import TrialRecord

SMALL = 2**23  # numbers of a model whose products keep one thread busy, and no second one
MOST_WORKERS = 4  # more wait for each other (docs/log.md, "A race on workers")

Run = Iterator[list["Piece"]]  # of an arm: before every round it yields what the round will ask for


class Workers:
    """Hold what is queued, what runs and what is done. Workers start when something is to be run, each loading once."""

    def __init__(self, race: Race, sizes: Sequence[Sized], executor: Executor) -> None:
        self._race, self._sizes, self._executor = race, sizes, executor
        self._open = ExitStack()
        self._is_staffed = False
        self._waiting: list[Piece] = []
        self._running: dict[int, Piece] = {}
        self._over: set[Piece] = set()
        self._done: dict[str, TrialRecord] = {}
        self._asked: set[str] = set()
        self._begun = 0

    @property
    def hands(self) -> int:
        """How many pieces can run at a time."""
        return self._executor.size

    def ahead(self, pieces: Iterable[Piece]) -> None:
        """Begin these first, in the place of all that was queued and has not begun."""
        self._waiting = [piece for piece in dict.fromkeys(pieces) if not self._is_known(piece)]
        self._fill()

    def asked(self, name: str) -> None:
        """Take note that the race has asked for a trial, be its record there already or not."""
        self._asked.add(name)

    def record(self, piece: Piece) -> TrialRecord:
        """Wait for the last trial of a piece, which begins before all others where it has not begun yet."""
        name = piece.names[-1]
        while name not in self._done and any(name in one.names for one in self._running.values()):
            self._hear()
        if name not in self._done:
            self._waiting = [piece, *(one for one in self._waiting if name not in one.names)]
            self._fill()
            while piece not in self._over:
                self._hear()
        return self._done[name]

    def together(self, runs: Sequence[Run], each: Callable[[], None]) -> None:
        """Take every run to its end, whichever has what it waits for."""
        waits: dict[int, list[Piece]] = {nth: [] for nth in range(len(runs))}
        while waits:
            ready = [nth for nth, pieces in waits.items() if self._over.issuperset(pieces)]
            for nth in ready:
                pieces = next(runs[nth], None)
                if pieces is None:
                    del waits[nth]
                    each()
                    continue
                waits[nth] = [piece for piece in pieces if not self._is_known(piece)]
                self._waiting += waits[nth]
            self._fill()
            if waits and not ready:
                self._hear()

    def close(self) -> None:
        """Let the workers go."""
        self._open.close()

    def forget(self) -> None:
        """Forget the ends of runs that nobody asked for; not of a race that was stopped, which may ask for them yet."""
        pieces = (*self._over, *self._running.values())
        begun = [both for piece in pieces for both in zip(piece.names, piece.ends, strict=bool(piece.ends))]
        wanted = {end for name, end in begun if name in self._asked}
        for end in {end for _, end in begun} - wanted:
            self._race.shelf.drop(end)

    def _is_known(self, piece: Piece) -> bool:
        """Whether there is nothing to begin: it is done, it runs, or its records are in the store."""
        return (
            piece in self._over
            or piece in self._running.values()
            or all(name in self._done or self._race.store.has(name) for name in piece.names)
        )

    def _fill(self) -> None:
        """Begin what is queued while there are hands."""
        while self._waiting and len(self._running) < self._executor.at_once:
            self._staff()
            piece = self._waiting.pop(0)
            self._running[self._begun] = piece
            self._executor.start(self._begun, do, piece)
            self._begun += 1

    def _hear(self) -> None:
        """Wait for one piece that runs."""
        index, records = self._executor.finished()
        self._over.add(self._running.pop(index))
        self._done |= records
        self._fill()

    def _staff(self) -> None:
        if self._is_staffed:
            return
        race = self._race
        assert race.store.folder is not None
        folder = race.store.folder.absolute()
        model = self._open.enter_context(whereabouts(race.model, folder))
        methods = [sized.method for sized in self._sizes]
        briefing = Briefing(
            race=replace(race, model=None, store=Store(None), reporter=Silent(), workers=None),  # type: ignore[arg-type]
            model=model,
            folder=str(folder),
            arms={sized.method.name: sized for sized in self._sizes},
            digests=(
                (race.task, digest_of(race.task)),
                *((method, digest_of(method, settings_as_given(method))) for method in methods),
            ),
        )
        self._open.enter_context(self._executor.kept(briefing))
        race.reporter.say(f"Workers: {self._executor.name}, one thread each.")
        self._is_staffed = True


def together(race: Race, runs: Sequence[Run], each: Callable[[], None] = lambda: None) -> None:
    """Take every run to its end; one after the other, or beside one another where there are workers."""
    if race.workers is not None:
        race.workers.together(runs, each)
        return
    for run in runs:
        for _ in run:
            pass
        each()


@contextmanager
def staffed(race: Race, sizes: Sequence[Sized], executor: Executor | None) -> Iterator[None]:
    """Let ``executor`` run the race's trials inside the ``with``; None, and the one inline, are this process itself.

    Raises:
        InputError: workers need a folder that they all see.
    """
    if executor is None or executor.name == "inline":
        yield
        return
    if race.store.folder is None:
        raise InputError(f"executor {executor.name!r} needs out (--out): a folder that all workers see.")
    race.workers = Workers(race, sizes, executor)
    try:
        yield
        race.workers.close()
        race.workers.forget()
    finally:
        race.workers.close()
        race.workers = None


def suited_executor(model: Model, time_limit: float | None) -> Executor | None:
    """Return the executor for a race of which nobody said where it runs: None is this process.

    A small model gains nothing by a second thread, so its trials run beside one another, a process for each core: two
    take half of the time that two threads do (docs/log.md, "A race on workers"). Against the clock, where workers'
    start is dear, and where a person has set the number of threads, it is this process.
    """
    is_small = sum(weight.numel() for weight in model.hf.parameters()) <= SMALL
    is_suited = is_small and model.device.type == "cpu" and time_limit is None and is_free()
    return executor_named("local", min(cores(), MOST_WORKERS)) if is_suited else None


def executor_of(
    executor: str | Executor, workers: int | None, address: str | None, gpus: float | None, model: Model
) -> Executor:
    """Return the executor that runs trials on ``model``.

    Raises:
        InputError: processes on this machine would all be on its one GPU.
    """
    if isinstance(executor, Executor):
        return executor
    if not isinstance(executor, str):
        raise InputError(f"an executor is a name ('inline', 'local', 'ray') or an Executor, got {executor!r}.")
    is_on_gpu = model.device.type != "cpu"
    if executor == "local" and is_on_gpu:
        raise InputError("executor 'local' is for the processor (--device cpu); for GPUs give 'ray'.")
    share = 1.0 if gpus is None and is_on_gpu and executor == "ray" else gpus
    return executor_named(executor, workers, address, share)
