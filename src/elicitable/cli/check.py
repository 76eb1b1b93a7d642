"""``elicitable check``: is an adapter sound on a model?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from elicitable.cli import importing
from elicitable.cli.options import Json, ModelOptions, Quiet
from elicitable.cli.output import print_json, result_console, say, status


def check(
    adapter: Annotated[
        Path, typer.Argument(help="the folder of a run, of an artefact, or of an adapter, also of PEFT's")
    ],
    about: ModelOptions,
    quick: Annotated[bool, typer.Option("--quick", help="only what a few short forward passes tell")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check that an adapter works on a model; exit code 1 where something fails."""
    with importing():
        from elicitable.race.check import check as run_check
        from elicitable.race.checked import as_text

    with status("checking …", quiet):
        checked = run_check(about.load(), adapter, quick=quick)
    if as_json:
        print_json(checked.record())
    else:
        console = result_console()
        say(as_text(checked, console.width), console)
    if not checked.is_sound:
        raise typer.Exit(1)
