"""LoRA through peft: W + (α/r)·B·A on chosen linear layers, swapped in and out.

Source: Hu et al., ICLR 2022 (arXiv 2106.09685).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from elicitable.errors import InputError
from elicitable.methods import rungs
from elicitable.methods.base import Adaptation, Method, Schedule
from elicitable.methods.initial import check_length
from elicitable.rng import torch_generator

if TYPE_CHECKING:
    from elicitable.models.model import Model

# Which linear layers by default: what the paper's "same budget" experiment uses on GPT-2 shapes, queries and values
# (the LoRA paper's choice) where they are apart, else every linear layer of the decoder blocks.
_DEFAULTS = (("c_fc", "c_proj"), ("q_proj", "v_proj"), ("query_key_value",), ("qkv_proj",), ("Wqkv",))


class LoRAWeights(Adaptation):
    """peft's LoRA layers, built once; installing them swaps modules, so the base weights are never touched."""

    kind = "lora"

    def __init__(
        self, model: Model, rank: int, modules: Sequence[str], seed: int, alpha: float, **setting: Any
    ) -> None:
        super().__init__(rank=rank, modules=list(modules), alpha=alpha, seed=seed, **setting)
        self.home = model.hf  # its layers wrap this model's own, so it fits no copy
        self.layers = _build(model, rank, list(modules), alpha)
        self._initialise(seed)

    def _initialise(self, seed: int) -> None:
        """A uniform as peft does (Kaiming, a = √5), from our own stream; B = 0, so the start is the base model."""
        generator = torch_generator(seed, "lora")
        with torch.no_grad():
            for _, _, layer, _ in self.layers:
                a = layer.lora_A["default"].weight
                bound = math.sqrt(6.0 / (1 + 5) / a.shape[1])
                a.copy_(torch.empty(a.shape).uniform_(-bound, bound, generator=generator))
                layer.lora_B["default"].weight.zero_()

    @contextmanager
    def weights(self, model: Model) -> Iterator[None]:
        """Put the LoRA layers in the place of the linear layers they wrap; a second LoRA wraps the first."""
        if model.hf is not self.home:
            raise InputError(
                f"{self} was made for another model than {model.name}, or for a copy of it; build or read it again "
                "for this one."
            )
        if any(getattr(parent, name) is layer for parent, name, layer, _ in self.layers):
            raise InputError(f"{self} is already in use in {model.name}; the same one cannot be put in twice.")
        try:
            for parent, name, layer, _ in self.layers:
                layer.base_layer = getattr(parent, name)
                setattr(parent, name, layer)
            yield
        finally:
            for parent, name, layer, base in self.layers:
                setattr(parent, name, layer.base_layer)
                layer.base_layer = base

    def parameters(self) -> list[nn.Parameter]:
        """A and B of every layer."""
        return [
            weight
            for _, _, layer, _ in self.layers
            for weight in (layer.lora_A["default"].weight, layer.lora_B["default"].weight)
        ]

    def size(self) -> int:
        """Return the rank."""
        return int(self.setting["rank"])

    def folder_form(self, model: Model) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return PEFT's LORA."""
        names = {id(module): name for name, module in model.hf.named_modules()}
        tensors: dict[str, Tensor] = {}
        for _, _, layer, base in self.layers:
            place = f"base_model.model.{names[id(base)]}"
            tensors[f"{place}.lora_A.weight"] = layer.lora_A["default"].weight
            tensors[f"{place}.lora_B.weight"] = layer.lora_B["default"].weight
        return {
            "peft_type": "LORA",
            "r": self.setting["rank"],
            "lora_alpha": self.setting["alpha"],
            "target_modules": list(self.setting["modules"]),
            "lora_dropout": 0.0,
            "bias": "none",
            "fan_in_fan_out": any(type(base).__name__ == "Conv1D" for _, _, _, base in self.layers),
        }, tensors


