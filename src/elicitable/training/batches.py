"""Items to tensors. The content is padded on the left, so that answers end together and few logits are computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from elicitable.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from elicitable.models.model import Model
    from elicitable.tasks.base import Task
    from elicitable.values import Item

Ids = tuple[int, ...]
IGNORED = -100
CHUNK = 32  # batches drawn at once, because drawing few items is what costs


@dataclass(frozen=True, eq=False)
class Batch:
    """Teacher-forced rows: prompt and answer without its last token, and what should come next.

    ``input_ids`` (batch, token); ``attention_mask`` (batch, token), or None without padding; ``targets``
    (batch, answer): the answer's tokens, right-aligned with the last ``answer`` positions of ``input_ids`` and
    :data:`IGNORED` where a row's answer is shorter.
    """

    input_ids: Tensor
    attention_mask: Tensor | None
    targets: Tensor

    def __len__(self) -> int:
        return self.input_ids.shape[0]


def encode(model: Model, items: Sequence[Item], max_tokens: int = 1024, has_start: bool = True) -> Batch:
    """One batch of ``items``.

    A text's prompt and answer are tokenized apart and joined, so the answer's tokens are what a model writes after
    the prompt's. ``has_start`` puts the tokenizer's own first token (where it has one) before the content; a context
    that brings it along turns this off. A prompt longer than ``max_tokens`` loses its beginning.

    Raises:
        InputError: text items for a model without a tokenizer, ids outside the vocabulary, or an empty answer.
    """
    if items and not isinstance(items[0].prompt, str):
        return _encode_ids(model, items)
    start = model.start_ids() if has_start else []
    prompts = _tokenize(model, [str(item.prompt) for item in items])
    answers = _tokenize(model, [str(item.target) for item in items])
    rows = []
    for item, prompt, answer in zip(items, prompts, answers, strict=True):
        if not answer:
            raise InputError(f"the answer {item.target!r} has no tokens; every item needs an answer.")
        room = max(1, max_tokens - len(start) - len(answer))
        rows.append(([*start, *prompt[-room:]], answer))
    return _pad(rows, model)


def _encode_ids(model: Model, items: Sequence[Item]) -> Batch:
    rows = [([int(i) for i in cast("Ids", item.prompt)], [int(i) for i in item.target]) for item in items]
    for item, (_, answer) in zip(items, rows, strict=True):
        if not answer:
            raise InputError(f"the answer {item.target!r} has no tokens; every item needs an answer.")
    used = [id_ for prompt, answer in rows for id_ in prompt + answer]
    if min(used) < 0 or max(used) >= model.anatomy.vocab:
        wrong = min(used) if min(used) < 0 else max(used)
        raise InputError(
            f"the task uses token id {wrong}, {model.name} has a vocabulary of {model.anatomy.vocab}: "
            "the digit tasks are for the toy models, use a text task with this model."
        )
    return _pad(rows, model)


def _tokenize(model: Model, texts: list[str]) -> list[list[int]]:
    if model.tokenizer is None:
        raise InputError(
            f"{model.name} has no tokenizer, so it cannot read a text task; give it one (el.load(model, tokenizer=…)) "
            "or, with a toy, use one of the digit tasks."
        )
    ids: list[list[int]] = model.tokenizer(texts, add_special_tokens=False)["input_ids"]
    return ids


def _pad(rows: Sequence[tuple[list[int], list[int]]], model: Model) -> Batch:
    answer = max(len(target) for _, target in rows)
    width = max(len(prompt) + len(target) for prompt, target in rows) - 1
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    targets = torch.full((len(rows), answer), IGNORED)
    for row, (prompt, target) in enumerate(rows):
        text = torch.tensor((prompt + target)[:-1], dtype=torch.long)
        ids[row, width - len(text) :] = text
        mask[row, width - len(text) :] = 1
        targets[row, answer - len(target) :] = torch.tensor(target)
    is_padded = bool((mask == 0).any())
    device = model.device
    return Batch(ids.to(device), mask.to(device) if is_padded else None, targets.to(device))


def stream(model: Model, task: Task, size: int, rng: np.random.Generator, max_tokens: int) -> Iterator[Batch]:
    """Training batches without end. ``rng`` is drawn from once before every :data:`CHUNK` batches, not in between."""
    while True:
        items = task.sample(size * CHUNK, rng)
        for first in range(0, len(items), size):
            yield encode(model, items[first : first + size], max_tokens)
