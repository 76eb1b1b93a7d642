"""Prefix-tuning as the paper states it: n residual-stream vectors a layer, seen by its own norm, W_K and W_V.

    k_j = W_K norm(s_j),   v_j = W_V norm(s_j)      for the layer's vectors s_1 … s_n

Source: Petrov, Torr, Bibi, ICLR 2024, section 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from elicitable.methods import rungs
from elicitable.methods.base import Adaptation, Method, Schedule
from elicitable.methods.initial import check_init, check_length, initial_ids, other_starts
from elicitable.methods.kv_prefix import peft_prefix_form
from elicitable.methods.started import START, StartedContext, start_at
from elicitable.models.capture import capture_residuals
from elicitable.models.restoring import evaluating
from elicitable.rng import torch_generator

if TYPE_CHECKING:
    from elicitable.methods.examples import Pair
    from elicitable.models.model import Model
    from elicitable.values import PrefixKV


class LayerPrefixContext(StartedContext):
    """``vectors`` (layer, prefix, d_model), trained."""

    kind = "layer-prefix"

    def __init__(self, vectors: Tensor, **setting: Any) -> None:
        super().__init__(**setting)
        self.vectors = nn.Parameter(vectors)

    def prefix(self, model: Model, before: PrefixKV | None = None, end: int = 0) -> PrefixKV:
        """Each layer's norm and projections applied to its vectors, at batch 1."""
        return capture_residuals(model, self.vectors, before, end)

    def parameters(self) -> list[nn.Parameter]:
        """The vectors of all layers."""
        return [self.vectors]

    def keys_per_layer(self) -> int:
        """One key a virtual token."""
        return self.vectors.shape[1]

    def folder_form(self, model: Model) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return PEFT's PREFIX_TUNING: keys and values with the prefix at positions 0 … n−1, as PEFT has it."""
        with torch.no_grad():
            prefix = capture_residuals(model, self.vectors, end=-self.keys_per_layer())
        keys = [key[0] for key in prefix.keys if key is not None]
        return peft_prefix_form(model, keys, [value[0] for value in prefix.values if value is not None])


class LayerPrefix(Method):
    """n·layers·d_model numbers."""

    name = "layer-prefix"
    rung = rungs.PREFIX
    summary = "the paper's prefix: n residual-stream vectors a layer, through the layer's own projections"
    deployment = "Few servers can load a prefix, and it cannot be merged into the weights."
    turn = 60
    options = START
    schedule = Schedule(learning_rates=(1e-2, 3e-2, 1e-1, 3e-1))

    def numbers(self, model: Model, size: int) -> int:
        """size · layers · d_model."""
        return size * model.anatomy.depth * model.anatomy.d_model

    def start(self, model: Model) -> dict[str, Any]:
        """Start from the vocabulary; on a toy, whose few tokens say little, from random numbers."""
        return {"init": "random" if model.tokenizer is None else "vocabulary"}

    def starts(self, model: Model) -> tuple[dict[str, Any], ...]:
        """Start from the others that need no text."""
        return other_starts(self.start(model)["init"])

    def start_at(self, model: Model, size: int, chosen: Adaptation) -> dict[str, Any]:
        """Start at the last tokens of a prompt or of worked examples."""
        return start_at(model, size, chosen)

    def build(
        self,
        model: Model,
        size: int,
        seed: int = 0,
        init: str = "random",
        origin: str | None = None,
        text: str | Sequence[int] | None = None,
        items: Sequence[Pair] | None = None,
        **options: Any,
    ) -> LayerPrefixContext:
        """``size`` virtual tokens a layer; other starts than ``random`` are the residual stream of their tokens.

        ``items`` are worked examples that stand in its text; training leaves them out.
        """
        check_length(size)
        check_init(init, text)
        if init == "random":
            shape = (model.anatomy.depth, size, model.anatomy.d_model)
            vectors = torch.randn(shape, generator=torch_generator(seed, "layer-prefix"), dtype=torch.float64)
            vectors = vectors.to(model.device, model.trainable_dtype)
        else:
            vectors = residuals(model, initial_ids(model, size, init, seed, text)).to(model.trainable_dtype)
        return LayerPrefixContext(vectors, length=size, init=init, origin=origin, text=text, items=items, seed=seed)


@torch.no_grad()
def residuals(model: Model, ids: Tensor) -> Tensor:
    """(layer, token, d_model): what each decoder layer receives when ``ids`` (1, token) are run alone."""
    seen: list[Tensor] = []

    def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append((args[0] if args else kwargs["hidden_states"])[0].detach())

    with evaluating(model.hf), ExitStack() as stack:
        for block in model.anatomy.blocks:
            stack.enter_context(block.register_forward_pre_hook(keep, with_kwargs=True))
        model.hf(input_ids=ids, use_cache=False)
    return torch.stack(seen)
