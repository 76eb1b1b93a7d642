"""An arm that is not trained: it is chosen among candidates on the validation split."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from elicitable.errors import InputError
from elicitable.methods.base import Method
from elicitable.methods.instructions import proposing
from elicitable.race.entry import Entry, Race
from elicitable.race.pieces import Piece
from elicitable.race.ranking import look_at
from elicitable.race.timing import CHOICE_SHARE, is_there, note_test
from elicitable.race.trial import Trial, run
from elicitable.records.store import identity
from elicitable.records.trial import TrialRecord, keep_trial
from elicitable.training.loop import Plan

if TYPE_CHECKING:
    from elicitable.methods.base import Adaptation, Sized
    from elicitable.models.layout import Layout
    from elicitable.models.model import Model
    from elicitable.race.marking import Marking
    from elicitable.race.pace import Pace
    from elicitable.race.reporter import Reporter
    from elicitable.records.store import Store
    from elicitable.tasks.base import Task


def check_searched(race: Race, sizes: Sequence[Sized]) -> None:
    """See that a method which takes part reads what was asked of searches, before minutes are spent.

    Raises:
        InputError: none does; a prompt is no text, blank, or as long as the model reads; or the proposer is none.
    """
    methods = [sized.method for sized in sizes]
    searched = {setting for method in methods for setting in method.searched}
    if race.prompts and "prompts" not in searched:
        raise InputError("prompts are given, and no method that takes part tries any; leave them out, or add one.")
    if race.proposer is not None and "proposer" not in searched:
        raise InputError("a proposer is given, and no method that takes part asks one; leave it out, or add one.")
    if race.search_passes is not None and all(method.is_trained for method in methods):
        raise InputError("search passes are given, and no method that takes part searches; leave them out, or add one.")
    for text in race.prompts:
        _check_prompt(race.model, text)
    if race.proposer is not None:
        proposing(race.proposer)


def _check_prompt(model: Model, text: str) -> None:
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"a prompt is a text that is not blank, got {text!r}.")
    if model.tokenizer is None:
        raise InputError(f"{model.name} reads token ids, and a prompt is a text; leave {reprlib.repr(text)} out.")
    tokens, room = model.ids(text).numel(), model.anatomy.trained_positions
    if room is not None and tokens >= room:
        raise InputError(
            f"the prompt {reprlib.repr(text)} has {tokens:,} tokens, and {model.name} reads {room:,} with the item and "
            "its answer; give a shorter one."
        )


def chosen_trial(race: Race, method: Method, seed: int = 0) -> Trial:
    """Return the trial of a method that is chosen; without a time limit where it is there, tried to the end."""
    pace = race.pace
    plan = Plan(
        learning_rate=0.0,
        steps=0,
        batch=pace.batch,
        validation_items=pace.validation_items,
        max_tokens=pace.max_tokens,
        layout=race.layouts[0],
        seconds=None if race.time_limit is None else CHOICE_SHARE * race.time_limit,
    )
    options, marking = race.options_of(method), race.marking
    trial = Trial(method, 2, plan, race.seed + seed, pace.test_items, options, None, race.layouts, marking)
    trial = replace(trial, passes=race.search_passes)
    # what was tried to the end counts under any limit
    return trial if is_there(race, trial) else replace(trial, time_limit=race.time_limit)


def chosen_piece(race: Race, method: Method, seed: int = 0) -> Piece:
    """Return what a worker does to choose."""
    name = identity(chosen_trial(race, method, seed).spec(race.model, race.task))
    return Piece(method.name, seed, race.layouts[0], (name,))


def choose(race: Race, entry: Entry, nth: int, arms: int, seed: int = 0) -> None:
    """An arm without training chooses among its candidates on validation, and is tested."""
    race.reporter.begin(entry.method.name, "choosing on validation", nth, arms)
    trial = chosen_trial(race, entry.method, seed)
    record = race.record(
        trial,
        lambda: chosen_piece(race, entry.method, seed),
        lambda: run(trial, race.model, race.task, race.store, race.reporter.point),
    )
    if trial.time_limit is not None and _is_whole(trial, record):
        state = race.store.state(trial.spec(race.model, race.task))
        trial = replace(trial, time_limit=None)
        keep_trial(race.store, trial.spec(race.model, race.task), record, state)
    entry.seconds += record.timing.seconds
    entry.records.append(record)
    if not entry.method.is_context:  # the bare model's test: what others take without the keys of a text
        note_test(race, record)
    entry.trial = entry.trial or trial
    if not seed:
        race.learn(record)


def stood(race: Race, entry: Entry, entries: Sequence[Entry]) -> bool:
    """Let an arm that is trained behind another one's choice take it over; say whether there is what it needs."""
    base = entry.method.stands_on
    if base is None:
        return True
    record = next((one.records[0] for one in entries if one.method.name == base.name and one.records), None)
    if record is None or not record.is_ok:
        entry.refusal = f"it is trained behind what {base.name} chooses, and that arm has not chosen anything"
        return False
    chosen = base.from_setting(race.model, record.setting, race.layouts[0])
    entry.sized = replace(entry.sized, options=entry.method.standing_on(chosen))
    return True


def chosen_contexts(race: Race, entries: Sequence[Entry], beside: TrialRecord) -> list[Adaptation]:
    """Return the contexts with keys of their own that arms chose: what a trained context can start at.

    Those that do worse on validation than a run ``beside`` them, in its score and in its loss, are no start for it.
    """
    found = [(one.method, one.records[0]) for one in entries if not one.method.is_trained and one.records]
    with_keys = [(method, one) for method, one in found if one.is_ok and one.prefix_mass and not _is_worse(one, beside)]
    return [method.from_setting(race.model, one.setting, race.layouts[0]) for method, one in with_keys]


def _is_worse(one: TrialRecord, than: TrialRecord) -> bool:
    (score, nats), (other_score, other_nats) = look_at(one), look_at(than)
    return score < other_score and nats > other_nats


def chosen_alone(
    method: Method,
    model: Model,
    task: Task,
    pace: Pace,
    layout: Layout,
    marking: Marking,
    seed: int,
    store: Store,
    reporter: Reporter,
) -> Adaptation:
    """Choose by ``method`` outside of a race, without a test; kept in the store as every trial is.

    Raises:
        InputError: nothing can be chosen for this model and task.
    """
    plan = Plan(0.0, 0, pace.batch, validation_items=pace.validation_items, max_tokens=pace.max_tokens, layout=layout)
    trial = Trial(method, 2, plan, seed, options=method.start(model), layouts=(layout,), marking=marking)
    reporter.begin(method.name, "choosing on validation", 0, 1)
    record = run(trial, model, task, store, reporter.point)
    if not record.is_ok:
        raise InputError(f"there is nothing that {method.name} can choose to train behind: {record.stopped}")
    return method.from_setting(model, record.setting, layout)


def _is_whole(trial: Trial, record: TrialRecord) -> bool:
    """Say whether a search against the clock ended as it would have without one: no limit makes it another.

    One look may take more than a fifth of its seconds. Then it ends for time with much of them left.
    """
    seconds = trial.plan.seconds or 0.0
    return record.status != "failed" and record.stopped != "time" and _searching(record) < 0.8 * seconds


def _searching(record: TrialRecord) -> float:
    """Return the seconds that a search took without its test."""
    return record.timing.seconds - (record.timing.test_seconds or 0.0)
