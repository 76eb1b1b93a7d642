"""``elicitable pretrain``: train a toy transformer from fresh weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from elicitable.cli import importing
from elicitable.cli.options import Json, Out, Quiet, Seed
from elicitable.cli.output import folder_named, output, print_json, progress_console, result_console, say

PLANTED = "planted:"


def pretrain(
    toy: Annotated[str, typer.Argument(help="ascending, mixed, or planted:NAME")],
    steps: Annotated[int | None, typer.Option(help="default: as the shipped checkpoint")] = None,
    seed: Seed = 0,
    out: Out = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a toy transformer from fresh weights, as the shipped checkpoints were."""
    from elicitable.report.progress import LiveReporter
    from elicitable.report.table import print_wrapped

    folder = out or folder_named("pretrain", toy, str(seed), *([] if steps is None else [str(steps)]))
    if toy.startswith(PLANTED):
        _pretrain_planted(toy.removeprefix(PLANTED), folder, steps, seed, as_json, quiet)
        return
    with importing():
        from elicitable.lab.pretrain import pretrain as run_pretrain

    with output(folder), LiveReporter(progress_console()) as live:
        if not quiet:
            live.begin(toy, f"pretraining, seed {seed}", 0, 1)
        record = run_pretrain(toy, folder, seed=seed, steps=steps, progress=None if quiet else live.point)
    if as_json:
        print_json(record.to_json())
    else:
        scores = ", ".join(f"{task} {outcomes.share:.3f}" for task, outcomes in record.scores.items())
        print_wrapped([f"Right of its test items: {scores}"], result_console())
        say(f"Written to {folder / toy}.safetensors.")


def _pretrain_planted(name: str, folder: Path, steps: int | None, seed: int, as_json: bool, quiet: bool) -> None:
    with importing():
        from elicitable.planted.models import pretrain_mix
        from elicitable.report.progress import LiveReporter

    with output(folder), LiveReporter(progress_console()) as live:
        if not quiet:
            live.begin(f"{PLANTED}{name}", f"pretraining, seed {seed}", 0, 1)
        record = pretrain_mix(name, folder / name, seed=seed, steps=steps, progress=None if quiet else live.point)
    if as_json:
        print_json(record)
    else:
        say(f"Right of its mix: {record['validation']:.3f}")
        say(f"SHA-256: {record['sha256']}")
        say(f"Written to {folder / name}.")
