"""Train a model in a random subspace of all its weights: how many numbers does a task need, wherever they are?

Every weight moves along one of d directions, drawn once (a random map, one entry a row, columns of length 1):

    θ_i = θ⁰_i + s_i z_{h(i)} / √|{j : h(j) = h(i)}|,    h(i) uniform on 0 … d−1,  s_i = ±1,

and z (d numbers) is trained from 0. The map knows nothing of the model, so what it reaches at d numbers is what that
many numbers do when nobody chose where to put them. A task that it learns with few of them was nearly there.

Source: Li, Farkhoor, Liu, Yosinski, ICLR 2018 (arXiv 1804.08838); a projection with one entry a row: arXiv 2506.00799.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from elicitable.errors import InputError
from elicitable.methods import rungs
from elicitable.methods.base import Adaptation, Method, Schedule
from elicitable.methods.full import places_of
from elicitable.models.dispatch import check_whole
from elicitable.rng import torch_generator

if TYPE_CHECKING:
    from elicitable.models.model import Model


class Subspace(Adaptation):
    """The coordinates z (d,); which of them moves a weight, and how far, is drawn anew from the seed."""

    kind = "random-subspace"

    def __init__(self, model: Model, size: int, seed: int, **setting: Any) -> None:
        super().__init__(seed=seed, **setting)
        check_whole(model.hf, self.kind)
        self.z = nn.Parameter(torch.zeros(size, dtype=model.trainable_dtype, device=model.device))
        self.shapes = {name: p.shape for name, p in model.hf.named_parameters() if p.is_floating_point()}
        self.moves = self._drawn(seed)

    def _drawn(self, seed: int) -> dict[str, _Moved]:
        """Draw for every weight which coordinate moves it, and with which sign."""
        size, generator = len(self.z), torch_generator(seed, self.kind)
        drawn = {
            name: torch.randint(2 * size, shape, generator=generator, dtype=torch.int32)
            for name, shape in self.shapes.items()
        }
        counts = torch.zeros(size, dtype=torch.int64)
        for places in drawn.values():
            counts += torch.bincount((places.long() // 2).flatten(), minlength=size)
        scale = counts.clamp(min=1).double().rsqrt().to(self.z)
        return {name: _Moved(places.to(self.z.device), scale, self.z) for name, places in drawn.items()}

    @contextmanager
    def weights(self, model: Model) -> Iterator[None]:
        """Move every weight by its coordinate; tied weights move together."""
        places = places_of(model.hf)
        with ExitStack() as stack:
            for name, moved in self.moves.items():
                for module, attribute in places[name][1]:
                    stack.enter_context(_moving(module, attribute, moved))
            yield

    def parameters(self) -> list[nn.Parameter]:
        """The coordinates."""
        return [self.z]

    def state(self) -> dict[str, Tensor]:
        """The coordinates, and the seed that says what they move."""
        return {"z": self.z.detach().clone(), "seed": torch.tensor(self.setting["seed"])}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over the coordinates and what they move."""
        with torch.no_grad():
            self.z.copy_(state["z"])
        if int(state["seed"]) != self.setting["seed"]:
            self.setting["seed"] = int(state["seed"])
            self.moves = self._drawn(self.setting["seed"])

    def size(self) -> int:
        """Count the coordinates."""
        return len(self.z)


@contextmanager
def _moving(module: nn.Module, attribute: str, moved: _Moved) -> Iterator[None]:
    before = dict(module._parameters)
    parametrize.register_parametrization(module, attribute, moved)
    try:
        yield
    finally:
        parametrize.remove_parametrizations(module, attribute, leave_parametrized=False)
        module._parameters.clear()  # in the order that they had
        module._parameters.update(before)


class _Moved(nn.Module):
    """A weight plus what its coordinates say. ``places`` are 2 · coordinate + (whether the sign is minus)."""

    def __init__(self, places: Tensor, scale: Tensor, z: nn.Parameter) -> None:
        super().__init__()
        self.places, self.scale = places, scale
        self.own = [z]  # in a list, so that it is no parameter of the model's module

    def forward(self, weight: Tensor) -> Tensor:
        """(…) to the same shape."""
        steps = self.own[0] * self.scale
        return weight + torch.stack([steps, -steps], dim=1).flatten()[self.places].to(weight.dtype)


class RandomSubspace(Method):
    """As many coordinates as it is given."""

    name = "random-subspace"
    rung = rungs.CONTROL
    summary = "control: all weights, moved within a random subspace of so many dimensions"
    deployment = "A control: it shows how many numbers a task needs, wherever they are put."
    turn, probe = 97, "subspace"
    schedule = Schedule(learning_rates=(1e-3, 3e-3, 1e-2, 3e-2))

    def numbers(self, model: Model, size: int) -> int:
        """Count the coordinates."""
        return size

    def build(self, model: Model, size: int, seed: int = 0, **options: Any) -> Subspace:
        """Start at the pretrained weights.

        Raises:
            InputError: fewer than one coordinate.
        """
        if size < 1:
            raise InputError(f"a random subspace needs at least 1 dimension, got {size}.")
        return Subspace(model, size, seed)
