"""What the context that a race arrived at does inside the model: the second part of a verdict's report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elicitable.diagnosis.inspect import Inspection, inspect
from elicitable.methods.catalog import method_named
from elicitable.runs.store import Record, Store
from elicitable.runs.trial import Trial

if TYPE_CHECKING:
    from elicitable.methods.base import Adaptation
    from elicitable.models.model import Model
    from elicitable.tasks.base import Task

TEXTS, MOST_TOKENS = 8, 96  # a few seconds on a small language model


def look_inside(trial: Trial, record: Record, model: Model, task: Task, store: Store) -> Inspection:
    """The microscope on the first test items, with the context that ``trial`` ended with.

    ``record`` is the trial's own; a trained context is built again from the tensors kept with it.
    """
    adaptation = _again(trial, record, model, task, store)
    items = task.held_out("test", min(TEXTS, trial.test_items))
    return inspect(model, adaptation, items, max_tokens=min(MOST_TOKENS, trial.plan.max_tokens))


def _again(trial: Trial, record: Record, model: Model, task: Task, store: Store) -> Adaptation:
    method = method_named(trial.method)
    if method.schedule is None:
        candidates = method.candidates(model, task, trial.seed, **trial.options)
        return next(one for one in candidates if one.setting == record["setting"])
    adaptation = method.build(model, trial.size, seed=trial.seed, **trial.options)
    adaptation.load(store.state(trial.spec(model, task)))
    return adaptation
