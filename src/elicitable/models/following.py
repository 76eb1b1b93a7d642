"""Tensors beside a model that go with it to another type or device, and that know when what they stand for has changed.

An adapter is read once, and its owner may move the model on meanwhile. What follows is cast where that is exact.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from elicitable.errors import InputError


class Followers:
    """What an adapter brings along for a model, or has copied from it.

    Args:
        model: a tensor of the model's own; the type and device that it has are the model's.
        copies: of each of the model's tensors that was copied (by identity), the tensor and its copy.
        new: modules that are the adapter's own.
        displaced: modules of the model that they stand in for. One that looks like these is run by the model itself, so
            it has the model's type; others are the adapter's, which may be kept in a wider one.
    """

    def __init__(
        self,
        model: Tensor,
        copies: Mapping[int, tuple[Tensor, Tensor]],
        new: Iterable[nn.Module],
        displaced: Iterable[Any],
    ) -> None:
        self._model, self._last = model, _whereabouts(model)
        self._copies = [_Copy(*pair) for pair in copies.values()]
        looks = {_look(part) for module in displaced for part in module.modules()}
        copied = {id(copy) for _, copy in copies.values()}
        self._own = [
            (tensor, tensor.dtype, _look(module) in looks and tensor.dtype == model.dtype)
            for module in new
            for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False))
            if id(tensor) not in copied
        ]

    def follow(self, name: str) -> None:
        """Go where the model is now.

        Raises:
            InputError: what was copied has changed since, or a type holds too few digits; the message says ``name``.
        """
        for copy in self._copies:
            copy.follow(name)
        now = _whereabouts(self._model)
        if now == self._last:
            return
        (_, was_on), (dtype, device) = self._last, now
        for tensor, first, is_run_by_the_model in self._own:
            wanted = dtype if is_run_by_the_model else torch.promote_types(first, dtype)
            wanted = wanted if tensor.is_floating_point() else tensor.dtype
            _move(tensor, wanted, device if tensor.device == was_on else tensor.device, name)
        self._last = now


class _Copy:
    """A copy of one of the model's tensors, and what that held when it was made."""

    def __init__(self, source: Tensor, copy: Tensor) -> None:
        self.source, self.copy = source, copy
        self.dtype, self.digest, self.stamp = source.dtype, _digest(source), _stamp(source)

    def follow(self, name: str) -> None:
        stamp = _stamp(self.source)
        if stamp == self.stamp:
            return
        if _digest(self.source.to(self.dtype)) != self.digest:
            raise InputError(
                f"the model has changed since {name} was made for it, which holds copies of its weights; read or build "
                "it again."
            )
        _move(self.copy, self.source.dtype, self.source.device, name)
        self.stamp = stamp


def _move(tensor: Tensor, dtype: torch.dtype, device: torch.device, name: str) -> None:
    if (tensor.dtype, tensor.device) == (dtype, device):
        return
    there = tensor.data.to(device=device, dtype=dtype)
    if not torch.equal(there.to(tensor.device, tensor.dtype), tensor.data):
        raise InputError(
            f"the model has changed since {name} was made for it, whose {tensor.dtype} numbers are others in {dtype}; "
            "read or build it again."
        )
    tensor.grad = None
    tensor.data = there


def _whereabouts(tensor: Tensor) -> tuple[torch.dtype, torch.device]:
    return tensor.dtype, tensor.device


def _stamp(tensor: Tensor) -> tuple[Any, ...]:
    """What is another after every change that torch sees."""
    return (tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version, *_whereabouts(tensor))


def _look(module: nn.Module) -> tuple[Any, ...]:
    return (type(module), *((name, one.shape) for name, one in module.named_parameters(recurse=False)))


def _digest(tensor: Tensor) -> bytes:
    plain = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
    return hashlib.sha256(plain.numpy().tobytes()).digest()
