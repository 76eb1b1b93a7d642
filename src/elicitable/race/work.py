"""What a worker of a race does: load the model once, and run pieces with the race's own functions."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from elicitable.errors import ElicitableError, StoreError
from elicitable.models.speed.frozen_parts import keep_parts
from elicitable.models.speed.processor import one_thread
from elicitable.models.whereabouts import Whereabouts
from elicitable.own_digest import vouch
from elicitable.race.choice import chosen_trial
from elicitable.race.line import Line, advance, ending_of, finish
from elicitable.race.rows_curve import FewRows, distinct_rows, from_the_beginning
from elicitable.race.trial import run
from elicitable.records.store import Store, identity

if TYPE_CHECKING:
    from elicitable.methods.base import Sized
    from elicitable.race.entry import Race
    from elicitable.race.pieces import Piece
    from elicitable.race.trial import Trial
    from elicitable.records.trial import TrialRecord
    from elicitable.tasks.base import Task


@dataclass(frozen=True, eq=False)
class Briefing:
    """What every worker is sent once: the race without its model, how the model is loaded, the arms by name.

    ``digests`` are those of code from outside, which a worker has without its source.
    """

    race: Race
    model: Whereabouts
    folder: str
    arms: Mapping[str, Sized]
    digests: tuple[tuple[Any, str | None], ...]


def do(briefing: Briefing, piece: Piece) -> list[tuple[str, TrialRecord]]:
    """Run a piece on one thread; the records of its trials by their identities, all of them in the store.

    Raises:
        StoreError: the folder of the race is not seen here, or cannot be written to.
        ElicitableError: the model, the task or the package is another one here.
    """
    with one_thread():
        race = _race(briefing)
        race.asked_best = (0.0, 0.0, piece.layout)
        return _rows(race, briefing, piece) if piece.rows is not None else _run(race, briefing, piece)


@lru_cache(maxsize=1)
def _race(briefing: Briefing) -> Race:
    if not Path(briefing.folder).is_dir():
        raise StoreError(f"this worker does not see {briefing.folder}; give an out (--out) that all workers share.")
    for thing, digest in briefing.digests:
        vouch(thing, digest)
    model = briefing.model.load()
    keep_parts(model)
    gc.freeze()  # what is here stays: each look at all of it for garbage takes 0.15 s
    return replace(briefing.race, model=model, store=Store(briefing.folder), workers=None, is_on_a_worker=True)


def _sized(race: Race, briefing: Briefing, piece: Piece) -> Sized:
    arm = briefing.arms[piece.method]
    return arm.method.begun(race.model, arm, dict(piece.options))


def _run(race: Race, briefing: Briefing, piece: Piece) -> list[tuple[str, TrialRecord]]:
    """Choose; or take a line on, and bring it down. One that does not run through is the last."""
    sized, found = _sized(race, briefing, piece), []
    if piece.rate is None:
        trial = chosen_trial(race, sized.method, piece.seed)
        found.append((trial, run(_same(race, trial, piece.names[-1]), race.model, race.task, race.store)))
    else:
        line = Line(sized, piece.rate, piece.seed)
        for steps in piece.legs:
            advance(race, line, steps)
            if not line.is_fine:
                break
        found += line.legs
        if line.is_fine and piece.cooldown is not None:
            _same(race, ending_of(race, line, piece.cooldown), piece.names[-1])
            found.append(finish(race, line, piece.cooldown))
    named = [(identity(trial.spec(race.model, race.task)), record) for trial, record in found]
    new = [(name, record) for name, record in named if name in piece.names]
    if not new:
        raise _other(race)
    return new


def _rows(race: Race, briefing: Briefing, piece: Piece) -> list[tuple[str, TrialRecord]]:
    """Run a point of the curve over rows."""
    sized = _sized(race, briefing, piece)
    if piece.rate is None:
        trial = chosen_trial(race, sized.method)
    else:
        line = Line(sized, piece.rate, 0)
        trial = from_the_beginning(ending_of(race, line, piece.cooldown or 0, piece.legs[-1]))
    few = FewRows(race.task, distinct_rows(race.task, seed=race.seed), piece.rows or 0)
    task = cast("Task", few)
    trial = _same(race, trial, piece.names[-1], task)
    return [(piece.names[-1], run(trial, race.model, task, race.store))]


def _same(race: Race, trial: Trial, name: str, task: Task | None = None) -> Trial:
    """Return ``trial``, if it is the one of that name where the race was begun."""
    if identity(trial.spec(race.model, task or race.task)) != name:
        raise _other(race)
    return trial


def _other(race: Race) -> ElicitableError:
    return ElicitableError(
        f"this worker has another {race.model.name}, another {race.task.name} or another elicitable than the race; "
        "install the same version, and name a model and a task that every machine has."
    )
