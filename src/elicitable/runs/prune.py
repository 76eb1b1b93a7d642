"""Prune an adapter folder: drop the virtual tokens that do nothing, within a margin, and write what is left."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from elicitable.cache import replace_file
from elicitable.diagnosis.prune import prune
from elicitable.errors import InputError
from elicitable.methods.adapter import read_adapter, write_adapter
from elicitable.methods.kv_prefix import KVPrefixContext
from elicitable.models.inject import installed, set_prefix
from elicitable.runs.store import Store
from elicitable.training.batches import encode
from elicitable.training.evaluate import Reading, evaluate
from elicitable.values import PrefixKV

if TYPE_CHECKING:
    from elicitable.models.model import Model
    from elicitable.tasks.base import Task


def prune_adapter(
    model: Model,
    adapter: Path,
    task: Task,
    out: Path,
    *,
    margin: float = 0.01,
    items: int = 500,
    test_items: int = 1000,
) -> dict[str, Any]:
    """Prune the prefix in ``adapter`` on the validation split and write the smaller one to ``out``.

    The record says which virtual tokens were kept, the validation score before and after, and both on the test split,
    which had no part in the choice.

    Raises:
        InputError: the adapter holds no prefix.
        StoreError: ``out`` cannot be written to.
    """
    whole = read_adapter(model, adapter)
    if not isinstance(whole, KVPrefixContext):
        raise InputError(f"{adapter} holds no prefix (it is {whole.kind}); only virtual tokens can be pruned.")
    Store(out)
    reading = Reading(batch=32 if model.tokenizer else 250)

    def score_on(prefix: PrefixKV, split: Any, count: int) -> float:
        with torch.no_grad(), installed(model) as slot:
            set_prefix(model, slot, prefix)
            try:
                return evaluate(model, task.held_out(split, count), task.labels(), reading).mean
            finally:
                set_prefix(model, slot, None)

    batch = encode(model, task.held_out("validation", 64))
    given = {"attention_mask": batch.attention_mask} if batch.attention_mask is not None else {}
    prefix = whole.prefix(model)
    _, done = prune(
        model,
        prefix,
        lambda candidate: score_on(candidate, "validation", items),
        [{"input_ids": batch.input_ids, **given}],
        margin=margin,
    )
    kept = list(done.kept)
    smaller = KVPrefixContext(
        [key.detach()[:, kept].clone() for key in whole.keys],
        [value.detach()[:, kept].clone() for value in whole.values],
        length=len(kept),
        pruned_from=str(adapter),
    )
    write_adapter(model, smaller, out)
    record = asdict(done) | {
        "test_before": score_on(prefix, "test", test_items),
        "test_after": score_on(smaller.prefix(model), "test", test_items),
        "test_items": len(task.held_out("test", test_items)),
        "adapter": str(out),
    }
    replace_file(out / "elicitable.json", (json.dumps(record, indent=1, default=str) + "\n").encode())
    return record
