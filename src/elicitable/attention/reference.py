"""Judge by an oracle: one head at a time, one query at a time, in float64, with the softmax written out.

Nothing here is shared with the code it judges. It is slow, and meant for a few tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elicitable.attention.operands import Operands

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Oracle:
    """Hold attention written out: weights (batch, head, query, ·) and output (batch, head, query, d_value)."""

    prefix_weights: Array
    content_weights: Array
    output: Array


def attention_reference(operands: Operands) -> Oracle:
    """Compute A_ij = exp(ℓ_ij − max ℓ_i) / Σ_r exp(ℓ_ir − max ℓ_i) over context, content and sink; o_i = Σ_j A_ij v_j.

    Source: theory, section 4 of the paper (the definition of attention before and after prefix-tuning).

    Args:
        operands: one call; anything torch, computed here in float64.

    Returns:
        The weights on the context and on the content (the sink's are left out: it has no value), and the output.

    Example:
        >>> import torch
        >>> one = torch.ones(1, 1, 1, 1)
        >>> oracle = attention_reference(Operands(one, one, one, prefix_key=one, prefix_value=3 * one))
        >>> oracle.prefix_weights.item(), oracle.output.item()
        (0.5, 2.0)
    """
    q, k, v = (_array(x) for x in (operands.query, operands.key, operands.value))
    batch, heads, queries, _ = q.shape
    keys, prefix, group = k.shape[2], operands.prefix_length, heads // k.shape[1]
    before = np.zeros((batch, heads, queries, prefix))
    inside = np.zeros((batch, heads, queries, keys))
    output = np.zeros((batch, heads, queries, v.shape[3]))
    for b in range(batch):
        for h in range(heads):
            for i in range(queries):
                logits = [_prefix_logit(operands, q, b, h, group, i, j) for j in range(prefix)]
                logits += [_content_logit(operands, q, k, b, h, group, i, j) for j in range(keys)]
                if operands.sink is not None:
                    logits.append(float(operands.sink[h]))
                if max(logits) == -np.inf:
                    continue  # a padded query that sees nothing has no attention
                row = np.exp(np.array(logits) - max(logits))
                row = row / row.sum()
                before[b, h, i], inside[b, h, i] = row[:prefix], row[prefix : prefix + keys]
                for j in range(prefix):
                    output[b, h, i] += row[j] * _array(operands.prefix_value)[b, h // group, j]
                for j in range(keys):
                    output[b, h, i] += row[prefix + j] * v[b, h // group, j]
    return Oracle(before, inside, output)


def _prefix_logit(op: Operands, q: Array, b: int, h: int, group: int, i: int, j: int) -> float:
    if op.prefix_visible is not None and not _at(op.prefix_visible, b, h, i, j):
        return -np.inf
    dot = op.scaling * float(q[b, h, i] @ _array(op.prefix_key)[b, h // group, j])
    extra = 0.0 if op.prefix_bias is None else float(_at(op.prefix_bias, b, h, i, j))
    return _cap(op, dot) + extra + op.log_strength


def _content_logit(op: Operands, q: Array, k: Array, b: int, h: int, group: int, i: int, j: int) -> float:
    extra = 0.0 if op.content_bias is None else float(_at(op.content_bias, b, h, i, j))
    if op.content_mask is None:
        if j > i + k.shape[2] - q.shape[2]:
            return -np.inf
    else:
        seen = _at(op.content_mask, b, h, i, j)
        if seen.dtype == bool:
            if not seen:
                return -np.inf
        elif float(seen) < -1e30:
            return -np.inf
        else:
            extra += float(seen)
    return _cap(op, op.scaling * float(q[b, h, i] @ k[b, h // group, j])) + extra


def _cap(op: Operands, x: float) -> float:
    return x if op.softcap is None else op.softcap * float(np.tanh(x / op.softcap))


def _at(x: Any, b: int, h: int, i: int, j: int) -> Any:
    """Return x[b, h, i, j], where axes of size 1 stand for all."""
    array = x.detach().numpy()
    index = tuple(0 if size == 1 else at for size, at in zip(array.shape, (b, h, i, j), strict=True))
    return array[index]


def _array(x: Any) -> Array:
    return np.asarray(x.detach().double().numpy(), dtype=np.float64)
