"""Full fine-tuning: every weight is trained, on a copy that is swapped in and out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from elicitable.cache import filling_folder
from elicitable.errors import InputError
from elicitable.methods import folders, rungs
from elicitable.methods.base import Adaptation, Method, Schedule
from elicitable.models.dispatch import check_whole
from elicitable.models.in_place import base_weights
from elicitable.models.load import load, save_model

if TYPE_CHECKING:
    from elicitable.models.model import Model


class FullWeights(Adaptation):
    """A trained copy of every weight. The model's own tensors are never written to."""

    kind = "full"

    def __init__(self, model: Model, **setting: Any) -> None:
        super().__init__(**setting)
        check_whole(model.hf, self.kind)
        with base_weights(model.hf):
            named = dict(model.hf.named_parameters())
        self.names = list(named)
        self.copies = [
            nn.Parameter(p.detach().clone().to(model.trainable_dtype) if p.is_floating_point() else p.detach().clone())
            for p in named.values()
        ]

    @contextmanager
    def weights(self, model: Model) -> Iterator[None]:
        """Put the copies in the place of the model's parameters; tied weights stay tied."""
        places = places_of(model.hf)
        originals = [places[name][0] for name in self.names]
        try:
            self._swap(places, self.copies)
            yield
        finally:
            self._swap(places, originals)

    def _swap(self, places: dict[str, tuple[nn.Parameter, list[tuple[nn.Module, str]]]], new: list[Any]) -> None:
        for name, parameter in zip(self.names, new, strict=True):
            for module, attribute in places[name][1]:
                module._parameters[attribute] = parameter

    def parameters(self) -> list[nn.Parameter]:
        """Every weight."""
        return self.copies

    def write(self, model: Model, folder: Path) -> None:
        """Write a model folder that transformers loads, with the tokenizer."""
        with filling_folder(folder, ["config.json"], folders.ADVICE) as partial, self.weights(model):
            save_model(model, partial)

    def state(self) -> dict[str, Tensor]:
        """Every weight under its own name."""
        return {name: p.detach().clone() for name, p in zip(self.names, self.copies, strict=True)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over every weight."""
        with torch.no_grad():
            for name, parameter in zip(self.names, self.copies, strict=True):
                parameter.copy_(state[name])


def read_weights(model: Model, folder: Path) -> FullWeights:
    """Read a model folder that :meth:`FullWeights.write` wrote as changed weights of ``model``.

    Raises:
        InputError: it cannot be read, or its weights are not those of ``model``, by name and shape; the first is named.
    """
    found = dict(load(folder, device=model.device.type, dtype=model.trainable_dtype).hf.named_parameters())
    trained = FullWeights(model)
    for name, copy_ in zip(trained.names, trained.copies, strict=True):
        if name not in found or found[name].shape != copy_.shape:
            raise InputError(f"{folder} has no weight {name} {tuple(copy_.shape)}, as {model.name} needs.")
    trained.load(
        {name: found[name].to(copy_.device) for name, copy_ in zip(trained.names, trained.copies, strict=True)}
    )
    return trained


def places_of(hf: nn.Module) -> dict[str, tuple[nn.Parameter, list[tuple[nn.Module, str]]]]:
    """Each parameter by its first name, with every module that holds it (tied weights are held twice)."""
    holders: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in hf.modules():
        for attribute, parameter in module._parameters.items():
            if parameter is not None:
                holders.setdefault(id(parameter), []).append((module, attribute))
    return {_unwrapped(name): (p, holders[id(p)]) for name, p in hf.named_parameters()}


def _unwrapped(name: str) -> str:
    """Return the name that a parameter has where no adapter of PEFT's stands around its module."""
    for wrap in (".base_layer", ".original_module", ".token_adapter"):
        name = name.replace(wrap, "")
    return name


class Full(Method):
    """All numbers of the model; not bound by the budget, and says so."""

    name = "full"
    rung = rungs.WEIGHTS
    summary = "full fine-tuning: every weight"
    deployment = "Any server, with a whole copy of the model for every task."
    turn, is_bound, has_size, keeps_state = 40, False, False, False
    schedule = Schedule(learning_rates=(3e-5, 1e-4, 3e-4, 1e-3), weight_decay=0.1)

    def numbers(self, model: Model, size: int = 1) -> int:
        """Every number of the model."""
        with base_weights(model.hf):
            return sum(p.numel() for p in model.hf.parameters())

    def build(self, model: Model, size: int = 1, seed: int = 0, **options: Any) -> FullWeights:
        """A copy that starts at the pretrained weights."""
        return FullWeights(model)
