"""``elicitable reproduce planted-truth``: race the cases whose right verdict is known, or count what is there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from elicitable.cli.output import RUNS, print_json, progress_console
from elicitable.untrusted import visible

if TYPE_CHECKING:
    from elicitable.planted.parts import AnyCase

NAME = "planted-truth"
PART = "one-layer"


def planted_truth(
    part: str, out: Path | None, *, only_tables: bool, as_json: bool, is_quiet: bool, **options: Any
) -> None:
    """Race the cases of a part that have no record in ``out``, unless ``only_tables``; print the counts."""
    from elicitable.planted.benchmark import records_in, run
    from elicitable.planted.counts import as_markdown, counted
    from elicitable.planted.parts import part_named

    which = part_named(part)
    folder = out or RUNS / (NAME if part == PART else f"{NAME}-{part}")
    console = progress_console()

    def told(case: AnyCase, record: Mapping[str, Any], done: int, of: int, left: float) -> None:
        if "failed" in record:
            said = f"failed: {record['failed'].strip()}"
        elif "label" in record:
            mark = "right" if record["group"] == record["truth"] else f"not right, the truth is {record['truth']}"
            said = f"is {record['label']} ({mark}) after {record['seconds']:.0f} s"
        else:
            said = f"is no case, as its planting did not take: {record['planting']}"
        console.print(f"{done} of {of}: {case.name} {said}; about {left / 60:.0f} min left.")

    if only_tables:
        found = counted(records_in(folder, which), which)
    else:
        found = run(folder, told=None if is_quiet else told, part=part, **options)
    if as_json:
        print_json(found)
    else:
        typer.echo(visible(as_markdown(found)), nl=False)
