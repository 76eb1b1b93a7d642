"""Attend to context and content in a fused call each, and merge the two by their log-sum-exp.

A fused kernel never writes its weights down, so it needs no mask over both where the content is merely causal, and keys
are not copied behind one another. It returns, for each query, the mean o of the values and the log-sum-exp l of the
logits. For a context (p) of strength g and a content (c):

    o = α o_p + (1 − α) o_c,    α = exp(l_p + log g − l),    l = log(g exp(l_p) + exp(l_c))

which is the softmax over both together. Backwards a kernel makes its weights again as exp(s − l). Given the l and the o
of both, what it returns is its own share of the joint gradient, so no gradient of l is needed (as in ring attention,
Liu et al. 2023, https://arxiv.org/abs/2310.01889).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

HIDDEN = -1e30  # kernels multiply logits by log₂ e, and the lowest float32 would become −∞ there
LARGEST_HEAD = 256
OLDEST = (8, 0)  # compute capability that half precision asks for
Kept = tuple[Any, ...]
Gradients = tuple[Tensor, Tensor, Tensor]  # by query, key and value
_aten = torch.ops.aten


@dataclass(frozen=True, eq=False)
class Keys:
    """What one call attends to: keys and values (batch, head, key, d), and who sees them.

    ``bias`` is added to the logits, (batch or 1, head or 1, query or 1, key); ``is_causal`` lets query i see key j ≤ i,
    for as many queries as keys; ``shift`` is added to every logit (the logarithm of a strength).
    """

    key: Tensor
    value: Tensor
    bias: Tensor | None = None
    is_causal: bool = False
    shift: float = 0.0


@dataclass(frozen=True, eq=False)
class Joint:
    """What the backward pass of one part is given of both: ∂output, the output, and the log-sum-exp less the shift."""

    gradient: Tensor
    output: Tensor
    lse: Tensor


class Kernel:
    """A fused kernel that returns its log-sum-exp, and its backward pass."""

    def forward(self, query: Tensor, keys: Keys, scaling: float) -> tuple[Tensor, Tensor, Kept]:
        """Return the output (batch, head, query, d), the log-sum-exp (batch, head, query), and what backward needs."""
        raise NotImplementedError

    def backward(self, query: Tensor, keys: Keys, joint: Joint, kept: Kept, scaling: float) -> Gradients:
        """Return the gradients of weights exp(s − lse) that make the joint output."""
        raise NotImplementedError


class OnCPU(Kernel):
    """PyTorch's flash attention on a CPU, in any floating type."""

    def forward(self, query: Tensor, keys: Keys, scaling: float) -> tuple[Tensor, Tensor, Kept]:
        """See :class:`Kernel`."""
        bias = _whole(keys.bias, query, keys.key)
        output, lse = _aten._scaled_dot_product_flash_attention_for_cpu(
            query, keys.key, keys.value, 0.0, keys.is_causal, attn_mask=bias, scale=scaling
        )
        return output, lse, ()

    def backward(self, query: Tensor, keys: Keys, joint: Joint, kept: Kept, scaling: float) -> Gradients:
        """See :class:`Kernel`."""
        bias = _whole(keys.bias, query, keys.key)
        found: Gradients = _aten._scaled_dot_product_flash_attention_for_cpu_backward(
            joint.gradient, query, keys.key, keys.value, joint.output, joint.lse, 0.0, keys.is_causal,
            attn_mask=bias, scale=scaling,
        )  # fmt: skip
        return found


class Flash(Kernel):
    """Flash attention on a GPU: half precision, without a bias."""

    def forward(self, query: Tensor, keys: Keys, scaling: float) -> tuple[Tensor, Tensor, Kept]:
        """See :class:`Kernel`."""
        output, lse, *kept = _aten._scaled_dot_product_flash_attention(
            query, keys.key, keys.value, 0.0, keys.is_causal, False, scale=scaling
        )
        return output, lse, tuple(kept[:6])

    def backward(self, query: Tensor, keys: Keys, joint: Joint, kept: Kept, scaling: float) -> Gradients:
        """See :class:`Kernel`."""
        *counts, seed, offset = kept
        found: Gradients = _aten._scaled_dot_product_flash_attention_backward(
            joint.gradient, query, keys.key, keys.value, joint.output, joint.lse, *counts, 0.0, keys.is_causal,
            seed, offset, scale=scaling,
        )  # fmt: skip
        return found


class MemoryEfficient(Kernel):
    """Memory-efficient attention on a GPU: single and half precision, with a bias."""

    def forward(self, query: Tensor, keys: Keys, scaling: float) -> tuple[Tensor, Tensor, Kept]:
        """See :class:`Kernel`."""
        output, lse, seed, offset = _aten._scaled_dot_product_efficient_attention(
            query, keys.key, keys.value, _aligned(keys.bias, query, keys.key), True, 0.0, keys.is_causal, scale=scaling
        )
        return output, lse[..., : query.shape[2]], (seed, offset, lse.shape[2])

    def backward(self, query: Tensor, keys: Keys, joint: Joint, kept: Kept, scaling: float) -> Gradients:
        """See :class:`Kernel`."""
        seed, offset, rows = kept
        padded = torch.nn.functional.pad(joint.lse, (0, rows - joint.lse.shape[2]), value=torch.inf)
        bias = _aligned(keys.bias, query, keys.key)
        # half precision reads it as (batch, query, head, d)
        output = joint.output.transpose(1, 2).contiguous().transpose(1, 2)
        d_query, d_key, d_value, _ = _aten._scaled_dot_product_efficient_attention_backward(
            joint.gradient, query, keys.key, keys.value, bias, output, padded, seed, offset, 0.0,
            [True, True, True, False], keys.is_causal, scale=scaling,
        )  # fmt: skip
        return d_query, d_key, d_value


