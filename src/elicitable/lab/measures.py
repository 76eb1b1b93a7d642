"""What the trials of the experiments look at besides scores: pictures and measurements, small enough for a record.

Pictures are taken in the model's own precision, without autocast: an identity that holds exactly must be seen to.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from elicitable.attention.patterns import joint_pattern
from elicitable.attention.split import recombine, split
from elicitable.lab.reach import Progress, token_reach
from elicitable.methods.catalog import method_named
from elicitable.microscope.inspect import inspect
from elicitable.microscope.watch import operands_of
from elicitable.models.inject import installed, use
from elicitable.models.mode import evaluating
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

INSPECTED_ITEMS = 64
INSPECTED_TOKENS = 96

Found = dict[str, Any]  # a record's "measurements" by name, and its "pictures" by kind


def attention(model: Model, adaptation: Adaptation, items: Sequence[Item]) -> Found:
    """Attention of the first head of the first layer on the first item, (query, prefix then content), in [0, 1]."""
    batch = encode(model, items[:1])
    pattern = joint_pattern(_first_layer(model, [adaptation], batch))
    weights = torch.cat([pattern.prefix, pattern.content], dim=-1)[0, 0]
    picture = {"prefix": pattern.prefix.shape[-1], "tokens": batch.input_ids[0].tolist(), "weights": _rows(weights, 3)}
    return {"pictures": {"attention": picture}}


def activations(model: Model, adaptation: Adaptation, items: Sequence[Item]) -> Found:
    """Outputs of the first head of the first layer before and after ``adaptation``, where the answer begins.

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
        "before": _rows(before.content[:, 0, query], 3),
        "after": _rows(recombine(parts)[:, 0, query], 3),
        "mass": _rows(parts.mass[:, 0, query], 4),
        "bias": _rows(parts.inside[:, 0, query].mean(dim=0), 4) if is_context else None,
    }
    return {"pictures": {"activations": picture}}


def _first_layer(model: Model, parts: Sequence[Any], batch: Batch) -> Operands:
    """The first layer's attention call on ``batch``."""
    seen: list[Operands] = []

    def look(call: Call, _: Tensor | None) -> None:
        if call.layer == 0 and not seen:
            seen.append(operands_of(call))

    with torch.no_grad(), evaluating(model.hf), use(model, parts), installed(model) as slot:
        slot.watchers.append(look)
        try:
            answer_logits(model, batch)
        finally:
            slot.watchers.remove(look)
    return seen[0]


def _rows(values: Tensor, digits: int) -> Any:
    """A tensor as nested lists, rounded; −0 is 0."""
    return (torch.round(values.double() * 10**digits) / 10**digits + 0.0).tolist()


def prefix_use(model: Model, adaptation: Adaptation, items: Sequence[Item]) -> Found:
    """Appendix B: how the prefix's mass is shared among its positions, layer by layer.

    A layer's share of a position is its mean attention over queries and heads, over the whole prefix's. The spread is
    that between the 1st and 99th percentile over queries, heads taken together, mean over positions.
    """
    seen = inspect(model, adaptation, items[:INSPECTED_ITEMS], max_tokens=INSPECTED_TOKENS, drift=False)
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


def identity(model: Model, settings: Mapping[str, Any], seed: int) -> Found:
    """Both equations of section 4 in every layer and head, under a random prefix: the largest residual of each."""
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
                "attention residual": [_short(max(head.attention_residual for head in heads)) for heads in of_layer],
                "output residual": [_short(max(head.output_residual for head in heads)) for heads in of_layer],
                "drift": [_short(value) for value in drift],
                "mass": [_short(statistics.fmean(head.prefix_mass for head in heads)) for heads in of_layer],
            }
        },
    }


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def reach(model: Model, settings: Mapping[str, Any], seed: int, out: Path, progress: Progress) -> Found:
    """Section 3: distinct greedy continuations of single hard tokens, and of single trained virtual tokens.

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
    }
