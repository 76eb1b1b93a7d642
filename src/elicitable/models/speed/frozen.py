"""Wholly frozen blocks of the toys in two operations around their attention: the bits of the plain ones, sooner.

A plain block makes an operation of every sum, keeps each result for a backward pass and writes gradients where nobody
reads them. Here every product is

    y = act(x W + b),    ∂x = ∂y Wᵀ

and all else is done in place. In bfloat16 autocast also adds each bias in a pass of its own; where oneDNN has the
operation, a frozen matrix is laid out for it once, each way when it is first needed, and bias and ReLU are added while
the product is written. In float32 the plain product is as quick as one laid out, and has the bits; where it is not as
quick (:func:`elicitable.models.speed.processor.lays_out`), matrices are laid out there too, and last digits differ.

The last block leaves out queries that nobody reads. It is for small matrices: large products gain nothing, and tests
hold the bits up to the size of the toys only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from elicitable.models.attend import attend
from elicitable.models.speed.products import product
from elicitable.models.speed.written_out import is_short, queries_stand_alone

LARGEST = 1024  # inputs or outputs of a matrix

_layer_norm_backward = torch.ops.aten.native_layer_norm_backward.default
_relu_backward = torch.ops.aten.threshold_backward.grad_input


def is_frozen_block(block: nn.Module) -> bool:
    """Whether ``block`` is a GPT-2 block with both norms and a ReLU, none of whose weights is trained."""
    parts: Any = block
    return (
        type(block).__name__ == "GPT2Block"
        and "forward" not in vars(block)
        and not hasattr(block, "crossattention")
        and (type(parts.attn).__name__, type(parts.mlp).__name__) == ("GPT2Attention", "GPT2MLP")
        and all(isinstance(norm, nn.LayerNorm) for norm in (parts.ln_1, parts.ln_2))
        and all(type(part).__name__ == "Conv1D" and max(part.weight.shape) <= LARGEST for part in _products(parts))
        and not any(weight.requires_grad or weight.is_meta for weight in block.parameters())
        and isinstance(parts.mlp.act, nn.ReLU)
    )


def _products(block: Any) -> tuple[Any, ...]:
    return block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj


class FrozenBlock:
    """Stands in for the forward of a frozen GPT-2 block; weights that change meanwhile are not seen.

    Where anything asks for more than the plain thing (a cache, dropout, hooks inside, attention that is not ours),
    the block's own forward runs. ``known`` are residuals whose queries, keys and values by head are known before the
    block runs: they are taken where the block is given these very residuals.
    """

    def __init__(self, block: Any, dtype: torch.dtype) -> None:
        self.block, self.attention, self.dtype = block, block.attn, dtype
        self.inside = (block.ln_1, block.attn, block.ln_2, block.mlp, block.mlp.act, *_products(block))
        self.d_model, self.heads = block.attn.embed_dim, block.attn.num_heads
        self.norm_1, self.norm_2 = _Norm(block.ln_1), _Norm(block.ln_2)
        weight, bias = block.attn.c_attn.weight, block.attn.c_attn.bias
        self.query = product(weight[:, : self.d_model], bias[: self.d_model], dtype)
        self.key_value = product(weight[:, self.d_model :], bias[self.d_model :], dtype)
        self.joined, self.output, self.up, self.down = (product(x.weight, x.bias, dtype) for x in _products(block))
        self.read: int | None = None
        self.pads = False
        self.known: tuple[Tensor, Sequence[Tensor]] | None = None

    @contextmanager
    def reading(self, positions: int | None, pads: bool = False) -> Iterator[None]:
        """Inside, only the last ``positions`` are computed above the keys and values; the output has no others.

        With ``pads`` it has zeros there.
        """
        before, self.read, self.pads = (self.read, self.pads), positions, pads
        try:
            yield
        finally:
            self.read, self.pads = before

    def __call__(
        self,
        hidden_states: Tensor,
        past_key_values: Any = None,
        attention_mask: Tensor | None = None,
        *others: Any,
        **given: Any,
    ) -> Tensor:
        """(batch, token, d_model) to the same, or to what is read of it."""
        if past_key_values is not None or any(x is not None for x in others) or self._is_looked_into():
            forward = type(self.block).forward
            plain: Tensor = forward(self.block, hidden_states, past_key_values, attention_mask, *others, **given)
            return plain
        unread = 0 if self.read is None else max(0, hidden_states.shape[1] - self.read)
        left = self._queries_left_out(hidden_states, unread)
        mask = attention_mask if attention_mask is None or not left else attention_mask[:, :, left:]
        output, _ = attend(self.attention, *self._by_head(hidden_states, left), mask, self.attention.scaling)
        if unread > left and self._is_output_alone(hidden_states, unread):
            output = output[:, unread - left :]  # a slice of everything would be copied on the way back
        block: Tensor = _After.apply(output.flatten(2), hidden_states, self, unread)
        return block

    def _queries_left_out(self, hidden: Tensor, unread: int) -> int:
        """How many of the queries that nobody reads attention can do without and keep the bits of the others."""
        even = unread - unread % 2
        if not unread or self.output.is_packed:
            return even  # bfloat16 products add in pairs
        slot, layer = self.attention._elicitable_seat.slot, self.attention._elicitable_seat.layer
        key = slot.prefix.keys[layer] if slot.prefix is not None and slot.strength > 0 else None
        is_trained = torch.is_grad_enabled() and (hidden.requires_grad or (key is not None and key.requires_grad))
        rows, tokens = hidden.shape[:2]
        keys = tokens if key is None else tokens + key.shape[2]
        if not (is_trained and is_short(tokens, keys) and self._is_output_alone(hidden, unread)):
            return 0
        shape = keys, self.d_model // self.heads, self.dtype
        return next((n for n in (unread, even) if queries_stand_alone(rows * self.heads, tokens, n, *shape)), 0)

    def _is_output_alone(self, hidden: Tensor, unread: int) -> bool:
        rows, tokens = hidden.shape[:2]
        counts = rows * (tokens - unread), rows * tokens
        return all(self.output.keeps_bits(*counts, is_back=is_back) for is_back in (False, True))

    def _is_looked_into(self) -> bool:
        return (
            self.block.training
            or not hasattr(self.attention, "_elicitable_seat")
            or (torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32) != self.dtype
            or any(part._forward_hooks or part._forward_pre_hooks for part in self.inside)
        )

    def _by_head(self, hidden: Tensor, left: int) -> tuple[Tensor, Tensor, Tensor]:
        known, self.known = self.known, None
        if known is None or known[0] is not hidden:
            query, key, value = _Before.apply(hidden, self, left)
            return query, key, value
        query, key, value = known[1]
        return query[:, :, left:], key, value

    def project(self, normed: Tensor, left: int = 0) -> Sequence[Tensor]:
        """(batch, token, d_model) to queries, without the first ``left``, keys and values of the same shape."""
        normed = normed.to(self.dtype)
        if self.joined.is_packed or (left and self._is_query_alone(normed, left)):
            return self.query(normed[:, left:]), *self.key_value(normed).split(self.d_model, dim=-1)
        query, key, value = self.joined(normed).split(self.d_model, dim=-1)  # one call, as in a plain block
        return query[:, left:], key, value

    def _is_query_alone(self, normed: Tensor, left: int) -> bool:
        """Whether queries without the first ``left`` have the bits that they have beside all keys and values."""
        rows, tokens = normed.shape[:2]
        is_alone = self.query.keeps_bits(rows * (tokens - left), rows * tokens)
        return is_alone and self.joined.keeps_bits_parted(rows * tokens, self.d_model)

    def split_heads(self, x: Tensor) -> Tensor:
        """(batch, token, d_model) to (batch, head, token, d_head)."""
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


class _Norm:
    """A frozen LayerNorm and its way back to the input."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        self.weight, self.bias, self.eps = norm.weight.detach(), norm.bias.detach(), norm.eps
        self.shape = list(self.weight.shape)

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        normed: tuple[Tensor, Tensor, Tensor] = torch.native_layer_norm(x, self.shape, self.weight, self.bias, self.eps)
        return normed

    def back(self, gradient: Tensor, x: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
        wanted = [True, False, False]
        dx: Tensor = _layer_norm_backward(gradient, x, self.shape, mean, rstd, self.weight, self.bias, wanted)[0]
        return dx


class _Before(torch.autograd.Function):
    """Residuals to queries (without the first ``left``), keys and values, by head."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, block: FrozenBlock, left: int) -> tuple[Tensor, Tensor, Tensor]:
        normed, mean, rstd = block.norm_1(hidden)
        ctx.save_for_backward(hidden, mean, rstd)
        ctx.block, ctx.left = block, left
        query, key, value = (block.split_heads(x) for x in block.project(normed, left))
        return query, key, value

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, None, None]:
        hidden, mean, rstd = ctx.saved_tensors
        block = ctx.block
        query = nn.functional.pad(query, (0, 0, ctx.left, 0)) if ctx.left else query
        joined = torch.stack([x.transpose(1, 2) for x in (query, key, value)], dim=2)  # quicker than copies in place
        d_normed = block.joined.back(joined.flatten(2)).to(hidden.dtype)
        return block.norm_1.back(d_normed, hidden, mean, rstd), None, None


class _After(torch.autograd.Function):
    """Attention's output and the residuals to the block's output: h' = h + o W_o, h' + W_2 relu(W_1 LN(h'))."""

    @staticmethod
    def forward(ctx: Any, attended: Tensor, hidden: Tensor, block: FrozenBlock, left: int) -> Tensor:
        ctx.cut = attended.shape[1] - (hidden.shape[1] - left)
        middle = block.output(attended).to(hidden.dtype)[:, ctx.cut :].add_(hidden[:, left:])
        normed, mean, rstd = block.norm_2(middle)
        active = block.up(normed, "relu")
        ctx.save_for_backward(middle, mean, rstd, active)
        ctx.block, ctx.left = block, left
        after = block.down(active).to(middle.dtype).add_(middle)
        return _padded(after, left) if block.pads else after

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        middle, mean, rstd, active = ctx.saved_tensors
        block, left = ctx.block, ctx.left
        gradient = gradient[:, gradient.shape[1] - middle.shape[1] :].contiguous()
        d_active = block.down.back(gradient)
        _relu_backward(d_active, active, 0, grad_input=d_active)
        d_normed = block.up.back(d_active).to(middle.dtype)
        d_middle = block.norm_2.back(d_normed, middle, mean, rstd).add_(gradient)
        d_attended = block.output.back(_padded(d_middle, ctx.cut))
        return d_attended, _padded(d_middle, left) if ctx.needs_input_grad[1] else None, None, None


def _padded(x: Tensor, left: int) -> Tensor:
    """``x`` (batch, token, d_model) after ``left`` tokens of zeros."""
    if not left:
        return x
    padded = x.new_empty(x.shape[0], left + x.shape[1], x.shape[2])
    padded[:, :left].zero_()
    padded[:, left:] = x
    return padded