def kernel_for(query: Tensor, keys: Keys) -> Kernel | None:
    """Return the GPU kernel for this call; None on a CPU or an old card, in float64, and for odd widths."""
    width, other = query.shape[3], keys.value.shape[3]
    is_half = query.dtype in (torch.float16, torch.bfloat16)
    if query.device.type != "cuda" or not (is_half or query.dtype == torch.float32):
        return None
    if torch.version.hip is not None or (is_half and torch.cuda.get_device_capability(query.device) < OLDEST):
        return None
    if width % 8 or other % 8 or max(width, other) > LARGEST_HEAD:
        return None
    return Flash() if is_half and keys.bias is None and width == other else MemoryEfficient()


def merged(query: Tensor, parts: tuple[Keys, ...], kernels: tuple[Kernel, ...], scaling: float) -> Tensor:
    """Attend to all ``parts`` as to one: the softmax over all their keys, a fused call each.

    Args:
        query: (batch, head, query, d_head).
        parts: what is attended to, of as many heads; at least one sees something for each query.
        kernels: the kernel of each.
        scaling: multiplies q·k.

    Returns:
        (batch, head, query, d_value), differentiable by query, keys and values.

    Example:
        >>> import torch
        >>> q, k, v = (torch.randn(1, 2, 3, 8, dtype=torch.float64) for _ in range(3))
        >>> parts = (Keys(k[:, :, :1], v[:, :, :1]), Keys(k[:, :, 1:], v[:, :, 1:]))
        >>> joint = torch.softmax(q @ k.mT, dim=-1) @ v
        >>> bool(torch.allclose(merged(q, parts, (OnCPU(), OnCPU()), 1.0), joint, rtol=0, atol=1e-12))
        True
    """
    tensors = [x for part in parts for x in (part.key, part.value)]
    output: Tensor = _Merged.apply(parts, kernels, scaling, query, *tensors)
    return output


class _Merged(torch.autograd.Function):
    """Kernels forwards, merged by their log-sum-exp; the same kernels backwards, given the joint one."""

    @staticmethod
    def forward(
        ctx: Any, parts: tuple[Keys, ...], kernels: tuple[Kernel, ...], scaling: float, query: Tensor, *tensors: Tensor
    ) -> Tensor:
        seen = _with(parts, tensors)
        calls = [kernel.forward(query, keys, scaling) for kernel, keys in zip(kernels, seen, strict=True)]
        shifted = torch.stack([lse + keys.shift for (_, lse, _), keys in zip(calls, seen, strict=True)])
        joint = torch.logsumexp(shifted, dim=0)
        shares = torch.exp(shifted - joint)[..., None]
        whole = shares[0] * calls[0][0]
        for share, (output, _, _) in zip(shares[1:], calls[1:], strict=True):
            whole += share * output
        output = whole.to(query.dtype)
        ctx.save_for_backward(query, output, joint, *tensors)
        ctx.parts, ctx.kernels, ctx.scaling, ctx.kept = parts, kernels, scaling, [kept for _, _, kept in calls]
        return output

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        query, output, lse, *tensors = ctx.saved_tensors
        gradient = gradient.contiguous()
        d_query, others = torch.zeros_like(query, dtype=torch.promote_types(query.dtype, torch.float32)), []
        for keys, kernel, kept in zip(_with(ctx.parts, tensors), ctx.kernels, ctx.kept, strict=True):
            joint = Joint(gradient, output, lse - keys.shift)
            found = kernel.backward(query, keys, joint, kept, ctx.scaling)
            d_query += found[0]
            others += found[1:]
        return None, None, None, d_query.to(query.dtype), *others


def _with(parts: tuple[Keys, ...], tensors: Any) -> list[Keys]:
    """Put the tensors that autograd was given in the places of the parts' own."""
    return [
        Keys(tensors[2 * nth], tensors[2 * nth + 1], part.bias, part.is_causal, part.shift)
        for nth, part in enumerate(parts)
    ]


def _whole(bias: Tensor | None, query: Tensor, key: Tensor) -> Tensor | None:
    """Spread a bias over (batch, head, query, key)."""
    return None if bias is None else bias.to(query.dtype).expand(*query.shape[:3], key.shape[2])


def _aligned(bias: Tensor | None, query: Tensor, key: Tensor) -> Tensor | None:
    """The same, in rows of a multiple of 16 numbers, as the kernel reads them."""
    if bias is None:
        return None
    padded = torch.nn.functional.pad(bias.to(query.dtype), (0, -key.shape[2] % 16))
    return padded[..., : key.shape[2]].expand(*query.shape[:3], key.shape[2])
