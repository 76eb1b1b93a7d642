"""What is known of a task and of a model without running it: lengths, labels, entropy, rows; depth and width."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from elicitable.models.rows import rows_of
from elicitable.rng import generator

if TYPE_CHECKING:
    from elicitable.models.layout import Layout
    from elicitable.models.model import Model
    from elicitable.tasks.base import Task
    from elicitable.values import Item

DRAWN = 1_024  # training items among which different ones are counted


def task_signals(model: Model, task: Task, items: Sequence[Item], layout: Layout) -> dict[str, float]:
    """Describe a task by training ``items``, as the model reads them.

    ``answer_entropy`` is that of the answers' tokens, as a share of what it could be over those that occur;
    ``copied`` the share of them that stand in their prompt; ``rows`` how many different items :data:`DRAWN` draws of
    the training data have, as a logarithm.
    """
    rows = rows_of(model, items, layout)
    written = Counter(token for row in rows for token in row.answer[: len(row.answer) - row.end])
    whole = max(1, sum(written.values()))  # an answer may be nothing but its end
    entropy = -sum(n / whole * math.log(n / whole) for n in written.values())
    copied = sum(token in set(row.content) for row in rows for token in row.answer[: len(row.answer) - row.end])
    drawn = {(item.prompt, item.target) for item in task.sample(DRAWN, generator(0, "rows", task.name))}
    labels = task.labels()
    return {
        "prompt_tokens": math.log2(max(1.0, sum(len(row.content) for row in rows) / len(rows))),
        "answer_tokens": math.log2(max(1.0, sum(len(row.answer) for row in rows) / len(rows))),
        "labels": math.log2(1 + len(labels)) if labels else 0.0,
        "answer_entropy": entropy / math.log(len(written)) if len(written) > 1 else 0.0,
        "copied": copied / whole,
        "rows": math.log2(len(drawn)),
    }


def model_signals(model: Model) -> dict[str, float]:
    """Describe a model: layers, heads, width, vocabulary, all as logarithms; whether it has a tokenizer."""
    anatomy = model.anatomy
    return {
        "layers": math.log2(anatomy.depth),
        "heads": math.log2(anatomy.layers[0].heads),
        "width": math.log2(anatomy.d_model),
        "vocabulary": math.log2(anatomy.vocab),
        "is_text": float(model.tokenizer is not None),
    }
