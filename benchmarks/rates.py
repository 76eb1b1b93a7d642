"""Which rate does a first look choose: by the validation score, by the loss, or by the loss where scores tell nothing?

    python benchmarks/rates.py [--out rates.jsonl] [--models smollm2 planted] [--planted 12] [--test 300]

Every rate of every method's range is trained to its end alone (six times as long as its first look, the last third on
the way down), with the looks that a race has on the way, and tested. Each rule then chooses by those looks as a race
does: the better half at the first, the best of them at the second. What a rule loses is the test score of the best rate
at its end less that of the rate it took. Lines of JSON, one a run; what is there is not trained again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from contexts import tasks as text_tasks
from kept import Kept

import elicitable as el
from elicitable.methods.budget import default_budget
from elicitable.methods.catalog import method_named
from elicitable.planted.parts import part_named
from elicitable.race.contest import LONGEST
from elicitable.race.line import NEVER, WARMUP
from elicitable.race.outlook import TELLING
from elicitable.tasks.catalog import task_from
from elicitable.training.evaluate import evaluate
from elicitable.training.loop import Plan, prepared, reading_of, train

METHODS = ("kv-prefix", "soft-prompt", "lora")
ITEMS = 64  # of validation, at every look
Look = tuple[float, float]  # validation score, loss


def cases(asked: argparse.Namespace) -> Iterator[tuple[str, Callable[[], tuple[Any, Any]], int, int]]:
    """Name, model and task, first steps, batch."""
    if "smollm2" in asked.models:
        for name, task in text_tasks().items():
            yield f"smollm2/{name}", lambda task=task: (el.load("smollm2", device="cpu"), task_from(task)), 16, 16
    if "planted" in asked.models:
        part = part_named("one-layer")
        for case in part.first(asked.planted):
            load = lambda case=case: (part.load(case.model, Path(), "cpu"), case.task())  # noqa: E731
            yield case.name, load, 64, 64


def trained(model: Any, task: Any, method: Any, rate: float, first: int, batch: int, test: int) -> dict[str, Any]:
    """One rate: the looks at it, and its score at its end."""
    size = method.fitting(model, default_budget(model), LONGEST).size
    built = method.build(model, size, seed=0, **method.start(model))
    plan = Plan(
        learning_rate=rate, steps=6 * first, batch=batch, warmup=WARMUP, cooldown=1 / 3, evaluate_every=first,
        validation_items=ITEMS, patience_steps=NEVER, solved=2.0, perfect=2.0,
    )  # fmt: skip
    looks: dict[int, Look] = {}
    train(model, built, task, plan, 0, progress=lambda point, _: _seen(looks, point))
    with prepared(model, built) as refresh, torch.no_grad():
        refresh()
        score = evaluate(model, task.held_out("test", test), task.labels(), reading_of(plan, built))
    return {"looks": [looks.get(first), looks.get(2 * first)], "test": score.mean, "items": len(score.correct)}


def _seen(looks: dict[int, Look], point: Any) -> None:
    if point.validation is not None:
        looks[point.step] = (point.validation, point.loss_nats)


def by_score(look: Look, best: float) -> tuple[float, float]:
    """The validation score, then the loss: a score of a few lucky items counts as none."""
    return (look[0] if look[0] >= TELLING else 0.0, -look[1])


def by_loss(look: Look, best: float) -> tuple[float, float]:
    """The loss."""
    return (0.0, -look[1])


def by_both(look: Look, best: float) -> tuple[float, float]:
    """The loss among scores within one standard error of the best, the score elsewhere."""
    own, best = (score if score >= TELLING else 0.0 for score in (look[0], best))
    error = (best * (1 - best) / ITEMS) ** 0.5
    return (best if own >= best - error else own, -look[1])


RULES = {"score": by_score, "loss": by_loss, "one standard error": by_both}


def chosen(lines: dict[float, dict[str, Any]], rule: Callable[[Look, float], tuple[float, float]]) -> float:
    """The rate that is taken after two looks."""
    left = [rate for rate, line in lines.items() if all(line["looks"])]
    for nth in (0, 1):
        best = max(lines[rate]["looks"][nth][0] for rate in left)
        left.sort(key=lambda rate: rule(lines[rate]["looks"][nth], best), reverse=True)
        left = left[: max(1, len(left) // 2)]
    return left[0]


def show(known: list[dict[str, Any]]) -> None:
    """What each rule loses, in points."""
    grouped: dict[tuple[str, str], dict[float, dict[str, Any]]] = defaultdict(dict)
    for line in known:
        grouped[line["case"], line["method"]][line["rate"]] = line
    lost: dict[tuple[str, str], list[float]] = defaultdict(list)
    for (case, method), lines in grouped.items():
        if sum(all(line["looks"]) for line in lines.values()) < 4:
            continue
        best = max(line["test"] for line in lines.values())
        for name, rule in RULES.items():
            rate = chosen(lines, rule)
            behind = 100 * (best - lines[rate]["test"])
            print(f"{case:32} {method:12} {name:20} {rate:<8g} {behind:5.1f} behind {best:.3f}")
            lost["smollm2" if case.startswith("smollm2/") else "planted", name].append(behind)
    for (model, name), points in lost.items():
        print(
            f"{model}: by {name}, {statistics.mean(points):.2f} points, {max(points):.1f} at worst ({len(points)} runs)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("elicitable-runs/rates.jsonl"))
    parser.add_argument("--models", nargs="*", default=["smollm2", "planted"])
    parser.add_argument("--planted", type=int, default=12)
    parser.add_argument("--cases", nargs="*", help="only these")
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--test", type=int, default=300)
    asked = parser.parse_args()
    known = Kept(asked.out)
    for name, load, first, batch in cases(asked):
        if asked.cases and name not in asked.cases:
            continue
        model, task = load()
        for method in map(method_named, asked.methods):
            for rate in method.schedule.learning_rates:
                if known.has(case=name, method=method.name, rate=rate):
                    continue
                found = trained(model, task, method, rate, first, batch, asked.test)
                known.add({"case": name, "method": method.name, "rate": rate, **found})
                print(json.dumps(known[-1]), flush=True)
    show(known)


if __name__ == "__main__":
    main()
