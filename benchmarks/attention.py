"""Kernels, measured: attention written out and ReLU instead of GELU on a CPU, a context in a call of its own on a GPU.

    python benchmarks/attention.py                    # two choices that the toys' training step rests on
    python benchmarks/attention.py --device cuda      # context and content as one call and as two, bfloat16

One thread, one process; alternating runs, medians of forward + backward and of the forward alone in milliseconds, with
freed memory kept as in a race, and ratios. On a GPU also the
most memory of a forward and backward, and a single query behind a cache.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from kept import say_where
from torch import Tensor
from torch.nn import functional

from elicitable.models.attend import Call, Slot, combine
from elicitable.models.speed import two_calls
from elicitable.models.speed.memory import keep_freed_memory

REPEATS = 15
SHAPES = ((64, 19, 6), (16, 96, 6), (16, 256, 16), (16, 384, 16))  # batch, content, prefix; 4 heads of 64


def fused(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """PyTorch's kernel."""
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)


def written_out(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """softmax(q·k/√d + mask)·v, as models/speed/written_out.py trains with."""
    products = torch.matmul(query, key.transpose(-1, -2))
    additive = torch.zeros_like(mask, dtype=torch.float32).masked_fill(~mask, torch.finfo(torch.float32).min)
    logits = torch.add(additive, products, alpha=query.shape[-1] ** -0.5)
    return torch.matmul(torch.softmax(logits, dim=-1).to(value.dtype), value)


def medians(runs: dict[str, Callable[[], Tensor]], is_back: bool = True) -> dict[str, float]:
    """Median milliseconds of forward + backward, or of the forward alone, the candidates in turn."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(REPEATS):
        for name, run in runs.items():
            begun = time.perf_counter()
            found = run()
            if is_back:
                found.sum().backward()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            taken[name].append(1e3 * (time.perf_counter() - begun))
    return {name: statistics.median(each) for name, each in taken.items()}


def show(title: str, found: dict[str, float]) -> None:
    """One line: milliseconds, and each against the last."""
    names = list(found)
    parts = [f"{name} {found[name]:.2f} ms ({found[name] / found[names[-1]]:.2f}x)" for name in names]
    print(f"{title:<34}{'  '.join(parts)}")


def on_gpu() -> None:
    """Print one call against two, for contents of several lengths behind a prefix of 16."""
    for batch, queries, content in ((16, 256, 256), (8, 1024, 1024), (4, 4096, 4096), (64, 1, 4096)):
        shapes = {"query": queries, "key": content, "value": content, "prefix_key": 16, "prefix_value": 16}
        operands = {
            name: torch.randn(batch, 16, n, 64, dtype=torch.bfloat16, device="cuda", requires_grad=True)
            for name, n in shapes.items()
        }
        call = Call(layer=0, module=torch.nn.Identity(), scaling=0.125, **operands)
        two_calls.LONG = 0
        runs = {"two calls": partial(combine, call, Slot()), "one call": partial(together, call)}
        most = {name: peak(run) for name, run in runs.items()}
        show(f"attention bfloat16 {batch}x{queries} on {content}+16", medians(runs))
        print(" " * 34 + "  ".join(f"{name} {bytes_ / 2**20:.0f} MiB" for name, bytes_ in most.items()))


def together(call: Call) -> Tensor:
    """One call over context and content, as where a device has no kernels that return their log-sum-exp."""
    devices, two_calls.DEVICES = two_calls.DEVICES, set()
    try:
        return combine(call, Slot())
    finally:
        two_calls.DEVICES = devices


def peak(run: Callable[[], Tensor]) -> int:
    """Bytes that a forward and backward takes at most beyond its operands."""
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run().sum().backward()
    return torch.cuda.max_memory_allocated() - before


def main() -> None:
    """Print the tables of the device."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    if parser.parse_args().device == "cuda":
        say_where(torch.device("cuda"))
        on_gpu()
        return
    torch.set_num_threads(1)
    keep_freed_memory()
    say_where()
    for dtype in (torch.float32, torch.bfloat16):
        for batch, content, prefix in SHAPES:
            query = torch.randn(batch, 4, content, 64, dtype=dtype, requires_grad=True)
            key = torch.randn(batch, 4, content + prefix, 64, dtype=dtype, requires_grad=True)
            value = torch.randn(batch, 4, content + prefix, 64, dtype=dtype, requires_grad=True)
            mask = torch.ones(content, content + prefix, dtype=torch.bool).tril(prefix)[None, None]
            operands = (query, key, value, mask)
            runs = {"fused": lambda o=operands: fused(*o), "written out": lambda o=operands: written_out(*o)}
            show(f"attention {str(dtype)[6:]} {batch}x{content}+{prefix}", medians(runs))
            with torch.no_grad():
                show("  forward alone", medians(runs, is_back=False))
    x = torch.randn(32 * 19, 1024, dtype=torch.bfloat16, requires_grad=True)
    show(
        "activation bfloat16 608x1024",
        medians(
            {
                "gelu (tanh)": lambda: functional.gelu(x, approximate="tanh"),
                "gelu": lambda: functional.gelu(x),
                "relu": lambda: functional.relu(x),
            }
        ),
    )


if __name__ == "__main__":
    main()
