"""Train a toy from fresh weights, as ``elicitable pretrain`` does, and keep its weights with its record beside them."""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch

from elicitable.cache import filling_folder, output_folder, write_tensors
from elicitable.errors import InputError, UnknownNameError
from elicitable.methods.full import FullWeights
from elicitable.models.model import Model
from elicitable.models.speed.precision import undisturbed
from elicitable.models.speed.processor import made_on
from elicitable.models.toys import TOYS, build_toy
from elicitable.records.lock import alone
from elicitable.records.provenance import versions
from elicitable.records.trial import Outcomes, TrialRecord, record_of_fit
from elicitable.tasks.base import checked_count
from elicitable.tasks.catalog import task_from
from elicitable.tasks.digit_rules import RULES
from elicitable.training.evaluate import Reading, evaluate
from elicitable.training.loop import Plan, Progress, train
from elicitable.values import ToySpec

ADVICE = "Free the place or choose another --out."


@undisturbed()
def pretrain(
    name: str,
    out: str | os.PathLike[str],
    *,
    seed: int = 0,
    steps: int | None = None,
    learning_rate: float | None = None,
    progress: Progress | None = None,
) -> TrialRecord:
    """Train toy ``name``, write ``out/<name>.safetensors`` and ``out/<name>.json``, and return the record.

    The weights are stored in bfloat16, which takes half the bytes. The scores in the record are measured after that
    rounding, on the test split of every digit task. The JSON file holds the toy, the plan and the seed as ``spec``,
    and the record beside it.

    Raises:
        UnknownNameError: no such toy.
        InputError: steps or a learning rate that cannot be trained with.
        StoreError: ``out`` cannot be written to, or is in use.
    """
    if name not in TOYS:
        raise UnknownNameError("toy", name, TOYS)
    spec = TOYS[name]
    if steps is not None:
        spec = replace(spec, steps=checked_count(steps, "steps"))
    if learning_rate is not None:
        spec = replace(spec, learning_rate=_checked_rate(learning_rate))
    with alone(output_folder(out)):  # said before minutes are spent
        return _pretrained(name, spec, output_folder(out), seed, progress)


def _pretrained(name: str, spec: ToySpec, folder: Path, seed: int, progress: Progress | None) -> TrialRecord:
    began = time.monotonic()
    model = build_toy(spec, seed)
    weights = FullWeights(model)
    fit = train(model, weights, task_from(spec.task), plan_of(spec), seed, progress=progress)
    state = {key: value.to(torch.bfloat16) for key, value in weights.state().items()}
    weights.load({key: value.float() for key, value in state.items()})
    record = replace(record_of_fit(fit), scores=_scores(model, weights), versions=versions(), **made_on(model.device))
    record = replace(record, timing=replace(record.timing, seconds=round(time.monotonic() - began, 3)))
    identity = {"toy": asdict(spec), "plan": asdict(plan_of(spec)), "seed": seed}
    text = json.dumps({"spec": identity, **record.to_json()}, indent=1, sort_keys=True) + "\n"
    with filling_folder(folder, [f"{name}.json"], ADVICE) as partial:
        write_tensors(partial / f"{name}.safetensors", state)
        (partial / f"{name}.json").write_text(text, encoding="utf-8")
    return record


def _checked_rate(rate: float) -> float:
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < math.inf:
        raise InputError(f"a learning rate is a number above 0, got {rate!r}.")
    return float(rate)


def plan_of(spec: ToySpec) -> Plan:
    """Plan the training of a toy: as for any method, with the content at random offsets and without an early stop."""
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


def _scores(model: Model, weights: FullWeights) -> dict[str, Outcomes]:
    """Score the toy on the test split of every digit task."""
    reading = Reading(batch=250)
    with weights.weights(model):
        right = {name: evaluate(model, task_from(name).held_out("test"), None, reading).correct for name in RULES}
    return {name: Outcomes.of_items(correct) for name, correct in right.items()}
