"""A steering vector: one constant, trained, that is added to the residual stream behind one layer, at every position.

    h_l ← h_l + v

It is no context, since nothing attends to it, and no weight changes; with d_model numbers it is the cheapest of what
reaches into a model. Source: Subramani, Suresh, Peters, ACL Findings 2022 (arXiv 2205.05124), where it is trained.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from elicitable.errors import InputError
from elicitable.methods import rungs
from elicitable.methods.base import Adaptation, Method, Schedule

if TYPE_CHECKING:
    from elicitable.models.model import Model


class SteeringVector(Adaptation):
    """``vector`` (d_model,), trained from zero, behind layer ``layer``."""

    kind = "steering"

    def __init__(self, vector: Tensor, layer: int) -> None:
        super().__init__(layer=layer)
        self.vector, self.layer = nn.Parameter(vector), layer

    @contextmanager
    def weights(self, model: Model) -> Iterator[None]:
        """Add the vector to what the layer gives, for the length of a ``with``."""
        with model.anatomy.blocks[self.layer].register_forward_hook(self._add):
            yield

    def _add(self, module: nn.Module, args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (output[0] + self.vector.to(output[0]), *output[1:])
        return output + self.vector.to(output)

    def parameters(self) -> list[nn.Parameter]:
        """The vector."""
        return [self.vector]


class Steering(Method):
    """d_model numbers; it has no size."""

    name = "steering"
    rung = rungs.STEERING
    summary = "one trained vector added to one layer's residual stream"
    deployment = (
        "Needs a server that can add a vector to a layer's output. Where that layer's last matrix has a bias, it can "
        "be merged into it."
    )
    turn, has_size = 75, False
    options = ("layer",)
    schedule = Schedule(learning_rates=(1e-2, 3e-2, 1e-1, 3e-1))

    def numbers(self, model: Model, size: int = 1) -> int:
        """d_model."""
        return model.anatomy.d_model

    def starts(self, model: Model) -> tuple[dict[str, Any], ...]:
        """Stand behind the layer a quarter of the way up, or three quarters, where it is not the middle one."""
        depth = model.anatomy.depth
        others = dict.fromkeys((depth // 4, 3 * depth // 4))
        return tuple({"layer": layer} for layer in others if layer != _middle(depth))

    def build(
        self, model: Model, size: int = 1, seed: int = 0, layer: int | None = None, **options: Any
    ) -> SteeringVector:
        """A vector of zero behind ``layer``, counted from 0; by default the middle one.

        Raises:
            InputError: the model has no such layer.
        """
        depth = model.anatomy.depth
        layer = _middle(depth) if layer is None else layer
        if isinstance(layer, bool) or not isinstance(layer, int) or not 0 <= layer < depth:
            raise InputError(f"layer must be a whole number from 0 to {depth - 1} for {model.name}, got {layer!r}.")
        zero = torch.zeros(model.anatomy.d_model, dtype=model.trainable_dtype, device=model.device)
        return SteeringVector(zero, layer)


def _middle(depth: int) -> int:
    return (depth - 1) // 2
