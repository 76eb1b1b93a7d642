"""Fit one static change of a matrix to many tokens: ridge regression from sums, at full rank or at the best low rank.

With rows x of H (token, inputs) and t of T (token, outputs),

    ΔW = TᵀH (HᵀH + λI)⁻¹        minimises  ‖T − HΔWᵀ‖² + λ‖ΔW‖²,

and of all changes of rank r the best has ΔW_r = U_rU_rᵀΔW, where U_r are the first r eigenvectors of
ΔW(HᵀH + λI)ΔWᵀ: truncation in the metric of H (reduced-rank regression; Izenman, J. Multivariate Analysis 5, 1975).
A plain singular value decomposition of ΔW keeps what is large in the matrix, whether or not any token goes there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from elicitable.attention.float64 import doubled, with_float64


@dataclass(frozen=True, eq=False)
class Change:
    """Hold a change of a linear module, ΔW = ``up`` @ ``down`` and what is added: float64.

    ``down`` is (rank, inputs), ``up`` (outputs, rank); at full rank ``up`` is the identity's place: None. ``bias`` is
    (outputs,) or None.
    """

    down: Tensor
    up: Tensor | None = None
    bias: Tensor | None = None

    @property
    def matrix(self) -> Tensor:
        """Return ΔW, (outputs, inputs)."""
        return self.down if self.up is None else self.up @ self.down


class Moments:
    """Sum over tokens what a ridge regression needs: HᵀH, HᵀT, ΣT², and both means; in float64.

    Example:
        >>> moments = Moments(2, 1, torch.device("cpu"))
        >>> moments.add(torch.eye(2), torch.tensor([[3.0], [4.0]]))
        >>> moments.ridge(0.0).matrix.round(decimals=9).tolist()
        [[3.0, 4.0]]
    """

    def __init__(self, inputs: int, outputs: int, device: torch.device) -> None:
        where = with_float64(device)

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=where)

        self.gram, self.cross = zeros(inputs, inputs), zeros(inputs, outputs)
        self.input_sum, self.target_sum = zeros(inputs), zeros(outputs)
        self.square, self.tokens = zeros(), 0.0

    def add(self, inputs: Tensor, targets: Tensor, weights: Tensor | None = None) -> None:
        """Take in tokens: ``inputs`` (token, inputs), ``targets`` (token, outputs), and how much each counts, or 1."""
        x, t = self._own(inputs), self._own(targets)
        counts = x.new_ones(len(x)) if weights is None else self._own(weights)
        weighted, told = x * counts[:, None], t * counts[:, None]
        self.gram += x.T @ weighted
        self.cross += weighted.T @ t
        self.input_sum += weighted.sum(dim=0)
        self.target_sum += told.sum(dim=0)
        self.square += (told * t).sum()
        self.tokens += float(counts.sum())

    def ridge(self, strength: float, rank: int | None = None, has_bias: bool = False) -> Change:
        """Return the best change at λ = ``strength`` · mean diagonal of HᵀH; at ``strength`` 0 the one of least norm.

        With ``has_bias`` both sides are taken from their means, so that λ does not hold the bias down.
        """
        gram, cross = self.gram, self.cross
        mean = self.input_sum / max(self.tokens, 1)
        if has_bias:
            gram = gram - torch.outer(self.input_sum, mean)
            cross = cross - torch.outer(mean, self.target_sum)
        matrix = _solved(gram, cross, strength).T
        up = None
        if rank is not None and rank < min(matrix.shape):
            metric = matrix @ cross  # = ΔW (HᵀH + λI) ΔWᵀ
            up = torch.linalg.eigh((metric + metric.T) / 2).eigenvectors[:, -rank:].flip(1)
            matrix = up.T @ matrix
        elif rank is not None:
            up, matrix = _factors(matrix, rank)
        change = Change(matrix, up)
        if not has_bias:
            return change
        return Change(matrix, up, self.target_sum / max(self.tokens, 1) - change.matrix @ mean)

    def unexplained(self, change: Change) -> float:
        """Return ‖T − HΔWᵀ − b‖² / ‖T‖² over these tokens: 0 where ``change`` says it all, 1 where it says nothing.

        It can be more than 1 on tokens that the change was not fitted to.
        """
        matrix = self._own(change.matrix)
        left = self.square - 2 * (matrix.T * self.cross).sum() + ((matrix @ self.gram) * matrix).sum()
        if change.bias is not None:
            bias = self._own(change.bias)
            left = left + self.tokens * bias @ bias - 2 * bias @ (self.target_sum - matrix @ self.input_sum)
        return float(left / self.square.clamp(min=torch.finfo(torch.float64).tiny))

    def spectrum(self, change: Change) -> Tensor:
        """Return how the energy of HΔWᵀ divides over directions: shares (outputs,), largest first."""
        matrix = self._own(change.matrix)
        metric = matrix @ self.gram @ matrix.T
        energies = torch.linalg.eigvalsh((metric + metric.T) / 2).clamp(min=0).flip(0)
        shares: Tensor = energies / energies.sum().clamp(min=torch.finfo(torch.float64).tiny)
        return shares

    def _own(self, x: Tensor) -> Tensor:
        return doubled(x).to(self.gram)


def _solved(gram: Tensor, cross: Tensor, strength: float) -> Tensor:
    """(HᵀH + λI)⁻¹HᵀT, (inputs, outputs)."""
    penalty = strength * gram.diagonal().mean()
    if strength > 0 and penalty > 0:
        eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        return torch.cholesky_solve(cross, torch.linalg.cholesky(gram + penalty * eye))
    values, vectors = torch.linalg.eigh(gram)
    seen = values > values[-1].clamp(min=0) * len(gram) * torch.finfo(gram.dtype).eps
    inverse = torch.where(seen, 1 / torch.where(seen, values, 1.0), 0.0)
    solved: Tensor = vectors @ (inverse[:, None] * (vectors.T @ cross))
    return solved


def _factors(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Write a matrix whose smaller side is at most ``rank`` as (outputs, rank) @ (rank, inputs), filled with zeros."""
    outputs, inputs = matrix.shape
    up, down = matrix.new_zeros(outputs, rank), matrix.new_zeros(rank, inputs)
    if outputs <= inputs:
        up[:, :outputs], down[:outputs] = torch.eye(outputs).to(matrix), matrix
    else:
        up[:, :inputs], down[:inputs] = matrix, torch.eye(inputs).to(matrix)
    return up, down


def rank_for(spectrum: Tensor, share: float) -> int:
    """Count how many directions hold ``share`` of the energy.

    >>> rank_for(torch.tensor([0.7, 0.2, 0.1]), 0.9)
    2
    """
    return int((spectrum.cumsum(0) < share - 1e-12).sum()) + 1
