"""LoRA through peft: W + (α/r)·B·A on chosen linear layers, swapped in and out.

Source: Hu et al., ICLR 2022 (arXiv 2106.09685).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from elicitable.errors import InputError
from elicitable.methods import rungs
from elicitable.methods.base import Method, Schedule, Sized
from elicitable.methods.initial import check_length
from elicitable.methods.peft_weights import PeftWeights
from elicitable.models.dispatch import ends_of
from elicitable.rng import torch_generator

if TYPE_CHECKING:
    from elicitable.models.model import Model

# Which linear layers by default: what the paper's "same budget" experiment uses on GPT-2 shapes, queries and values
# (the LoRA paper's choice) where they are apart, else every linear layer of the decoder blocks.
_DEFAULTS = (("c_fc", "c_proj"), ("q_proj", "v_proj"), ("query_key_value",), ("qkv_proj",), ("Wqkv",))


class LoRAWeights(PeftWeights):
    """peft's LoRA layers, started from our own random stream."""

    kind = "lora"

    def __init__(
        self, model: Model, rank: int, modules: Sequence[str], seed: int, alpha: float, **setting: Any
    ) -> None:
        from peft import LoraConfig

        if taken := [name for name in modules if is_for_experts(model, name)]:
            raise InputError(
                f"modules: PEFT takes {', '.join(taken)} of {model.name} for parameters of its experts, which are "
                f"other numbers than were asked for; take some of {every_linear(model)}."
            )
        config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=in_blocks(model, modules), lora_dropout=0.0)
        try:
            super().__init__(model, config, rank=rank, modules=list(modules), alpha=alpha, seed=seed, **setting)
        except InputError:
            raise
        except ValueError as error:
            linear = sorted({n.rsplit(".", 1)[-1] for n, m in model.hf.named_modules() if isinstance(m, nn.Linear)})
            raise InputError(
                f"no layer of {model.name} is named {list(modules)}; its linear layers: {linear}."
            ) from error
        self._initialise(seed)

    def _initialise(self, seed: int) -> None:
        """A uniform as peft does (Kaiming, a = √5), from our own stream; B = 0, so the start is the base model."""
        generator = torch_generator(seed, "lora")
        with torch.no_grad():
            for a, b in zip(self.parameters()[::2], self.parameters()[1::2], strict=True):
                bound = math.sqrt(6.0 / (1 + 5) / a.shape[1])
                a.copy_(torch.empty(a.shape).uniform_(-bound, bound, generator=generator))
                b.zero_()

    def size(self) -> int:
        """Return the rank."""
        return int(self.setting["rank"])


def in_blocks(model: Model, modules: Sequence[str]) -> list[str]:
    """Name the modules as PEFT takes them: briefly, or whole where there are others of the name outside of the blocks.

    A tower for images has queries and values as well, which get no gradient from texts.
    """
    own = {id(module) for block in model.anatomy.blocks for module in block.modules()}
    found: list[str] = []
    for wanted in modules:
        named = [(name, id(one) in own) for name, one in model.hf.named_modules() if f".{name}".endswith(f".{wanted}")]
        inside = [name for name, is_own in named if is_own]
        found += inside if inside and len(inside) < len(named) else [wanted]
    return found


def default_modules(model: Model) -> list[str]:
    """Names of the linear layers that LoRA is put on unless told otherwise."""
    names = {name.rsplit(".", 1)[-1] for block in model.anatomy.blocks for name, _ in block.named_modules()}
    for wanted in _DEFAULTS:
        if set(wanted) <= names:
            return list(wanted)
    return every_linear(model)


def is_for_experts(model: Model, name: str) -> bool:
    """Say whether PEFT takes ``name`` for parameters of a model's experts, even where other layers are called so too.

    Experts were modules of that name before transformers put each kind of their matrices into one parameter.
    """
    from peft import LoraConfig
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    config = LoraConfig(target_modules=[name])
    try:
        convert_peft_config_for_transformers(config, model.hf, None)
    except ValueError:  # one of two matrices that are one now
        return True
    return bool(config.target_modules != {name})


def every_linear(model: Model) -> list[str]:
    """Names of all linear layers of the decoder blocks that PEFT takes for layers."""
    found = {
        name.rsplit(".", 1)[-1]
        for block in model.anatomy.blocks
        for name, module in block.named_modules()
        if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
    }
    return sorted(name for name in found if not is_for_experts(model, name))


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
    schedule = Schedule(learning_rates=(5e-4, 3e-3, 5e-3, 1e-2))

    def numbers(self, model: Model, size: int, modules: Sequence[str] | None = None) -> int:
        """size · Σ (inputs + outputs) over the chosen linear layers."""
        wanted = tuple(modules or default_modules(model))
        return size * sum(
            sum(ends_of(module))
            for block in model.anatomy.blocks
            for name, module in block.named_modules()
            if name.rsplit(".", 1)[-1] in wanted and hasattr(module, "weight") and module.weight.ndim == 2
        )

    def starts(self, model: Model) -> tuple[dict[str, Any], ...]:
        """Stand on every linear layer of the blocks, at the rank that trains as many numbers.

        α is not among them: with B = 0 at the start, α and the learning rate scale the same first steps of W.
        """
        return () if default_modules(model) == (every := every_linear(model)) else ({"modules": tuple(every)},)

    def begun(self, model: Model, sized: Sized, options: Mapping[str, Any]) -> Sized:
        """Return the rank at which LoRA on other layers trains as many numbers; 0 where the budget pays for none.

        Where the rank of its own was capped, that one is not above it either.
        """
        if "modules" not in options:
            return super().begun(model, sized, options)
        rank = min(sized.size, sized.budget // self.numbers(model, 1, **options))
        return replace(sized, size=rank, numbers=self.numbers(model, rank, **options), options=options)

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
