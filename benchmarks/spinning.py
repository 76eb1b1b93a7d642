"""How long threads that wait should spin: steps and reads on every core, alone and beside busy processes.

    python benchmarks/spinning.py [--counts default 1000 10000 100000] [--busy 0 2] [--models toy:mixed smollm2]

Between two products threads of GNU OpenMP wait for each other, and spin before they sleep (``GOMP_SPINCOUNT``). On
cores that other work wants too, a thread that spins keeps the one that it waits for from running. Every line is one
process on as many threads as there are cores: the median milliseconds of a training step of a kv-prefix on 16 rows (4
of a language model), taken by turns with those of one thread, which nothing waits for.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from typing import Any

SET_BY_HAND = ("OMP_NUM_THREADS", "GOMP_SPINCOUNT")


def child(name: str, seconds: float) -> dict[str, Any]:
    """Take steps by turns on all threads and on one."""
    import torch

    import elicitable as el
    from elicitable.methods.catalog import method_named
    from elicitable.models.layout import layout_for
    from elicitable.models.speed.processor import made_on
    from elicitable.tasks.catalog import task_from
    from elicitable.training.loop import Plan, train

    model = el.load(name, device="cpu")
    rows = 16 if model.tokenizer is None else 4
    task = task_from("ascending" if model.tokenizer is None else "movie-reviews")
    method, layout, threads = method_named("kv-prefix"), layout_for(model), os.cpu_count() or 1
    plan = Plan(1e-3, 8, rows, 1, evaluate_every=10**9, validation_items=2, layout=layout)

    def steps() -> float:
        adaptation = method.made(model, 6, seed=0)
        started = time.perf_counter()
        train(model, adaptation, task, plan, 0)
        return (time.perf_counter() - started) / plan.steps

    steps()
    taken: dict[int, list[float]] = {threads: [], 1: []}
    ends = time.monotonic() + seconds
    while time.monotonic() < ends or not taken[1]:
        for number, found in taken.items():
            torch.set_num_threads(number)
            found.append(steps())
    medians = {number: round(1000 * statistics.median(found), 2) for number, found in taken.items()}
    return {"all_threads_ms": medians[threads], "one_thread_ms": medians[1], **made_on()}


def spin() -> None:
    while True:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", nargs="+", default=["default", "1000", "10000", "100000"])
    parser.add_argument("--busy", nargs="+", type=int, default=[0, 2])
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--models", nargs="+", default=["toy:mixed", "smollm2"])
    parser.add_argument("--child", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        print(json.dumps(child(asked.child, asked.seconds)))
        return
    for busy in asked.busy:
        others = [multiprocessing.Process(target=spin, daemon=True) for _ in range(busy)]
        for other in others:
            other.start()
        for name in asked.models:
            for count in asked.counts:
                env = {key: value for key, value in os.environ.items() if key not in SET_BY_HAND}
                env |= {} if count == "default" else {"GOMP_SPINCOUNT": count}
                typed = [sys.executable, __file__, "--child", name, "--seconds", str(asked.seconds)]
                done = subprocess.run(typed, env=env, capture_output=True, text=True, check=True)
                found = json.loads(done.stdout.splitlines()[-1])
                print(json.dumps({"busy": busy, "model": name, "spins": count, **found}), flush=True)
        for other in others:
            other.kill()


if __name__ == "__main__":
    main()
