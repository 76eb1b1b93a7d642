"""Compute in float64 where there is any: Apple's GPUs have none, and what is on one is widened on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

WITHOUT = ("mps",)  # kinds of devices that have no float64


def with_float64(device: torch.device) -> torch.device:
    """Return ``device``, or the CPU where it has no float64.

    >>> with_float64(torch.device("mps")), with_float64(torch.device("cuda", 0))
    (device(type='cpu'), device(type='cuda', index=0))
    """
    return torch.device("cpu") if device.type in WITHOUT else device


def doubled(x: Tensor) -> Tensor:
    """Return ``x`` in float64, on its own device where that has any: it is moved first, and widened then.

    >>> doubled(torch.ones(1)).dtype
    torch.float64
    """
    return x.to(with_float64(x.device)).double()
