"""What looking for contexts is worth: prompt, examples, soft prompt and prefix before and after, and the verdict.

    python benchmarks/contexts.py FOLDER [--device cuda] [--model smollm2] [--tasks movie-reviews …] [--seconds 540]

Three text tasks that need no download of their own: movie-reviews; how strong the opinion of such a sentence is (four
labels); and what a part of Python's standard library is for, read off its first sentence (four labels). Every arm is
trained or chosen alone, in FOLDER, and printed as one line of JSON with its score, passes and seconds; a second run
prints what is there and goes on with what is missing. ``--seconds`` stops before the next arm begins. The last lines
are the verdicts with the arms before and with those after.

"Before" are the searches as they were: three instructions and two draws of 1, 2, 4, 8 and 16 examples, chosen on half
of the validation items, and contexts trained from the vocabulary at rates of 0.01 to 0.3.
"""

from __future__ import annotations

import argparse
import ast
import html
import json
import os
import sysconfig
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kept import say_where

os.environ.setdefault("OMP_NUM_THREADS", "1")

import elicitable as el
from elicitable.methods.base import Adaptation, Method, Schedule
from elicitable.methods.budget import default_budget
from elicitable.methods.catalog import method_named
from elicitable.methods.examples import Examples, draw
from elicitable.methods.instructions import bank
from elicitable.methods.kv_prefix import KVPrefix
from elicitable.methods.prompt import Prompt, readable, room_of
from elicitable.methods.search import Offer, Search
from elicitable.methods.soft_prompt import SoftPrompt
from elicitable.models.layout import Layout, layout_for
from elicitable.models.model import Model
from elicitable.race.contest import LONGEST
from elicitable.tasks.base import Task
from elicitable.tasks.memory import memory_task
from elicitable.tasks.movie_reviews import load_table
from elicitable.tasks.options import TaskOptions

OLD_RATES = (1e-2, 3e-2, 1e-1, 3e-1)
OLD_TEXTS, OLD_COUNTS, OLD_DRAWS, OLD_TOKENS = 3, (1, 2, 4, 8, 16), 2, 512
STRENGTH = ((2.0, "strong"), (0.5, "mild"))
TOPICS = {
    "network": "http urllib socket ftplib smtplib imaplib poplib xmlrpc socketserver ssl email ipaddress telnetlib",
    "files": "shutil pathlib zipfile tarfile tempfile glob fnmatch filecmp gzip bz2 lzma os fileinput stat mailbox",
    "numbers": "decimal fractions random statistics numbers datetime calendar colorsys bisect heapq",
    "concurrency": "threading asyncio multiprocessing concurrent queue sched selectors subprocess signal",
}


class OldPrompt(Prompt):
    """Three instructions in every layout."""

    name = "prompt-before"

    def search(self, model: Model, task: Task, seed: int, layouts: Sequence[Layout] = (), **options: Any) -> Search:  # type: ignore[override]
        """Offer them at once."""
        texts = list(bank(task))[:OLD_TEXTS]
        yield Offer([self.build(model, text=text, layout=one) for text in texts for one in readable(task, layouts)])


class OldExamples(Examples):
    """Two draws of 1, 2, 4, 8 and 16 examples, with the template and without."""

    name = "examples-before"

    def search(self, model: Model, task: Task, seed: int, layouts: Sequence[Layout] = (), **options: Any) -> Search:  # type: ignore[override]
        """Offer them at once."""
        tried = {layout.chat: layout for layout in reversed(readable(task, layouts))}
        built = [
            self.build(model, seed=seed, items=draw(task, k, 1000 * seed + nth), layout=layout)
            for k in OLD_COUNTS
            for nth in range(OLD_DRAWS)
            for layout in reversed(tried.values())
        ]
        yield Offer([one for one in built if one.keys_per_layer() <= min(OLD_TOKENS, room_of(model))])


class OldSoftPrompt(SoftPrompt):
    """From the vocabulary, at the rates of before."""

    name, schedule = "soft-prompt-before", Schedule(OLD_RATES)

    def build(self, model: Model, size: int, seed: int = 0, **options: Any) -> Adaptation:  # type: ignore[override]
        """Start from tokens of the vocabulary."""
        return super().build(model, size, seed, init="vocabulary")

    def start(self, model: Model) -> dict[str, Any]:
        """Nothing is set."""
        return {}


class OldPrefix(KVPrefix):
    """From the vocabulary, at the rates of before."""

    name, schedule = "kv-prefix-before", Schedule(OLD_RATES)


class StartedSoftPrompt(SoftPrompt):
    """From the embeddings of the last tokens of the examples that were chosen."""

    name = "soft-prompt-from-examples"

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = list(ids)

    def start(self, model: Model) -> dict[str, Any]:
        """As many of the last tokens as the budget has virtual ones."""
        return {"init": "text", "text": self.ids[-self.fitting(model, default_budget(model), LONGEST).size :]}


class StartedPrefix(KVPrefix):
    """From the keys and values of the last tokens of the examples that were chosen (as in arXiv 2507.04221)."""

    name = "kv-prefix-from-examples"

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = list(ids)

    def start(self, model: Model) -> dict[str, Any]:
        """As many of the last tokens as the budget has virtual ones."""
        return {"init": "text", "text": self.ids[-self.fitting(model, default_budget(model), LONGEST).size :]}


