"""An arm that is not trained: it is chosen among candidates on the validation split."""

from __future__ import annotations

from dataclasses import replace

from elicitable.race.entry import Entry, Race
from elicitable.race.timing import CHOICE_SHARE, is_there
from elicitable.race.trial import Trial, run
from elicitable.records.trial import TrialRecord, keep_trial
from elicitable.training.loop import Plan


def choose(race: Race, entry: Entry, nth: int, arms: int, seed: int = 0) -> None:
    """An arm without training chooses among its candidates on validation, and is tested."""
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
    race.reporter.begin(entry.method.name, "choosing on validation", nth, arms)
    options, marking = race.options_of(entry.method), race.marking
    trial = Trial(entry.method, 2, plan, race.seed + seed, pace.test_items, options, None, race.layouts, marking)
    trial = replace(trial, passes=race.search_passes)
    if not is_there(race, trial):  # what was tried to the end counts under any limit
        trial = replace(trial, time_limit=race.time_limit)
    record = run(trial, race.model, race.task, race.store, race.reporter.point)
    is_whole = record.status != "failed" and bool(plan.seconds) and _searching(record) < 0.8 * (plan.seconds or 0.0)
    if trial.time_limit is not None and is_whole:
        state = race.store.state(trial.spec(race.model, race.task))
        trial = replace(trial, time_limit=None)
        keep_trial(race.store, trial.spec(race.model, race.task), record, state)
    entry.seconds += record.timing.seconds
    entry.records.append(record)
    entry.trial = entry.trial or trial
    if not seed:
        race.learn(record)


def _searching(record: TrialRecord) -> float:
    """Return the seconds that a search took without its test."""
    return record.timing.seconds - (record.timing.test_seconds or 0.0)
