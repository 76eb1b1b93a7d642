"""State what one attention layer computes with: the operands of both equations, as tensors.

Shapes as in the glossary of :mod:`elicitable.values`. Logits over context and content are

    ℓ_ij = cap(scaling · q_i·k_j) + bias_ij,    plus log g on the context's keys,

where cap(x) = softcap·tanh(x/softcap) or x; a learned sink is one more logit without a value. Masked keys have −∞.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Operands:
    """Hold one attention call. ``key`` and ``value`` are the content's alone.

    Attributes:
        query: (batch, head, query, d_head).
        key: (batch, kv_head, key, d_head); head is a multiple of kv_head.
        value: (batch, kv_head, key, d_value), with ``value_bias`` already added.
        prefix_key: (batch, kv_head, prefix, d_head), or None without a context.
        prefix_value: (batch, kv_head, prefix, d_value).
        content_mask: None (causal, the last query sees the last key), bool (True is visible) or additive;
            (batch or 1, head or 1, query, key).
        prefix_visible: bool (batch or 1, head or 1, query or 1, prefix); None where all is visible.
        scaling: multiplies q·k.
        softcap: bound of the logits, or None.
        sink: (head,) learned logits without a value, or None.
        content_bias: added to content logits, (batch or 1, head or 1, query or 1, key).
        prefix_bias: added to context logits, (batch or 1, head or 1, query or 1, prefix).
        log_strength: log g, added to every context logit.
        value_bias: (kv_head, d_value) that was added to every content value.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    prefix_key: Tensor | None = None
    prefix_value: Tensor | None = None
    content_mask: Tensor | None = None
    prefix_visible: Tensor | None = None
    scaling: float = 1.0
    softcap: float | None = None
    sink: Tensor | None = None
    content_bias: Tensor | None = None
    prefix_bias: Tensor | None = None
    log_strength: float = 0.0
    value_bias: Tensor | None = None

    @property
    def prefix_length(self) -> int:
        """Count the context's keys; 0 without a context."""
        return 0 if self.prefix_key is None else self.prefix_key.shape[2]

    @property
    def dtype(self) -> torch.dtype:
        """Return the type in which statistics are computed: the queries' own, never below float32."""
        return torch.promote_types(self.query.dtype, torch.float32)

    def without_context(self) -> Self:
        """Let the same content attend to itself alone."""
        return replace(self, prefix_key=None, prefix_value=None, prefix_visible=None, prefix_bias=None)

    def detached(self) -> Operands:
        """Take the numbers alone: cut from the graph, keys and values in the queries' type, no trace of a model."""
        own: dict[str, Any] = {one.name: getattr(self, one.name) for one in fields(Operands)}
        own |= {name: x.detach() for name, x in own.items() if isinstance(x, Tensor)}
        own |= {name: own[name].to(self.query.dtype) for name in ("key", "value")}
        return Operands(**own)


