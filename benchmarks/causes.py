"""Ask why contexts fall short where the cause is known, and print what was found beside it.

    python benchmarks/causes.py [CASE ...] [--out DIR]

structure     a planted task that no context can teach this model of one layer, by construction
histogram     toy:mixed counts digits, which needs attention that it does not have
combination   toy:mixed sorts and adds 1: a free prefix does it, a soft prompt is asked about
capacity      toy:ascending, of one layer and one head, writes nine fixed digits, with one virtual token
optimisation  a prefix whose range of learning rates ends at 3e-6
data          toy:ascending is asked for digits that hang on nothing
reading       SmolLM2 on short movie reviews, shown by a template that asks for something else

Every case keeps its trials in DIR/CASE and goes on from there.
"""

from __future__ import annotations

import argparse
import time
from inspect import isfunction
from pathlib import Path
from typing import Any

import numpy as np
from kept import say_where

import elicitable as el
from elicitable.methods.base import Schedule
from elicitable.methods.kv_prefix import KVPrefix
from elicitable.methods.lora import LoRA
from elicitable.planted.cases import case_named
from elicitable.race.reporter import Silent
from elicitable.tasks.digits import DigitTask
from elicitable.tasks.movie_reviews import LABELS, load_table, read_rows
from elicitable.tasks.splitting import split_rows
from elicitable.tasks.template import Template
from elicitable.tasks.text import TextTask

FIXED = (1, 4, 1, 5, 9, 2, 6, 5, 3)
MISLEADING = "{text}\nHow many people wrote this text? They were"


class SlowPrefix(KVPrefix):
    """A prefix whose range of rates is far too low."""

    name = "slow-prefix"
    schedule = Schedule(learning_rates=(1e-6, 3e-6))


class LastThenFixed(DigitTask):
    """Ten digits in; out come the last of them and then always the same nine.

    What comes next hangs on the place and on the digit before it, which a query knows. In one head one virtual token
    gives every query the same vector, more of it or less; ten different answers take more than one.
    """

    def __init__(self) -> None:
        super().__init__("ascending")
        self.name = "last-then-fixed"

    def _targets(self, prompts: Any, lots: Any) -> Any:
        return np.hstack([prompts[:, -1:], np.tile(FIXED, (len(prompts), 1))])


class RandomDigits(DigitTask):
    """Ten digits in, ten digits out that hang on nothing."""

    def __init__(self) -> None:
        super().__init__("ascending")
        self.name = "random-digits"

    def _targets(self, prompts: Any, lots: Any) -> Any:
        drawn = np.random.default_rng([7, len(prompts), *prompts[:4].ravel().tolist()])
        return drawn.integers(0, 8, prompts.shape)


class OneRateLoRA(LoRA):
    """LoRA at one learning rate: a yardstick on a language model, without a sweep."""

    name = "one-rate-lora"
    schedule = Schedule(learning_rates=(5e-3,))


def short_reviews() -> TextTask:
    """Return the movie reviews of 9 to 20 words, shown by a template that asks for something else."""
    rows = [row for row in read_rows(load_table()) if 9 <= len(row.cells[0].split()) <= 20]
    splits, _ = split_rows({"train": rows})
    return TextTask("short-reviews", splits, Template.parse(MISLEADING, "classification"), classes=LABELS)


class Told(Silent):
    """Print what is asked."""

    def begin(self, arm: str, what: str, arms_done: int, arms: int) -> None:
        """Print one line."""
        print(f"  {time.strftime('%H:%M:%S')} {arm}: {what}", flush=True)


BLIND = case_named("copyist/turn-2-add-3")
FEW = ["zero-shot", "kv-prefix", "lora", "full"]
CASES: dict[str, dict[str, Any]] = {
    "structure": {
        "model": BLIND.model_folder(),
        "task": BLIND.task(),
        "of": "kv-prefix",
        "methods": ["zero-shot", "kv-prefix", "full"],
    },
    "histogram": {"model": "toy:mixed", "task": "double-histogram", "of": "kv-prefix", "methods": FEW},
    "combination": {
        "model": "toy:mixed",
        "task": "ascending-add-1",
        "of": "soft-prompt",
        "methods": ["zero-shot", "soft-prompt", "kv-prefix", "full"],
    },
    "capacity": {
        "model": "toy:ascending",
        "task": LastThenFixed(),
        "of": "kv-prefix",
        "methods": ["zero-shot", "kv-prefix", "full"],
    },
    "optimisation": {
        "model": "toy:mixed",
        "task": "ascending",
        "of": "slow-prefix",
        "methods": ["zero-shot", SlowPrefix(), "full"],
    },
    "data": {
        "model": "toy:ascending",
        "task": RandomDigits(),
        "of": "kv-prefix",
        "methods": ["zero-shot", "kv-prefix", "full"],
        "steps": 512,
    },
    "reading": {
        "model": "smollm2",
        "task": short_reviews,
        "of": "prompt",
        "methods": ["zero-shot", "prompt", OneRateLoRA()],
        "search_passes": 256,
        "test_items": 100,
        "steps": 64,
    },
}
# what the unbounded context does is not ruled out by the form of a context; a soft prompt's kind may rule it out
EXPECTED = {"combination": ("structure", "optimisation"), "histogram": ("capacity", "optimisation")}


def main() -> None:
    """Run the cases that were named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", choices=[*CASES, []])
    parser.add_argument("--out", default="elicitable-runs/causes")
    asked = parser.parse_args()
    lines = []
    say_where()
    for name in asked.cases or CASES:
        case = dict(CASES[name])
        of, task, started = case.pop("of"), case.pop("task"), time.monotonic()
        print(name, flush=True)
        answer = el.verdict(
            case.pop("model"),
            task() if isfunction(task) else task,
            seeds=1,
            why=True,
            out=Path(asked.out) / name,
            reporter=Told(),
            **case,
        )
        found = [] if answer.why is None else [one for one in answer.why.diagnoses if one.of == of]
        expected = EXPECTED.get(name, (name,))
        cause = found[0].cause if found else "none"
        ran = 0 if answer.why is None else sum(not one.reason for one in answer.why.experiments)
        sure = "" if not found or found[0].is_sure else " (likely)"
        verdict = "right" if cause in expected else "WRONG"
        lines.append(
            f"{name:14}{answer.label:14}{of:13}{cause + sure:24}{verdict:8}{ran:12}{time.monotonic() - started:9.0f}"
        )
        for one in found:
            print("  ", *one.sentences, one.advice, flush=True)
    print(f"{'case':14}{'verdict':14}{'context':13}{'cause':24}{'':8}{'experiments':>12}{'seconds':>9}")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
