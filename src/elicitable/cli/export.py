"""``elicitable export``: a winner in a form that others serve."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from elicitable.cli import importing
from elicitable.cli.output import say
from elicitable.cli.predict import own_method


def export(
    run: Annotated[Path, typer.Argument(help="the folder of a race or a tuning, or an artefact in it")],
    to: Annotated[str, typer.Option(help="prompt, peft, merged, prompt-embeds or kv")],
    out: Annotated[Path, typer.Option("--out", help="the folder to write; it must not be there yet")],
    method: Annotated[
        str | None,
        typer.Option("--method", help="what was kept of the race, not its winner; my_method.py:MyMethod runs code"),
    ] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="the base model, where it is not found")] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps")] = "auto",
    any_base: Annotated[bool, typer.Option("--any-base", help="take another base model than the one raced")] = False,
    license: Annotated[str | None, typer.Option(help="of what is exported, for the model card")] = None,
) -> None:
    """Export what won: text for any client, an adapter, a merged model, embeddings, or keys and values.

    What was written is read again and must answer as the winner does, else nothing is left. README.md is its card.
    """
    with importing():
        from elicitable.deploy.export import export as write

    name, own = own_method(method)
    folder = write(
        run, to, out, method=name, model=model, device=device, methods=own, any_base=any_base, license=license
    )
    say(f"{to}: {folder}")
