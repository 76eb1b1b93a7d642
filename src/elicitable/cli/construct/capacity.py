"""``elicitable construct capacity``: the largest exact sizes of every construction in every floating-point type."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from elicitable.cli.construct.record import Answer, keep_picture
from elicitable.cli.output import status
from elicitable.constructions import capacity as capacities
from elicitable.constructions.capacity import CapacityRow
from elicitable.constructions.precision import DTYPES
from elicitable.report.constructions import plot_capacity
from elicitable.report.microscope import figure_svg
from elicitable.report.verdict_json import plain_json

if TYPE_CHECKING:
    from rich.console import RenderableType


def answer(dtype: str | None, seed: int, out: Path | None, is_quiet: bool) -> Answer:
    """The record of what is possible in ``dtype`` (None: in each), and what to print of it; the plot goes to ``out``.

    Raises:
        InputError: there is no such type.
    """
    dtypes = tuple(DTYPES) if dtype is None else (dtype,)
    with status("looking for the largest exact sizes …", is_quiet):
        rows = capacities.capacity(dtypes, seed=seed)
    shown: list[RenderableType] = [_capacity_table(rows), "", "What limits each row:", *map(_limit, rows)]
    if out is not None:
        shown.append(f"plot: {keep_picture(out / 'capacity.svg', figure_svg(plot_capacity(rows)))}")
    record = {"rows": [asdict(row) for row in rows], "checked": sum(row.checked for row in rows)}
    return plain_json(record), shown


def _limit(row: CapacityRow) -> str:
    """What ends a row, and how many symbols are wrong one vocabulary above, where that was run all the same."""
    above = f"; run all the same, {row.failures_above:,} symbols are wrong" if row.failures_above else ""
    sizes = f"V = {row.vocab:,}, n_X = {row.n_input}, N = {row.n_answer}"
    return f"{row.dtype} {row.construction}, {sizes}: {row.limited_by}{above}"


def _capacity_table(rows: Iterable[CapacityRow]) -> Table:
    table = Table(box=None, pad_edge=False)
    for head in ("type", "construction", "V", "n_X", "N", "T needed", "T bound", "margin", "1/V²"):
        table.add_column(head, justify="left" if head in ("type", "construction") else "right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.dtype,
            row.construction,
            f"{row.vocab:,}",
            str(row.n_input),
            str(row.n_answer),
            f"{row.temperature_needed:.2f}",
            f"{row.temperature_bound:.2f}",
            f"{row.smallest_margin:.1e}",
            f"{row.ideal_margin:.1e}",
        )
    return table
