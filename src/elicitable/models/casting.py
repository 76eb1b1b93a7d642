"""Change the type of a model's numbers as transformers chooses it when it loads them."""

from __future__ import annotations

import re

import torch
from transformers import PreTrainedModel


@torch.no_grad()
def cast(hf: PreTrainedModel, dtype: torch.dtype) -> None:
    """Bring to ``dtype`` what a checkpoint would hold: the weights, and the buffers of the state.

    What is computed from the configuration alone stays as it is. ``Module.to`` would round rotary frequencies to
    bfloat16 too, which moves the angle of position 1,000 by radians. And what a model keeps in float32 is kept there.
    """
    kept = set(hf._keep_in_fp32_modules_strict or ()) if dtype in (torch.float16, torch.bfloat16) else set()
    kept |= set(hf._keep_in_fp32_modules or ()) if dtype == torch.float16 else set()
    wide = re.compile("|".join(rf"(^|\.){name}($|\.)" for name in kept)) if kept else None
    for at, module in hf.named_modules():
        held = {**module._parameters, **{n: x for n, x in module._buffers.items() if n not in _computed(module)}}
        for name, tensor in held.items():
            if tensor is not None and tensor.is_floating_point():
                whole = f"{at}.{name}".lstrip(".")
                tensor.data = tensor.data.to(torch.float32 if wide is not None and wide.search(whole) else dtype)


def _computed(module: torch.nn.Module) -> set[str]:
    return set(module._non_persistent_buffers_set)
