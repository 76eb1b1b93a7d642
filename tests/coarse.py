"""Products of float32 as a GPU computes them in TF32, on any processor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

PRODUCTS = {"mm", "addmm", "bmm", "baddbmm"}
DROPPED = 13  # of the 23 bits behind the point that float32 has


class TF32(TorchDispatchMode):
    """Inside, what is multiplied is rounded to 10 bits behind the point, as NVIDIA_TF32_OVERRIDE=1 does it."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Compute ``func``, of rounded matrices where it is a product."""
        is_product = func.overloadpacket.__name__ in PRODUCTS
        return func(*(map(_rounded, args) if is_product else args), **(kwargs or {}))


def _rounded(one: Any) -> Any:
    if not isinstance(one, Tensor) or one.dtype != torch.float32:
        return one
    half = 1 << (DROPPED - 1)
    return ((one.view(torch.int32) + half) & -(1 << DROPPED)).view(torch.float32)
