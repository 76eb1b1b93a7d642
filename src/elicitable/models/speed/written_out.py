"""Attention written out for training on short sequences: the numbers of PyTorch's fused kernel, sooner on a CPU."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from elicitable.models.speed.processor import have_same_bits


def is_short_training(query: Tensor, *keys: Tensor) -> bool:
    """Whether attention to all of ``keys`` is better written out: the fused kernel's backward pass is slow when short.

    Measured on one core, bfloat16, there and back (benchmarks/attention.py): 256 heads of 19 queries and 25 keys 4.5
    against 18.8 ms; 64 heads of 256 queries and 272 keys 48 against 68 ms, and of 384 and 400 163 against 129 ms.
    """
    is_trained = torch.is_grad_enabled() and any(x.requires_grad for x in (query, *keys))
    return is_trained and query.device.type == "cpu" and is_short(query.shape[2], sum(key.shape[2] for key in keys))


def is_short(queries: int, keys: int) -> bool:
    """Whether there are few enough queries and keys."""
    return queries * keys <= 300 * 300


def written_out(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float,
    before: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Compute softmax(q kᵀ · scaling + mask) v; autocast lowers the operands as it does for any product.

    Args:
        query: (batch, head, query, d_head).
        key: (batch, kv_head, key, d_head). The queries of heads that share one are multiplied with it together.
        value: (batch, kv_head, key, d_value).
        mask: None, bool (True is visible) or additive, broadcast to (batch, head, query, key of both).
        scaling: multiplies q·k.
        before: keys and values of a context in front of ``key`` and ``value``. Where those need no gradient, it alone
            gets one.

    Returns:
        (batch, head, query, d_value).
    """
    query, key, value, *context = lowered(query, key, value, *(before or ()))
    exact = torch.promote_types(query.dtype, torch.float32)
    added = None if mask is None else additive(mask, exact)
    output: Tensor = _WrittenOut.apply(query, key, value, added, scaling, *context)
    return output


def lowered(*operands: Tensor) -> tuple[Tensor, ...]:
    """Lower single precision where autocast lowers what attention is given."""
    kind = operands[0].device.type
    if not torch.is_autocast_enabled(kind):
        return operands
    dtype = torch.get_autocast_dtype(kind)
    return tuple(x.to(dtype) if x.dtype == torch.float32 else x for x in operands)


def joined(prefix: Tensor, content: Tensor, is_laid_out: bool = True) -> Tensor:
    """Put (batch, head, prefix, d) in front of (batch, head, key, d), where asked laid out for attention's products.

    In float32 d lies outside and the keys inside: q kᵀ for 256 × 19 × 64 × 29 takes 0.5 ms so and 1.3 ms otherwise, and
    dO vᵀ likewise; writing it so, and dS k, cost 0.2 ms more each.
    """
    if not is_laid_out or content.dtype != torch.float32 or torch.is_autocast_enabled(content.device.type):
        return torch.cat([prefix, content], dim=2)
    return torch.cat([prefix.transpose(2, 3), content.transpose(2, 3)], dim=3).transpose(2, 3)


@cache
def queries_stand_alone(heads: int, queries: int, left: int, keys: int, width: int, dtype: torch.dtype) -> bool:
    """Whether training without the first ``left`` queries, whose outputs nobody reads, has the same bits.

    The order of sums may hang on the number of queries (see :func:`processor.rows_stand_alone`), so both ways run once.
    ``heads`` counts those of all rows; every other argument is one head's.
    """
    drawn = torch.Generator().manual_seed(0)
    whole = [torch.randn(1, heads, n, width, generator=drawn).to(dtype) for n in (queries, keys, keys)]
    whole[1:] = [joined(x[:, :, :0], x) for x in whole[1:]]  # as attention has them beside a prefix
    gradient = torch.randn(1, heads, queries, width, generator=drawn).to(dtype)
    gradient[:, :, :left] = 0

    def outcome(first: int) -> list[Tensor]:
        query, key, value = xs = [
            x.detach().clone().requires_grad_() for x in (whole[0][:, :, first:].contiguous(), *whole[1:])
        ]
        with torch.enable_grad(), torch.autocast("cpu", enabled=False):
            output = written_out(query, key, value, None, width**-0.5)
        d_query, d_key, d_value = torch.autograd.grad(output, xs, gradient[:, :, first:].clone())
        return [output[:, :, left - first :], d_query[:, :, left - first :], d_key, d_value]

    return have_same_bits(lambda: outcome(0), lambda: outcome(left))


