"""Frozen parts of any model, one by one: matrices laid out once, and root mean square norms in fewer passes.

Where products are lowered to bfloat16, oneDNN lays a matrix out anew at every call, which for the few hundred tokens of
a batch of short texts costs up to a fifth of the product. A frozen matrix is laid out once, each way when it is first
needed. A norm of transformers passes ten times over its input, there and back; here it is

    y = w ∘ (x r),    ∂x = r g − x (Σ_d g_d x_d) r³ / d,    r = (mean x² + ε)^(-1/2), g = w ∘ ∂y

Outputs are the plain ones, bit for bit where the kernel sums as for a matrix that is not laid out. Gradients are summed
in another order than autograd's, and are as near to the exact ones.

Laying a model's matrices out takes as long as a step or two on short texts, and a race enters it hundreds of times: for
every candidate, leg and test. Inside :func:`keeping_parts` they stay as they are from one time to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from elicitable.models.model import Model
from elicitable.models.restoring import swapped
from elicitable.models.speed.processor import packs
from elicitable.models.speed.products import PackedProduct
from elicitable.models.speed.rotary import RotaryAttention, is_of_llamas_form

LAID_OUT = 2**28  # numbers of all matrices together: 512 MiB for each way

Made = TypeVar("Made")
_Seen = tuple[Tensor, int, int]  # a weight, its version, and the sum of its bits
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by the bytes of a number


class Kept:
    """What was made of modules' weights, for as long as they hold those very weights, unchanged."""

    def __init__(self) -> None:
        self._made: dict[tuple[nn.Module, Callable[..., Any]], tuple[list[_Seen], Any]] = {}

    def made(self, make: Callable[[Any], Made], module: nn.Module) -> Made:
        """Return ``make(module)``, the one that is kept where it was made of the same weights.

        Where others are swapped in for a while, what is kept waits for its own.
        """
        own, kept = _weights(module), self._made.get((module, make))
        if kept is not None and _are_those(kept[0], own):
            made: Made = kept[1]
            return made
        made = make(module)
        if kept is None or not _are_those(kept[0], [weight for weight, *_ in kept[0]]):
            self._made[module, make] = [*map(_seen, own)], made
        return made


class Anew(Kept):
    """Nothing is kept, so nothing has to be compared with what was."""

    def made(self, make: Callable[[Any], Made], module: nn.Module) -> Made:
        """Return ``make(module)``."""
        return make(module)


_kept: WeakKeyDictionary[nn.Module, Kept] = WeakKeyDictionary()


def kept_of(model: Model) -> Kept:
    """What is kept of ``model``; nothing on a GPU, which prepares it in no time and has less memory."""
    return (_kept.get(model.hf) if model.device.type == "cpu" else None) or Anew()


def keep_parts(model: Model) -> None:
    """From now on what is prepared of frozen parts of ``model`` stays so: up to 1 GiB of laid out matrices.

    Weights that are swapped or changed in place are seen when the next run begins.
    """
    _kept.setdefault(model.hf, Kept())


@contextmanager
def keeping_parts(model: Model) -> Iterator[None]:
    """Keep them inside the ``with``."""
    is_kept = model.hf in _kept
    keep_parts(model)
    try:
        yield
    finally:
        if not is_kept:
            _kept.pop(model.hf, None)


@contextmanager
def frozen_parts(model: Model, dtype: torch.dtype) -> Iterator[None]:
    """Inside, frozen linear layers and norms of a float32 model on a CPU compute as :mod:`this module <.>` says.

    ``dtype`` is the type of its products: bfloat16 under autocast, float32 without, where linear layers stay as they
    are. Weights that change meanwhile are not seen.
    """
    with ExitStack() as stack:
        if model.device.type == "cpu" and model.dtype == torch.float32:
            own, kept = [module for module in model.hf.modules() if "forward" not in vars(module)], kept_of(model)
            norms = {module: kept.made(FrozenNorm, module) for module in own if is_frozen_norm(module)}
            linear = filter(is_frozen_linear, own) if dtype == torch.bfloat16 and packs(dtype) else ()
            attentions = {module: RotaryAttention(module) for module in own if is_of_llamas_form(module)}
            matrices = {module: kept.made(FrozenLinear, module) for module in _within(LAID_OUT, linear)}
            for module, forward in (norms | attentions | matrices).items():
                stack.enter_context(swapped(module, forward=forward))
        yield