def _build(model: Model, rank: int, modules: list[str], alpha: float) -> list[tuple[nn.Module, str, Any, nn.Module]]:
    """(parent, attribute, LoRA layer, base layer) for every matching linear layer; the model is left as it was."""
    from peft import LoraConfig, inject_adapter_in_model

    owners = {id(child): (parent, name) for parent in model.hf.modules() for name, child in parent.named_children()}
    frozen = {name: p.requires_grad for name, p in model.hf.named_parameters()}
    before = dict(model.hf.named_modules())
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=modules, lora_dropout=0.0)
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):  # peft draws a start, we draw our own
            warnings.simplefilter("ignore")  # fan_in_fan_out is set for GPT-2's Conv1D, with a warning
            inject_adapter_in_model(config, model.hf)
    except ValueError as error:
        linear = sorted({name.rsplit(".", 1)[-1] for name, m in before.items() if isinstance(m, nn.Linear)})
        raise InputError(f"no layer of {model.name} is named {modules}; its linear layers: {linear}.") from error
    found = []
    for module in list(model.hf.modules()):
        if hasattr(module, "lora_A") and hasattr(module, "base_layer"):
            parent, name = owners[id(module.base_layer)]
            found.append((parent, name, module, module.base_layer))
    for parent, name, layer, base in found:
        layer.to(base.weight.device)
        for part in (layer.lora_A, layer.lora_B, layer.lora_dropout):
            part.eval()
        layer.training = base.training
        for weight in (layer.lora_A["default"].weight, layer.lora_B["default"].weight):
            weight.data = weight.data.to(model.trainable_dtype)
        setattr(parent, name, base)
    if hasattr(model.hf, "peft_config"):
        del model.hf.peft_config
    for name, parameter in model.hf.named_parameters():
        parameter.requires_grad_(frozen[name])
    return found


def default_modules(model: Model) -> list[str]:
    """Names of the linear layers that LoRA is put on unless told otherwise."""
    names = {name.rsplit(".", 1)[-1] for block in model.anatomy.blocks for name, _ in block.named_modules()}
    for wanted in _DEFAULTS:
        if set(wanted) <= names:
            return list(wanted)
    linear = {
        name.rsplit(".", 1)[-1]
        for block in model.anatomy.blocks
        for name, module in block.named_modules()
        if isinstance(module, nn.Linear)
    }
    return sorted(linear)


class LoRA(Method):
    """rank·Σ_layers (inputs + outputs) numbers."""

    name = "lora"
    rung = rungs.WEIGHTS
    summary = "low-rank change of chosen weights (peft)"
    deployment = (
        "Can be merged into the weights, then costs nothing at inference; many servers also load it per request."
    )
    turn = 30
    options = ("modules", "alpha")
    peft_types = ("LORA",)
    schedule = Schedule(learning_rates=(5e-4, 3e-3, 5e-3, 1e-2))

    def numbers(self, model: Model, size: int, modules: Sequence[str] | None = None) -> int:
        """size · Σ (inputs + outputs) over the chosen linear layers."""
        wanted = tuple(modules or default_modules(model))
        return size * sum(
            sum(_ends(module))
            for block in model.anatomy.blocks
            for name, module in block.named_modules()
            if name.rsplit(".", 1)[-1] in wanted and hasattr(module, "weight") and module.weight.ndim == 2
        )

    def build(
        self,
        model: Model,
        size: int,
        seed: int = 0,
        modules: Sequence[str] | None = None,
        alpha: float | None = None,
        **options: Any,
    ) -> LoRAWeights:
        """Rank ``size`` on ``modules`` with α = 2·rank unless given."""
        check_length(size)
        return LoRAWeights(model, size, modules or default_modules(model), seed, alpha or 2.0 * size)

    def read(self, model: Model, folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> LoRAWeights:
        """Read a plain LoRA folder; what changes more than A and B is refused by name."""
        for unsupported in ("use_dora", "rank_pattern", "alpha_pattern", "modules_to_save", "use_rslora"):
            if config.get(unsupported):
                raise InputError(f"{folder}: LoRA with {unsupported} is not supported; merge it into the model first.")
        modules = config.get("target_modules") or []
        wanted = [modules] if isinstance(modules, str) else sorted(modules)
        lora = LoRAWeights(model, int(config["r"]), wanted, 0, float(config["lora_alpha"]), adapter=str(folder))
        names = {id(module): name for name, module in model.hf.named_modules()}
        with torch.no_grad():
            for _, _, layer, base in lora.layers:
                for part in ("lora_A", "lora_B"):
                    key = f"base_model.model.{names[id(base)]}.{part}.weight"
                    weight = getattr(layer, part)["default"].weight
                    if key not in tensors or tensors[key].shape != weight.shape:
                        raise InputError(
                            f"{folder}: {key} is missing or not {tuple(weight.shape)}, as {model.name} needs."
                        )
                    weight.copy_(tensors[key])
        return lora


def _ends(module: nn.Module) -> tuple[int, int]:
    weight = cast("Tensor", module.weight)
    return weight.shape[0], weight.shape[1]
