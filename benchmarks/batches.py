"""What is learned from as many rows in batches of 16, 8 and 4, on a clock that pays for a few hundred rows?

    python benchmarks/batches.py [--out batches.jsonl] [--tasks topics library] [--methods lora] [--seeds 2]

SmolLM2, the middle rate of each method, the warm-up and the way down of a race against the clock; the score is that of
64 validation items at the end, one for each seed. Lines of JSON, one a run; what is there is not trained again. In
float32 without AVX-512 a run of 112 rows takes a minute and a half of one thread, one of 288 rows three and a half.
"""

from __future__ import annotations

import argparse
import os
from collections import defaultdict
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from compile import topics_csv
from contexts import tasks
from kept import Kept

import elicitable as el
from elicitable.methods.budget import default_budget
from elicitable.methods.catalog import method_named
from elicitable.models.speed.frozen_parts import keeping_parts
from elicitable.race.contest import LONGEST
from elicitable.race.line import NEVER, WARMUP
from elicitable.tasks.catalog import task_from
from elicitable.training.loop import Plan, train

BATCHES = (16, 8, 4)
FEW, MORE = (5, 2), (12, 6)  # steps on 16 rows, and of the way down


def trained(model: Any, task: Any, name: str, batch: int, steps: int, down: int, seed: int) -> dict[str, Any]:
    """Train once; the score and the loss at the end."""
    method = method_named(name)
    rates = sorted(method.schedule.learning_rates)  # type: ignore[union-attr]
    size = method.fitting(model, default_budget(model), LONGEST).size
    whole = steps + down
    plan = Plan(
        learning_rate=rates[len(rates) // 2], steps=whole, batch=batch, warmup=WARMUP, cooldown=down / whole,
        evaluate_every=whole, validation_items=64, patience_steps=NEVER, solved=2.0, perfect=2.0,
    )  # fmt: skip
    fit = train(model, method.build(model, size, seed=seed, **method.start(model)), task, plan, seed)
    return {"validation": fit.curve[-1].validation, "loss_nats": fit.curve[-1].loss_nats}


def main() -> None:
    """Train what is not there yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("batches.jsonl"))
    parser.add_argument("--tasks", nargs="+", default=["topics", "library", "strength"])
    parser.add_argument("--methods", nargs="+", default=["lora"])
    parser.add_argument("--seeds", type=int, default=2)
    asked = parser.parse_args()
    kept, model = Kept(asked.out), el.load("smollm2", device="cpu")
    with TemporaryDirectory() as folder, keeping_parts(model):
        known = tasks() | {"topics": topics_csv(Path(folder))}
        for name, method, (steps, down) in product(asked.tasks, asked.methods, (FEW, MORE)):
            task = task_from(known[name])
            for seed, batch in product(range(asked.seeds), BATCHES):
                key = {"task": name, "method": method, "rows": 16 * (steps + down), "batch": batch, "seed": seed}
                if not kept.has(**key):
                    each = 16 // batch
                    kept.add(key | trained(model, task, method, batch, each * steps, each * down, seed))
    found = defaultdict(list)
    for run in kept:
        found[run["task"], run["method"], run["rows"], run["batch"]].append(run["validation"])
    print("| task | method | rows | batches of 16 | of 8 | of 4 |\n|---|---|---|---|---|---|")
    for name, method, rows in dict.fromkeys(key[:3] for key in found):
        cells = (" ".join(f"{one:.2f}" for one in found[name, method, rows, batch]) for batch in BATCHES)
        print(f"| {name} | {method} | {rows} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
