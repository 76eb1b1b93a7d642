"""Any weight method of PEFT as an arm: ``peft:ia3``, ``peft:dora``, ``peft:vera`` …

PEFT builds it, the ordinary loop trains it, and it is written as a folder that PEFT loads. Its size is what PEFT counts
its numbers by (:mod:`elicitable.methods.peft_sizes`); how many numbers a size trains is counted on the live model.

Sources: each type's own paper, which PEFT's documentation names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import copy
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

import torch
from torch import nn

from elicitable.errors import BudgetError, InputError, UnknownNameError
from elicitable.methods import rungs
from elicitable.methods.base import Method, Schedule, Sized
from elicitable.methods.initial import check_length
from elicitable.methods.kv_prefix import KVPrefix
from elicitable.methods.lora import default_modules, in_blocks
from elicitable.methods.peft_config import REFUSED_TYPES, weight_types
from elicitable.methods.peft_sizes import has_size, settings_of
from elicitable.methods.peft_weights import PeftWeights, check_it_runs
from elicitable.methods.soft_prompt import SoftPrompt
from elicitable.models.dispatch import ends_of
from elicitable.untrusted import is_out_of_memory

if TYPE_CHECKING:
    from elicitable.models.model import Model

MARK: Final = "peft:"
# LoRA in other forms, under the names that they are known by.
VARIANTS: Mapping[str, dict[str, Any]] = {
    "dora": {"use_dora": True},
    "rslora": {"use_rslora": True},
    "pissa": {"init_lora_weights": "pissa"},
    "olora": {"init_lora_weights": "olora"},
}
# What a type cannot do without.
_GIVEN: Mapping[str, dict[str, Any]] = {
    "ADALORA": {"total_step": 1},
    "FROD": {"progressbar": False},
    "IA3": {"feedforward_modules": []},
    "SHIRA": {"random_seed": 0},
}
_BLOCKS = {"ROAD": ("group_size", 64), "VBLORA": ("vector_length", 256)}
_OWN_MODULES = ("ADAPTION_PROMPT", "LN_TUNING")  # types that choose their own modules, by PEFT's list
# What is not trained here, with the reason.
_NO_ARM = {
    "trainable_tokens": "only a person can say which tokens",
    "lily": "its router averages over all tokens of a row, so padding changes what it does",
    "pvera": "it is trained by sampling, and the training here draws nothing",
    **{one.lower(): reason for one, reason in REFUSED_TYPES.items()},
}
_CONTEXTS: tuple[type[Method], ...] = (SoftPrompt, KVPrefix)  # what PEFT's contexts are here
# what was counted of each model; no part of a method, which goes to workers
_counted: WeakKeyDictionary[nn.Module, dict[Any, int]] = WeakKeyDictionary()


class PeftMethod(Method):
    """A weight method of PEFT, by the name of its type; numbers trained as PEFT counts them."""

    rung = rungs.WEIGHTS
    deployment = "Load it with PEFT, which can also merge most of its types into the weights."
    turn = 35
    options = ("modules",)
    schedule = Schedule(learning_rates=(1e-3, 3e-3, 1e-2, 3e-2))

    def __init__(self, kind: str) -> None:
        self.variant = kind
        self.type = "LORA" if kind in VARIANTS else kind.upper()
        self.name = f"{MARK}{kind}"
        self.summary = f"{kind} as PEFT has it, on chosen weights"
        self.form = VARIANTS.get(kind, {})
        self.has_size = has_size(self.type)

    def numbers(self, model: Model, size: int, modules: Any = None) -> int:
        """Count what PEFT trains at ``size``, by building it; remembered for each model."""
        known = _counted.setdefault(model.hf, {})
        asked = (self.variant, size, tuple(modules or ()))
        if asked not in known:
            counted = copy(self)
            # PiSSA's start decomposes every weight, which takes time and changes no count
            counted.form = {name: value for name, value in self.form.items() if name != "init_lora_weights"}
            built = counted._put_in(model, size, 0, modules)
            known[asked] = sum(parameter.numel() for parameter in built.parameters())
        return known[asked]

    def build(self, model: Model, size: int, seed: int = 0, modules: Any = None, **options: Any) -> PeftWeights:
        """Let PEFT start it, from a random stream of its own that ``seed`` chooses, and see that the model runs so.

        Raises:
            InputError: PEFT cannot put it into this model, or the model fails with it; the message is PEFT's.
        """
        return self._put_in(model, size, seed, modules, runs=True)

    def _put_in(self, model: Model, size: int, seed: int, modules: Any, runs: bool = False) -> PeftWeights:
        """Build it; where it ``runs``, the model has read a few tokens with it."""
        check_length(size)
        try:
            config = self._config(model, size, list(modules) if modules else None)
            with torch.random.fork_rng(devices=_accelerators(model)):
                torch.manual_seed(seed)
                built = PeftWeights(model, config, type=self.variant, size=size, modules=modules, seed=seed)
                if not built.parameters():
                    raise ValueError("none of its layers are of a kind that it trains")
                if runs:
                    check_it_runs(model, built)
                return built
        except (ValueError, TypeError, AttributeError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise
            said = " ".join(str(error).split())
            raise InputError(f"PEFT cannot put {self.name} of size {size} into {model.name}: {said}") from error

    def _config(self, model: Model, size: int, modules: list[str] | None) -> Any:
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

        made: Any = PEFT_TYPE_TO_CONFIG_MAPPING[self.type]  # type: ignore[index]
        wanted = modules or (None if self.type in _OWN_MODULES else default_modules(model))
        widths = _widths(model, wanted or [])
        given = {**_GIVEN.get(self.type, {}), **self.form, **settings_of(self.type, size, widths)}
        if self.type == "LORA":
            given["lora_alpha"] = 2 * size
        if self.type == "GRALORA":
            given["r"] = 2 * size  # two blocks, of which each has half of it
        if self.type == "ADAPTION_PROMPT":
            given["adapter_layers"] = model.anatomy.depth
        if self.type in _BLOCKS:
            setting, most = _BLOCKS[self.type]
            given[setting] = math.gcd(most, *(width for ends in widths for width in ends))
        if wanted:
            given["target_modules"] = in_blocks(model, wanted)
        return made(task_type="CAUSAL_LM", **given)

    def fitting(self, model: Model, budget: int, longest: int | None = None) -> Sized:
        """Return the largest size that trains at most ``budget`` numbers; they need not grow in proportion to it.

        Raises:
            BudgetError: size 1 trains more than that; for a type without a size, all that there is of it.
        """
        one = self.numbers(model, 1)
        if budget < max(1, one):
            what = "the smallest size of it that is built here" if self.has_size else "it has no size, and"
            raise BudgetError(
                f"a budget of {budget:,} is too small for {self.name} on {model.name}: {what} trains {one:,} numbers."
            )
        if not self.has_size or not self._fits(model, 2, budget) or (step := self.numbers(model, 2) - one) <= 0:
            return Sized(self, 1, one, budget)
        guess = 1 + (budget - one) // step  # right where the numbers grow by the same with every size
        low, high = (guess, guess + 1) if self._fits(model, guess, budget) else (1, guess)
        while self._fits(model, high, budget):
            if self.numbers(model, high) <= self.numbers(model, low):  # it grows no more
                return Sized(self, low, self.numbers(model, low), budget)
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._fits(model, middle, budget) else (low, middle)
        return Sized(self, low, self.numbers(model, low), budget)

    def _fits(self, model: Model, size: int, budget: int) -> bool:
        """Whether a size can be built and trains no more than ``budget``."""
        try:
            return self.numbers(model, size) <= budget
        except InputError:  # a rank beyond what the layers have
            return False


def peft_method(name: str) -> PeftMethod:
    """Return the method of ``peft:TYPE``.

    Raises:
        UnknownNameError: PEFT has no weight method of that name that is read here.
        InputError: it cannot be trained here, with the reason; or it is a context, with the method that trains it.
    """
    kind = name.removeprefix(MARK)
    if kind in _NO_ARM:
        raise InputError(f"{name} cannot be trained here: {_NO_ARM[kind]}.")
    for context in _CONTEXTS:
        if kind.upper() in context.peft_types:
            raise InputError(f"{name} is a context, which is trained here as {context.name}; give that name instead.")
    known = sorted({*(one.lower() for one in weight_types()), *VARIANTS} - {*_NO_ARM})
    if kind not in known:
        raise UnknownNameError("method", name, [f"{MARK}{one}" for one in known])
    return PeftMethod(kind)


def _widths(model: Model, modules: list[str]) -> list[tuple[int, int]]:
    """How much goes into every layer that is meant, and how much comes out."""
    ends = [
        ends_of(module)
        for name, module in model.hf.named_modules()
        if f".{name}".endswith(tuple(f".{one}" for one in modules)) and getattr(module, "weight", None) is not None
    ]
    return [(one[0], one[1]) for one in ends if len(one) == 2]


def _accelerators(model: Model) -> list[torch.device]:
    return [model.device] if model.device.type == "cuda" else []
