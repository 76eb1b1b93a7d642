"""Attention of Llama's form while it is trained: queries and keys are turned in half as many passes.

A plain layer turns queries and keys by seven operations, each with a way back, lowers the result and lays it out by
head. Here x of (batch, token, head · d_head), in halves (x₁, x₂) of each head, becomes by head

    y₁ = x₁ cos − x₂ sin,    y₂ = x₂ cos + x₁ sin

in the type of products, computed in float32 with the bits of the plain operations. The way back turns by −angle.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from elicitable.models.attend import NAME, Seat, attend

_WINDOWS: dict[str, Callable[[Any], int | None]] = {
    "LlamaAttention": lambda module: None,
    "MistralAttention": lambda module: getattr(module.config, "sliding_window", None),
    "Qwen2Attention": lambda module: module.sliding_window,
}


def is_of_llamas_form(module: nn.Module) -> bool:
    """Whether ``module`` attends as Llama does: four projections, rotary angles, and nothing else."""
    return type(module).__name__ in _WINDOWS


class RotaryAttention:
    """Stands in for the forward of such an attention module.

    The module's own runs beside a cache, without gradients, with dropout, and where somebody watches the operands or
    attention is not ours.
    """

    def __init__(self, module: Any) -> None:
        self.module, self.window = module, _WINDOWS[type(module).__name__](module)

    def __call__(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        """(batch, token, d_model) to the same, and None in place of attention weights."""
        module, (cos, sin) = self.module, position_embeddings
        if past_key_values is not None or not self._fits(cos) or self._is_looked_into():
            forward = type(module).forward
            plain: tuple[Tensor, None] = forward(
                module, hidden_states, position_embeddings, attention_mask, past_key_values, **kwargs
            )
            return plain
        query, key = (turned(project(hidden_states), cos, sin) for project in (module.q_proj, module.k_proj))
        value = module.v_proj(hidden_states)
        value = value.view(*value.shape[:2], -1, cos.shape[-1]).transpose(1, 2)
        window = {} if self.window is None else {"sliding_window": self.window}
        output, _ = attend(module, query, key, value, attention_mask, module.scaling, **window, **kwargs)
        return module.o_proj(output.flatten(2)), None

    def _fits(self, cos: Tensor) -> bool:
        return cos.dtype == torch.float32 and cos.shape[-1] == self.module.head_dim

    def _is_looked_into(self) -> bool:
        seat: Seat | None = getattr(self.module, "_elicitable_seat", None)
        return (
            seat is None
            or not torch.is_grad_enabled()
            or bool(seat.slot.watchers)
            or seat.slot.capture is not None
            or self.module.training
            or self.module.config._attn_implementation != NAME
        )


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn ``x`` (batch, token, head · d_head) by angles of (batch or 1, token, d_head).

    Returns:
        (batch, head, token, d_head), in bfloat16 where autocast lowers products to it.
    """
    is_lowered = torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu") if is_lowered else torch.promote_types(x.dtype, cos.dtype)
    found: Tensor = _Turned.apply(x, cos[:, None], sin[:, None], dtype)
    return found


class _Turned(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.dtype = x.dtype
        by_head = x.view(*x.shape[:2], -1, cos.shape[-1]).transpose(1, 2)
        return _turn(by_head, cos, sin).to(dtype)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        cos, sin = ctx.saved_tensors
        found = _turn(gradient, cos, -sin).transpose(1, 2)
        return found.to(ctx.dtype, memory_format=torch.contiguous_format).flatten(2), None, None, None


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """(batch, head, token, d_head) in the type of the angles, lying so."""
    x = x.to(cos.dtype, memory_format=torch.contiguous_format)
    half = x.shape[-1] // 2
    found = x * cos
    found[..., :half].sub_(x[..., half:] * sin[..., :half])  # addcmul would round once in the place of twice
    found[..., half:].add_(x[..., :half] * sin[..., half:])
    return found
