"""One training step of a prefix: ours beside peft's, alternating, medians; and the arithmetic floor.

    python benchmarks/step.py [--steps 60] [--dtype float32] [--batch 64] [--length 10]

Each side has a process of its own, as its user runs it, and the two take their steps in turns: ``peft_over_ours`` is
the median of these turns. Our training loop asks the C library to keep freed memory (models/speed/memory.py), from
which peft's step would gain as well; ``in_one_process`` is the ratio where both have that. Both train free keys and
values (``length`` a layer) on the same frozen 4-layer toy and the same batches, with the optimiser's step and the
drawing of data left out on both sides.

The floor is the FLOPs of a forward and of the backward that reaches the prefix (activations only, no weight gradients),
over the rate that this machine reaches for matrix products of exactly those shapes, frozen matrices multiplied as ours
are (models/speed/products.py), without what ours need not multiply: the first layer's queries, keys and values, and
queries of the last that nobody reads.
"""

from __future__ import annotations

import argparse
import atexit
import copy
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from multiprocessing.connection import Connection
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

import elicitable as el
from elicitable.methods.catalog import method_named
from elicitable.models.speed import precision
from elicitable.models.speed.processor import made_on, packs
from elicitable.models.speed.products import product
from elicitable.rng import generator
from elicitable.tasks.catalog import task_from
from elicitable.training.batches import Batch, encode
from elicitable.training.evaluate import answer_logits, token_losses
from elicitable.training.loop import prepared

Step = Callable[[], None]


def our_step(model: Any, batch: Batch, length: int) -> tuple[Step, Callable[[], None]]:
    """One forward and backward as the training loop takes it, and what closes it."""
    adaptation = method_named("kv-prefix").build(model, length, seed=0, init="random")
    opened = prepared(model, adaptation)
    refresh = opened.__enter__()

    def step() -> None:
        for parameter in adaptation.parameters():
            parameter.grad = None
        refresh()
        with precision.autocast(model):
            logits = answer_logits(model, batch)
        (token_losses(logits, batch.targets).sum() / batch.targets.numel()).backward()

    return step, lambda: opened.__exit__(None, None, None)


def peft_step(model: Any, batch: Batch, length: int, is_bfloat16: bool) -> Step:
    """The same through peft's PrefixTuning, with logits for the answer only."""
    from peft import PrefixTuningConfig, get_peft_model

    peft = get_peft_model(
        copy.deepcopy(model.hf).eval(), PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=length)
    )
    answer = batch.targets.shape[1]
    around = (lambda: torch.autocast("cpu", torch.bfloat16)) if is_bfloat16 else nullcontext

    def step() -> None:
        peft.zero_grad(set_to_none=True)
        with around():
            logits = peft(input_ids=batch.input_ids, logits_to_keep=answer).logits[:, -answer:].float()
        (token_losses(logits, batch.targets).sum() / batch.targets.numel()).backward()

    return step


def floor_seconds(model: Any, batch: Batch, length: int, dtype: torch.dtype) -> tuple[float, float]:
    """Seconds and FLOPs of the matrix products that the answer needs, each timed at its own shape."""
    tokens, read, depth = batch.input_ids.shape[1], batch.targets.shape[1], model.anatomy.depth
    layers = [layer_floor(model, batch, length, tokens if i < depth - 1 else read, i > 0, dtype) for i in range(depth)]
    return sum(seconds for seconds, _ in layers), sum(flops for _, flops in layers)


def layer_floor(
    model: Any, batch: Batch, length: int, read: int, has_below: bool, dtype: torch.dtype
) -> tuple[float, float]:
    """The same for one layer, of which ``read`` positions are read above it: the others need keys and values only.

    The first layer has nothing trained below it, so its first product is not taken back, and is no product at all:
    the same few tokens at the same positions can be looked up.
    """
    rows, tokens = batch.input_ids.shape
    facts, d = model.anatomy.layers[0], model.anatomy.d_model
    keys, heads = tokens + length, rows * facts.heads
    seconds = flops = 0.0
    # each product once forward and once back to its activations; attention's two products have two operands that need
    # a gradient (queries and keys, weights and values), so each costs two products on the way back
    plain = [(rows * read, d, d), (rows * read, d, 4 * d), (rows * read, 4 * d, d)]
    below = [(rows * tokens, d, 2 * d), (rows * read, d, d)] if has_below else []
    batched = [(read, facts.d_head, keys), (read, keys, facts.d_head)]
    for m, k, n in plain + below:
        seconds += 2 * timed(product(torch.randn(k, n), None, dtype), torch.randn(m, k).to(dtype))
        flops += 2 * 2.0 * m * k * n
    for m, k, n in batched:
        seconds += 3 * timed(torch.bmm, torch.randn(heads, m, k).to(dtype), torch.randn(heads, k, n).to(dtype))
        flops += 3 * 2.0 * heads * m * k * n
    return seconds, flops


