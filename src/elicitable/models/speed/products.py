"""Products with a frozen matrix, there and back, by what this processor does quickest.

They have the bits of a plain block's, but in float32 where matrices are laid out for it (:func:`processor.lays_out`):
there they are as near to the exact ones.
"""

from __future__ import annotations

import torch
from torch import Tensor

from elicitable.models.speed.processor import (
    bias_added,
    bias_adds_last,
    columns_stand_alone,
    lays_out,
    rows_stand_alone,
)

ROWS = 1024  # that a product is laid out for; with more or fewer it is as exact


def product(weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Product:
    """Choose how a frozen ``weight`` of (in, out) is multiplied in ``dtype`` on this processor."""
    return (PackedProduct if lays_out(dtype) else Product)(weight, bias, dtype)


class Product:
    """x W + b and ∂y Wᵀ for a frozen W of (in, out): the bits of the operations that a plain block calls.

    Where the bits allow, the bias is added after the product: ``addmm`` writes it everywhere before, which is a pass
    more over all that is written.
    """

    is_packed = False

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.weight = weight.detach().to(dtype)
        self.turned, self.shape = self.weight.t(), (weight.shape[0], weight.shape[1])
        self.bias = None if bias is None else bias.detach().to(dtype)

    def __call__(self, x: Tensor, act: str = "none") -> Tensor:
        """(…, in) to (…, out) in ``dtype``; ``act`` is ``"none"`` or ``"relu"``."""
        x = _of(x, self.dtype)
        if self.bias is None:
            found = x @ self.weight
            return found.relu_() if act == "relu" else found
        if bias_adds_last(x.shape[:-1].numel(), self.shape, self.dtype, act):
            return bias_added(x @ self.weight, self.bias, act)
        found = torch.addmm(self.bias, x.flatten(0, -2), self.weight).view(*x.shape[:-1], -1)
        return found.relu_() if act == "relu" else found

    def keeps_bits(self, rows: int, instead_of: int, is_back: bool = False) -> bool:
        """Whether ``rows`` multiplied by themselves have the bits that they have among ``instead_of`` rows."""
        return rows_stand_alone((rows, instead_of), self.shape, self.dtype, is_back)

    def keeps_bits_parted(self, rows: int, first: int) -> bool:
        """Whether the ``first`` outputs and those behind them have the same bits when they are multiplied apart."""
        return columns_stand_alone(rows, self.shape, first, self.dtype)

    def back(self, gradient: Tensor) -> Tensor:
        """(…, out) to (…, in) in ``dtype``."""
        return _of(gradient, self.dtype) @ self.turned


def _of(x: Tensor, dtype: torch.dtype) -> Tensor:
    """``x`` in ``dtype``, lying row by row: then it is multiplied as one matrix, whatever stands before its rows."""
    return (x if x.dtype == dtype else x.to(dtype)).contiguous()


class PackedProduct(Product):
    """The same with W laid out for oneDNN, once for each way, and the bias and ReLU added on the way out."""

    is_packed = True

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        self.dtype, self.weight, self.shape = dtype, weight.detach(), (weight.shape[0], weight.shape[1])
        self.bias = None if bias is None else bias.detach().to(dtype)
        self._there: Tensor | None = None
        self._back: Tensor | None = None

    def __call__(self, x: Tensor, act: str = "none") -> Tensor:
        """(…, in) to (…, out) in ``dtype``; ``act`` is ``"none"`` or ``"relu"``."""
        if self._there is None:
            self._there = _laid_out(self.weight.t(), self.dtype)
        return _multiply(x.to(self.dtype), self._there, self.bias, act)

    def keeps_bits(self, rows: int, instead_of: int, is_back: bool = False) -> bool:
        """Whether ``rows`` multiplied by themselves have the bits that they have among ``instead_of`` rows: yes."""
        return True

    def back(self, gradient: Tensor) -> Tensor:
        """(…, out) to (…, in) in ``dtype``."""
        if self._back is None:
            self._back = _laid_out(self.weight, self.dtype)
        return _multiply(gradient.to(self.dtype), self._back, None, "none")


def _laid_out(weight: Tensor, dtype: torch.dtype) -> Tensor:
    laid_out: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.to(dtype).contiguous(), ROWS)
    return laid_out


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None, act: str) -> Tensor:
    found: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, weight, bias, act, [], "")
    # for more than two dimensions a view, which nobody may write into once an autograd function has returned it
    return torch.ops.aten._unsafe_view.default(found, found.shape)  # type: ignore[no-any-return]
