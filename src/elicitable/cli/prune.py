"""``elicitable prune``: a smaller adapter that keeps the score."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from elicitable.cli import importing
from elicitable.cli.inspect import base_of
from elicitable.cli.options import Json, ModelOptions, Out, Quiet, ScoreName, Seed, TaskOptions
from elicitable.cli.output import output, print_json, result_console, status


def prune(
    adapter: Annotated[Path, typer.Argument(help="the folder of a prefix adapter")],
    about: ModelOptions,
    asked: TaskOptions,
    margin: Annotated[float, typer.Option(help="how much of the score may be lost (0.01 is 1 point)")] = 0.01,
    items: Annotated[int, typer.Option(min=2, help="validation items: half to search on, half to confirm")] = 1000,
    steps: Annotated[
        int, typer.Option(min=0, help="to train what is left, if half cannot go without; 0 never trains")
    ] = 1000,
    peft: Annotated[bool, typer.Option("--peft", help="drop whole tokens only, so that PEFT loads the result")] = False,
    score: ScoreName = None,
    seed: Seed = 0,
    out: Out = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Drop the virtual tokens and heads that do nothing and write a smaller adapter."""
    with importing():
        from elicitable.deploy.artefact import read
        from elicitable.race.pruning import prune_adapter, pruning_summary
        from elicitable.report.table import print_wrapped

    wanted = asked.read()
    folder = out or _beside(adapter)
    with output(folder), status("pruning …", quiet):
        record = prune_adapter(
            about.load(base=base_of(read(adapter))),
            adapter,
            wanted,
            folder,
            margin=margin,
            items=items,
            steps=steps,
            peft=peft,
            seed=seed,
            score=score,
        )
    if as_json:
        print_json(record)
    else:
        print_wrapped(pruning_summary(record).splitlines(), result_console())


def _beside(adapter: Path) -> Path:
    """Return the folder beside ``adapter``, which may be ``.``, that has its name and ``-pruned``."""
    named = adapter if adapter.name not in ("", "..") else adapter.resolve()
    return named.parent / f"{named.name}-pruned"
