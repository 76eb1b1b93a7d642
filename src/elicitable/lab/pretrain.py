"""``elicitable pretrain``: train a toy from fresh weights and keep it as safetensors with its record beside it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from elicitable.cache import replace_file, replacing_file, write_tensors
from elicitable.errors import StoreError, UnknownNameError
from elicitable.methods.full import FullWeights
from elicitable.models.model import Model
from elicitable.models.toys import TOYS, build_toy
from elicitable.records.provenance import versions
from elicitable.tasks.catalog import task_from
from elicitable.tasks.digits import RULES
from elicitable.training.evaluate import Reading, evaluate
from elicitable.training.loop import Fit, Plan, Progress, train
from elicitable.values import ToySpec

ADVICE = "Free the place or choose another --out."


def pretrain(
    name: str,
    out: str | os.PathLike[str],
    *,
    seed: int = 0,
    steps: int | None = None,
    learning_rate: float | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train toy ``name`` into ``out/<name>.safetensors`` and ``out/<name>.json``; returns the record.

    Weights are stored in bfloat16 (half the bytes); the scores in the record are measured after that rounding, on the
    test split.

    Raises:
        UnknownNameError: no such toy.
        StoreError: ``out`` cannot be written to.
    """
    if name not in TOYS:
        raise UnknownNameError("toy", name, TOYS)
    spec = TOYS[name]
    spec = replace(spec, steps=steps or spec.steps, learning_rate=learning_rate or spec.learning_rate)
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot write to {folder}: {error.strerror}.") from error
    model = build_toy(spec, seed)
    weights = FullWeights(model)
    fit = train(model, weights, task_from(spec.task), plan_of(spec), seed, progress=progress)
    state = {key: value.to(torch.bfloat16) for key, value in weights.state().items()}
    weights.load({key: value.float() for key, value in state.items()})
    record = _record(spec, seed, fit, _scores(model, weights))
    with replacing_file(folder / f"{name}.safetensors", ADVICE) as partial:
        write_tensors(partial, state)
    text = json.dumps(record, indent=1, sort_keys=True) + "\n"
    replace_file(folder / f"{name}.json", text.encode(), ADVICE)
    return record


def plan_of(spec: ToySpec) -> Plan:
    """The training plan of a toy: as for any method, with the content at random offsets and no early stop."""
    return Plan(
        learning_rate=spec.learning_rate,
        steps=spec.steps,
        batch=spec.batch,
        warmup=200,
        cooldown=0.5,
        evaluate_every=500,
        weight_decay=0.1,
        solved=2.0,
        perfect=2.0,
        patience_steps=spec.steps,
        largest_offset=spec.largest_offset,
        select_by="loss",
    )


def _scores(model: Model, weights: FullWeights) -> dict[str, float]:
    with weights.weights(model):
        return {
            task: evaluate(model, task_from(task).held_out("test"), None, Reading(batch=250)).mean for task in RULES
        }


def _record(spec: ToySpec, seed: int, fit: Fit, scores: dict[str, float]) -> dict[str, Any]:
    return {
        "spec": asdict(spec),
        "plan": asdict(plan_of(spec)),
        "seed": seed,
        "steps": fit.steps,
        "seconds": round(fit.seconds, 1),
        "test_scores": scores,
        "curve": [[point.step, point.loss_nats, point.validation] for point in fit.curve],
        "versions": versions(),
        "processor": fit.processor,
    }
