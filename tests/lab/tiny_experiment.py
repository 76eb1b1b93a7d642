"""An experiment small enough to run whole in seconds, and a way to run it in a process that can be killed."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from elicitable.executors.executor import Inline, executor_named
from elicitable.experiments.experiment import Adapt, Bound, Cell, Claim, Experiment, Figure, Pretrain, Training
from elicitable.lab.reproduce import run_experiments
from elicitable.values import ToySpec

BASE = Pretrain(
    "base",
    ToySpec(
        "tiny", "ascending", layers=1, heads=2, d_model=16, has_first_norm=False, steps=200, learning_rate=3e-3, batch=8
    ),
    ("ascending", "descending"),
    measures=("attention",),
)
TRAINING = Training(steps=200, batch=8, evaluate_every=50, validation_items=32)
PREFIX = Adapt(
    "prefix",
    "base",
    "descending",
    "kv-prefix",
    2,
    (0.03, 0.1),
    TRAINING,
    ("descending",),
    options=(("init", "random"),),
    measures=("attention", "activations"),
    test_items=50,
)
LORA = Adapt("lora", "base", "descending", "lora", 1, (0.01,), TRAINING, ("descending",), restarts=2, test_items=50)
FULL = Adapt("full", "base", "descending", "full", 1, (0.01,), TRAINING, ("descending",), test_items=50)
TINY = Experiment(
    name="tiny",
    title="A tiny one",
    source="nowhere",
    trials=(BASE, PREFIX, LORA, FULL),
    claims=(
        Claim(
            "a tiny model learns nothing", Cell("base", "descending"), 0.0, Bound("at most", 10.0), refuted="it knew"
        ),
        Claim(
            "and is said to learn all",
            Cell("prefix", "descending"),
            99.0,
            Bound("at least", 90.0),
            refuted="it did not",
        ),
        Claim(
            "no gap",
            Cell("lora", "descending"),
            None,
            Bound("at most", 10.0),
            "points",
            Cell("prefix", "descending"),
            refuted="there were one",
        ),
    ),
    figures=(Figure("learning curves", ("prefix", "lora"), "Curves."),),
)

SCRIPT = Path(__file__)


def run(out: Path, experiment: Experiment = TINY, **given: Any) -> dict[str, Any]:
    """The experiment at seed 0, one trial after the other in this process unless told otherwise."""
    return run_experiments([experiment], "quick", [0], out=out, **{"executor": Inline(), **given})


def records(out: Path) -> dict[str, dict[str, Any]]:
    """Every record by identity, all but what the clock says, and the digest that covers it."""
    found = {}
    for path in sorted((out / "trials").glob("*/record.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        del record["timing"], record["digest"]
        found[path.parent.name] = record
    return found


def forget(out: Path, **told: Any) -> str:
    """Remove the first record whose spec says so; its identity."""
    gone = next(name for name, one in records(out).items() if all(one["spec"][key] == told[key] for key in told))
    shutil.rmtree(out / "trials" / gone)
    return gone


if __name__ == "__main__":
    folder, executor = sys.argv[1:]
    run(Path(folder), executor=executor_named(executor, 2), checkpoint_seconds=0.0)