def block_rows(operands: Operands) -> int:
    """Count query rows whose weights, over batches, heads and keys, are about 2^18 (1 MB in float32)."""
    batch, heads, _, _ = operands.query.shape
    return max(1, 2**18 // (batch * heads * max(operands.key.shape[2], 1)))


def chunks(queries: int, size: int) -> Iterator[slice]:
    """Yield consecutive blocks of query rows, so that no query × key matrix is ever whole.

    >>> [(rows.start, rows.stop) for rows in chunks(5, 2)]
    [(0, 2), (2, 4), (4, 5)]
    """
    for start in range(0, queries, size):
        yield slice(start, min(start + size, queries))


def products(query: Tensor, key: Tensor) -> Tensor:
    """Compute q·k with grouped heads, (batch, head, query, key), without repeating the keys."""
    batch, heads, queries, width = query.shape
    kv_heads, keys = key.shape[1], key.shape[2]
    grouped = query.reshape(batch, kv_heads, heads // kv_heads * queries, width)
    return torch.matmul(grouped, key.transpose(-1, -2)).reshape(batch, heads, queries, keys)


def weighted(weights: Tensor, value: Tensor) -> Tensor:
    """Compute Σ_j weights_ij v_j with grouped heads, (batch, head, query, d_value)."""
    batch, heads, queries, keys = weights.shape
    kv_heads = value.shape[1]
    grouped = weights.reshape(batch, kv_heads, heads // kv_heads * queries, keys)
    return torch.matmul(grouped, value).reshape(batch, heads, queries, value.shape[3])


def prefix_logits(operands: Operands, rows: slice = slice(None)) -> Tensor:
    """Return (batch, head, query, prefix) logits of the context's keys for the query rows ``rows``."""
    key = operands.prefix_key
    assert key is not None
    logits = _capped(operands, rows, key)
    if operands.prefix_bias is not None:
        logits = logits + _of_rows(operands.prefix_bias, rows).to(logits.dtype)
    if operands.log_strength:
        logits = logits + operands.log_strength
    if operands.prefix_visible is not None:
        logits = logits.masked_fill(~_of_rows(operands.prefix_visible, rows), -torch.inf)
    return logits


def content_logits(operands: Operands, rows: slice = slice(None)) -> Tensor:
    """Return (batch, head, query, key) logits of the content's keys that the last of ``rows`` may see.

    A learned sink is one more last column. Keys after the last row are left out: no mask may show them.
    """
    seen = seen_keys(operands, rows)
    logits = _capped(operands, rows, operands.key[:, :, :seen])
    if operands.content_bias is not None:
        bias = operands.content_bias
        logits = logits + _of_rows(bias if bias.shape[3] == 1 else bias[..., :seen], rows).to(logits.dtype)
    mask = operands.content_mask
    if mask is not None or operands.query.shape[2] > 1:
        logits += hidden(operands, rows, logits.dtype)
    if operands.sink is not None:
        sink = operands.sink.to(logits.dtype).reshape(1, -1, 1, 1)
        logits = torch.cat([logits, sink.expand(*logits.shape[:3], 1)], dim=-1)
    return logits


def hidden(operands: Operands, rows: slice, dtype: torch.dtype) -> Tensor:
    """Say what is added to logits so that hidden keys have −∞: (batch or 1, head or 1, query, key)."""
    seen, mask = seen_keys(operands, rows), operands.content_mask
    if mask is None:
        last = torch.arange(operands.query.shape[2], device=operands.query.device)[rows]
        last = last + operands.key.shape[2] - operands.query.shape[2]
        mask = (torch.arange(seen, device=last.device) <= last[:, None])[None, None]
    else:
        mask = _of_rows(mask, rows)[..., :seen]
    if mask.dtype == torch.bool:
        return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, -torch.inf)
    return mask.to(dtype).masked_fill(mask <= torch.finfo(mask.dtype).min / 2, -torch.inf)


def seen_keys(operands: Operands, rows: slice) -> int:
    """Count the content keys up to the own key of the last of ``rows``."""
    queries, keys = operands.query.shape[2], operands.key.shape[2]
    return keys - queries + (queries if rows.stop is None else min(rows.stop, queries))


def valid_queries(operands: Operands) -> Tensor:
    """Return (batch, query) bool: the query's own key is visible to it, so it is not padding.

    >>> x = torch.zeros(1, 1, 2, 1)
    >>> mask = torch.tensor([[[[False, False], [False, True]]]])
    >>> valid_queries(Operands(x, x, x, content_mask=mask)).tolist()
    [[False, True]]
    """
    batch, _, queries, _ = operands.query.shape
    mask, keys = operands.content_mask, operands.key.shape[2]
    if mask is None:
        return torch.ones(batch, queries, dtype=torch.bool, device=operands.query.device)
    own = torch.diagonal(mask[:, 0], offset=keys - queries, dim1=-2, dim2=-1)[..., -queries:]
    seen = own if own.dtype == torch.bool else own > torch.finfo(own.dtype).min / 2
    return seen.expand(batch, queries)


def _capped(operands: Operands, rows: slice, key: Tensor) -> Tensor:
    dtype = operands.dtype
    logits = products(operands.query[:, :, rows].to(dtype) * operands.scaling, key.to(dtype))
    if operands.softcap is not None:
        logits = operands.softcap * torch.tanh(logits / operands.softcap)
    return logits


def _of_rows(x: Tensor, rows: slice) -> Tensor:
    return x if x.shape[2] == 1 else x[:, :, rows]
