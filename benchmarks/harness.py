"""Does lm-evaluation-harness agree, item for item? It is run on the same model object, and its verdicts are compared.

    python benchmarks/harness.py --model smollm2 --items 100

Tasks are made of film reviews (the data of the task ``movie-reviews``) in a temporary folder. Printed for each task and
metric: the harness's score, this package's, and on how many items the two agree.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from kept import say_where

import elicitable as el
from elicitable.models.layout import has_template, layout_for
from elicitable.models.model import Model
from elicitable.models.rows import rows_of
from elicitable.tasks.catalog import task_from
from elicitable.training.batches import Reading
from elicitable.training.decision_rules import Lengths, decide_by_length
from elicitable.training.evaluate import evaluate, read_labels
from elicitable.training.generate import generate

WRITTEN = 24
MEANS = "metric_list: [{metric: acc}, {metric: acc_norm}, {metric: acc_bytes}]"
REVIEW = 'doc_to_text: "Review: {{text}}\\nSentiment:"\ndoc_to_target: label'
TWO = f'output_type: multiple_choice\n{REVIEW}\ndoc_to_choice: ["negative", "positive"]\n{MEANS}'
DEGREES = '["clearly negative", "rather negative", "positive", "positive and even enthusiastic"]'
WORD = f"""output_type: generate_until
doc_to_text: "Text: {{{{text}}}}\\nThe first word of the text:"
doc_to_target: first
generation_kwargs: {{until: ["\\n", "."], max_gen_toks: {WRITTEN}}}
filter_list: [{{name: strip, filter: [{{function: remove_whitespace}}, {{function: take_first}}]}}]
metric_list: [{{metric: exact_match, ignore_case: true}}]"""
TASKS = {
    "two-way": TWO,
    "few-shot": f"num_fewshot: 4\nfewshot_split: train\n{TWO}",
    "many-way": f"output_type: multiple_choice\n{REVIEW.replace('label', 'degree')}\ndoc_to_choice: {DEGREES}\n{MEANS}",
    "own choices": "output_type: multiple_choice\ndoc_to_text: begun\ndoc_to_target: right\n"
    f"doc_to_choice: ends\n{MEANS}",
    "generation": WORD,
    "few-shot generation": f"num_fewshot: 3\nfewshot_split: train\n{WORD}",
    "chat": f"num_fewshot: 2\nfewshot_split: train\ndescription: You judge films.\n{TWO}",
}


def main() -> None:
    """Compare on every task."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--model", default="smollm2")
    asked.add_argument("--items", type=int, default=100)
    asked.add_argument("--tasks", nargs="*", default=list(TASKS), choices=list(TASKS))
    given = asked.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    datasets.disable_progress_bars()
    model = el.load(given.model, dtype="float32")
    say_where(model.device)
    print(f"{'task':20} {'metric':12} {'harness':>8} {'here':>8} {'agree':>12}")
    with tempfile.TemporaryDirectory() as folder:
        for name in given.tasks:
            if name == "chat" and not has_template(model):
                print(f"{name:20} {model.name} has no chat template")
                continue
            for metric, theirs, ours in compared(model, name, Path(folder), given.items):
                same = sum(a == b for a, b in zip(theirs, ours, strict=True))
                line = f"{np.mean(theirs):8.3f} {np.mean(ours):8.3f} {same:5} of {len(ours)}"
                print(f"{name:20} {metric:12} {line}", flush=True)


def compared(model: Model, name: str, folder: Path, items: int) -> list[tuple[str, list[bool], list[bool]]]:
    """Each metric with the harness's outcome of every item and this package's."""
    path, is_chat = written(name, folder, items), name == "chat"
    theirs = referee(model, path, apply_chat_template=is_chat, fewshot_as_multiturn=is_chat)
    task: Any = task_from(f"lm-eval:{path}", turns=is_chat or None)
    asked = task.held_out("test", items)
    reading = Reading(layout=layout_for(model, "on" if is_chat else "off", stops=task.stops))
    found: dict[str, list[bool]] = {}
    if task.kind == "generation":
        answers = generate(model, rows_of(model, asked, reading.layout), reading.layout, WRITTEN)
        found["exact_match"] = [
            bool(one["exact_match,strip"]) for one in task.metrics("test", [one.text for one in answers])
        ]
    else:
        score = evaluate(model, asked, task.labels(), reading)
        nats = read_labels(model, asked, task.labels(), reading).nats
        sizes = [Lengths.of(item.choices, [1] * len(item.choices), item.lead) for item in asked]
        truth = np.array([item.choices.index(item.target) for item in asked])
        found["acc"] = [bool(one) for one in score.correct]
        found["acc_norm"] = list(decide_by_length(nats, [one.characters for one in sizes]) == truth)
        found["acc_bytes"] = list(decide_by_length(nats, [one.bytes for one in sizes]) == truth)
    pairs = [(metric, [bool(one[metric]) for one in theirs], ours) for metric, ours in found.items()]
    if task.kind == "generation":
        same = [one.text == other["resps"][0][0] for one, other in zip(answers, theirs, strict=True)]
        pairs.append(("same text", [True] * len(same), same))
    return pairs


def referee(model: Model, path: str, **asked: Any) -> list[dict[str, Any]]:
    """The harness's own record of every document, in the order of the data."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    lm = HFLM(pretrained=model.hf, tokenizer=model.tokenizer, batch_size=8)
    manager = TaskManager(include_defaults=False)
    found = simple_evaluate(lm, tasks=[path], task_manager=manager, bootstrap_iters=0, **asked)
    (samples,) = found["samples"].values()
    return sorted(samples, key=lambda one: one["doc_id"])


def written(name: str, folder: Path, items: int) -> str:
    """A task of the harness with its data beside it; the path of its file."""
    reviews: Any = task_from("movie-reviews")
    files = []
    for split, count in (("train", 200), ("validation", 50), ("test", items)):
        rows = reviews.rows(split)[:count]
        texts = [row.text.split() for row in rows]
        documents = [document(row, texts, place) for place, row in enumerate(rows)]
        file = folder / f"{split}.jsonl"
        file.write_text("".join(json.dumps(one) + "\n" for one in documents))
        files.append(f"    {split}: {file}")
    head = f"task: {name.replace(' ', '_')}\ndataset_path: json\ndataset_kwargs:\n  data_files:\n"
    splits = "training_split: train\nvalidation_split: validation\ntest_split: test"
    path = folder / "task.yaml"
    path.write_text(head + "\n".join(files) + f"\n{splits}\n{TASKS[name]}\n")
    return str(path)


def document(row: Any, texts: list[list[str]], place: int) -> dict[str, Any]:
    """A review: its label, its first word, and its end among those of the next ones (two to four choices)."""
    words, is_positive = texts[place], row.answer == "positive"
    half, right = max(1, len(words) // 2), place % 2
    others = [texts[(place + step) % len(texts)] for step in range(1, 2 + place % 3)]
    ends = [" ".join(other[len(other) // 2 :]) for other in others]
    ends.insert(right, " ".join(words[half:]) or words[0])
    degree, label = 3 * is_positive, int(is_positive)
    text = " ".join(words)
    return {"text": text, "label": label, "degree": degree, "first": words[0], "begun": " ".join(words[:half])} | {
        "ends": ends,
        "right": ends.index(ends[right]),
    }


if __name__ == "__main__":
    main()
