"""Two choices that the toys' training step rests on, measured: attention written out, and ReLU instead of GELU.

    python benchmarks/kernels.py

One thread, one process; alternating runs, medians of forward + backward in milliseconds, and ratios.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

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


def medians(runs: dict[str, Callable[[], Tensor]]) -> dict[str, float]:
    """Median milliseconds of forward + backward, the candidates in turn."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(REPEATS):
        for name, run in runs.items():
            begun = time.perf_counter()
            run().sum().backward()
            taken[name].append(1e3 * (time.perf_counter() - begun))
    return {name: statistics.median(each) for name, each in taken.items()}


def show(title: str, found: dict[str, float]) -> None:
    """One line: milliseconds, and each against the last."""
    names = list(found)
    parts = [f"{name} {found[name]:.2f} ms ({found[name] / found[names[-1]]:.2f}x)" for name in names]
    print(f"{title:<34}{'  '.join(parts)}")


def main() -> None:
    """Print both tables."""
    torch.set_num_threads(1)
    for dtype in (torch.float32, torch.bfloat16):
        for batch, content, prefix in SHAPES:
            query = torch.randn(batch, 4, content, 64, dtype=dtype, requires_grad=True)
            key = torch.randn(batch, 4, content + prefix, 64, dtype=dtype, requires_grad=True)
            value = torch.randn(batch, 4, content + prefix, 64, dtype=dtype, requires_grad=True)
            mask = torch.ones(content, content + prefix, dtype=torch.bool).tril(prefix)[None, None]
            operands = (query, key, value, mask)
            runs = {"fused": lambda o=operands: fused(*o), "written out": lambda o=operands: written_out(*o)}
            show(f"attention {str(dtype)[6:]} {batch}x{content}+{prefix}", medians(runs))
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
