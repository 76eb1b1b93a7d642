"""``elicitable inspect``: the microscope on one context."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from elicitable.cli import importing
from elicitable.cli.options import Json, ModelOptions, Out, Quiet, ScoreName, TaskOptions
from elicitable.cli.output import default_folder, digest_of, output, print_json, result_console, say, status, write_json
from elicitable.errors import InputError

if TYPE_CHECKING:
    from elicitable.deploy.artefact import Artefact
    from elicitable.deploy.record import Base
    from elicitable.microscope.inspect import Inspection
    from elicitable.models.layout import Layout


def inspect(
    about: ModelOptions,
    asked: TaskOptions,
    context: Annotated[
        Path | None,
        typer.Option("--context", "-c", help="the folder of a run (its winner), of an artefact, or of a PEFT adapter"),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", help="a text as the context; token ids ('3 1 2') on a toy")
    ] = None,
    texts: Annotated[int, typer.Option(min=1, help="how many of the task's test texts to look at")] = 64,
    max_tokens: Annotated[int, typer.Option(min=1, help="tokens of a text that is looked at, at most")] = 256,
    heatmap: Annotated[str | None, typer.Option(help="layer,head whose attention is drawn for the first text")] = None,
    ablate: Annotated[
        int, typer.Option(min=0, help="validation items to measure on what the score loses without each part")
    ] = 0,
    score: ScoreName = None,
    out: Out = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show what a context does inside a model, layer by layer and head by head."""
    with importing():
        from elicitable.microscope.inspect import inspect as look
        from elicitable.race.inside import laid_out, leave_out, prefix_to_cut, reading_with
        from elicitable.race.standard import Standard
        from elicitable.training.batches import layout_without_record

    if score is not None and not ablate:
        raise InputError("--score says what --ablate measures: give --ablate N too.")
    what = digest_of(about, asked, context, prompt, texts, max_tokens)
    folder = out or default_folder("inspect", about.model, asked.task, what)
    drawn = _layer_and_head(heatmap)
    artefact = artefact_of(context, prompt)
    with output(folder):
        wanted = asked.read()
        loaded = about.load(base=base_of(artefact))
        items = wanted.held_out("test", texts)
        unsaid = layout_without_record(loaded, wanted)
        parts = context_of(loaded, artefact, prompt, unsaid)
        parts.fit(loaded, [*items, *(wanted.held_out("validation", ablate) if ablate else ())])
        record = artefact.record if artefact else None
        rows = laid_out(loaded, parts, reading_with(loaded, parts, record, max_tokens, unsaid), items)
        prefix = prefix_to_cut(loaded, parts) if ablate else None
        standard = Standard.of(loaded, wanted, record, score) if ablate else None
        with status(f"inspecting {len(items)} texts …", quiet) as shown:
            found = look(loaded, parts, rows, max_tokens=max_tokens, heatmap=drawn)
            if prefix is not None and standard is not None:

                def told(done: int, whole: int) -> None:
                    if shown is not None:
                        shown.update(f"leaving out one part after another: {done} of {whole} measured …")

                reading = reading_with(loaded, parts, record, unsaid=unsaid)
                lost = leave_out(loaded, prefix, wanted, ablate, found, reading, standard, told)
                found = replace(found, ablations=lost)
        _keep(found, about.model, folder, as_json)


def _keep(found: Inspection, model: str, folder: Path, as_json: bool) -> None:
    from elicitable.report.conclusion import conclusion
    from elicitable.report.html import write_page
    from elicitable.report.microscope import (
        ablation_table,
        details,
        inspection_table,
        inspection_to_json,
        microscope_section,
        write_figures,
    )
    from elicitable.report.table import print_wrapped

    record = inspection_to_json(found)
    write_json(folder / "inspection.json", record)
    write_figures(found, folder / "figures")
    report = write_page(f"Inside {model}", [microscope_section(found)], folder / "report.html")
    if as_json:
        print_json(record)
        return
    console = result_console()
    print_wrapped(conclusion(found), console)
    console.print()
    console.print(inspection_table(found))
    if found.ablations:
        console.print(ablation_table(found))
    console.print()
    print_wrapped(details(found), console)
    say(f"Report: {report}")


def base_of(artefact: Artefact | None) -> Base | None:
    """Return what is known of the model that a context is of."""
    return None if artefact is None or artefact.record is None else artefact.record.base


def artefact_of(context: Path | None, prompt: str | None) -> Artefact | None:
    """Read the folder of a context; None where the text of a prompt is given in its place.

    A text is never guessed from what is no folder: a mistyped folder is an error.

    Raises:
        InputError: there is neither or there are both, or the folder cannot be read.
    """
    from elicitable.deploy.artefact import read

    if (context is None) == (prompt is None):
        raise InputError("give either a folder (--context FOLDER) or the text of a prompt (--prompt TEXT).")
    if context is None:
        return None
    try:
        return read(context)
    except InputError as error:
        raise InputError(f"--context: {error} The text of a prompt is given by --prompt.") from error


def context_of(model: Any, artefact: Artefact | None, prompt: str | None, layout: Layout | None = None) -> Any:
    """The context that was asked for: a folder's, or a prompt of a text (in ``layout``) or of token ids."""
    from elicitable.methods.catalog import context as make
    from elicitable.methods.prompt import Prompt

    if artefact is not None:
        return artefact.adaptation(model)
    assert prompt is not None
    if model.tokenizer is not None:
        return make(Prompt(), model, text=prompt, layout=layout)
    if not re.fullmatch(r"\s*\d{1,9}([\s,]+\d{1,9})*\s*", prompt):
        raise InputError(f"{model.name} has no tokenizer: give token ids such as --prompt '3 1 2', or a folder.")
    return make(Prompt(), model, token_ids=[int(number) for number in re.findall(r"\d+", prompt)])


def _layer_and_head(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,9})[,:](\d{1,9})", text)
    if match is None:
        raise InputError(f"a heat map is named by layer,head (0,3), got {text!r}.")
    return int(match[1]), int(match[2])
