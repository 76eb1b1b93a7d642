"""Ask the loss's gradient, before anything is trained, what a context could do and what a change of weights could.

A context adds to the output of each head what hangs on the query alone, at most; one bias there is the simplest such
thing. A bias serves the part of the gradient that points the same way over inputs. With g_ip the gradient of item i's
loss at a head's output at position p, that part is

    common = mean of g_ip · g_jq over pairs of items i ≠ j  /  mean of ‖g_ip‖²,

‖mean g‖² / mean ‖g‖² without the pairs of an item with itself, which are alike whatever the task: 1 where all point the
same way, about 0 where they have nothing in common, below 0 where they cancel. With q = p alone it is the part that
one bias per position would serve. A change of a matrix W instead serves the part of the gradients G_i of W that items
have in common; how low a rank would do is how much of ΣG_i lies in its first singular directions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from elicitable.models.attend import Call, combine
from elicitable.models.inject import installed
from elicitable.models.replay import changing
from elicitable.models.restoring import evaluating, without_gradients
from elicitable.models.sites import is_matrix
from elicitable.training.batches import IGNORED, Batch
from elicitable.training.evaluate import answer_logits, token_losses

if TYPE_CHECKING:
    from elicitable.models.model import Model

RANKS = (1, 4)  # directions whose share of a matrix's gradient is told


@dataclass(frozen=True)
class Share:
    """Hold a share as what it is made of, so that shares of several places add up: ``common`` / ``energy``."""

    common: float
    energy: float

    @property
    def value(self) -> float:
        """Return common / energy; 0 where there is no gradient."""
        return self.common / self.energy if self.energy > 0 else 0.0


@dataclass(frozen=True)
class Gradients:
    """Hold what the gradients of a batch say.

    ``heads[layer][head]`` is the share that one bias at a head's output serves, ``heads_at_position`` that of a bias
    per position; ``matrices[name]`` the share that one change of a matrix serves, and ``directions[name]`` how much of
    that change lies in its first :data:`RANKS` singular directions.
    """

    heads: tuple[tuple[Share, ...], ...]
    heads_at_position: tuple[tuple[Share, ...], ...]
    matrices: dict[str, Share]
    directions: dict[str, tuple[float, ...]]

    def signals(self) -> dict[str, float]:
        """Return the shares of all heads and of all matrices together, and of the head with the greatest one."""
        heads = [head for layer in self.heads for head in layer]
        placed = [head for layer in self.heads_at_position for head in layer]
        bias, at_position, matrix = (together(part).value for part in (heads, placed, self.matrices.values()))
        weights = {name: share.energy for name, share in self.matrices.items()}
        whole = sum(weights.values()) or 1.0
        few = [sum(weights[name] * own[nth] for name, own in self.directions.items()) / whole for nth in (0, 1)]
        return {
            "bias_share": bias,
            "bias_share_at_position": at_position,
            "bias_share_best_head": max(head.value for head in heads),
            "weight_share": matrix,
            "weight_lead": matrix - bias,
            "weight_rank_1": few[0],
            "weight_rank_4": few[1],
        }


def together(shares: Iterable[Share]) -> Share:
    """Add shares up: that of all places, each counted by its energy."""
    found = list(shares)
    return Share(sum(one.common for one in found), sum(one.energy for one in found))


def common_share(gradients: Tensor, mask: Tensor) -> Share:
    """Return the share that one vector for all serves: ``gradients`` (item, token, width), ``mask`` (item, token).

    >>> common_share(torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]], [[1.0, 0.0]]]), torch.ones(3, 1)).value
    1.0
    """
    kept = gradients.double() * mask[..., None]
    own, counts = kept.sum(dim=1), mask.double().sum(dim=1)
    cross = own.sum(dim=0).square().sum() - own.square().sum()
    pairs = counts.sum().square() - counts.square().sum()
    energy = kept.square().sum() / counts.sum().clamp(min=1)
    return Share(float(cross / pairs.clamp(min=1)), float(energy))


def common_share_at_position(gradients: Tensor, mask: Tensor) -> Share:
    """Return the share that one vector per position serves, which is counted from the end; shapes as above."""
    kept, counts = gradients.double() * mask[..., None], mask.double().sum(dim=0)
    cross = kept.sum(dim=0).square().sum(dim=-1) - kept.square().sum(dim=(0, 2))  # (token,)
    pairs = (counts * (counts - 1)).clamp(min=1)
    common = (cross / pairs * counts).sum() / counts.sum().clamp(min=1)
    return Share(float(common), float(kept.square().sum() / counts.sum().clamp(min=1)))


def gradients_of(model: Model, batch: Batch) -> Gradients:
    """Run ``batch`` forward and back once; nothing of the model is changed, and no gradient of it is kept.

    An item's loss is its mean over the tokens of its answer, so that long answers do not outvote short ones.
    """
    with ExitStack() as stack:
        stack.enter_context(evaluating(model.hf))
        stack.enter_context(without_gradients(model.hf))
        slot = stack.enter_context(installed(model))
        heads: dict[int, Tensor] = {}
        read: dict[str, tuple[Tensor, Tensor]] = {}

        def at_heads(call: Call) -> Tensor:
            output = combine(call, slot)
            heads[call.layer] = torch.zeros_like(output, requires_grad=True)
            return output + heads[call.layer]

        stack.enter_context(slot.watched_by(at_heads, first=True))
        for name, module in _matrices(model):
            stack.enter_context(changing(module, _noting(read, name, batch)))
        with torch.enable_grad():
            losses = token_losses(answer_logits(model, batch), batch.targets)
            counted = (batch.targets != IGNORED).sum(dim=1).clamp(min=1)
            loss = (losses.sum(dim=1) / counted).sum()
            leaves = [*heads.values(), *(moved for _, moved in read.values())]
            found = torch.autograd.grad(loss, leaves, allow_unused=True)
    given = [torch.zeros_like(leaf) if one is None else one for leaf, one in zip(leaves, found, strict=True)]
    at = dict(zip(heads, given, strict=False))
    mask = torch.ones_like(batch.input_ids) if batch.attention_mask is None else batch.attention_mask
    shares, placed = [], []
    for layer in range(model.anatomy.depth):
        own = at[layer].unbind(dim=1)
        shares.append(tuple(common_share(head, mask) for head in own))
        placed.append(tuple(common_share_at_position(head, mask) for head in own))
    matrices, directions = {}, {}
    for (name, (inputs, _)), moved in zip(read.items(), given[len(heads) :], strict=True):
        matrices[name], directions[name] = _of_matrix(inputs, moved)
    return Gradients(tuple(shares), tuple(placed), matrices, directions)


def _matrices(model: Model) -> list[tuple[str, nn.Module]]:
    return [
        (f"{layer}.{name}", module)
        for layer, block in enumerate(model.anatomy.blocks)
        for name, module in block.named_modules()
        if is_matrix(module)
    ]


def _noting(read: dict[str, tuple[Tensor, Tensor]], name: str, batch: Batch) -> Callable[[Tensor, Tensor], Tensor]:
    """Keep what a module reads, and a place at its output for the gradient; not where it mixes the rows (experts)."""

    def note(inputs: Tensor, output: Tensor) -> Tensor:
        if output.ndim != 3 or len(output) != len(batch):
            return output
        read[name] = (inputs.detach(), torch.zeros_like(output, requires_grad=True))
        return output + read[name][1]

    return note


def _of_matrix(inputs: Tensor, moved: Tensor) -> tuple[Share, tuple[float, ...]]:
    """Return the share of G_i = Σ_t δ_it x_itᵀ that items have in common, and of ΣG_i in its first directions.

    ‖G_i‖² = Σ_tu (δ_it · δ_iu)(x_it · x_iu) needs no matrix of an item's own.
    """
    delta, x = moved.double(), inputs.double()
    items = len(delta)
    energy = ((delta @ delta.mT) * (x @ x.mT)).sum()
    whole = delta.flatten(0, 1).T @ x.flatten(0, 1)
    common = (whole.square().sum() - energy) / max(1, items * (items - 1))
    gram = whole @ whole.T if whole.shape[0] <= whole.shape[1] else whole.T @ whole
    energies = torch.linalg.eigvalsh(gram).clamp(min=0).flip(0)
    all_of_it = energies.sum().clamp(min=torch.finfo(torch.float64).tiny)
    few = tuple(float(energies[:rank].sum() / all_of_it) for rank in RANKS)
    return Share(float(common), float(energy / items)), few
