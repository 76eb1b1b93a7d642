"""bfloat16 where the machine multiplies it faster than float32, and the same result in shape everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

from elicitable.models.speed.frozen_decoder import frozen_blocks
from elicitable.models.speed.frozen_parts import frozen_parts, kept_of
from elicitable.models.speed.processor import has_fast_bfloat16

if TYPE_CHECKING:
    from elicitable.models.model import Model


def product_type(model: Model) -> torch.dtype:
    """The type in which ``model`` multiplies: bfloat16 for a float32 model where that is faster, else its own."""
    is_lowered = model.dtype == torch.float32 and has_fast_bfloat16(model.device)
    return torch.bfloat16 if is_lowered and model.runs_in_bfloat16 else model.dtype


@contextmanager
def autocast(model: Model) -> Iterator[None]:
    """bfloat16 autocast for a float32 model where that is faster; nothing for any other model.

    Torch keeps casts of trained weights until the outermost autocast ends, and does not look whether they have changed.
    Inside another one (:func:`undisturbed`, or a caller's own) every step would compute with the weights of the first.
    So none of them outlives this.
    """
    lowered = product_type(model)
    if lowered == model.dtype:
        yield
        return
    with torch.autocast(model.device.type, lowered):
        torch.clear_autocast_cache()
        try:
            yield
        finally:
            torch.clear_autocast_cache()


@contextmanager
def frozen_casts(model: Model) -> Iterator[None]:
    """Inside, what is frozen costs less.

    Blocks of the toys that are wholly frozen are put together, with the same results as plainly
    (:mod:`elicitable.models.speed.frozen_decoder` says where bit for bit). Of other models linear layers and norms are
    taken one by one, as exactly (:mod:`elicitable.models.speed.frozen_parts`). Where products are lowered to bfloat16,
    all other frozen matrices are cast once instead of at every forward pass (autocast caches trained ones only). What
    was prepared is there the next time inside :func:`~elicitable.models.speed.frozen_parts.keeping_parts`.
    """
    lowered = product_type(model)
    with ExitStack() as stack:
        stack.enter_context(frozen_blocks(model, lowered))
        stack.enter_context(frozen_parts(model, lowered))
        if lowered != model.dtype:
            _cast_frozen(model, stack)
        yield


@contextmanager
def undisturbed() -> Iterator[None]:
    """Compute as in a process of its own, whatever mode the caller is in: no_grad, inference mode or an autocast.

    Under one of them an arm cannot be trained, or is trained in another type, and would be called worse.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device in ("cpu", *(("cuda",) if torch.cuda.is_available() else ())):
            stack.enter_context(torch.autocast(device, enabled=False))
        yield


def _cast_frozen(model: Model, stack: ExitStack) -> None:
    kept = kept_of(model)
    for module in model.hf.modules():
        weight = module._parameters.get("weight")
        is_matrix = isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
        is_plain = weight is not None and weight.dtype == torch.float32 and not weight.is_meta
        if is_matrix and is_plain and not weight.requires_grad and "forward" not in vars(module):
            stack.callback(module._parameters.__setitem__, "weight", weight)
            module._parameters["weight"] = kept.made(_in_bfloat16, module)


def _in_bfloat16(module: nn.Linear) -> nn.Parameter:
    return nn.Parameter(module.weight.detach().to(torch.bfloat16), requires_grad=False)
