"""What watching costs: time and peak memory beside the plain forward, and beside other ways to get prefix mass.

Run it on an otherwise idle machine:

    python benchmarks/microscope.py --tokens 2048 --repeats 5

Each way runs in a process of its own, so that peaks of memory do not mix. Ways are interleaved, so that a machine that
slows down slows all of them; printed are medians, and the median of the ratios to the plain forward of the same round.

Every run is warmed up by one before it. *Peak* is the process's resident memory at its highest during the run, *growth*
what that is above the loaded model. Memory is measured in a process where freed memory goes back to the system at once
(MALLOC_MMAP_THRESHOLD_); otherwise growth would be what the warm-up happened to leave behind. On Linux alone:
elsewhere the peak is that of the whole process, and growth is not told.

nnsight and TransformerLens run where they are installed (0.8 and 4 were tried); both need eager attention, and give
attention weights, of which the context's share is summed here.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from kept import say_where

CONTEXT = "You are a careful reviewer. Say what the film is worth."
WAYS = ("plain", "watch", "watch with residuals", "watch with everything", "output_attentions", "nnsight",
        "TransformerLens")  # fmt: skip


def measure(way: str, tokens: int, memory: bool) -> dict[str, float | str]:
    """Seconds (on the clock, and of the processor) of one run of ``way``, or its peak memory and growth in MB."""
    import torch

    import elicitable as el

    model = el.load("smollm2")
    ids = torch.randint(3, 40_000, (1, tokens), generator=torch.Generator().manual_seed(0))
    run = _way(way, model, ids)
    with torch.no_grad():
        run()
        if memory:
            return _memory_of(run)
        started, cpu_started = time.perf_counter(), time.process_time()
        run()
        return {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu_started}


def _memory_of(run: Callable[[], object]) -> dict[str, float | str]:
    """The peak of resident memory during ``run``, and how far it is above what there was before, in MB."""
    gc.collect()
    if not Path("/proc/self/clear_refs").exists():
        run()
        return {"peak_mb": _peak_mb(), "growth_mb": math.nan}
    before = _status_mb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    run()
    return {"peak_mb": _status_mb("VmHWM"), "growth_mb": _status_mb("VmHWM") - before}


def _status_mb(name: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024


def _way(way: str, model: object, ids: object) -> Callable[[], object]:
    import torch

    import elicitable as el

    assert isinstance(ids, torch.Tensor)
    hf = model.hf  # type: ignore[attr-defined]
    options = {"use_cache": False, "logits_to_keep": 1}
    context = el.context("prompt", model, text=CONTEXT)

    def watched(**given: bool) -> None:
        with el.watch(model, context, **given) as scope:  # type: ignore[arg-type]
            hf(ids, **options)
        assert scope.prefix_mass.shape[-1] == ids.shape[1]

    if way == "plain":
        return lambda: hf(ids, **options)
    if way == "watch":
        return lambda: watched(residuals=False, drift=False)
    if way == "watch with residuals":
        return lambda: watched(drift=False)
    if way == "watch with everything":
        return watched
    both = torch.cat([model.ids(CONTEXT), ids], dim=1)  # type: ignore[attr-defined]
    length = both.shape[1] - ids.shape[1]
    if way == "output_attentions":
        hf.set_attn_implementation("eager")

        def mass() -> list[torch.Tensor]:
            attentions = hf(both, output_attentions=True, **options).attentions
            return [layer[:, :, length:, :length].sum(-1) for layer in attentions]

        return mass
    if way == "nnsight":
        return _nnsight(hf, both, length)
    return _transformer_lens(model, both, length)


def _nnsight(hf: object, ids: object, length: int) -> Callable[[], object]:
    import nnsight

    hf.set_attn_implementation("eager")  # type: ignore[attr-defined]
    traced = nnsight.NNsight(hf)

    def mass() -> object:
        with traced.trace(ids, use_cache=False, logits_to_keep=1):
            saved = nnsight.save(
                [layer.self_attn.output[1][:, :, length:, :length].sum(-1) for layer in traced.model.layers]
            )
        return saved

    return mass


def _transformer_lens(model: object, ids: object, length: int) -> Callable[[], object]:
    from transformer_lens.model_bridge import TransformerBridge

    bridge = TransformerBridge.boot_transformers(
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        hf_model=model.hf,  # type: ignore[attr-defined]
        tokenizer=model.tokenizer,  # type: ignore[attr-defined]
        device="cpu",
    )

    def mass() -> object:
        _, cache = bridge.run_with_cache(ids, names_filter=lambda name: name.endswith("hook_pattern"))
        return [pattern[:, :, length:, :length].sum(-1) for pattern in cache.values()]

    return mass


def _peak_mb() -> float:
    """The process's largest resident memory so far (ru_maxrss is in bytes on macOS, else in KB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)


NEEDS = {"nnsight": "nnsight", "TransformerLens": "transformer_lens"}


def _apart(way: str, tokens: int) -> dict[str, float | str]:
    if way in NEEDS and importlib.util.find_spec(NEEDS[way]) is None:
        return {"failed": f"{NEEDS[way]} is not installed"}
    found: dict[str, float | str] = {}
    for option, environment in (("--clock", {}), ("--memory", {"MALLOC_MMAP_THRESHOLD_": "65536"})):
        command = [sys.executable, __file__, "--measure", way, "--tokens", str(tokens), option]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})
        if done.returncode:
            return {"failed": (done.stderr.strip().splitlines() or ["no message"])[-1]}
        found |= json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--ways", nargs="*", default=list(WAYS))
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--clock", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure, given.tokens, given.memory)))
        return
    ways = ["plain", *(way for way in given.ways if way != "plain")]
    rounds = [{way: _apart(way, given.tokens) for way in ways} for _ in range(given.repeats)]
    say_where()
    print(f"SmolLM2-135M, {given.tokens} tokens, {given.repeats} rounds; ratios are to the plain sdpa forward")
    print(f"{'way':22}" + "".join(f"{name:>10}{'ratio':>7}" for name in ("seconds", "CPU s", "peak MB", "growth MB")))
    for way in ways:
        print(_row(way, rounds))


def _row(way: str, rounds: list[dict[str, dict[str, float | str]]]) -> str:
    failed = [r[way]["failed"] for r in rounds if "failed" in r[way]]
    if failed:
        return f"{way:22}not run: {failed[0]}"
    cells = []
    for unit, digits in (("seconds", 2), ("cpu_seconds", 2), ("peak_mb", 0), ("growth_mb", 0)):
        values = [float(r[way][unit]) for r in rounds]
        ratios = [float(r[way][unit]) / float(r["plain"][unit]) for r in rounds]
        cells.append(f"{statistics.median(values):10.{digits}f}{statistics.median(ratios):7.2f}")
    return f"{way:22}" + "".join(cells)


if __name__ == "__main__":
    main()
