"""What the processor can do, asked once and in this one place.

Results have the same digits on one kind of processor only: another kind multiplies with other instructions, which add
in another order. So what is stored names its kind, and every path that depends on the processor asks here.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TypedDict

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
_MOST = {"onednn": KINDS[-1], "torch": "avx512", "mkl": "avx512"}  # the best kind that each has kernels for
# MKL's names of instruction sets by how they begin, in what limits it
_OF_MKL = {"avx512": "avx512", "avx2": "avx2", "avx": "x86", "sse": "x86", "ssse": "x86", "compatible": "x86"}


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
def kind(device: torch.device | None = None) -> str:
    """Name the kind of processor that this process computes on.

    Args:
        device: where it computes; None is the CPU.

    Returns:
        ``"amx"`` (bfloat16 matrix tiles), ``"avx512-bf16"`` (bfloat16 instructions), ``"avx512"``, ``"avx2"`` or
        ``"x86"``; elsewhere the machine's own name, such as ``"aarch64"``. Where ``ONEDNN_MAX_CPU_ISA`` or
        ``ATEN_CPU_CAPABILITY`` allows less than there is, the kind that is left. Neither binds the other, nor MKL,
        which multiplies in float32 (``MKL_ENABLE_INSTRUCTIONS`` and ``MKL_CBWR`` do); whichever of the three may run
        another kind is named behind it: ``"avx2+torch-avx512+mkl-avx512"``. Which of the kernels that it may run MKL
        takes cannot be known. A GPU has its own name, such as ``"NVIDIA H200"``.
    """
    if device is not None and device.type != "cpu":
        return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    machine = platform.machine().lower()
    if machine not in _X86:
        return machine or "unknown"
    parts = {"onednn": _allowed_by_onednn(), "torch": _allowed_by_torch(), "mkl": _allowed_by_mkl()}
    runs = {name: min(_instructions(), _MOST[name], best, key=KINDS.index) for name, best in parts.items()}
    left = min(_instructions(), parts["onednn"], parts["torch"], key=KINDS.index)
    others = [f"+{name}-{best}" for name, best in runs.items() if best != min(left, _MOST[name], key=KINDS.index)]
    return left + "".join(others)


class MadeOn(TypedDict):
    """Where something was computed: the kind of processor, and the device."""

    processor: str
    device: str


def made_on(device: torch.device | None = None) -> MadeOn:
    """Return what everything that is stored says of where it was computed: the kind of processor, and the device.

    >>> made_on()["device"]
    'cpu'
    """
    return {"processor": kind(device), "device": "cpu" if device is None else str(device)}


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether ``device`` has bfloat16 matrix instructions (measured 2.6 to 4.6 times float32 on such CPUs)."""
    if device.type == "cpu":
        return kind().split("+")[0] in ("avx512-bf16", "amx")
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
def lays_out(dtype: torch.dtype) -> bool:
    """Whether frozen matrices of ``dtype`` are laid out for oneDNN here, because products take less time so.

    In bfloat16 wherever that can be done. In float32 where MKL, which multiplies plainly, keeps to AVX2's instructions
    and oneDNN does not: on AMD's processors with AVX-512 (1216 × 256 × 1024 in 5.8 and 2.5 ms). Sums have other last
    digits so than in a plain block.
    """
    if dtype == torch.bfloat16:
        return packs(dtype)
    return dtype == torch.float32 and is_mkl_held_back() and packs(dtype)


@cache
def is_mkl_held_back() -> bool:
    """Whether MKL multiplies with AVX2's instructions where oneDNN may use AVX-512's: on a processor of AMD's."""
    capabilities: Callable[[], dict[str, object]] = getattr(
        torch.cpu, "get_capabilities", dict
    )  # PyTorch has it by now
    name = str(capabilities().get("cpu_name", ""))
    best = min(_instructions(), _allowed_by_onednn(), key=KINDS.index)
    is_wide = KINDS.index(best) >= KINDS.index("avx512")
    return is_wide and torch.backends.mkl.is_available() and name.startswith("AMD")


def have_same_bits(*ways: Callable[[], Sequence[Tensor]]) -> bool:
    """Whether the same numbers, computed in several ``ways``, have the same bits here; found by going each of them."""
    first, *others = (way() for way in ways)
    return all(torch.equal(a, b) for other in others for a, b in zip(first, other, strict=True))


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
    return have_same_bits(
        lambda: [torch.addmm(bias, x, matrix)],
        lambda: [torch.cat([torch.addmm(bias[part], x, matrix[:, part]) for part in parts], dim=1)],
    )


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
    asked = {"amx": "_is_amx_tile_supported", "avx512-bf16": "_is_avx512_bf16_supported"}
    asked |= {"avx512": "_is_avx512_supported", "avx2": "_is_avx2_supported"}
    return next((best for best, question in asked.items() if _has(question)), "x86")


def _has(question: str) -> bool:
    return bool(getattr(torch.cpu, question, lambda: False)())


def _allowed_by_onednn() -> str:
    asked = (os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or "").lower()
    return next((best for isa, best in _LIMITS.items() if asked.startswith(isa)), KINDS[-1])


def _allowed_by_torch() -> str:
    """What torch found and ``ATEN_CPU_CAPABILITY`` left: its own operations know no bfloat16 instructions."""
    capability = torch.backends.cpu.get_cpu_capability().lower()
    return KINDS[-1] if capability.startswith("avx512") else "avx2" if capability == "avx2" else "x86"


def _allowed_by_mkl() -> str:
    """What MKL's own limits leave; where PyTorch was built without it, what PyTorch's own operations may use."""
    if not torch.backends.mkl.is_available():
        return _allowed_by_torch()
    limits = (os.environ.get(name, "").lower() for name in ("MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR"))
    found = (next((best for isa, best in _OF_MKL.items() if asked.startswith(isa)), KINDS[-1]) for asked in limits)
    return min(found, key=KINDS.index)
