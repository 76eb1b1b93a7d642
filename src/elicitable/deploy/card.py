"""Write the model card of an export: what it is, what it was measured on, and what it may be used for."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from elicitable.training.generate import Stop
from elicitable.values import Budget

if TYPE_CHECKING:
    from elicitable.deploy.forms.form import Form, Winner
    from elicitable.deploy.record import Record

UNKNOWN = "unknown"
ROLES = {
    "winner": "The winner of a race: the least invasive method that is not worse than the best.",
    "best": "The best arm of a race that named no winner; read its verdict before you rely on it.",
    "kept": "An arm of a race, kept beside its winner.",
    "tuned": "Trained alone, without a race against other methods.",
    "pruned": "What is left of a context whose needless parts were dropped.",
}


def card_of(winner: Winner, form: Form, tested: Sequence[str], license: str | None) -> str:
    """Return the card in Markdown, with the front matter that model hubs read."""
    record = winner.record
    parts = [
        _front_matter(record, form, license),
        f"# {record.method} for {record.task}, as {form.name}\n",
        f"{ROLES[record.role]}{f' The verdict is `{record.verdict}`.' if record.verdict else ''} {record.deployment}\n",
        _table(record),
        f"## How to use it\n\n{form.usage(winner)}\n",
        f"## How a row is read\n\n{_reading(winner)}\n",
        "## Self-test\n\n" + "".join(f"* {line}\n" for line in tested),
        f"## License\n\n{_license(record, license)}\n",
    ]
    return "\n".join(parts)


def _front_matter(record: Record, form: Form, license: str | None) -> str:
    fields = {
        "base_model": record.base.path or record.base.source or record.base.name,
        "license": license or UNKNOWN,
        "library_name": "peft" if form.name == "peft" else "transformers",
        "pipeline_tag": "text-generation" if record.form.labels is None else "text-classification",
        "tags": ["elicitable", record.method, form.name],
    }
    lines = (f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in fields.items())
    return "---\n" + "".join(f"{line}\n" for line in lines) + "---\n"  # JSON is YAML


def _table(record: Record) -> str:
    result = record.result
    rows = (
        ("score", f"{result.score} {result.mean:.4f} [{result.low:.4f}, {result.high:.4f}] (95 % interval)"),
        ("measured on", f"{result.items:,} test items of {record.task}, {result.seeds} seed(s)"),
        *_budgets(record.budget),
        ("base model", f"{record.base.name}, hash `{record.base.hash}`, {record.base.dtype}"),
        ("found at", f"`{record.base.path or record.base.source or 'nowhere: it was in memory'}`"),
        ("data", f"{record.task}, hash `{record.data_hash}`"),
        ("trial", f"`{record.identity}`, seed {record.seed}"),
        ("made with", ", ".join(f"{name} {version}" for name, version in record.versions.items())),
    )
    return "| | |\n|---|---|\n" + "".join(f"| {name} | {_cell(value)} |\n" for name, value in rows)


def _budgets(budget: Budget) -> tuple[tuple[str, str], ...]:
    return (
        ("numbers trained", f"{budget.numbers_trained:,}"),
        ("bytes stored", f"{budget.bytes_stored:,}"),
        ("keys per layer, paid at inference", f"{budget.keys_per_layer:,}"),
    )


def _reading(winner: Winner) -> str:
    return "\n".join([*_reading_lines(winner.record), *_endings(winner)])


def _endings(winner: Winner) -> list[str]:
    """Say what ends an answer that the model writes: tokens, and texts wherever they stand in it."""
    form, tokenizer = winner.record.form, winner.model.tokenizer
    if form.labels is not None or form.ids or tokenizer is None:
        return []
    stop = Stop.of(winner.model, winner.record.layout.layout())
    ends = [*map(str, tokenizer.convert_ids_to_tokens(sorted(stop.ids))), *stop.texts]
    return [f"* An answer ends where the model writes one of `{json.dumps(ends, ensure_ascii=False)}`."]


def _reading_lines(record: Record) -> Iterator[str]:
    form, layout = record.form, record.layout
    if form.ids:
        yield "Rows are token ids."
        return
    if form.literals:
        shown = "".join(
            piece
            for pair in zip(form.literals, [*(f"{{{form.columns[slot]}}}" for slot in form.slots), ""], strict=True)
            for piece in pair
        )
        yield f"* Template: `{json.dumps(shown, ensure_ascii=False)}`, then the answer behind "
        yield f"  `{json.dumps(form.separator)}`."
    else:
        yield f"* The column `{form.main}` holds the messages of a conversation."
    template = "yes" if layout.chat else "no, a transcript" if layout.turns else "no"
    yield f"* Chat template: {template}. Start tokens: {layout.start}."
    if layout.system is not None:
        yield f"* System message: `{json.dumps(layout.system, ensure_ascii=False)}`."
    if tail := record.setting.get("tail"):
        yield f"* Behind every row stands `{json.dumps(tail, ensure_ascii=False)}`."
    if marker := record.setting.get("marker"):
        yield f"* The model thinks first; the answer is the first line behind its last `{json.dumps(marker)}`."
    if form.labels:
        yield f"* Labels, as they stand behind the prompt: `{json.dumps(form.labels, ensure_ascii=False)}`."
    if form.choices:
        yield f"* Each row brings its own choices, in {', '.join(f'`{name}`' for name in form.choices)}."
    if record.rule is not None:
        yield f"* Decided by the rule `{record.rule.name}`: the least of nats_k / d_k − b_k, with"
        yield f"  d = `{list(record.rule.divisors)}` and b = `{list(record.rule.offsets)}`."
    if record.slope is not None:
        yield f"* Probabilities are exp(−s·cost), normalised, with s = {record.slope:.6g}."


def _license(record: Record, license: str | None) -> str:
    base = license_of(record.base.path)
    return (
        f"This export: {license or UNKNOWN} (set it with `--license`). The base model: {base}. The data: {UNKNOWN}. "
        "What was made from a model and data may be bound by the licenses of both."
    )


def license_of(folder: str | None) -> str:
    """Return the license that a model folder's own card names in its front matter; ``unknown`` where none does."""
    card = Path(folder or "") / "README.md"
    if not folder or not os.path.isfile(card):
        return UNKNOWN
    lines = card.read_text(encoding="utf-8", errors="replace").splitlines()
    if not lines or lines[0].strip() != "---":
        return UNKNOWN
    for line in lines[1:]:
        if line.strip() == "---":
            break
        name, mark, value = line.partition(":")
        if mark and name.strip() == "license" and value.strip():
            return value.strip().strip("\"'")
    return UNKNOWN


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
