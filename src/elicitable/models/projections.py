"""Find the module that each layer's heads put their outputs through, W_O, by one short run."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from elicitable.models.adapters import attending
from elicitable.models.model import Model
from elicitable.models.probes import probing
from elicitable.models.restoring import evaluating


@torch.no_grad()
def output_projections(model: Model) -> tuple[nn.Module | None, ...]:
    """Find W_O of each layer: the first leaf module that gets the heads' outputs after attention, by one short run.

    What a leaf was given before attention is not that: a gate may read the same input as the queries do (Beam).
    """
    found = [list[nn.Module]() for _ in model.anatomy.attentions]
    before = [list[torch.Tensor]() for _ in model.anatomy.attentions]

    def noting(layer: int, attention: nn.Module) -> Any:
        width = model.anatomy.layers[layer].heads * model.anatomy.layers[layer].d_value

        def note(module: nn.Module, args: tuple[Any, ...]) -> None:
            if not args:
                return
            if not any(call[0] is attention for call in calls):
                before[layer].append(args[0])
            elif args[0].shape[-1] == width and getattr(module, "weight", args[0][0, 0]).ndim == 2:
                found[layer] += [] if any(args[0] is one for one in before[layer]) else [module]

        return note

    ids = torch.zeros(1, 2, dtype=torch.long, device=model.device)
    with ExitStack() as stack:
        for layer, attention in enumerate(model.anatomy.attentions):
            for leaf in (m for m in attention.modules() if not any(m.children())):
                stack.enter_context(leaf.register_forward_pre_hook(noting(layer, attention)))
        calls = stack.enter_context(probing())
        with evaluating(model.hf), attending(model.hf, model.anatomy.configs):
            model.hf(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    return tuple(modules[0] if modules else None for modules in found)
