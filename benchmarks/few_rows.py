"""What a file of few rows gives a prompt or examples: chosen by its validation rows alone, and by training rows too.

    python benchmarks/few_rows.py [--out few_rows.jsonl] [--rows 300] [--draws 3] [--passes 2048] [--tasks library …]

Each draw is a file of ``--rows`` rows of a larger text task (benchmarks/contexts.py), a tenth of them for validation;
the test items are 500 others, so that a choice is measured and not guessed at. Both ways search with the same passes.
Lines of JSON, one a search: the score by which it was chosen, and the one on the test items; what is there is not run
again. The last lines are means over tasks and draws, in pairs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from contexts import tasks as text_tasks
from kept import Kept

import elicitable as el
from elicitable.methods.catalog import method_named
from elicitable.models.layout import layout_for
from elicitable.race import trial as trials
from elicitable.race.trial import Trial, run
from elicitable.records.store import Store
from elicitable.rng import generator
from elicitable.tasks.catalog import task_from
from elicitable.tasks.memory import memory_task
from elicitable.tasks.options import TaskOptions
from elicitable.tasks.wider import wider
from elicitable.training.evaluate import evaluate
from elicitable.training.loop import Plan, prepared, reading_of

WAYS = {"validation": lambda task, items: task, "and training rows": wider}
TEST, ASKED = 500, 128


def drawn(task: Any, rows: int, draw: int) -> Any:
    """A task of ``rows`` rows, of which a tenth are for validation, and 500 others to test on."""
    pool = {item.prompt: item for item in (*task.sample(20_000, generator(0, "few")), *task.held_out("validation"))}
    pool |= {item.prompt: item for item in task.held_out("test", TEST + rows)}
    items = list(pool.values())
    some = [items[place] for place in generator(draw, "few rows").permutation(len(items))[: rows + TEST]]
    template = [{"text": row_text(item), "label": item.target.strip()} for item in some]
    cut = 9 * rows // 10
    parts = {"train": template[:cut], "validation": template[cut:rows], "test": template[rows:]}
    return memory_task(parts, TaskOptions(text_column="text", label_column="label"))


def row_text(item: Any) -> str:
    """The text itself, without what a template puts around it."""
    first, last = item.spans[0] if item.spans else (0, len(item.prompt))
    return str(item.prompt[first:last])


def chosen(model: Any, task: Any, method: Any, way: str, draw: int, passes: int, folder: Path) -> dict[str, Any]:
    """One search, and the test score of what it chose."""
    trials.wider = WAYS[way]
    layout = layout_for(model)
    plan = Plan(0.0, 0, batch=16, validation_items=ASKED, layout=layout)
    trial = Trial(method, 2, plan, draw, options=method.start(model), layouts=(layout,), passes=passes)
    record = run(trial, model, task, Store(folder / way.replace(" ", "-")))
    if not record.is_ok:
        return {"status": record.status, "reason": record.stopped}
    found = method.from_setting(model, record.setting, layout)
    items = task.held_out("test", TEST)
    found.fit(model, items)
    with torch.no_grad(), prepared(model, found) as refresh:
        refresh()
        score = evaluate(model, items, task.labels(), reading_of(plan, found))
    effort = record.effort
    assert effort is not None
    told = {"by": effort.items, "chosen at": record.validation, "test": score.mean, "candidates": effort.candidates}
    return {**told, "passes": effort.passes, "seconds": effort.seconds}


def summary(lines: list[dict[str, Any]]) -> None:
    """Means over tasks and draws, and of the pairs."""
    pairs: dict[Any, dict[str, dict[str, Any]]] = defaultdict(dict)
    for line in lines:
        task, method, way, draw = line["id"]
        pairs[task, method, draw][way] = line
    whole = {
        key: both for key, both in pairs.items() if len(both) == len(WAYS) and all("test" in x for x in both.values())
    }
    for method in dict.fromkeys(key[1] for key in whole):
        own = [both for key, both in whole.items() if key[1] == method]
        row: dict[str, Any] = {"method": method, "pairs": len(own)}
        for way in WAYS:
            row[way] = {
                name: round(statistics.mean(both[way][name] for both in own), 3) for name in ("chosen at", "test")
            }
        gains = [both["and training rows"]["test"] - both["validation"]["test"] for both in own]
        spread = statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else None
        row |= {"gain": round(statistics.mean(gains), 3), "standard error": spread and round(spread, 3)}
        print(json.dumps(row))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("few_rows.jsonl"))
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--passes", type=int, default=2_048)
    parser.add_argument("--tasks", nargs="+", default=["library", "movie-reviews", "strength"])
    parser.add_argument("--methods", nargs="+", default=["prompt", "examples"])
    asked = parser.parse_args()
    lines = Kept(asked.out)
    model = el.load("smollm2", device="cpu")
    whole = {name: task_from(task) for name, task in text_tasks().items() if name in asked.tasks}
    for draw in range(asked.draws):
        for name, task in whole.items():
            few = drawn(task, asked.rows, draw)
            for method in map(method_named, asked.methods):
                for way in WAYS:
                    id_ = [name, method.name, way, draw]
                    if lines.has(id=id_):
                        continue
                    found = chosen(model, few, method, way, draw, asked.passes, asked.out.with_suffix(""))
                    lines.add({"id": id_, **found})
                    print(json.dumps(lines[-1]), flush=True)
    summary(lines)


if __name__ == "__main__":
    main()
