"""What a few long texts among many short ones add to the peak of memory, in scoring and in training.

    python benchmarks/memory.py [--model smollm2] [--long 20] [--tokens 3000] [--short 2000] [--steps 40]

Every line is a process of its own: the model is loaded, the work is done, and the peak of its resident memory is read.
"short" has 2,000 texts of 20 tokens, "mixed" as many of which 20 have 3,000. Steps are of a prefix in keys and values
and of LoRA, in batches of 16 that are drawn so that every long text comes up. Printed in MiB: the peak after loading,
and what the work added to it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

WORK = ("score free answers", "score labels", "train kv-prefix", "train lora")
WORDS = ("film", "plot", "scene", "light", "sound", "story", "actor", "music", "pace", "end")


def main() -> None:
    """Run every kind of work in a process of its own, with the long texts and without."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--long", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=3_000)
    parser.add_argument("--short", type=int, default=2_000)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--work", nargs="*", default=WORK, choices=WORK)
    parser.add_argument("--child", choices=("short", "mixed"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        print(json.dumps(measured(asked)), flush=True)
        return
    for work in asked.work:
        for kind in ("short", "mixed"):
            command = [sys.executable, __file__, *sys.argv[1:], "--child", kind, "--work", work]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            print(json.dumps({"work": work, "texts": kind, **found}), flush=True)


def measured(asked: argparse.Namespace) -> dict[str, Any]:
    """Do one kind of work here, and say what it took."""
    import elicitable as el
    from elicitable.models.speed.processor import made_on

    model = el.load(asked.model, dtype="float32")
    loaded = peak()
    texts = [sentence(n, 20) for n in range(asked.short)]
    if asked.child == "mixed":
        places = range(0, asked.short, max(1, asked.short // asked.long))
        for n in list(places)[: asked.long]:
            texts[n] = sentence(n, asked.tokens)
    work(model, asked.work[0], texts, asked.steps)
    return {"loaded_mib": loaded, "added_mib": peak() - loaded, **made_on(model.device)}


def sentence(number: int, tokens: int) -> str:
    """A text of about so many tokens, a few more for every number."""
    words = (WORDS[(number * 7 + place * place) % 10] for place in range(tokens - 2 - number % 5))
    return " ".join((str(number), *words))


def peak() -> int:
    """The largest resident size of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def work(model: object, kind: str, texts: Sequence[str], steps: int) -> None:
    """Score all texts, or train on them."""
    from elicitable.methods.catalog import method_named
    from elicitable.tasks.catalog import task_from
    from elicitable.training.batches import Reading
    from elicitable.training.evaluate import evaluate
    from elicitable.training.loop import Plan, train
    from elicitable.values import Item

    items = [Item(text, f" {WORDS[n % 4]}") for n, text in enumerate(texts)]
    labels = tuple(f" {word}" for word in WORDS[:4]) if "labels" in kind else None
    if kind.startswith("score"):
        evaluate(model, items, labels, Reading())
        return
    rows = [{"text": item.prompt, "label": str(item.target).strip()} for item in items]
    task = task_from(rows, template="{text}")
    name = kind.removeprefix("train ")
    method = method_named(name)
    adaptation = method.build(model, 4 if name == "lora" else 16, seed=0, **method.start(model))
    plan = Plan(learning_rate=1e-3, batch=16, steps=steps, evaluate_every=steps, validation_items=16)
    train(model, adaptation, task, plan, seed=0)


if __name__ == "__main__":
    main()
