"""Look at what a trial shows besides its scores: measurements and pictures that are small enough for a record.

A measure is one function in this file. Decorate it with ``@look`` if it looks at an adaptation; the ``measures`` of a
planned trial name it. Decorate it with ``@question`` if it asks something of a model by name; the ``what`` of a planned
measurement names it.

Pictures are taken in the model's own precision, without autocast, because an identity that holds exactly has to look
exact.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import torch

from elicitable.attention.patterns import joint_pattern
from elicitable.attention.split import recombine, split
from elicitable.lab.reach import Progress, token_reach
from elicitable.methods.catalog import method_named
from elicitable.microscope.inspect import inspect
from elicitable.models.inject import installed, use
from elicitable.models.restoring import evaluating
from elicitable.tasks.passages import ITEMS
from elicitable.training.batches import Batch, encode
from elicitable.training.evaluate import answer_logits

if TYPE_CHECKING:
    from torch import Tensor

    from elicitable.attention.operands import Operands
    from elicitable.methods.base import Adaptation
    from elicitable.models.attend import Call
    from elicitable.models.model import Model
    from elicitable.values import Item

INSPECTED_TOKENS = 96


class Found(TypedDict):
    """Hold what a measure adds to a record: numbers by name, and pictures (plain data) by the measure's name."""

    measurements: dict[str, float]
    pictures: dict[str, Any]


class Answered(Found):
    """Hold what a question adds; ``seconds`` over all its sittings where it keeps parts."""

    seconds: NotRequired[float]


@dataclass(frozen=True, slots=True)
class Look:
    """Hold a measure of an adaptation, and how many items of the test split it is taken on."""

    take: Callable[[Model, Adaptation, Sequence[Item]], Found]
    items: int


@dataclass(frozen=True, slots=True)
class Question:
    """Hold a measure of a model by name. If it ``keeps_parts``, it gets a folder for them and tells its progress."""

    ask: Callable[..., Answered]
    keeps_parts: bool


LOOKS: dict[str, Look] = {}
QUESTIONS: dict[str, Question] = {}
Take = Callable[["Model", "Adaptation", Sequence["Item"]], Found]


def look(name: str, *, items: int) -> Callable[[Take], Take]:
    """Register the decorated function as the look of that name, taken on the first ``items`` test items."""

    def register(take: Take) -> Take:
        LOOKS[name] = Look(take, items)
        return take

    return register


def question(name: str, *, keeps_parts: bool = False) -> Callable[[Callable[..., Answered]], Callable[..., Answered]]:
    """Register the decorated function as the question of that name."""

    def register(ask: Callable[..., Answered]) -> Callable[..., Answered]:
        QUESTIONS[name] = Question(ask, keeps_parts)
        return ask

    return register


@look("attention", items=1)
def attention(model: Model, adaptation: Adaptation, items: Sequence[Item]) -> Found:
    """Return the attention of the first layer's first head on one item, (query, prefix then content), in [0, 1]."""
    batch = encode(model, items[:1])
    pattern = joint_pattern(_first_layer(model, [adaptation], batch))
    weights = torch.cat([pattern.prefix, pattern.content], dim=-1)[0, 0]
    picture = {
        "prefix": pattern.prefix.shape[-1],
        "tokens": batch.input_ids[0].tolist(),
        "weights": _nested(weights, 3),
    }
    return {"measurements": {}, "pictures": {"attention": picture}}


@look("activations", items=10)  # as in the source's figure
def activations(model: Model, adaptation: Adaptation, items: Sequence[Item]) -> Found:
    """Return the outputs of the first head of the first layer before and after ``adaptation``, where the answer begins.

    ``before`` and ``after`` are (item, d_value). With a context ``before`` is t, the content's output on its own, and
    ``bias`` the mean direction of Σ_{j∈prefix} A^pt_j W_V s_j / α over items; with one virtual token every item has
    that direction, W_V s (section 4).
    """
    batch = encode(model, items)
    query = batch.input_ids.shape[1] - batch.targets.shape[1]
    parts = split(_first_layer(model, [adaptation], batch))
    is_context = parts.share.shape[-1] > 0
    before = parts if is_context else split(_first_layer(model, [], batch))
    picture = {
        "before": _nested(before.content[:, 0, query], 3),
        "after": _nested(recombine(parts)[:, 0, query], 3),
        "mass": _nested(parts.mass[:, 0, query], 4),
        "bias": _nested(parts.inside[:, 0, query].mean(dim=0), 4) if is_context else None,
    }
    return {"measurements": {}, "pictures": {"activations": picture}}


