"""What the model answers before anything is trained: as it is, calibrated, behind short prompts and worked examples.

Likelihoods are told as nats per token of the right answer. Calibrated is the likelihood at the best temperature: one
number, which is found on one half of the items and held to the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from elicitable.forecasting.gradients import common_share
from elicitable.methods.base import Adaptation
from elicitable.methods.examples import LONGEST, Examples, draw
from elicitable.methods.prompt import Prompt, room_of
from elicitable.models.inject import room_in
from elicitable.models.speed.precision import autocast
from elicitable.tasks.base import groups_of
from elicitable.training.batches import IGNORED, Batch, Reading, encode
from elicitable.training.decision_rules import choose
from elicitable.training.evaluate import answer_logits, evaluate, read_labels, truth_of
from elicitable.training.loop import Plan, prepared, reading_of

if TYPE_CHECKING:
    from elicitable.models.layout import Layout
    from elicitable.models.model import Model
    from elicitable.tasks.base import Task
    from elicitable.values import Item, Score

TEMPERATURES = tuple(2.0 ** (step / 2) for step in range(-6, 9))  # 1/8 … 16
PART = 16  # items whose logits are held at once


@dataclass(frozen=True)
class Base:
    """Hold what the model as it is does with validation items; shares in [0, 1], nats per token of the right answer.

    ``calibrated_score`` is that of the best rule between labels, cross-validated (the score itself where answers are
    free). ``token_score`` is the share of tokens that are the likeliest, ``rank`` the mean of 1 / rank.
    """

    score: float
    calibrated_score: float
    nats: float
    calibrated_nats: float
    token_score: float
    rank: float

    def signals(self, vocab: int) -> dict[str, float]:
        """Return them, likelihoods as shares of what guessing among all tokens costs."""
        guess = math.log(vocab)
        return {
            "base_score": self.score,
            "base_score_calibrated": self.calibrated_score,
            "base_token_score": self.token_score,
            "base_rank": self.rank,
            "base_nats": self.nats / guess,
            "base_nats_calibrated": self.calibrated_nats / guess,
        }


def scored(model: Model, task: Task, adaptation: Adaptation, items: Sequence[Item], plan: Plan) -> Score:
    """Return the score of ``items`` with ``adaptation`` in place, by the plain likelihood."""
    adaptation.fit(model, items)
    with torch.no_grad(), prepared(model, adaptation) as refresh:
        refresh()
        return evaluate(model, items, task.labels(), reading_of(plan, adaptation))


@torch.no_grad()
def read_base(model: Model, task: Task, items: Sequence[Item], plan: Plan) -> Base:
    """Read validation ``items`` with the model as it is."""
    reading = reading_of(plan, Adaptation())
    score = scored(model, task, Adaptation(), items, plan)
    table = np.zeros((2, len(TEMPERATURES)))  # (half, temperature) nats of the right tokens
    tokens, hits, ranks = np.zeros(2), 0.0, 0.0
    for first in range(0, len(items), PART):
        batch = batch_of(model, items[first : first + PART], reading)
        logits, counted = answer_logits(model, batch), batch.targets != IGNORED
        for half in range(2):
            own = counted & (torch.arange(len(batch), device=counted.device) % 2 == half)[:, None]
            flat, right = logits[own].double(), batch.targets[own]
            table[half] += [_nats(flat / one, right) for one in TEMPERATURES]
            tokens[half] += len(right)
            place = (flat > flat.gather(1, right[:, None])).sum(dim=1) + 1
            hits, ranks = hits + float((place == 1).sum()), ranks + float((1 / place.double()).sum())
    other = [table[1 - half, int(table[half].argmin())] for half in range(2)]
    whole = max(1.0, float(tokens.sum()))
    calibrated = _calibrated_score(model, task, items, reading, score)
    return Base(score.mean, calibrated, score.loss_nats, float(sum(other)) / whole, hits / whole, ranks / whole)


def _nats(logits: Tensor, right: Tensor) -> float:
    return float(torch.nn.functional.cross_entropy(logits, right, reduction="sum")) if len(right) else 0.0


def _calibrated_score(model: Model, task: Task, items: Sequence[Item], reading: Reading, score: Score) -> float:
    labels = task.labels()
    if not labels:
        return score.mean
    costs = read_labels(model, items, labels, reading)
    groups = groups_of(task, "validation", len(items))
    found = choose(costs.nats, np.array(truth_of(items, labels)), costs.lengths[0], groups=groups)
    return max(found.estimates.values())


def batch_of(model: Model, items: Sequence[Item], reading: Reading) -> Batch:
    """Return ``items`` as one batch, read as ``reading`` says."""
    return encode(model, items, room_in(model, reading.max_tokens), reading.layout, reading.held)


@dataclass(frozen=True)
class Shown:
    """Hold what k worked examples or prompt tokens gave: the score, and nats per token of the right answer."""

    k: int
    score: float
    nats: float


def with_examples(
    model: Model, task: Task, items: Sequence[Item], counts: Sequence[int], plan: Plan, seed: int
) -> tuple[list[Shown], Adaptation | None]:
    """Score ``items`` behind one draw of each number of worked examples that fits; and the likeliest of those draws."""
    method, room = Examples(), min(LONGEST, room_of(model))
    found: list[Shown] = []
    best: tuple[float, Adaptation | None] = (math.inf, None)
    for k in counts:
        context = method.build(model, items=draw(task, k, seed), layout=plan.layout)
        if context.keys_per_layer() > room:
            break
        score = scored(model, task, context, items, plan)
        found.append(Shown(k, score.mean, score.loss_nats))
        best = min(best, (score.loss_nats, context), key=lambda one: one[0])
    return found, best[1]


def best_prompt(
    model: Model, task: Task, items: Sequence[Item], tried: int, some: int, plan: Plan, seed: int
) -> Shown | None:
    """Score the first ``tried`` prompts of a race's search on ``some`` items, and the best of them on all.

    Without a tokenizer these are single tokens, and the best one is tried with every other before and behind it.
    """
    method = Prompt()
    first = next(method.search(model, task, seed, size=1, layouts=(plan.layout,))).candidates[:tried]
    ranked = [(scored(model, task, one, items[:some], plan).loss_nats, nth) for nth, one in enumerate(first)]
    if not ranked:
        return None
    nats, place = min(ranked)
    best = first[place]
    if model.tokenizer is None:
        singles = [one.state()["token_ids"].flatten().tolist() for one in first]
        ids = singles[place]
        for pair in (pair for other in singles for pair in ([*other, *ids], [*ids, *other])):
            longer = method.build(model, token_ids=pair)
            least = scored(model, task, longer, items[:some], plan).loss_nats
            nats, best = (least, longer) if least < nats else (nats, best)
    score = scored(model, task, best, items, plan)
    return Shown(best.keys_per_layer(), score.mean, score.loss_nats)


def prompt_signals(base: Base, found: Shown | None) -> dict[str, float]:
    """Return the share of the loss that the best prompt takes away, and the score behind it.

    >>> prompt_signals(Base(0.25, 0.25, 2.0, 2.0, 0.5, 0.5), Shown(1, 0.5, 1.0))
    {'prompt_gain': 0.5, 'prompt_score': 0.5}
    """
    if found is None:
        return {"prompt_gain": 0.0, "prompt_score": base.score}
    return {"prompt_gain": max(-1.0, 1 - found.nats / max(base.nats, 1e-9)), "prompt_score": found.score}


def example_signals(base: Base, found: Sequence[Shown]) -> dict[str, float]:
    """Return the gain from worked examples and its curve over their number; zeros where none fits.

    >>> base = Base(0.25, 0.25, 2.0, 2.0, 0.5, 0.5)
    >>> example_signals(base, [Shown(1, 0.25, 2.0), Shown(4, 0.5, 1.0)])
    {'examples_gain': 0.5, 'examples_score_gain': 0.25, 'examples_slope': 0.25}
    """
    if not found:
        return {"examples_gain": 0.0, "examples_score_gain": 0.0, "examples_slope": 0.0}
    gains = [1 - one.nats / max(base.nats, 1e-9) for one in found]
    doublings = np.log2([one.k for one in found])
    spread = doublings - doublings.mean()
    slope = float(spread @ np.array(gains) / (spread @ spread)) if len(found) > 1 else 0.0
    return {
        "examples_gain": max(-1.0, max(gains)),
        "examples_score_gain": max(one.score for one in found) - base.score,
        "examples_slope": max(-1.0, min(1.0, slope)),
    }


@torch.no_grad()
def vector_signals(model: Model, items: Sequence[Item], context: Adaptation | None, plan: Plan) -> dict[str, float]:
    """Return whether worked examples move every input the same way, where the answer begins: a task vector.

    With Δ_i the change of a block's output at the last token of prompt i, ``vector_share`` is the part of its energy
    that one vector for all items would give, and ``vector_rank`` the logarithm of (Σσ²)²/Σσ⁴, how many directions Δ
    (item, d_model) takes, as a mean over layers. Zeros where no example fits.
    """
    if context is None:
        return {"vector_share": 0.0, "vector_rank": 0.0}
    streams = []
    for adaptation in (Adaptation(), context):
        adaptation.fit(model, items)
        with prepared(model, adaptation) as refresh:
            refresh()
            streams.append(_streams(model, batch_of(model, items, reading_of(plan, adaptation))))
    moved = streams[1] - streams[0]  # (layer, item, d_model)
    mask = torch.ones(moved.shape[1], 1)
    shares = [common_share(layer[:, None], mask) for layer in moved]
    ranks = []
    for layer in moved:
        energies = torch.linalg.svdvals(layer).square()
        ranks.append(float(energies.sum().square() / energies.square().sum().clamp(min=1e-300)))
    energy = sum(share.energy for share in shares)
    share = sum(one.common for one in shares) / energy if energy > 0 else 0.0
    return {"vector_share": share, "vector_rank": float(np.log(np.maximum(ranks, 1.0)).mean())}


def _streams(model: Model, batch: Batch) -> Tensor:
    """Run ``batch``; (layer, item, d_model) what each block gives at the token that comes before the answer, float64.

    The last block's feed-forward runs on the answer's tokens alone, of which that token is the first.
    """
    width, answer = batch.input_ids.shape[1], batch.targets.shape[1]
    place = width - answer + (batch.targets != IGNORED).long().argmax(dim=1)
    found: list[Tensor] = []

    def note(module: object, args: object, output: Tensor | tuple[Tensor, ...]) -> None:
        stream = output[0] if isinstance(output, tuple | list) else output
        found.append(stream[torch.arange(len(stream)), place].double().cpu())

    hooks = [block.register_forward_hook(note) for block in model.anatomy.blocks]
    try:
        with autocast(model):
            answer_logits(model, batch)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(found)


def plan_for(layout: Layout, batch: int, max_tokens: int | None) -> Plan:
    """Return a plan that says how items are read; nothing is trained by it as it is."""
    return Plan(learning_rate=1.0, steps=1, batch=batch, layout=layout, max_tokens=max_tokens)
