"""Steps and seconds until a prefix solves a task: our loop beside peft's PrefixTuning in a plain one.

    python benchmarks/time_to_accuracy.py [--task ascending-add-1] [--target 0.9] [--rates 5e-5 1e-2 1e-1] [--quick]

Both train ``length`` free keys and values a layer on toy:mixed, from a random start, on the same batches in the same
order, and both are scored on the same validation items after every 25 steps: whole answers, right or wrong. The plain
loop is AdamW at a constant rate under bfloat16 autocast, where that is fast. One JSON object a run on standard output,
a table on standard error. 5e-5 is the companion code's rate.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from kept import say_where

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

import elicitable as el
from elicitable.methods.catalog import method_named
from elicitable.models.speed.precision import autocast
from elicitable.rng import generator
from elicitable.tasks.catalog import task_from
from elicitable.training.batches import Batch, Reading, encode, stream
from elicitable.training.evaluate import token_losses
from elicitable.training.loop import Plan, train
from elicitable.values import CurvePoint

VALIDATION_ITEMS = 256


@dataclass(frozen=True)
class Setting:
    """What both sides share."""

    task: str
    target: float
    length: int
    batch: int
    steps: int
    every: int
    seed: int


class Clock:
    """Wall and processor seconds since it was made, and the score at every look."""

    def __init__(self) -> None:
        self.wall, self.processor = time.perf_counter(), time.process_time()
        self.step, self.score = 0, 0.0

    def result(self, side: str, rate: float, setting: Setting) -> dict[str, Any]:
        """One run as plain data."""
        return {
            "side": side,
            "rate": rate,
            "reached": self.score >= setting.target,
            "steps": self.step,
            "seconds": round(time.perf_counter() - self.wall, 2),
            "processor_seconds": round(time.process_time() - self.processor, 2),
            "validation": round(self.score, 4),
        }


class _ReachedError(Exception):
    """The target is reached; the rest of the training is of no interest."""


def ours(setting: Setting, rate: float) -> dict[str, Any]:
    """The package's own loop, as ``elicitable tune`` runs it, stopped at the target."""
    model, task = el.load("toy:mixed", device="cpu", dtype="float32"), task_from(setting.task)
    adaptation = method_named("kv-prefix").build(model, setting.length, seed=setting.seed, init="random")
    plan = Plan(rate, setting.steps, setting.batch, 20, evaluate_every=setting.every, validation_items=VALIDATION_ITEMS)
    clock = Clock()

    def look(point: CurvePoint, _: float) -> None:
        if point.validation is not None:
            clock.step, clock.score = point.step, point.validation
            if point.validation >= setting.target:
                raise _ReachedError

    with suppress(_ReachedError):
        train(model, adaptation, task, plan, setting.seed, progress=look)
    return clock.result("ours", rate, setting)


def theirs(setting: Setting, rate: float) -> dict[str, Any]:
    """peft's PrefixTuning in a plain loop."""
    from peft import PrefixTuningConfig, get_peft_model

    model, task = el.load("toy:mixed", device="cpu", dtype="float32"), task_from(setting.task)
    torch.manual_seed(setting.seed)
    config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=setting.length)
    peft = get_peft_model(model.hf, config).eval()  # no dropout, as in ours
    optimizer = torch.optim.AdamW([p for p in peft.parameters() if p.requires_grad], lr=rate, weight_decay=0.0)
    drawn = stream(model, task, setting.batch, generator(setting.seed, "data", task.name), Reading())
    held_out = encode(model, task.held_out("validation", VALIDATION_ITEMS))
    clock = Clock()
    while clock.step < setting.steps and clock.score < setting.target:
        (batch,) = next(drawn)
        with autocast(model):
            logits = answers(peft, batch)
        optimizer.zero_grad(set_to_none=True)
        token_losses(logits, batch.targets).mean().backward()
        optimizer.step()
        clock.step += 1
        if clock.step % setting.every == 0:
            clock.score = whole_answers(peft, held_out, model)
    return clock.result("peft", rate, setting)


def answers(peft: Any, batch: Batch) -> torch.Tensor:
    """Logits of the answer's tokens."""
    length = batch.targets.shape[1]
    logits: torch.Tensor = peft(input_ids=batch.input_ids, logits_to_keep=length).logits[:, -length:].float()
    return logits


@torch.no_grad()
def whole_answers(peft: Any, batch: Batch, model: Any) -> float:
    """The share of answers that are right at every place."""
    with autocast(model):
        best = answers(peft, batch).argmax(dim=-1)
    return float((best == batch.targets).all(dim=1).float().mean())


def runs(setting: Setting, rates: list[float]) -> Iterator[dict[str, Any]]:
    """Both sides at every rate, in turns, so that a busy machine is busy for both."""
    for rate in rates:
        for side in (ours, theirs):
            yield {"task": setting.task, "target": setting.target, "batch": setting.batch, **side(setting, rate)}


def table(found: list[dict[str, Any]]) -> str:
    """The runs as aligned text."""
    lines = [f"{'side':<6}{'rate':>8}{'steps':>8}{'seconds':>10}{'processor':>11}{'validation':>12}"]
    for one in found:
        steps = f"{one['steps']}" if one["reached"] else f">{one['steps']}"
        seconds = f"{one['seconds']:>10.1f}{one['processor_seconds']:>11.1f}"
        lines.append(f"{one['side']:<6}{one['rate']:>8g}{steps:>8}{seconds}{one['validation']:>12.3f}")
    return "\n".join(lines)


def main() -> None:
    """Print one JSON object a run, and a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="ascending-add-1")
    parser.add_argument("--target", type=float, default=0.9)
    parser.add_argument("--rates", type=float, nargs="+", default=[5e-5, 1e-2, 1e-1])
    parser.add_argument("--length", type=int, default=10)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=600, help="at most")
    parser.add_argument("--every", type=int, default=25, help="steps between looks at the validation score")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="ascending at batch 16, at most 100 steps, one rate")
    given = parser.parse_args()
    setting = Setting(given.task, given.target, given.length, given.batch, given.steps, given.every, given.seed)
    if given.quick:
        setting = Setting("ascending", given.target, given.length, 16, 100, given.every, given.seed)
        given.rates = [1e-1]
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    found = []
    say_where()
    for one in runs(setting, given.rates):
        found.append(one)
        print(json.dumps(one), flush=True)
    print(table(found), file=sys.stderr)


if __name__ == "__main__":
    main()
