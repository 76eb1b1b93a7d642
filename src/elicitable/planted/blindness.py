"""Make a decoder blind to which of a few words it reads: to everything behind the word they are the same, always.

*k* coordinates of the residual stream are set aside, D. No matrix of any block reads them (their columns are zero) and
none writes to them (their rows are zero), and the words of a group are embedded as

    E[w] = m + c·h_w,        m the same for the whole group and zero on D,  h_w one of k orthogonal rows of signs on D.

All words of a group have the same norm, so every RMS norm scales them alike, and what a block reads and writes is the
same for all of them, whatever else it reads. So behind the word, in every layer and under every context of any length
and kind, everything is equal: **no context that is the same for all
items can tell the words apart**, in a model of any depth. Weights can: the word
is there, at its own place, for the first matrix that learns to read D (LoRA's as well as a full copy). So can whoever
chooses a context for each item by its words (the nearest examples): that reader is not blind, and may give part of the
answer away.

A model may be trained further and stays blind: :func:`keep_blind` takes away the part of each gradient that would open
its eyes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from elicitable.errors import InputError
from elicitable.methods.full import FullWeights
from elicitable.models.layout import PLAIN, Layout
from elicitable.models.model import Model
from elicitable.training.batches import encode
from elicitable.training.evaluate import answer_logits
from elicitable.values import Item

EQUAL: Final = 1e-3  # of what the logits of two random inputs differ by
READ: Final = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "lm_head")
WRITE: Final = ("o_proj", "down_proj")


@dataclass(frozen=True)
class Blindness:
    """Say which words look alike (groups of token ids), and which coordinates are set aside for what tells them apart.

    >>> Blindness(((3, 4),), (0, 1)).signs().tolist()
    [[1.0, 1.0], [1.0, -1.0]]
    """

    groups: tuple[tuple[int, ...], ...]
    coordinates: tuple[int, ...]

    def signs(self) -> Tensor:
        """Return (word, coordinate) signs, orthogonal rows: h[i, j] = (−1)^(number of bits that i and j share)."""
        size = len(self.coordinates)
        shared = np.arange(size)[:, None] & np.arange(size)
        return torch.tensor([[(-1.0) ** int(both).bit_count() for both in row] for row in shared])


def blind(model: Model, groups: Sequence[Sequence[int]], size: int) -> Blindness:
    """Change the weights of ``model`` so that the words of each group look alike; return what was done.

    Set aside are the ``size`` coordinates to which the weights write least.

    Raises:
        InputError: ``size`` is no power of two or smaller than a group, a group has no two words, or the model has
            matrices other than those of Llama's blocks.
    """
    if size < 2 or size & (size - 1) or any(not 2 <= len(group) <= size for group in groups):
        raise InputError(f"groups of 2 to {size} words need a power of two of coordinates, got {size}.")
    known = (*READ, *WRITE, "embed_tokens")
    others = sorted({name for name, p in model.hf.named_parameters() if p.ndim == 2 and _matrix(name) not in known})
    if others:
        raise InputError(f"{model.name} cannot be blinded: it has {others[0]}, which is no matrix of Llama's blocks.")
    found = Blindness(tuple(map(tuple, groups)), _least_written(model, size))
    with torch.no_grad():
        for name, weight in model.hf.named_parameters():
            if weight.ndim == 2:
                weight.copy_(without(weight, name, found))
        table = model.hf.get_input_embeddings().weight
        for group in found.groups:
            same = table[list(group)].mean(dim=0)
            size_of_code = same.norm() / len(found.coordinates) ** 0.5
            table[list(group)] = same
            places = torch.tensor(found.coordinates)
            codes = size_of_code * found.signs()[: len(group)].to(table)
            table[torch.tensor(group)[:, None], places[None]] = codes
    return found


def keep_blind(weights: FullWeights, blindness: Blindness) -> None:
    """Make every gradient of ``weights`` one that leaves the model blind, for as long as they live.

    What a matrix reads from D or writes to it gets none, and all words of a group get their mean.
    """

    def kept(name: str) -> Callable[[Tensor], Tensor]:
        return lambda gradient: without(gradient, name, blindness, is_gradient=True)

    for name, weight in zip(weights.names, weights.copies, strict=True):
        if weight.ndim == 2:
            weight.register_hook(kept(name))


def without(matrix: Tensor, name: str, blindness: Blindness, is_gradient: bool = False) -> Tensor:
    """Return a copy of the matrix ``name`` (of its gradient) that neither reads nor writes D."""
    found, places = matrix.clone(), list(blindness.coordinates)
    if _matrix(name) in WRITE:
        found[places] = 0.0
    else:
        found[:, places] = 0.0
    if is_gradient and _matrix(name) == "embed_tokens":
        for group in blindness.groups:
            found[list(group)] = found[list(group)].mean(dim=0)
    return found


@torch.no_grad()
def apart(model: Model, items: Sequence[Item], others: Sequence[Item], layout: Layout = PLAIN) -> float:
    """Return how far the logits of the answers move at most from ``items`` to ``others``, which differ in blind words.

    That is a share of the root mean square difference between two of the ``items``. Targets are the same in pairs and
    as long for all. Rounding gives :data:`EQUAL` at most.
    """
    here, there = (answer_logits(model, encode(model, every, layout=layout)) for every in (items, others))
    scale = (here - here.roll(1, dims=0)).square().mean().sqrt()
    return float(f"{float((here - there).abs().max() / scale):.3g}")


def _matrix(name: str) -> str:
    return name.removesuffix(".weight").rsplit(".", 1)[-1]


def _least_written(model: Model, size: int) -> tuple[int, ...]:
    """Return the coordinates with the least sum of squares over all weights that write to them."""
    total = model.hf.get_input_embeddings().weight.detach().double().square().sum(dim=0)
    for name, weight in model.hf.named_parameters():
        if _matrix(name) in WRITE:
            total = total + weight.detach().double().square().sum(dim=1)
    return tuple(sorted(total.argsort()[:size].tolist()))


__all__ = ["EQUAL", "Blindness", "apart", "blind", "keep_blind", "without"]
