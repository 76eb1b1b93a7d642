"""Find the directions in which a context pushes a head's output: the span of its bias over queries and inputs.

With n context tokens, the bias Σ_{j∈prefix} A^pt_ij v_j lies in the span of n vectors (section 4), so one token has one
direction for every input. Trained contexts use fewer than n (appendix B). The directions are counted by the second
moment M = Σ_i b_i b_iᵀ, which adds up over batches: a stream of biases costs one d_value × d_value matrix per head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from elicitable.attention.float64 import doubled


@dataclass(frozen=True, eq=False)
class Subspace:
    """Hold the spectrum of a stream of biases.

    Attributes:
        energies: eigenvalues of M, descending, (head, d_value); their sum is Σ_i ‖b_i‖².
        effective_rank: exp(−Σ p log p) over shares p of the energies, (head,), in [1, d_value]; 0 where M is zero.
        first_share: share of the energy in the first direction, (head,), in (0, 1]; 0 where M is zero.
    """

    energies: Tensor
    effective_rank: Tensor
    first_share: Tensor

    def rank(self, tolerance: float = 1e-10) -> Tensor:
        """Return (head,) number of directions with more than ``tolerance`` of the first one's energy."""
        return (self.energies > tolerance * self.energies[:, :1].clamp(min=torch.finfo(torch.float64).tiny)).sum(-1)


def second_moment(bias: Tensor, valid: Tensor) -> Tensor:
    """Compute Σ_{batch, query} b bᵀ over queries that are not padding: (head, d_value, d_value), in float64.

    Args:
        bias: (batch, head, query, d_value).
        valid: (batch, query) bool.
    """
    batch, heads, queries, d_value = bias.shape
    if not bool(valid.all()):
        bias = torch.where(valid[:, None, :, None], bias, 0.0)
    rows = doubled(bias.transpose(0, 1).reshape(heads, batch * queries, d_value))  # products of float32 have its digits
    return torch.matmul(rows.transpose(1, 2), rows)


def packed(moment: Tensor) -> Tensor:
    """Return the lower triangle of a symmetric (head, n, n), which is all of it: (head, n(n+1)/2).

    >>> packed(torch.tensor([[[1.0, 2.0], [2.0, 3.0]]])).tolist()
    [[1.0, 2.0, 3.0]]
    """
    return moment[:, *torch.tril_indices(*moment.shape[1:])]


def unpacked(triangle: Tensor) -> Tensor:
    """Return the symmetric (head, n, n) whose lower triangle is ``triangle``.

    >>> unpacked(torch.tensor([[1.0, 2.0, 3.0]])).tolist()
    [[[1.0, 2.0], [2.0, 3.0]]]
    """
    width = (math.isqrt(8 * triangle.shape[1] + 1) - 1) // 2
    rows, columns = torch.tril_indices(width, width)
    moment = triangle.new_empty(triangle.shape[0], width, width)
    moment[:, rows, columns] = triangle
    moment[:, columns, rows] = triangle
    return moment


def subspace(moment: Tensor) -> Subspace:
    """Return the spectrum of a second moment.

    Args:
        moment: (head, d_value, d_value), symmetric.

    Example:
        >>> one_direction = torch.tensor([[[4.0, 0.0], [0.0, 0.0]]])
        >>> found = subspace(one_direction)
        >>> found.effective_rank.item(), found.first_share.item(), found.rank().item()
        (1.0, 1.0, 1)
    """
    energies = torch.linalg.eigvalsh(doubled(moment)).flip(-1).clamp(min=0.0)
    total = energies.sum(dim=-1, keepdim=True)
    shares = torch.where(total > 0, energies / total.clamp(min=torch.finfo(torch.float64).tiny), 0.0)
    entropy = -torch.special.xlogy(shares, shares).sum(dim=-1)
    present = total[:, 0] > 0
    return Subspace(energies, torch.where(present, entropy.exp(), 0.0), shares[:, 0])
