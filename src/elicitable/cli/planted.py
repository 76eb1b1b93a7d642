"""``elicitable reproduce planted-truth``: race the cases whose right verdict is known, or count what is there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from elicitable.cli.output import RUNS, print_json, progress_console
from elicitable.untrusted import visible

if TYPE_CHECKING:
    from elicitable.planted.cases import Case

NAME = "planted-truth"


def planted_truth(out: Path | None, cases: int | None, only_tables: bool, as_json: bool, quiet: bool) -> None:
    """Race what has no record in ``out`` (the first ``cases`` of all), unless ``only_tables``; print the counts."""
    from elicitable.planted.benchmark import as_markdown, counted, records_in, run

    folder = out or RUNS / NAME
    console = progress_console()

    def told(case: Case, record: Mapping[str, Any], done: int, of: int, left: float) -> None:
        mark = "right" if record["group"] == record["truth"] else f"not right, the truth is {record['truth']}"
        console.print(
            f"{done} of {of}: {case.name} is {record['label']} ({mark}) after {record['seconds']:.0f} s; about "
            f"{left / 60:.0f} min left."
        )

    found = counted(records_in(folder)) if only_tables else run(folder, cases, None if quiet else told)
    if as_json:
        print_json(found)
    else:
        typer.echo(visible(as_markdown(found)), nl=False)
