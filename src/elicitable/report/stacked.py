"""A table whose rows become blocks on a narrow page, each cell below its head."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence


def stacked_table(heads: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]], wide: Container[str] = ()) -> str:
    """Return the HTML of ``rows``, each a name and its cells; ``heads`` are that of the names and those of the cells.

    All of them are HTML already. Cells below one of the ``wide`` heads take the whole width of a narrow page.

    >>> stacked_table(("", "n"), [("a", ["1"])]).count("n</th>"), stacked_table(("", "n"), []).count("<td")
    (1, 0)
    """
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    body = "".join(f'<tr><th scope="row">{name}</th>{_cells(heads[1:], cells, wide)}</tr>' for name, cells in rows)
    table = f'<table class="stacked"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="table-scroll">{table}</div>'


def _cells(heads: Sequence[str], cells: Sequence[str], wide: Container[str]) -> str:
    kinds = [' class="wide"' if head in wide else "" for head in heads]
    parts = zip(heads, cells, kinds, strict=True)
    return "".join(f'<td{kind} data-head="{head}">{cell}</td>' for head, cell, kind in parts)
