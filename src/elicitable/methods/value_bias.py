"""A control without a context: a trained vector added to every value.

Attention rows sum to one, so adding b to every value adds exactly b to the head's output (models with learned sinks
excepted, whose rows sum to less). What a prefix gains beyond this is more than a constant bias.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from elicitable.methods import rungs
from elicitable.methods.base import Adaptation, Method, Schedule
from elicitable.values import PrefixKV

if TYPE_CHECKING:
    from elicitable.models.model import Model


class ValueBiasAdaptation(Adaptation):
    """A bias (kv_head, d_value) a layer, trained from zero."""

    kind = "value-bias"

    def __init__(self, biases: list[Tensor], **setting: Any) -> None:
        super().__init__(**setting)
        self.biases = [nn.Parameter(bias) for bias in biases]

    def prefix(self, model: Model, before: PrefixKV | None = None, end: int = 0) -> PrefixKV:
        """A prefix of no keys that carries the biases."""
        nothing = (None,) * len(self.biases)
        return PrefixKV(keys=nothing, values=nothing, value_bias=tuple(self.biases))

    def parameters(self) -> list[nn.Parameter]:
        """The biases of all layers."""
        return list(self.biases)

    def state(self) -> dict[str, Tensor]:
        """Return the bias of every layer by its name."""
        return {f"layers.{i}": bias.detach().clone() for i, bias in enumerate(self.biases)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over what :meth:`state` gave."""
        with torch.no_grad():
            for i, bias in enumerate(self.biases):
                bias.copy_(state[f"layers.{i}"])


class ValueBias(Method):
    """Σ_layers kv_heads·d_value numbers; it has no size."""

    name = "value-bias"
    rung = rungs.CONTROL
    summary = "control: a trained bias on the values, no context"
    deployment = "A control: it shows what a constant shift of the values alone can do."
    turn, has_size = 90, False
    schedule = Schedule(learning_rates=(3e-3, 1e-2, 3e-2, 1e-1))

    def numbers(self, model: Model, size: int = 1) -> int:
        """Σ_layers kv_heads · d_value."""
        return sum(layer.kv_heads * layer.d_value for layer in model.anatomy.layers)

    def build(self, model: Model, size: int = 1, seed: int = 0, **options: Any) -> ValueBiasAdaptation:
        """Biases of zero: the start is the base model."""
        shapes = [(layer.kv_heads, layer.d_value) for layer in model.anatomy.layers]
        return ValueBiasAdaptation(
            [torch.zeros(shape, dtype=model.trainable_dtype, device=model.device) for shape in shapes]
        )