@cache
def keys_stand_alone(heads: int, queries: int, keys: int, first: int, width: int, dtype: torch.dtype) -> bool:
    """Whether gradients of the ``first`` keys have the same bits without those of the keys behind them.

    ``heads`` counts those of all rows; every other argument is one head's. Both ways run once, as above.
    """
    drawn = torch.Generator().manual_seed(0)
    weights, x = (torch.randn(heads, queries, n, generator=drawn).to(dtype) for n in (keys, width))
    return have_same_bits(
        lambda: [torch.bmm(weights.transpose(1, 2), x)[:, :first]],
        lambda: [torch.bmm(weights[:, :, :first].transpose(1, 2), x)],
    )


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn a bool mask (True is visible) into what is added to logits: 0, or the lowest number of ``dtype``."""
    if mask.dtype != torch.bool:  # a wider type's lowest number would be −∞, and a row of padding no number
        return mask.to(dtype).clamp(min=torch.finfo(dtype).min)
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)


class _WrittenOut(torch.autograd.Function):
    """Products in the type given, the softmax in float32 or better: bfloat16's is 4 times as slow on a CPU.

    Backwards by hand: with dA = dO vᵀ and dS = A ∘ (dA − Σ_j A dA) · scaling, ∂q = dS k, ∂k = dSᵀ q, ∂v = Aᵀ dO. The
    same numbers as autograd's, a tenth of attention's time sooner; ∂q is left out where nobody needs it, and so are ∂k
    and ∂v of the content where only a context before it is trained.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, added: Tensor | None, scaling: float, *before: Tensor
    ) -> Tensor:
        if before:
            key, value = joined(before[0], key), joined(before[1], value)
        k, v = key.flatten(0, 1), value.flatten(0, 1)  # bmm: one product a row and head of keys
        q, shape = query.reshape(k.shape[0], -1, k.shape[2]), (*query.shape[:3], key.shape[2])
        products = torch.bmm(q, k.transpose(1, 2))
        if added is None:
            logits = products.view(shape).to(torch.promote_types(products.dtype, torch.float32)) * scaling
        else:
            logits = torch.add(added, products.view(shape), alpha=scaling)
        weights = torch.softmax(logits, dim=-1)
        rounded = weights.to(v.dtype).view(products.shape)
        ctx.save_for_backward(q, k, v, weights, rounded)
        ctx.scaling, ctx.context = scaling, before[0].shape[2] if before else 0
        return torch.bmm(rounded, v).view(*query.shape[:3], v.shape[2])

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, weights, rounded = ctx.saved_tensors
        needs, is_joined = ctx.needs_input_grad, len(ctx.needs_input_grad) > 5
        d_output = gradient.reshape(*q.shape[:2], -1).to(v.dtype)
        rows = weights.shape[0], -1
        d_value = _to_keys(ctx, rounded, d_output, rows, is_all=needs[2])
        d_key: tuple[Tensor | None, ...] = (None, None)
        d_query = None
        if needs[0] or needs[1] or (is_joined and needs[5]):
            d_weights = torch.bmm(d_output, v.transpose(1, 2)).view(weights.shape).to(weights.dtype)
            d_logits = torch._softmax_backward_data(d_weights, weights, -1, weights.dtype).mul_(ctx.scaling)
            d_products = d_logits.to(q.dtype).view(rounded.shape)
            d_key = _to_keys(ctx, d_products, q, rows, is_all=needs[1])
            if needs[0]:
                d_query = torch.bmm(d_products, k).view(*weights.shape[:3], -1)
        found = d_query, d_key[1], d_value[1], None, None
        return (*found, d_key[0], d_value[0]) if is_joined else found


def _to_keys(
    ctx: Any, weights: Tensor, x: Tensor, rows: tuple[int, int], is_all: bool
) -> tuple[Tensor | None, Tensor | None]:
    """weightsᵀ x, (batch, head, key, d): what the context's keys get, and what the content's, unless not ``is_all``."""
    heads, queries, keys = weights.shape
    first, shape = ctx.context, (heads, queries, keys, ctx.context, x.shape[2], x.dtype)
    if not is_all and keys_stand_alone(*shape):
        weights = weights[:, :, :first]
    found = torch.bmm(weights.transpose(1, 2), x).unflatten(0, rows)
    return found[:, :, :first], found[:, :, first:] if is_all else None
