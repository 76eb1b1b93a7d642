"""What the processor can do, asked once and in this one place.

Results have the same digits on one kind of processor only: another kind multiplies with other instructions, which add
in another order. So what is stored names its kind, and every path that depends on the processor asks here.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor

KINDS = ("x86", "avx2", "avx512", "avx512-bf16", "amx")  # of x86, each can what those before it can
_X86 = {"x86_64", "amd64", "i386", "i686"}
# oneDNN's names of instruction sets by how they begin, and the best kind that each leaves
_LIMITS = {
    "sse41": "x86",
    "avx2": "avx2",
    "avx512_core_amx": "amx",
    "avx512_core_bf16": "avx512-bf16",
    "avx512_core_fp16": "avx512-bf16",
    "avx512_core": "avx512",
    "avx10_1_512_amx": "amx",
    "avx10": "avx512-bf16",
    "avx": "x86",
}


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread for the length of a ``with``: sums in another order would have other last digits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@cache
def kind() -> str:
    """Name the kind of processor that this process computes on.

    Returns:
        ``"amx"`` (bfloat16 matrix tiles), ``"avx512-bf16"`` (bfloat16 instructions), ``"avx512"``, ``"avx2"`` or
        ``"x86"``; elsewhere the machine's own name, such as ``"aarch64"``. Where ``ONEDNN_MAX_CPU_ISA`` or
        ``ATEN_CPU_CAPABILITY`` allows less than there is, the kind that is left.
    """
    machine = platform.machine().lower()
    if machine not in _X86:
        return machine or "unknown"
    return min(_instructions(), _allowed_by_onednn(), _allowed_by_torch(), key=KINDS.index)


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether ``device`` has bfloat16 matrix instructions (measured 2.6 to 4.6 times float32 on such CPUs)."""
    if device.type == "cpu":
        return kind() in ("avx512-bf16", "amx")
    return device.type == "cuda" and torch.cuda.is_bf16_supported()


@cache
def packs(dtype: torch.dtype) -> bool:
    """Whether matrices of ``dtype`` can be laid out for oneDNN once and multiplied so; found by doing it."""
    try:
        laid_out = torch.ops.mkldnn._reorder_linear_weight(torch.eye(16, dtype=dtype), 16)
        product = torch.ops.mkldnn._linear_pointwise.default(
            torch.ones(16, 16, dtype=dtype), laid_out, torch.ones(16, dtype=dtype), "relu", [], ""
        )
    except (AttributeError, RuntimeError):  # a build without oneDNN; no such operation for this type here
        return False
    return bool((product == 2.0).all())


@cache
def rows_stand_alone(counts: tuple[int, int], weight: tuple[int, int], dtype: torch.dtype, is_back: bool) -> bool:
    """Whether a row of a product has the same bits whichever of two numbers of rows it is multiplied with.

    Kernels take rows in groups, and a group that is not full, or few rows in all, may be added in another order. Which
    numbers differ hangs on the processor and on the shape, so it is found by multiplying equal rows.

    Args:
        counts: the two numbers of rows.
        weight: (in, out) of the matrix.
        dtype: the type of the product.
        is_back: for ∂y Wᵀ; else for x W + b.
    """
    if counts[0] == counts[1]:
        return True
    matrix, bias, row = _drawn(dtype, weight, weight[1:], (1, weight[1] if is_back else weight[0]))
    found = []
    for count in counts:
        rows = row.repeat(count, 1)
        found.append(rows @ matrix.t() if is_back else torch.addmm(bias, rows, matrix))
    return all(bool((product == found[0][0]).all()) for product in found)


@cache
def columns_stand_alone(rows: int, weight: tuple[int, int], first: int, dtype: torch.dtype) -> bool:
    """Whether x W + b has the same bits when the ``first`` columns of W and b and the others are multiplied apart.

    Kernels take columns in groups as they take rows. It is found by doing both on ``rows`` random rows.
    """
    x, matrix, bias = _drawn(dtype, (rows, weight[0]), weight, weight[1:])
    parts = (slice(None, first), slice(first, None))
    apart = [torch.addmm(bias[part], x, matrix[:, part]) for part in parts]
    return torch.equal(torch.addmm(bias, x, matrix), torch.cat(apart, dim=1))


@cache
def bias_adds_last(rows: int, weight: tuple[int, int], dtype: torch.dtype, act: str = "relu") -> bool:
    """Whether act(x W + b) has the same bits when b is added after the product, and not before its sums.

    ``addmm`` writes b everywhere first; a kernel that sums all inputs of an entry at once adds it to the sum all the
    same. It is found by doing both on ``rows`` random rows; ``weight`` is (in, out), ``act`` ``"none"`` or ``"relu"``.
    """
    x, matrix, bias = _drawn(dtype, (rows, weight[0]), weight, weight[1:])
    try:
        found = bias_added(x @ matrix, bias, act)
    except (AttributeError, RuntimeError):  # no such operation in this build
        return False
    plain = torch.addmm(bias, x, matrix)
    return torch.equal(found, plain.relu_() if act == "relu" else plain)


def bias_added(product: Tensor, bias: Tensor, act: str) -> Tensor:
    """act(``product`` + ``bias``), written over ``product`` in one pass; ``act`` is ``"none"`` or ``"relu"``."""
    if act == "none":
        return product.add_(bias)
    added: Tensor = torch._add_relu_(product, bias)  # type: ignore[attr-defined]
    return added


def _drawn(dtype: torch.dtype, *shapes: tuple[int, ...]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(shape, generator=generator).to(dtype) for shape in shapes)


def _instructions() -> str:
    """The best kind by the instructions that are there, whether or not they may be used."""
    if _has("_is_amx_tile_supported"):
        return "amx"
    return "avx512-bf16" if _has("_is_avx512_bf16_supported") else "avx512"


def _has(question: str) -> bool:
    return bool(getattr(torch.cpu, question, lambda: False)())


def _allowed_by_onednn() -> str:
    asked = (os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or "").lower()
    return next((best for isa, best in _LIMITS.items() if asked.startswith(isa)), KINDS[-1])


def _allowed_by_torch() -> str:
    """What torch found and ``ATEN_CPU_CAPABILITY`` left: its own operations know no bfloat16 instructions."""
    capability = torch.backends.cpu.get_cpu_capability().lower()
    return KINDS[-1] if capability.startswith("avx512") else "avx2" if capability == "avx2" else "x86"
