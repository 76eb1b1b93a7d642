"""Train one method on a task and write an adapter folder that PEFT loads."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elicitable.cache import replace_file
from elicitable.diagnosis.intervals import interval
from elicitable.errors import InputError, TrainingDivergedError
from elicitable.methods.adapter import write_adapter
from elicitable.methods.base import Method
from elicitable.methods.budget import default_budget
from elicitable.methods.catalog import METHODS, TUNED, check_options, method_named
from elicitable.models.load import load
from elicitable.race.pace import check_count, pace_for
from elicitable.race.reporter import Reporter, Silent
from elicitable.race.trial import elsewhere_nats, reading_of
from elicitable.records.provenance import versions
from elicitable.records.store import Store
from elicitable.tasks.catalog import task_from
from elicitable.training.evaluate import evaluate
from elicitable.training.loop import Fit, Plan, prepared, train

if TYPE_CHECKING:
    from elicitable.methods.base import Adaptation
    from elicitable.models.model import Model


@dataclass(frozen=True, eq=False)
class Tuned:
    """A trained adaptation, ready for :func:`elicitable.use`, and what was measured."""

    adaptation: Adaptation
    record: dict[str, Any]


def tune(
    model: Any,
    task: Any,
    *,
    method: str | Method = TUNED,
    budget: int | None = None,
    size: int | None = None,
    learning_rate: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    init: str | None = None,
    text: str | None = None,
    test_items: int | None = None,
    out: str | os.PathLike[str] | None = None,
    reporter: Reporter | None = None,
    **task_options: Any,
) -> Tuned:
    """Train ``method`` on ``task``, sweeping its learning rate unless one is given; write an adapter to ``out``.

    Args:
        model, task, task_options: as for :func:`elicitable.verdict`.
        method: one of the trained methods.
        budget: numbers trained at most (default 12·layers·d_model); or ``size``: virtual tokens, or the rank.
        learning_rate: of the run; default the best of the method's own range after a short run each.
        init, text: where a context starts (see :mod:`elicitable.methods.initial`).
        out: the adapter folder; nothing is written when None.

    Raises:
        InputError: an argument is not as expected, or the method is not trained.
        TrainingDivergedError: the loss became not-a-number at every learning rate.

    Example:
        >>> import elicitable as el
        >>> tuned = el.tune("toy:ascending", "ascending", method="kv-prefix", size=1, learning_rate=0.01, steps=5)
        >>> tuned.record["numbers_trained"]
        192
    """
    recipe = method_named(method)
    if recipe.schedule is None:
        trained = ", ".join(one.name for one in METHODS if one.is_trained)
        raise InputError(
            f"{recipe.name} is not trained, so there is nothing to tune; the trained methods are {trained}."
        )
    for name, number in (("size", size), ("steps", steps), ("test items", test_items)):
        check_count(name, number)
    if learning_rate is not None and not 0.0 < learning_rate < math.inf:
        raise InputError(f"a learning rate must be more than 0 and finite, got {learning_rate!r}.")
    if budget is not None and size is not None:
        raise InputError("give either budget= or size=, not both.")
    if out is not None:
        Store(out)  # an unwritable folder is said before minutes are spent
    model, task = load(model), task_from(task, **task_options)
    affordable = budget if budget is not None else max(default_budget(model), recipe.numbers(model, 1))
    width = size if size is not None else recipe.fitting(model, affordable).size
    pace = pace_for(model, steps, test_items)
    told = reporter or Silent()
    options = {key: value for key, value in (("init", init), ("text", text)) if value is not None}
    check_options(recipe, options)
    plan = Plan(
        learning_rate=0.0,
        steps=pace.steps,
        batch=pace.batch,
        warmup=min(50, max(1, pace.steps // 10)),
        evaluate_every=min(pace.evaluate_every, pace.steps),
        validation_items=pace.validation_items,
        weight_decay=recipe.schedule.weight_decay,
        max_tokens=pace.max_tokens,
    )

    def trained_at(rate: float, this: Plan, what: str) -> tuple[Adaptation, Fit]:
        told.begin(recipe.name, what, 0, 1)
        adaptation = recipe.build(model, width, seed=seed, **options)
        return adaptation, train(model, adaptation, task, replace(this, learning_rate=rate), seed, progress=told.point)

    tried: dict[float, tuple[float, float]] = {}
    if learning_rate is None:
        short = replace(plan, steps=pace.sweep_steps, evaluate_every=pace.sweep_steps, cooldown=0.0, warmup=10)
        for rate in recipe.schedule.learning_rates:
            _, fit = trained_at(rate, short, f"rate {rate:g}")
            if fit.best is not None and fit.stopped != "diverged":
                tried[rate] = (fit.best.mean, -fit.best.loss_nats)
        if not tried:
            raise TrainingDivergedError(
                f"{recipe.name} diverged at every learning rate of {recipe.schedule.learning_rates}."
            )
        learning_rate = max(tried, key=lambda rate: tried[rate])
    adaptation, fit = trained_at(learning_rate, plan, f"at {learning_rate:g}")
    if not fit.is_usable:
        raise TrainingDivergedError(f"{recipe.name} diverged at learning rate {learning_rate:g}; give a lower one.")
    record = _measured(model, task, adaptation, plan, pace.test_items, seed)
    record |= {
        "method": recipe.name,
        "size": width,
        "learning_rate": learning_rate,
        "steps": fit.steps,
        "stopped": fit.stopped,
        "seconds": round(fit.seconds, 1),
        "seed": seed,
        "validation": fit.best.mean if fit.best else None,
        "sweep": [{"learning_rate": rate, "validation": score} for rate, (score, _) in tried.items()],
        "curve": [[p.step, p.loss_nats, p.validation] for p in fit.curve],
        "model": model.name,
        "model_hash": model.fingerprint,
        "task": task.name,
        "data_hash": task.fingerprint(),
        "versions": versions(),
        "processor": fit.processor,
        "out": str(out) if out is not None else None,
    }
    if out is not None:
        write_adapter(model, adaptation, Path(out))
        replace_file(Path(out) / "elicitable.json", (json.dumps(record, indent=1) + "\n").encode())
    return Tuned(adaptation, record)


def _measured(
    model: Model, task: Any, adaptation: Adaptation, plan: Plan, test_items: int, seed: int
) -> dict[str, Any]:
    import torch

    with torch.no_grad(), prepared(model, adaptation) as refresh:
        refresh()
        score = evaluate(model, task.held_out("test", test_items), task.labels(), reading_of(plan, adaptation))
    low, high = interval((score.correct,), seed)
    budget = adaptation.budget()
    return {
        "mean": score.mean,
        "low": low,
        "high": high,
        "items": len(score.correct),
        "loss_nats": score.loss_nats,
        "numbers_trained": budget.numbers_trained,
        "bytes_stored": budget.bytes_stored,
        "keys_per_layer": budget.keys_per_layer,
        "setting": adaptation.setting,
        "base_elsewhere_nats": elsewhere_nats(model),
    }
