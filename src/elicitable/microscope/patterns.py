"""Keep what heads attend to on one text: one head in full, and every head in the few levels that a picture needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from elicitable.attention.patterns import content_pattern, joint_pattern
from elicitable.microscope.watch import watch
from elicitable.microscope.words import token_name
from elicitable.models.model import Model

LEVELS = "0123456789abcdefghijklmnopqrstuvwxyz"  # of a weight from 0 to 1
MOST_TOKENS = 24  # of the first text, and of the context, in the patterns of all heads


@dataclass(frozen=True, slots=True)
class Heatmap:
    """Hold one head on one text: weights (query, key) with the context (its columns first), without it, and the content
    columns of the first divided by 1 − α, which the second equals where nothing changed below."""

    layer: int
    head: int
    tokens: tuple[str, ...]
    prefix_tokens: tuple[str, ...]
    with_context: tuple[tuple[float, ...], ...]
    without: tuple[tuple[float, ...], ...]
    rescaled: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Patterns:
    """Hold the attention of every head on the first text, for small pictures of all of them.

    ``heads`` are (layer, head, rows): a row per query, and in it a letter per key, the context's first, whose place in
    :data:`LEVELS` is the weight · 35, rounded. ``prefix_tokens`` and ``tokens`` name the keys that were kept.
    """

    prefix_tokens: tuple[str, ...]
    tokens: tuple[str, ...]
    heads: tuple[tuple[int, int, tuple[str, ...]], ...]


def context_names(model: Model, parts: Sequence[Any], length: int) -> tuple[str, ...]:
    """Name the context's tokens: as words where all of it is tokens of the vocabulary, else by their place."""
    ids = [getattr(part, "ids", None) for part in parts]
    known = [token for one in ids if isinstance(one, Tensor) for token in one.flatten().tolist()]
    if len(known) == length:
        return tuple(token_name(model, token) for token in known)
    return tuple(f"[{place}]" for place in range(length))


def heatmap_of(
    model: Model, parts: list[Any], row: list[int], names: tuple[str, ...], layer: int, head: int
) -> Heatmap:
    """Keep one head on one text in full, with the context and without it."""
    scope = _watched(model, parts, row, [layer], plain=True)
    operands, plain = scope.raw[layer][0]
    without = content_pattern(operands if plain is None else plain)
    joint = joint_pattern(operands)
    rest = 1 - joint.prefix.sum(dim=-1, keepdim=True)
    keys = operands.key.shape[2]  # a learned sink is not shown
    return Heatmap(
        layer=layer,
        head=head,
        tokens=tuple(token_name(model, token) for token in row),
        prefix_tokens=names,
        with_context=_nested(torch.cat([joint.prefix, joint.content[..., :keys]], dim=-1), head),
        without=_nested(without[..., :keys], head),
        rescaled=_nested(joint.content[..., :keys] / rest.clamp(min=torch.finfo(rest.dtype).tiny), head),
    )


def patterns_of(model: Model, parts: list[Any], row: list[int], names: tuple[str, ...]) -> Patterns:
    """Keep the attention of every head on the first tokens of one text."""
    row, names = row[:MOST_TOKENS], names[:MOST_TOKENS]
    layers = list(range(len(model.anatomy.layers)))
    scope = _watched(model, parts, row, layers, plain=False)
    found = []
    for layer in layers:
        if not scope.raw.get(layer):
            continue
        operands, _ = scope.raw[layer][0]
        joint = joint_pattern(operands)
        own = joint.prefix[..., : len(names)]
        own = torch.nn.functional.pad(own, (0, len(names) - own.shape[-1]))  # a layer may have no context
        weights = torch.cat([own, joint.content[..., : operands.key.shape[2]]], dim=-1)
        places = (weights[0] * (len(LEVELS) - 1)).round().long().clamp(0, len(LEVELS) - 1).tolist()
        found += [
            (layer, head, tuple("".join(LEVELS[at] for at in query) for query in queries))
            for head, queries in enumerate(places)
        ]
    return Patterns(names, tuple(token_name(model, token) for token in row), tuple(found))


def _watched(model: Model, parts: list[Any], row: list[int], layers: list[int], plain: bool) -> Any:
    with watch(model, parts, drift=plain, residuals=False, spectra=False, keep=layers) as scope:
        ids = torch.tensor([row], device=model.device)
        model.hf(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, logits_to_keep=1)
    return scope


def _nested(weights: Tensor, head: int) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in weights[0, head].tolist())