def _first_layer(model: Model, parts: Sequence[Any], batch: Batch) -> Operands:
    """Return the first layer's attention call on ``batch``."""
    seen: list[Operands] = []

    def keep(call: Call) -> None:
        if call.layer == 0 and not seen:
            seen.append(call.detached())

    with torch.no_grad(), evaluating(model.hf), use(model, parts), installed(model) as slot, slot.watched_by(keep):
        answer_logits(model, batch)
    return seen[0]


def _nested(values: Tensor, digits: int) -> Any:
    """Return a tensor as nested lists, rounded; −0 is 0."""
    return (torch.round(values.double() * 10**digits) / 10**digits + 0.0).tolist()


@look("prefix use", items=64)
def prefix_use(model: Model, adaptation: Adaptation, items: Sequence[Item]) -> Found:
    """Measure appendix B: how the prefix's mass is shared among its positions, layer by layer.

    A layer's share of a position is its mean attention over queries and heads, over the whole prefix's. The spread is
    that between the 1st and 99th percentile over queries, heads taken together, mean over positions.
    """
    seen = inspect(model, adaptation, items, max_tokens=INSPECTED_TOKENS, drift=False)
    shares = [[mass / max(sum(layer.position_mass), 1e-12) for mass in layer.position_mass] for layer in seen.layers]
    spreads = [layer.share_spread for layer in seen.layers]
    return {
        "measurements": {
            "share of the two largest": 100 * statistics.fmean(sum(sorted(layer)[-2:]) for layer in shares),
            "spread in layer 0": spreads[0],
            "spread": statistics.fmean(spreads),
        },
        "pictures": {
            "position shares": {
                "shares": [[round(share, 4) for share in layer] for layer in shares],
                "spreads": [round(spread, 4) for spread in spreads],
            }
        },
    }


@question("identity")
def identity(model: Model, settings: Mapping[str, Any], seed: int) -> Answered:
    """Measure the largest residual of both equations of section 4, over layers and heads, under a random prefix."""
    prefix = method_named(settings["method"]).build(model, settings["size"], seed=seed, init="random")
    seen = inspect(model, prefix, ITEMS[: settings["texts"]])
    of_layer = [[head for head in seen.heads if head.layer == layer] for layer in range(len(seen.layers))]
    drift = [statistics.fmean(head.drift for head in heads) for heads in of_layer]
    return {
        "measurements": {
            "attention residual": max(head.attention_residual for head in seen.heads),
            "output residual": max(head.output_residual for head in seen.heads),
            "drift of deeper layers": statistics.fmean(drift[1:]),
        },
        "pictures": {
            "residuals": {
                "attention residual": [_brief(max(head.attention_residual for head in heads)) for heads in of_layer],
                "output residual": [_brief(max(head.output_residual for head in heads)) for heads in of_layer],
                "drift": [_brief(value) for value in drift],
                "mass": [_brief(statistics.fmean(head.prefix_mass for head in heads)) for heads in of_layer],
            }
        },
    }


def _brief(value: float) -> float:
    return float(f"{value:.4g}")


@question("token reach", keeps_parts=True)
def reach(model: Model, settings: Mapping[str, Any], seed: int, out: Path, progress: Progress) -> Answered:
    """Count, as in section 3, the distinct greedy continuations of hard tokens and of trained virtual tokens.

    What is done is kept in ``out`` from time to time, so that a killed run goes on from there.
    """
    found = token_reach(model, seed=seed, out=out, progress=progress, **settings)
    hard, virtual = found.hard.distinct, found.virtual
    return {
        "measurements": {
            "distinct per hard token": 100 * hard.share,
            "distinct per virtual token": 100 * virtual.distinct / virtual.tried,
            "targets reached": 100 * virtual.share,
            "hard tokens tried": hard.sampled,
            "virtual tokens tried": virtual.tried,
        },
        "pictures": {},
        "seconds": found.seconds,
    }
