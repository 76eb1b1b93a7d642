"""Write a compiled context as a folder, and say in words what it is worth and where it cannot work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elicitable.cache import filling_folder
from elicitable.methods.adapter import write_adapter
from elicitable.models.speed.processor import made_on

if TYPE_CHECKING:
    from elicitable.compiling.compile import Compiled
    from elicitable.models.model import Model

RECORD = "elicitable.json"
LAST = (RECORD, "adapter_config.json", "config.json")
LIMITS = (
    "The result is one change for every input. It cannot answer from what the context says word by word (a fact to "
    "look up, an example to copy), it acts on every text and not only on those of this kind, and it was fitted to "
    "texts like those given: on others expect less."
)
SHORT_LIMITS = (
    "Fewer keys hold less: what single tokens of the context say can be lost. It stays a prefix, so its keys are paid "
    "in every request, and it was fitted to texts like those given: on others expect less."
)
LOSES = 2.0  # a control whose divergence is less than so many times the result's is said to be no worse
NO_WORSE = "The control does as well as the patch, so nothing of this context was compiled; give more texts."


def write_compiled(model: Model, found: Compiled, folder: Path) -> None:
    """Write the adapter or model folder and ``elicitable.json`` with what was measured, whole or not at all.

    Raises:
        StoreError: the folder cannot be written to; it is as it was.
    """
    with filling_folder(folder, LAST, "Choose another --out.") as partial:
        write_adapter(model, found.adaptation, partial)
        record = {**found.record, "model": model.name, "model_hash": model.fingerprint, **made_on(model.device)}
        (partial / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def compiled_table(record: dict[str, Any]) -> str:
    """Say what was measured, a line each, in the units of the record."""
    rows = [("compiled", record["compiled"]), ("without the context", record["neither"])]
    rows += [("before distillation", record["untrained"])] if record.get("steps") else []
    rows += [("control (dealt targets)", record["control"])] if "control" in record else []
    lines = [f"{'':26}KL at answers   KL over texts   same first choice"]
    for name, found in rows:
        lines.append(f"{name:26}{found['kl_nats']:13.4f}{found['text_kl_nats']:16.4f}{found['agreement']:20.3f}")
    lines += [_spent(record), *_started(record), *_scored(record), *_forgotten(record), *_left_alone(record)]
    if "control" in record and record["control"]["kl_nats"] < LOSES * record["compiled"]["kl_nats"]:
        lines.append(NO_WORSE)
    return "\n".join([*lines, SHORT_LIMITS if record["to"] == "short-prefix" else LIMITS])


def _spent(record: dict[str, Any]) -> str:
    fitted, held, reported = record["texts"]
    return (
        f"{record['context_keys']} keys a head became {record['numbers']:,} numbers in {record['seconds']:.0f} s: "
        f"fitted to {fitted} texts, chosen by {held}, reported on {reported}; KL in nats a token."
    )


def _started(record: dict[str, Any]) -> list[str]:
    if "start" not in record:
        return []
    said = ", ".join(f"{nats:.4f} from {name}" for name, nats in record["starts"].items())
    return [f"Distilled from two starts, by held-out texts {said}: that from {record['start']} was taken."]


def _scored(record: dict[str, Any]) -> list[str]:
    lines = []
    if "score" in record:
        score = record["score"]
        lost, low, high = score["lost"]
        lines.append(
            f"Score on {score['items']} test items: {score['context']:.3f} with the context, {score['compiled']:.3f} "
            f"compiled, {score['neither']:.3f} with neither; lost {lost:+.3f} [{low:+.3f}, {high:+.3f}]."
        )
    for other in record["elsewhere"]:
        lost, low, high = other["lost"]
        lines.append(
            f"Elsewhere, {other['task']}: {other['base']:.3f} before, {other['compiled']:.3f} compiled; lost "
            f"{lost:+.3f} [{low:+.3f}, {high:+.3f}]."
        )
    return lines


def _forgotten(record: dict[str, Any]) -> list[str]:
    own, context = record["forgetting"], record["forgetting_context"]
    if own is None:
        return []
    return [
        f"On other text: {own['lost_nats']:+.3f} nats a token against the model as it is "
        f"({context['lost_nats']:+.3f} with the context itself in front)."
    ]


def _left_alone(record: dict[str, Any]) -> list[str]:
    blocks, down = record["blocks"], record.get("down_projections", record["blocks"])
    if down == blocks:
        return []
    return [
        f"Only {down} of {blocks} blocks have a down projection that every token goes through (the others choose among "
        "experts), so the rest of the change is attention's alone."
    ]
