"""What watching costs: time and peak memory beside the plain forward, and beside other ways to get prefix mass.

Run it on an otherwise idle machine:

    python benchmarks/microscope.py --tokens 2048 --repeats 5

Each way runs in a process of its own, so that peaks of memory do not mix. Ways are interleaved, so that a machine that
slows down slows all of them; printed are medians, and the median of the ratios to the plain forward of the same round.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

CONTEXT = "You are a careful reviewer. Say what the film is worth."
WAYS = ("plain", "watch", "watch with residuals", "watch with everything", "output_attentions", "nnsight",
        "TransformerLens")  # fmt: skip


def measure(way: str, tokens: int) -> dict[str, float | str]:
    """Seconds of the second run of ``way``; the process's peak memory, and its growth over the loaded model, in MB."""
    import torch

    import elicitable as el

    model = el.load("smollm2")
    ids = torch.randint(3, 40_000, (1, tokens), generator=torch.Generator().manual_seed(0))
    run = _way(way, model, ids)
    loaded = _peak_mb()
    with torch.no_grad():
        run()
        started = time.perf_counter()
        run()
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "peak_mb": _peak_mb(), "growth_mb": _peak_mb() - loaded}


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
    return _transformer_lens(hf, both, length)


def _nnsight(hf: object, ids: object, length: int) -> Callable[[], object]:
    import nnsight

    hf.set_attn_implementation("eager")  # type: ignore[attr-defined]
    traced = nnsight.NNsight(hf)

    def mass() -> object:
        with traced.trace(ids, use_cache=False, logits_to_keep=1):
            saved = [layer.self_attn.output[1][:, :, length:, :length].sum(-1).save() for layer in traced.model.layers]
        return saved

    return mass


def _transformer_lens(hf: object, ids: object, length: int) -> Callable[[], object]:
    from transformer_lens import HookedTransformer

    lens = HookedTransformer.from_pretrained(
        "HuggingFaceTB/SmolLM2-135M-Instruct", hf_model=hf, local_files_only=True, device="cpu"
    )

    def mass() -> object:
        _, cache = lens.run_with_cache(ids, names_filter=lambda name: name.endswith("hook_pattern"))
        return [pattern[:, :, length:, :length].sum(-1) for pattern in cache.values()]

    return mass


def _peak_mb() -> float:
    """The process's largest resident memory so far (ru_maxrss is in KB on Linux, bytes on macOS)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)


def _apart(way: str, tokens: int) -> dict[str, float | str]:
    command = [sys.executable, __file__, "--measure", way, "--tokens", str(tokens)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    found: dict[str, float | str] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--ways", nargs="*", default=list(WAYS))
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure, given.tokens)))
        return
    ways = ["plain", *(way for way in given.ways if way != "plain")]
    rounds = [{way: _apart(way, given.tokens) for way in ways} for _ in range(given.repeats)]
    print(f"{given.tokens} tokens, {given.repeats} rounds")
    print(f"{'way':24}{'seconds':>9}{'ratio':>8}{'peak MB':>9}{'ratio':>8}{'growth MB':>11}{'ratio':>8}")
    for way in ways:
        failed = [r[way]["failed"] for r in rounds if "failed" in r[way]]
        if failed:
            print(f"{way:24}not run: {failed[0]}")
            continue
        columns = []
        for unit in ("seconds", "peak_mb", "growth_mb"):
            values = [float(r[way][unit]) for r in rounds]
            ratios = [float(r[way][unit]) / float(r["plain"][unit]) for r in rounds]
            columns += [statistics.median(values), statistics.median(ratios)]
        print("{:24}{:9.2f}{:8.2f}{:9.0f}{:8.2f}{:11.0f}{:8.2f}".format(way, *columns))


if __name__ == "__main__":
    main()
