"""Measure how finely products are computed: a model's type does not say it.

A float32 product is computed in TF32 or bfloat16 where a setting of torch (``set_float32_matmul_precision``,
``backends.*.fp32_precision``), a variable (``NVIDIA_TF32_OVERRIDE``) or an autocast around the call says so. There is
no one place to ask all of them, so a product is compared with the same one in float64.
"""

from __future__ import annotations

import torch

from elicitable.models.model import Model
from elicitable.rng import torch_generator

SIDE = 128  # of the square matrices: smaller products are not always lowered
SLACK = 16  # times the rounding of float32: more than the order of the sums explains


@torch.no_grad()
def rounding(model: Model) -> float:
    """Return the relative rounding of products on the model's device in its type, as it is at this moment.

    That is the machine epsilon of the type, or what a product of two 128 × 128 matrices is off by over its largest
    number, where this is larger: about 4e-4 in TF32 and 2e-3 to 4e-3 in bfloat16.

    >>> from elicitable.models.load import load
    >>> rounding(load("toy:ascending", device="cpu")) == torch.finfo(torch.float32).eps
    True
    """
    eps = float(torch.finfo(model.dtype).eps)
    exact = torch.randn(SIDE, SIDE, generator=torch_generator(0, "rounding")).to(model.dtype)
    wanted = exact.double() @ exact.double()
    found = exact.to(model.device) @ exact.to(model.device)
    off = float((found.cpu().double() - wanted).abs().max() / wanted.abs().max())
    return off if off > SLACK * max(eps, torch.finfo(torch.float32).eps) else eps


__all__ = ["rounding"]
