"""A static change of a model's projections, with the bias of each: what a context is compiled into."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from elicitable.errors import InputError
from elicitable.methods.base import Adaptation
from elicitable.methods.lora import is_for_experts
from elicitable.microscope.ridge import Change
from elicitable.models.dispatch import runs_on
from elicitable.models.load import save_model
from elicitable.models.replay import changing
from elicitable.models.sites import Site, Sites, sites_of
from elicitable.rng import torch_generator

if TYPE_CHECKING:
    from elicitable.models.model import Model


class Patch(Adaptation):
    """W + ΔW at every site, added where the module is run, so that no weight of the model is touched.

    A patch of a rank is written as PEFT's LoRA, which servers load and which merges. One of full rank is written as a
    whole model. Its numbers can be trained on.
    """

    kind = "patch"

    def __init__(self, sites: Sequence[Site], rank: int | None, **setting: Any) -> None:
        super().__init__(rank=rank, **setting)
        self.sites, self.rank = tuple(sites), rank
        self.numbers: dict[str, dict[str, nn.Parameter]] = {}

    def put(self, model: Model, site: Site, change: Change) -> None:
        """Take over the change of one site."""
        device = runs_on(site.module)
        parts = {"down": change.down, "up": change.up, "bias": change.bias}
        own = {name: nn.Parameter(x.to(device, model.trainable_dtype)) for name, x in parts.items() if x is not None}
        self.numbers[site.name] = own

    @contextmanager
    def weights(self, model: Model) -> Iterator[None]:
        """Add the changes to what the sites' modules return, inside the ``with``."""
        with ExitStack() as stack:
            for site in self.sites:
                if site.name in self.numbers:
                    module = model.hf.get_submodule(site.name)
                    stack.enter_context(changing(module, _adding(self.numbers[site.name])))
            yield

    def parameters(self) -> list[nn.Parameter]:
        """All factors and biases, site by site."""
        return [part for own in self.numbers.values() for part in own.values()]

    def state(self) -> dict[str, Tensor]:
        """Every factor by its site and name."""
        return {f"{site}/{n}": x.detach().clone() for site, own in self.numbers.items() for n, x in own.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over what :meth:`state` gave."""
        with torch.no_grad():
            for site, own in self.numbers.items():
                for name, x in own.items():
                    x.copy_(state[f"{site}/{name}"])

    def size(self) -> int:
        """Return the rank; 1 at full rank, which has no size."""
        return self.rank or 1

    def folder_form(self, model: Model) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return PEFT's LORA, with α = rank so that nothing is scaled.

        Raises:
            InputError: the patch has full rank or biases, which LoRA does not hold.
        """
        if self.rank is None or any("bias" in own for own in self.numbers.values()):
            raise InputError("a patch of full rank, or with biases, is no LoRA; write it as a model folder (weights).")
        tensors: dict[str, Tensor] = {}
        for site, own in self.numbers.items():
            tensors[f"base_model.model.{site}.lora_A.weight"] = own["down"]
            tensors[f"base_model.model.{site}.lora_B.weight"] = own["up"]
        return {
            "peft_type": "LORA",
            "r": self.rank,
            "lora_alpha": self.rank,
            "target_modules": _targets(model, list(self.numbers)),
            "lora_dropout": 0.0,
            "bias": "none",
            "fan_in_fan_out": any(type(site.module).__name__ == "Conv1D" for site in self.sites),
        }, tensors

    def write(self, model: Model, folder: Path) -> None:
        """Write a LoRA folder, or at full rank a model folder with the tokenizer that transformers loads."""
        if self.rank is not None:
            super().write(model, folder)
            return
        with self.merged(model):
            save_model(model, folder)

    @contextmanager
    def merged(self, model: Model) -> Iterator[None]:
        """Put changed copies in the place of the weights inside the ``with``; the model's own are not written to."""
        with ExitStack() as stack:
            for site, own in self.numbers.items():
                module = model.hf.get_submodule(site)
                for name, value in _merged(module, own).items():
                    stack.callback(module._parameters.__setitem__, name, module._parameters[name])
                    module._parameters[name] = nn.Parameter(value, requires_grad=False)
            yield


def patchable(model: Model, rank: int | None) -> tuple[Sites, ...]:
    """Find the sites of every block; of those, for a LoRA of ``rank``, the ones that PEFT finds by their names."""
    sites = sites_of(model)
    if rank is None:
        return sites

    def named(site: Site | None) -> Site | None:
        return None if site is None or is_for_experts(model, site.name.rsplit(".", 1)[-1]) else site

    return tuple(Sites(named(block.attention), named(block.down)) for block in sites)


def fresh(model: Model, sites: Sequence[Sites], rank: int, seed: int = 0) -> Patch:
    """Return a patch that changes nothing yet, as LoRA starts: A drawn (variance 1/inputs), B zero.

    Args:
        model: whose sites they are.
        sites: of its blocks.
        rank: of every change.
        seed: of what is drawn.
    """
    places = [site for block in sites for site in block.all()]
    patch = Patch(places, rank)
    for site in places:
        outputs, inputs = site.shape
        drawn = torch.randn(rank, inputs, generator=torch_generator(seed, "fresh", site.name)) / inputs**0.5
        patch.put(model, site, Change(drawn, torch.zeros(outputs, rank)))
    return patch


def multiplied_out(model: Model, patch: Patch) -> Patch:
    """Return the same change with every ΔW as one matrix, so that it is written as a whole model."""
    whole = Patch(patch.sites, None)
    with torch.no_grad():
        for site in patch.sites:
            own = patch.numbers[site.name]
            whole.put(model, site, Change(own["up"] @ own["down"], bias=own.get("bias")))
    return whole


def _adding(own: Mapping[str, nn.Parameter]) -> Any:
    """Make the function that adds ΔW x + b to a module's output."""

    def add(x: Tensor, output: Tensor) -> Tensor:
        moved = nn.functional.linear(x.to(own["down"].dtype), own["down"])
        if "up" in own:
            moved = nn.functional.linear(moved, own["up"])
        if "bias" in own:
            moved = moved + own["bias"]
        return output + moved.to(output.dtype)

    return add


@torch.no_grad()
def _merged(module: nn.Module, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    weight = module.get_parameter("weight")
    matrix = own["up"] @ own["down"] if "up" in own else own["down"]
    matrix = matrix.T if type(module).__name__ == "Conv1D" else matrix
    merged = {"weight": (weight.to(matrix.dtype) + matrix).to(weight.dtype)}
    bias = module._parameters.get("bias")
    if "bias" in own:
        assert bias is not None  # a bias is fitted only where the module has one
        merged["bias"] = (bias.to(matrix.dtype) + own["bias"]).to(bias.dtype)
    return merged


def _targets(model: Model, names: list[str]) -> list[str]:
    """Name the modules as briefly as PEFT and servers want them, where that means these modules and no others."""
    short = sorted({name.rsplit(".", 1)[-1] for name in names})
    meant = {name for name, _ in model.hf.named_modules() if name.rsplit(".", 1)[-1] in short}
    return short if meant == set(names) else sorted(names)
