"""What makes a soft prompt train on a toy: rates far beyond the usual, where it starts, and how large it starts.

    python benchmarks/soft_prompts.py FOLDER [--jobs 1] [--steps 600] [--task ascending] [--size 48]

Each run is one line of JSON in FOLDER/runs.jsonl, on one thread; ``--jobs`` run beside one another. A second call goes
on with what is missing. A scale of 0 starts from tokens of the vocabulary as they are, any other divides the start by
its standard deviation and multiplies it by the scale.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from kept import Kept

os.environ.setdefault("OMP_NUM_THREADS", "1")

SCALES_AND_RATES = (
    (0.0, 0.1), (0.0, 0.3), (0.0, 1.0), (0.0, 3.0), (0.0, 10.0), (0.0, 30.0), (0.0, 100.0),
    (1.0, 0.1), (1.0, 0.3), (1.0, 1.0), (10.0, 0.3), (10.0, 1.0), (10.0, 3.0),
    (100.0, 3.0), (100.0, 10.0), (100.0, 30.0),
)  # fmt: skip


def trained(scale: float, rate: float, steps: int, task: str, size: int) -> dict[str, Any]:
    """The validation score and loss of one run, and its curve."""
    import torch

    import elicitable as el
    from elicitable.methods.soft_prompt import SoftPrompt
    from elicitable.tasks.catalog import task_from
    from elicitable.training.loop import Plan, train

    torch.set_num_threads(1)
    model = el.load("toy:mixed", device="cpu")
    context = SoftPrompt().build(model, size, 0)
    with torch.no_grad():
        if scale:
            context.vectors.mul_(scale / context.vectors.std())
    plan = Plan(rate, steps, batch=16, warmup=20, cooldown=0.4, evaluate_every=100, patience_steps=10**6)
    started = time.monotonic()
    fit = train(model, context, task_from(task), plan, 0)
    assert fit.best is not None
    return {
        "scale": scale,
        "rate": rate,
        "steps": fit.steps,
        "task": task,
        "size": size,
        "validation": fit.best.mean,
        "loss_nats": round(fit.best.loss_nats, 4),
        "stopped": fit.stopped,
        "seconds": round(time.monotonic() - started, 1),
        "curve": [[point.step, point.validation] for point in fit.curve],
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--task", default="ascending")
    parser.add_argument("--size", type=int, default=48)
    asked = parser.parse_args()
    rows = Kept(asked.folder / "runs.jsonl")
    of = {"task": asked.task, "size": asked.size}
    left = [(scale, rate) for scale, rate in SCALES_AND_RATES if not rows.has(scale=scale, rate=rate, **of)]
    with ProcessPoolExecutor(asked.jobs, get_context("spawn")) as pool:
        running = [pool.submit(trained, *pair, asked.steps, asked.task, asked.size) for pair in left]
        for one in as_completed(running):
            rows.add(one.result())
            print(json.dumps(rows[-1]), flush=True)


if __name__ == "__main__":
    main()