BEFORE: tuple[Method, ...] = (OldPrompt(), OldExamples(), OldSoftPrompt(), OldPrefix())
AFTER = ("prompt", "examples", "nearest-examples", "soft-prompt", "kv-prefix")
BOTH = ("zero-shot", "lora")


def tasks() -> dict[str, Any]:
    """The tasks by name."""
    options = TaskOptions(text_column="text", label_column="label")
    return {
        "movie-reviews": "movie-reviews",
        "strength": memory_task(list(_strengths()), options),
        "library": memory_task(list(_library()), options),
    }


def _strengths() -> Iterator[dict[str, str]]:
    for line in load_table().decode("utf-8").splitlines():
        _, rating, text = line.split("\t")
        degree = next((name for least, name in STRENGTH if abs(float(rating)) > least), None)
        if degree is not None:
            kind = "praise" if float(rating) > 0 else "blame"
            yield {"text": " ".join(html.unescape(text).split()), "label": f"{degree} {kind}"}


def _library() -> Iterator[dict[str, str]]:
    root = Path(sysconfig.get_path("stdlib"))
    for topic, names in TOPICS.items():
        for name in names.split():
            whole = root / name
            for path in sorted(whole.rglob("*.py")) if whole.is_dir() else [whole.with_suffix(".py")]:
                if path.is_file() and "test" not in path.parts:
                    yield from ({"text": text, "label": topic} for text in _sentences(path))


def _sentences(path: Path) -> Iterator[str]:
    """The first paragraph of every docstring, without those of a few words."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
            said = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
            if len(said.split()) >= 6:
                yield said


def raced(model: Model, name: str, task: Any, methods: Sequence[str | Method], asked: argparse.Namespace) -> Any:
    """The verdict of a race of these arms, whose trials are kept in the folder."""
    return el.verdict(
        model,
        task,
        methods=methods,
        seeds=1,
        steps=asked.steps,
        test_items=asked.test,
        search_passes=asked.passes,
        out=asked.folder / name,
    )


def told(name: str, method: str, arm: Any, when: str, spent: float) -> str:
    """One line of JSON about an arm."""
    effort = arm.effort
    row: dict[str, Any] = {"task": name, "arm": method, "when": when, "status": arm.status, "score": arm.mean}
    row |= {"low": arm.low, "high": arm.high, "rule": arm.rule, "raw": arm.raw_mean, "stopped": arm.stopped}
    row |= {"seconds": arm.seconds, "now": round(spent, 1), "keys": arm.budget.keys_per_layer, "reason": arm.reason}
    if effort is not None:
        row |= {"candidates": effort.candidates, "offered": effort.offered, "passes": effort.passes}
        row |= {"items": effort.items, "validation": effort.best, "median": effort.median, "origins": effort.origins}
    else:
        row |= {"steps": arm.steps, "rate": arm.learning_rate, "sweep": [dict(one) for one in arm.sweep]}
    return json.dumps(row)


def arms() -> list[tuple[str | Method, str]]:
    """Every arm, and when it is from: those of before and after beside each other."""
    pairs = zip(BEFORE, (*AFTER[:2], *AFTER[3:]), strict=True)
    apart: list[tuple[str | Method, str]] = []
    for old, new in pairs:
        apart += [(old, "before"), (new, "after")]
    return [*((name, "both") for name in BOTH), *apart, (AFTER[2], "after")]


def started(model: Model, chosen: Any) -> list[tuple[str | Method, str]]:
    """The trained contexts that start from the examples that were chosen."""
    if chosen.status != "ok":
        return []
    ids = Examples().from_setting(model, chosen.setting, layout_for(model)).ids.flatten().tolist()
    return [(StartedSoftPrompt(ids), "after"), (StartedPrefix(ids), "after")]


def run(model: Model, name: str, task: Any, asked: argparse.Namespace, until: float) -> None:
    """All arms of one task, each alone, and then the verdicts on what there is."""
    done: list[tuple[str | Method, str]] = []
    coming = arms()
    while coming:
        method, when = coming.pop(0)
        called = method if isinstance(method, str) else method.name
        if (asked.arms and called not in asked.arms) or time.monotonic() > until:
            continue
        begun = time.monotonic()
        [arm] = raced(model, name, task, [method], asked).arms
        print(told(name, called, arm, when, time.monotonic() - begun), flush=True)
        done.append((method, when))
        coming += started(model, arm) if called == AFTER[1] else []
    for when in ("before", "after"):
        methods = [method for method, its in done if its in (when, "both")]
        if len(methods) > len(BOTH):
            answer = raced(model, name, task, methods, asked)
            row = {"task": name, "verdict": when, "label": answer.label, "answer": answer.answer}
            names = [method_named(one).name for one in methods]
            print(json.dumps({**row, "arms": names, "reasons": answer.reasons}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--tasks", nargs="*")
    parser.add_argument("--arms", nargs="*", help="only these")
    parser.add_argument("--steps", type=int, default=150, help="of training, at most")
    parser.add_argument("--test", type=int, default=500, help="test items")
    parser.add_argument("--passes", type=int, default=4_096, help="item-passes of each search")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="after which no further arm is begun")
    asked = parser.parse_args()
    until = time.monotonic() + asked.seconds
    model = el.load(asked.model, device=asked.device, dtype=asked.dtype)
    say_where(model.device)
    for name, task in tasks().items():
        if not asked.tasks or name in asked.tasks:
            run(model, name, task, asked, until)


if __name__ == "__main__":
    main()
