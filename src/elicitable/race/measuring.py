"""Measure an adaptation that stands alone, outside of a race: once, on the test split."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from elicitable.diagnosis.intervals import interval, point
from elicitable.race.check import check
from elicitable.race.trial import elsewhere_nats
from elicitable.tasks.base import groups_of
from elicitable.training.loop import Plan, prepared, reading_of

if TYPE_CHECKING:
    from elicitable.methods.base import Adaptation
    from elicitable.models.model import Model
    from elicitable.race.marking import Marking
    from elicitable.tasks.base import Task


def measured(
    model: Model, task: Task, marking: Marking, plan: Plan, adaptation: Adaptation, test_items: int, seed: int
) -> dict[str, Any]:
    """Return its score with a 95 % interval, its rule and its ``floor``, its budget, side effects and checks.

    The floor is what always giving one answer scores.
    """
    items = task.held_out("test", test_items)
    known = task.held_out("validation", plan.validation_items) if task.labels() is not None else []
    adaptation.fit(model, [*items, *known])
    reading = reading_of(plan, adaptation)
    with torch.no_grad(), prepared(model, adaptation) as refresh:
        refresh()
        marked = marking.mark(model, task, items, known, reading)
    score, budget = marked.score, marked.counted(adaptation.budget())
    outcome = marking.outcome((score.correct,), (marked.written,), items)
    low, high = interval(outcome, seed, groups_of(task, "test", len(items)))
    return {
        "mean": point(outcome),
        "score": marking.scorer.name,
        "rule": marked.rule.record() if marked.rule else {},
        "raw_mean": marked.raw.share if marked.raw else None,
        "floor": round(marking.floor(items), 4),
        "low": low,
        "high": high,
        "items": len(score.correct),
        "loss_nats": score.loss_nats,
        "cut_items": score.cut_items,
        "cut_tokens": score.cut_tokens,
        "numbers_trained": budget.numbers_trained,
        "bytes_stored": budget.bytes_stored,
        "keys_per_layer": budget.keys_per_layer,
        "setting": adaptation.setting,
        "base_elsewhere_nats": elsewhere_nats(model),
        "checks": [asdict(one) for one in check(model, adaptation, quick=True).findings],
    }
