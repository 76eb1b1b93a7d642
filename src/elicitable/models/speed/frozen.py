"""Wholly frozen blocks of the toys in two operations around their attention: the bits of the plain ones, sooner.

A plain block makes an operation of every sum, keeps each result for a backward pass and writes gradients where nobody
reads them. Here every product is

    y = act(x W + b),    ∂x = ∂y Wᵀ

and all else is done in place. In bfloat16 autocast also adds each bias in a pass of its own; where oneDNN has the
operation, a frozen matrix is laid out for it once, each way when it is first needed, and bias and ReLU are added while
the product is written. In float32 the plain product is as quick as one laid out, and has the bits.

The last block leaves out queries that nobody reads, and the first looks its queries, keys and values up: before it, a
token at a position is always the same. It is for small matrices: large products gain nothing, and tests hold the bits
up to the size of the toys only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from elicitable.models.attend import attend
from elicitable.models.model import Model
from elicitable.models.speed.products import product
from elicitable.models.speed.written_out import is_short, queries_stand_alone

LARGEST = 1024  # inputs or outputs of a matrix
LARGEST_TABLE = 4096  # rows: tokens times positions

_layer_norm = torch.ops.aten.native_layer_norm.default
_layer_norm_backward = torch.ops.aten.native_layer_norm_backward.default
_relu_backward = torch.ops.aten.threshold_backward.grad_input


@contextmanager
def frozen_blocks(model: Model, dtype: torch.dtype) -> Iterator[None]:
    """Inside, GPT-2 blocks with a ReLU and no weight that is trained compute as :class:`FrozenBlock` does.

    For a float32 model on a CPU; elsewhere nothing changes. ``dtype`` is the type of its products: bfloat16 under
    autocast, float32 without. Results and gradients are those of the plain blocks, bit for bit. Weights that change
    meanwhile are not seen.
    """
    if model.device.type != "cpu" or model.dtype != torch.float32:
        yield
        return
    decoder = model.anatomy.decoder
    with ExitStack() as stack:
        for index, block in enumerate(model.anatomy.blocks):
            if is_frozen_block(block):
                table = _KnownRows(decoder) if index == 0 and _is_small(decoder) else None
                if table:
                    stack.enter_context(table.listening())
                object.__setattr__(block, "forward", FrozenBlock(block, dtype, table))
                stack.callback(object.__delattr__, block, "forward")
        yield


def is_frozen_block(block: nn.Module) -> bool:
    """Whether ``block`` is a GPT-2 block with both norms and a ReLU, none of whose weights is trained."""
    parts: Any = block
    return (
        type(block).__name__ == "GPT2Block"
        and "forward" not in vars(block)
        and not hasattr(block, "crossattention")
        and all(isinstance(norm, nn.LayerNorm) for norm in (parts.ln_1, parts.ln_2))
        and all(type(part).__name__ == "Conv1D" and max(part.weight.shape) <= LARGEST for part in _products(parts))
        and not any(weight.requires_grad or weight.is_meta for weight in block.parameters())
        and isinstance(parts.mlp.act, nn.ReLU)
    )


def _products(block: Any) -> tuple[Any, ...]:
    return block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj


class FrozenBlock:
    """Stands in for the forward of a frozen GPT-2 block; ``read`` positions at the end are read, None for all.

    Where anything asks for more than the plain thing (a cache, dropout, hooks inside, attention that is not ours),
    the block's own forward runs.
    """

    def __init__(self, block: Any, dtype: torch.dtype, table: _KnownRows | None = None) -> None:
        self.block, self.attention, self.dtype, self.table = block, block.attn, dtype, table
        self.inside = (block.ln_1, block.attn, block.ln_2, block.mlp, block.mlp.act, *_products(block))
        self.d_model, self.heads = block.attn.embed_dim, block.attn.num_heads
        self.norm_1, self.norm_2 = _Norm(block.ln_1), _Norm(block.ln_2)
        weight, bias = block.attn.c_attn.weight, block.attn.c_attn.bias
        self.query = product(weight[:, : self.d_model], bias[: self.d_model], dtype)
        self.key_value = product(weight[:, self.d_model :], bias[self.d_model :], dtype)
        self.joined, self.output, self.up, self.down = (product(x.weight, x.bias, dtype) for x in _products(block))
        self.read: int | None = None

    @contextmanager
    def reading(self, positions: int) -> Iterator[None]:
        """Inside, only the last ``positions`` are computed above the keys and values; zeros elsewhere."""
        before, self.read = self.read, positions
        try:
            yield
        finally:
            self.read = before

    def __call__(
        self,
        hidden_states: Tensor,
        past_key_values: Any = None,
        attention_mask: Tensor | None = None,
        *others: Any,
        **given: Any,
    ) -> Tensor:
        """(batch, token, d_model) to the same."""
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
        known = self.table.of(hidden, self) if self.table else None
        if known is None:
            query, key, value = _Before.apply(hidden, self, left)
            return query, key, value
        query, key, value = (self.split_heads(x) for x in known.split(self.d_model, dim=-1))
        return query[:, :, left:], key, value

    def project(self, normed: Tensor, left: int = 0) -> Sequence[Tensor]:
        """(batch, token, d_model) to queries, without the first ``left``, keys and values of the same shape."""
        normed = normed.to(self.dtype)
        if self.joined.is_packed:
            return self.query(normed[:, left:]), *self.key_value(normed).split(self.d_model, dim=-1)
        query, key, value = self.joined(normed).split(self.d_model, dim=-1)  # one call, as in a plain block
        return query[:, left:], key, value

    def split_heads(self, x: Tensor) -> Tensor:
        """(batch, token, d_model) to (batch, head, token, d_head)."""
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


class _Norm:
    """A frozen LayerNorm and its way back to the input."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        self.weight, self.bias, self.eps = norm.weight.detach(), norm.bias.detach(), norm.eps
        self.shape = list(self.weight.shape)

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        normed: tuple[Tensor, Tensor, Tensor] = _layer_norm(x, self.shape, self.weight, self.bias, self.eps)
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
        block, left = ctx.block, ctx.left
        joined = key.new_empty(*hidden.shape[:2], 3, block.heads, key.shape[-1])
        joined[:, :left, 0].zero_()
        joined[:, left:, 0] = query.transpose(1, 2)
        joined[:, :, 1] = key.transpose(1, 2)
        joined[:, :, 2] = value.transpose(1, 2)
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
        return _padded(block.down(active).to(middle.dtype).add_(middle), left)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        middle, mean, rstd, active = ctx.saved_tensors
        block, left = ctx.block, ctx.left
        gradient = gradient[:, left:].contiguous()
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


