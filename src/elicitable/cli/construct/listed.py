"""``elicitable construct list``: the constructions and the sizes they take."""

from __future__ import annotations

from rich.table import Table

from elicitable.cli.construct.record import Answer
from elicitable.constructions import catalog

#: What can be asked for beside the constructions.
MORE = {
    "capacity": "how far each construction goes in each floating-point type  (--dtype for one)",
    "reach": "sequences that hard and virtual tokens reach in theorem 1  (--vocab --length)",
    "token-reach": "the same question to a trained language model  (--model --targets …)",
}


def answer() -> Answer:
    """The record of all there is, and the table to print."""
    rows = [{"name": one.name, "states": one.states, "option": one.option} for one in catalog.CATALOG]
    table = Table(box=None, show_header=False, pad_edge=False)
    for row in rows:
        sizes = f"--vocab --{row['option']}" if row["option"] else "--vocab"
        table.add_row(row["name"], f"{row['states']}  ({sizes})")
    for name, does in MORE.items():
        table.add_row(name, does)
    return {"constructions": rows, "more": MORE}, [table]