def timed(multiply: Callable[..., Any], *operands: torch.Tensor) -> float:
    """Median seconds of one product."""
    taken = []
    for _ in range(12):
        started = time.perf_counter()
        multiply(*operands)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


@contextmanager
def apart(build: Callable[..., Step], *given: Any) -> Iterator[Step]:
    """A step that is built, and taken, in a process of its own; it returns when the step has ended."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, build, *given), daemon=True)
    process.start()

    def step() -> None:
        ours.send(None)
        ours.recv()

    try:
        step()
        yield step
    finally:
        process.terminate()
        process.join()


def serve(asked: Connection, build: Callable[..., Step], *given: Any) -> None:
    """Take a step whenever asked to."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    step = build(*given)
    while True:
        asked.recv()
        step()
        asked.send(None)


def ours_built(examples: int, length: int, is_bfloat16: bool) -> Step:
    """Our step on the toy, for a process of its own."""
    precision.has_fast_bfloat16 = lambda device: is_bfloat16
    model, batch = toy_and_batch(examples)
    step, close = our_step(model, batch, length)
    atexit.register(close)  # what is held open for the steps is held as long as the process lives
    return step


def peft_built(examples: int, length: int, is_bfloat16: bool) -> Step:
    """peft's step on the toy, for a process of its own."""
    return peft_step(*toy_and_batch(examples), length, is_bfloat16)


def toy_and_batch(examples: int) -> tuple[Any, Batch]:
    """The model and the batch that both sides have."""
    model = el.load("toy:mixed", device="cpu", dtype="float32")
    return model, encode(model, task_from("ascending-add-1").sample(examples, generator(0, "benchmark")))


def alternate(steps: dict[str, Step], count: int) -> dict[str, list[float]]:
    """Milliseconds of each, taken in turns so that a busy machine is busy for both."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for nth in range(count + 3):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            if nth >= 3:
                taken[name].append(1e3 * (time.perf_counter() - started))
    return taken


def measure(examples: int, length: int, count: int, is_bfloat16: bool) -> dict[str, Any]:
    """Ours, peft's and the floor in one type."""
    given = examples, length, is_bfloat16
    with apart(ours_built, *given) as ours, apart(peft_built, *given) as theirs:
        taken = alternate({"ours_ms": ours, "peft_ms": theirs}, count)
    known = precision.has_fast_bfloat16
    try:
        together = alternate({"ours": ours_built(*given), "peft": peft_built(*given)}, count)
    finally:
        precision.has_fast_bfloat16 = known
    model, batch = toy_and_batch(examples)
    seconds, flops = floor_seconds(model, batch, length, torch.bfloat16 if is_bfloat16 else torch.float32)
    floor, found = 1e3 * seconds, {name: round(statistics.median(times), 2) for name, times in taken.items()}
    return {
        **found,
        "floor_ms": round(floor, 2),
        "gflop": round(flops / 1e9, 2),
        "peft_over_ours": ratio(taken["peft_ms"], taken["ours_ms"]),
        "in_one_process": ratio(together["peft"], together["ours"]),
        "ours_over_floor": round(found["ours_ms"] / floor, 2),
    }


def ratio(theirs: list[float], ours: list[float]) -> float:
    """Median of the turns' ratios, so that a busy minute weighs on both."""
    return round(statistics.median(a / b for a, b in zip(theirs, ours, strict=True)), 2)


def main() -> None:
    """Print one JSON object for each type, with the kind of processor."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: both")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--length", type=int, default=10)
    given = parser.parse_args()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    for name, is_bfloat16 in {"float32": False, "bfloat16": True}.items():
        if given.dtype not in (None, name):
            continue
        # without oneDNN's operations bfloat16 is written out number by number, 20 times as slow: a few steps tell
        steps = given.steps if not is_bfloat16 or packs(torch.bfloat16) else min(given.steps, 3)
        found = measure(given.batch, given.length, steps, is_bfloat16)
        print(json.dumps({**made_on(), "dtype": name, "steps": steps, **found}), flush=True)


if __name__ == "__main__":
    main()