def _within(numbers: int, modules: Iterable[nn.Linear]) -> Iterator[nn.Linear]:
    """The first of ``modules`` whose matrices have at most so many ``numbers`` together."""
    for module in modules:
        numbers -= module.weight.numel()
        if numbers < 0:
            return
        yield module


def is_frozen_linear(module: nn.Module) -> bool:
    """Whether ``module`` is a plain linear layer in float32, none of whose weights is trained."""
    return type(module) is nn.Linear and _is_frozen(module)


def is_frozen_norm(module: nn.Module) -> bool:
    """Whether ``module`` is a frozen root mean square norm: by its name, and by what it makes of random rows."""
    is_named = type(module).__name__.endswith("RMSNorm") and set(module._parameters) == {"weight"}
    if not (is_named and isinstance(_epsilon(module), float) and _is_frozen(module)):
        return False
    weight: Any = module.weight
    rows = torch.randn(5, *weight.shape, generator=torch.Generator().manual_seed(0))
    return weight.ndim == 1 and torch.equal(module.forward(rows), FrozenNorm(module)(rows))  # past any hook


def _is_frozen(module: nn.Module) -> bool:
    return not any(w.requires_grad or w.is_meta or w.dtype != torch.float32 for w in _weights(module))


def _weights(module: nn.Module) -> list[nn.Parameter]:
    return [*module.parameters()]


def _seen(weight: Tensor) -> _Seen:
    """The weight, how often it was written to, and its bits summed: what goes through ``.data`` is not counted.

    That is a pass over the weight, a tenth of what laying it out takes.
    """
    bits = weight.detach().view(_BITS[weight.element_size()])
    return weight, 0 if weight.is_inference() else weight._version, int(bits.sum(dtype=bits.dtype))


def _are_those(known: Sequence[_Seen], now: Sequence[Tensor]) -> bool:
    """Whether weights are the very ``known`` ones, unchanged."""
    return len(known) == len(now) and all(
        one is before[0] and _seen(one)[1:] == before[1:] for before, one in zip(known, now, strict=True)
    )


def _epsilon(module: Any) -> Any:
    return getattr(module, "variance_epsilon", getattr(module, "eps", None))


class FrozenLinear:
    """Stands in for the forward of a frozen linear layer under autocast; elsewhere the layer's own runs."""

    def __init__(self, module: nn.Linear) -> None:
        self.module = module
        bias = module.bias if module.bias is None else module.bias.detach()
        self.product = PackedProduct(module.weight.detach().t(), bias, torch.bfloat16)

    def __call__(self, input: Tensor) -> Tensor:
        """(…, in) to (…, out) in bfloat16."""
        is_lowered = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
        if not is_lowered or input.dtype not in (torch.float32, torch.bfloat16) or not input.numel():
            return nn.Linear.forward(self.module, input)
        output: Tensor = _Multiplied.apply(input, self.product)
        return output


class _Multiplied(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, product: PackedProduct) -> Tensor:
        ctx.product, ctx.dtype = product, x.dtype
        return product(x)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.product.back(gradient).to(ctx.dtype), None


class FrozenNorm:
    """Stands in for the forward of a frozen root mean square norm of float32 numbers; of others its own runs."""

    def __init__(self, module: Any) -> None:
        self.module, self.weight, self.epsilon = module, module.weight.detach(), _epsilon(module)

    def __call__(self, hidden_states: Tensor) -> Tensor:
        """(…, d) to the same."""
        if hidden_states.dtype != torch.float32:
            plain: Tensor = type(self.module).forward(self.module, hidden_states)
            return plain
        output: Tensor = _Normed.apply(hidden_states, self.weight, self.epsilon)
        return output


class _Normed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        inverse = x.pow(2).mean(-1, keepdim=True).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, inverse)
        ctx.weight = weight
        return (x * inverse).mul_(weight)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        x, inverse = ctx.saved_tensors
        gradient = gradient * ctx.weight
        along = (gradient * x).sum(-1, keepdim=True).mul_(inverse.pow(3)).div_(-x.shape[-1])
        return gradient.mul_(inverse).addcmul_(x, along), None, None