class _KnownRows:
    """What the first block makes of every token at every position, to be looked up.

    It listens to the embeddings while the decoder runs: the sum that leaves them, and no other tensor, is known.
    """

    def __init__(self, decoder: Any) -> None:
        self.decoder = decoder
        self.tokens: list[Tensor] = []
        self.positions: list[Tensor] = []
        self.known: tuple[Tensor, Tensor] | None = None  # the sum, and its rows in the table
        self.table: Tensor | None = None

    @contextmanager
    def listening(self) -> Iterator[_KnownRows]:
        """Inside, the embeddings are listened to."""
        hooks = (
            self.decoder.register_forward_pre_hook(self._opened),
            self.decoder.wte.register_forward_pre_hook(lambda module, args: self.tokens.extend(args)),
            self.decoder.wpe.register_forward_pre_hook(lambda module, args: self.positions.extend(args)),
            self.decoder.drop.register_forward_hook(self._summed),
        )
        try:
            yield self
        finally:
            for hook in hooks:
                hook.remove()

    def of(self, hidden: Tensor, block: FrozenBlock) -> Tensor | None:
        """(batch, token, 3·d_model) queries, keys and values of ``hidden``; None where it is anything else."""
        known, self.known = self.known, None
        if known is None or known[0] is not hidden:
            return None
        if not block.joined.keeps_bits(
            self.decoder.wte.num_embeddings * self.decoder.wpe.num_embeddings, hidden.shape[:2].numel()
        ):
            return None
        if self.table is None:
            self.table = self._all(block)
        return nn.functional.embedding(known[1].expand(hidden.shape[:2]), self.table)

    def _opened(self, module: nn.Module, args: Any) -> None:
        self.tokens.clear()
        self.positions.clear()
        self.known = None

    def _summed(self, module: nn.Module, args: Any, output: Tensor) -> None:
        is_changed = any(part._forward_hooks for part in (self.decoder.wte, self.decoder.wpe))
        if not is_changed and len(self.tokens) == len(self.positions) == 1:  # no token types, no given embeddings
            self.known = output, self.positions[0] * self.decoder.wte.num_embeddings + self.tokens[0]

    @torch.no_grad()
    def _all(self, block: FrozenBlock) -> Tensor:
        embedded = self.decoder.wte.weight[None] + self.decoder.wpe.weight[:, None]
        normed, _, _ = block.norm_1(embedded.flatten(0, 1))
        return torch.cat(tuple(block.project(normed[None])), dim=-1)[0]


def _is_small(decoder: Any) -> bool:
    """Whether all tokens at all positions fit a table, and none of them is trained."""
    tables = decoder.wte, decoder.wpe
    is_frozen = not any(table.weight.requires_grad for table in tables)
    return is_frozen and tables[0].num_embeddings * tables[1].num_embeddings <= LARGEST_TABLE
