"""Gradient checkpointing while an adaptation is trained: layers run once more on the way back, for less memory.

transformers checkpoints a layer only in training mode, in which dropout drops, and a model is trained here in
evaluation mode. So it is done around the layer's forward, and no mode is touched. A gradient is that of the very same
operations, run twice.

The last layer is run once: the way back begins there, so what it keeps would be computed again at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import set_checkpoint_early_stop
from transformers import Cache, PreTrainedModel

from elicitable.errors import UnsupportedModelError
from elicitable.models.attend import Slot
from elicitable.models.model import Model
from elicitable.models.restoring import swapped


def switch_on(hf: PreTrainedModel, name: str) -> None:
    """Switch gradient checkpointing on for all layers of ``hf``, which is called ``name``.

    Raises:
        UnsupportedModelError: transformers has none for this architecture.
    """
    if not hf.supports_gradient_checkpointing:
        raise UnsupportedModelError(
            f"{name} cannot be trained with gradient checkpointing: transformers has none for {type(hf).__name__}. "
            "Leave out --gradient-checkpointing (gradient_checkpointing=True)."
        )
    # its name up to transformers 5.22; later that one warns
    enable = getattr(hf, "activation_checkpointing_enable", None) or hf.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    hf.disable_input_require_grads()  # a reentrant checkpoint's need, for which embeddings would get a gradient


def is_checkpointed(layer: nn.Module) -> bool:
    """Say whether gradient checkpointing was switched on for ``layer``."""
    return bool(getattr(layer, "gradient_checkpointing", False))


@contextmanager
def checkpointed(model: Model, slot: Slot) -> Iterator[None]:
    """Inside, the layers that gradient checkpointing was switched on for keep their input alone for the way back.

    All but the last layer do; where it is off, nothing changes. ``slot`` is what is in place in ``model``: it has to be
    as it was on the way there until the way back is done.
    """
    with ExitStack() as stack:
        for layer in filter(is_checkpointed, model.anatomy.blocks[:-1]):
            stack.enter_context(swapped(layer, forward=_Checkpointed(layer, slot)))
        yield


class _Checkpointed:
    """Stands in for the forward of a layer.

    Its own runs without gradients, beside a cache, and where the keys and values of a context are taken: those of a few
    tokens, in which another slot stands than later on the way back.
    """

    def __init__(self, layer: Any, slot: Slot) -> None:
        self.forward, self.slot, self.checkpoint = layer.forward, slot, layer._gradient_checkpointing_func
        # accelerate takes offloaded weights away behind a module's forward, which on the way back stops early
        self.runs_to_its_end = any(hasattr(module, "_hf_hook") for module in layer.modules())

    def __call__(self, *given: Any, **named: Any) -> Any:
        """What the layer's own forward returns."""
        is_beside_cache = any(isinstance(one, Cache) for one in (*given, *named.values()))
        if not torch.is_grad_enabled() or is_beside_cache or self.slot.capture is not None:
            return self.forward(*given, **named)
        # what is trained is no argument of the layer, and a reentrant checkpoint has gradients for arguments alone
        with set_checkpoint_early_stop(False) if self.runs_to_its_end else nullcontext():
            return self.checkpoint(partial(self.forward, **named), *given, use_reentrant=False)
