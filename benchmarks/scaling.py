"""How the cost of a prefix's training step grows: with the sequence, the prefix, the layers and the batch.

    python benchmarks/scaling.py [--repeats 7] [--dtype bfloat16]

A random model of the toy's shape (d = 256, 4 heads; 4 layers, 64 tokens, a prefix of 16 and a batch of 16 unless
varied) takes our step, forward and backward, on one thread. Its processor time is taken, so that a busy machine does
not count, at the values of an axis in turns; the median stands. The exponent is the slope of log time over log value,
by least squares; that of the last two values, where fixed costs weigh least, is given beside it. One JSON object an
axis on standard output, a table on standard error.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

from kept import say_where

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from step import Step, our_step
from transformers import GPT2Config, GPT2LMHeadModel

from elicitable.models.model import Model
from elicitable.models.speed import precision
from elicitable.rng import generator
from elicitable.training.batches import Batch

SYMBOLS = 10
USUAL = {"sequence": 64, "prefix": 16, "layers": 4, "batch": 16}
AXES = {
    "sequence": (32, 64, 128, 256, 512),
    "prefix": (4, 16, 64, 256),
    "layers": (1, 2, 4, 8),
    "batch": (4, 8, 16, 32, 64),
}


def random_model(layers: int, positions: int) -> Model:
    """A GPT-2 of the toy's width with fresh weights."""
    config = GPT2Config(
        vocab_size=SYMBOLS, n_positions=positions, n_embd=256, n_layer=layers, n_head=4, activation_function="relu",
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    return Model(GPT2LMHeadModel(config).eval(), name=f"random, {layers} layers")


def random_batch(rows: int, tokens: int) -> Batch:
    """Digits, of which the last half is the answer."""
    ids = torch.from_numpy(generator(0, "scaling").integers(SYMBOLS, size=(rows, tokens + 1)))
    return Batch(ids[:, :-1], None, ids[:, tokens // 2 + 1 :])


def milliseconds(axis: str, repeats: int) -> list[float]:
    """Median step at every value of one axis, the others as usual."""
    steps, closes = {}, []
    for value in AXES[axis]:
        size = {**USUAL, axis: value}
        model = random_model(size["layers"], size["sequence"] + size["prefix"])
        steps[str(value)], close = our_step(model, random_batch(size["batch"], size["sequence"]), size["prefix"])
        closes.append(close)
    taken = in_turns(steps, repeats)
    for close in closes:
        close()
    return [taken[str(value)] for value in AXES[axis]]


def in_turns(steps: dict[str, Step], repeats: int) -> dict[str, float]:
    """Median processor milliseconds of each step; the first round is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for nth in range(repeats + 1):
        for name, step in steps.items():
            started = time.process_time()
            step()
            if nth:
                taken[name].append(1e3 * (time.process_time() - started))
    return {name: round(statistics.median(times), 2) for name, times in taken.items()}


def exponent(values: Sequence[float], costs: Sequence[float]) -> float:
    """The least-squares slope of log cost over log value.

    >>> round(exponent([1, 2, 4], [3, 12, 48]), 6)
    2.0
    """
    x, y = [math.log(value) for value in values], [math.log(cost) for cost in costs]
    return statistics.linear_regression(x, y).slope


def measure(axis: str, repeats: int) -> dict[str, Any]:
    """One axis as plain data."""
    values, taken = AXES[axis], milliseconds(axis, repeats)
    return {
        "axis": axis,
        "values": list(values),
        "ms": taken,
        "exponent": round(exponent(values, taken), 2),
        "exponent_of_last": round(exponent(values[-2:], taken[-2:]), 2),
    }


def table(found: Sequence[dict[str, Any]]) -> str:
    """The axes as aligned text."""
    lines = [f"{'axis':<10}{'exponent':>9}{'at the end':>12}   ms"]
    for one in found:
        pairs = ", ".join(f"{value}: {ms:g}" for value, ms in zip(one["values"], one["ms"], strict=True))
        lines.append(f"{one['axis']:<10}{one['exponent']:>9.2f}{one['exponent_of_last']:>12.2f}   {pairs}")
    return "\n".join(lines)


def main() -> None:
    """Print one JSON object an axis, and a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), help="default: what training uses here")
    given = parser.parse_args()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    if given.dtype:
        precision.has_fast_bfloat16 = lambda device: given.dtype == "bfloat16"
    found = []
    say_where()
    for axis in AXES:
        found.append(measure(axis, given.repeats))
        print(json.dumps(found[-1]), flush=True)
    print(table(found), file=sys.stderr)


if __name__ == "__main__":
    main()
