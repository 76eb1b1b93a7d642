"""Prune an adapter folder: drop the virtual tokens and heads that do nothing, within a margin; write what is left."""

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
from elicitable.methods.pruned_prefix import PrunedPrefixContext
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
    items: int = 1000,
    test_items: int = 1000,
    peft: bool = False,
) -> dict[str, Any]:
    """Prune the prefix in ``adapter`` on the validation split and write the smaller one to ``out``.

    The search runs on one half of ``items`` of the validation split; what it found is confirmed on the other half, on
    each of which half of ``margin`` may be lost: the rest is kept back for texts that had no part in the choice. The
    record says what was kept, the score before and after on the second half, and both on the test split.
    ``peft``: drop whole virtual tokens alone, so that PEFT loads what is left.

    Raises:
        InputError: the adapter holds no prefix.
        StoreError: ``out`` cannot be written to.
    """
    whole = read_adapter(model, adapter)
    if not isinstance(whole, KVPrefixContext):
        raise InputError(f"{adapter} holds no prefix (it is {whole.kind}); only virtual tokens can be pruned.")
    Store(out)
    reading = Reading(batch=32 if model.tokenizer else 250)

    held = task.held_out("validation", items)
    search, confirm, test = held[: len(held) // 2], held[len(held) // 2 :], task.held_out("test", test_items)

    def score_on(prefix: PrefixKV, chosen: Any) -> float:
        with torch.no_grad(), installed(model) as slot:
            set_prefix(model, slot, prefix)
            try:
                return evaluate(model, chosen, task.labels(), reading).mean
            finally:
                set_prefix(model, slot, None)

    batch = encode(model, task.held_out("validation", 64))
    given = {"attention_mask": batch.attention_mask} if batch.attention_mask is not None else {}
    prefix = whole.prefix(model)
    smaller, done = prune(
        model,
        prefix,
        lambda candidate: score_on(candidate, search),
        [{"input_ids": batch.input_ids, **given}],
        confirm=lambda candidate: score_on(candidate, confirm),
        margin=margin / 2,
        whole_tokens=peft,
    )
    left = _as_peft(smaller, adapter) if peft else PrunedPrefixContext.of(smaller, pruned_from=str(adapter))
    write_adapter(model, left, out)
    record = asdict(done) | {
        "test_before": score_on(prefix, test),
        "test_after": score_on(left.prefix(model), test),
        "test_items": len(test),
        "bytes_before": whole.bytes_stored(),
        "bytes_after": left.bytes_stored(),
        "peft": peft,
        "margin": margin,
        "adapter": str(out),
    }
    replace_file(out / "elicitable.json", (json.dumps(record, indent=1, default=str) + "\n").encode())
    return record


def _as_peft(prefix: PrefixKV, source: Path) -> KVPrefixContext:
    keys, values = ([x[0].detach().clone() for x in part if x is not None] for part in (prefix.keys, prefix.values))
    return KVPrefixContext(keys, values, length=keys[0].shape[1], pruned_from=str(source))


def pruning_summary(record: dict[str, Any]) -> str:
    """What was saved and what it cost, in a few lines for a person."""
    tokens, lost = len(record["kept"]) + len(record["dropped"]), record["test_before"] - record["test_after"]
    lines = [
        f"dropped {1 - record['numbers_after'] / record['numbers_before']:.0%} of the prefix: "
        f"{record['numbers_before']:,} numbers are now {record['numbers_after']:,} "
        f"({record['bytes_before']:,} bytes are now {record['bytes_after']:,}).",
        f"{len(record['dropped'])} of {tokens} virtual tokens are gone from every head, "
        f"{len(record['silent'])} of {record['heads']} heads see no virtual token.",
        f"validation {record['score_before']:.3f} -> {record['score_after']:.3f}, "
        f"test {record['test_before']:.3f} -> {record['test_after']:.3f} on {record['test_items']:,} items.",
    ]
    if lost > record["margin"]:
        lines.append(f"The test split loses more than the margin of {record['margin']:g}: give more --items.")
    if not record["peft"]:
        lines.append("Heads keep different tokens, which PEFT's layout cannot hold; --peft drops whole tokens only.")
    return "\n".join([*lines, f"adapter: {record['adapter']}"])
