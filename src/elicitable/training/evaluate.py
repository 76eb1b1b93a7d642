"""Scores: whole answers right or wrong, and label likelihood; per item, so that methods compare in pairs.

Greedy decoding writes the whole answer if and only if at every position the most likely token, given the right
tokens before it, is the right one: the first miss is the same in both. So one teacher-forced pass scores an answer
exactly as free-running greedy decoding does, without decoding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from elicitable.models.inject import installed
from elicitable.models.speed.precision import autocast
from elicitable.models.speed.read import reading_last
from elicitable.training.batches import IGNORED, Batch, encode, tokenize
from elicitable.training.label_scores import label_costs
from elicitable.training.label_trie import LabelIds
from elicitable.values import Item, Score

if TYPE_CHECKING:
    from elicitable.models.model import Model


@dataclass(frozen=True)
class Reading:
    """How texts are read: rows at a time, tokens a row, and whether the content brings its own first token."""

    batch: int = 64
    max_tokens: int = 1024
    has_start: bool = True


def answer_logits(model: Model, batch: Batch, offset: int = 0) -> Tensor:
    """(batch, answer, vocab) float32 logits for the answer's tokens only."""
    answer = batch.targets.shape[1]
    given = {"attention_mask": batch.attention_mask} if batch.attention_mask is not None else {}
    if offset:
        given["position_ids"] = torch.arange(offset, offset + batch.input_ids.shape[1], device=model.device)[None]
    with installed(model), reading_last(model, answer):  # also a bare model's positions start after its padding
        logits = model.hf(input_ids=batch.input_ids, use_cache=False, logits_to_keep=answer, **given).logits
    kept: Tensor = logits[:, -answer:]
    return kept.float() if kept.dtype in (torch.bfloat16, torch.float16) else kept


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """(batch, answer) negative log-likelihood in nats; 0 where the target is ignored."""
    flat = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return flat.view(targets.shape)


@torch.no_grad()
def evaluate(model: Model, items: Sequence[Item], labels: tuple[str, ...] | None, reading: Reading) -> Score:
    """Score ``items`` with whatever is installed in ``model`` right now.

    Exact match of the whole answer without ``labels``; with them, whether the right label has the highest
    log-likelihood Σ_t log p(label_t | prompt, label_<t) of all.
    """
    correct: list[int] = []
    loss, tokens = 0.0, 0
    with autocast(model):
        for first in range(0, len(items), reading.batch):
            chunk = items[first : first + reading.batch]
            right, nats, count = (
                _exact(model, chunk, reading) if labels is None else _by_label(model, chunk, labels, reading)
            )
            correct += right
            loss, tokens = loss + nats, tokens + count
    return Score(correct=tuple(correct), loss_nats=loss / max(tokens, 1))


def _exact(model: Model, items: Sequence[Item], reading: Reading) -> tuple[list[int], float, int]:
    batch = encode(model, items, reading.max_tokens, reading.has_start)
    logits = answer_logits(model, batch)
    counted = batch.targets != IGNORED
    hits = (logits.argmax(-1) == batch.targets) | ~counted
    return hits.all(-1).long().tolist(), float(token_losses(logits, batch.targets).sum()), int(counted.sum())


def _by_label(
    model: Model, items: Sequence[Item], labels: tuple[str, ...], reading: Reading
) -> tuple[list[int], float, int]:
    nats, lengths = label_nats(model, items, labels, reading)
    truth = torch.tensor([labels.index(str(item.target)) for item in items])
    own = nats.gather(1, truth[:, None])
    return (nats.argmin(-1) == truth).long().tolist(), float(own.sum()), int(lengths[truth].sum())


def label_nats(model: Model, items: Sequence[Item], labels: tuple[str, ...], reading: Reading) -> tuple[Tensor, Tensor]:
    """(item, label) −log p(label | prompt) in nats, float64, and each label's length in tokens.

    Every content is read once, whatever the number of labels and their length (:func:`label_costs`). A prompt that is
    cut loses as much of its beginning as each label needs, as in training, and is read once for each length of a label.
    """
    behind = [LabelIds(tuple(ids)) for ids in tokenize(model, list(labels))]
    start = model.start_ids() if reading.has_start else []
    prompts = tokenize(model, [str(item.prompt) for item in items])
    rooms = [max(1, reading.max_tokens - len(start) - len(label.ids)) for label in behind]
    costs = torch.zeros(len(items), len(labels), dtype=torch.float64)
    for columns, rows in _standing_alike([len(prompt) for prompt in prompts], rooms).items():
        contents = [[*start, *prompts[row][-rooms[columns[0]] :]] for row in rows]
        found = label_costs(model, contents, [[behind[k] for k in columns]] * len(rows))
        costs[torch.tensor(rows)[:, None], torch.tensor(columns)] = found
    return costs, torch.tensor([len(label.ids) for label in behind])


def _standing_alike(lengths: Sequence[int], rooms: Sequence[int]) -> dict[tuple[int, ...], list[int]]:
    """The labels that stand behind one content, and the items where they do: all of them where nothing is cut."""
    alike: dict[tuple[int, ...], list[int]] = {}
    for row, length in enumerate(lengths):
        kept = [min(length, room) for room in rooms]
        for tokens in sorted(set(kept)):
            alike.setdefault(tuple(k for k, own in enumerate(kept) if own == tokens), []).append(row)
    return alike


def answers(model: Model, items: Sequence[Item], labels: tuple[str, ...] | None, reading: Reading) -> Iterator[str]:
    """What the model answers to each item, as text (digits for the toys): the best label, or greedy tokens."""
    for item in items:
        if labels is not None:
            with torch.no_grad(), autocast(model):
                nats, _ = label_nats(model, [item], labels, reading)
            yield labels[int(nats.argmin())]
        else:
            yield _greedy(model, item, reading)


@torch.no_grad()
def _greedy(model: Model, item: Item, reading: Reading) -> str:
    batch = encode(model, [item], reading.max_tokens, reading.has_start)
    length = batch.targets.shape[1]
    ids = batch.input_ids[:, : batch.input_ids.shape[1] - length + 1]
    for _ in range(length):
        with autocast(model):
            logits = model.hf(input_ids=ids, use_cache=False, logits_to_keep=1).logits[:, -1:]
        ids = torch.cat([ids, logits.argmax(-1)], dim=1)
    written = ids[0, -length:].tolist()
    return " ".join(map(str, written)) if model.tokenizer is None else str(model.tokenizer.decode(written))
