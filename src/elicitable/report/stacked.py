"""A table whose rows become blocks on a narrow page, each cell below its head."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def stacked_table(heads: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]]) -> str:
    """Return the HTML of ``rows``, each a name and its cells; ``heads`` are that of the names and those of the cells.

    All of them are HTML already.

    >>> stacked_table(("", "n"), [("a", ["1"])]).count("n</th>"), stacked_table(("", "n"), []).count("<td")
    (1, 0)
    """
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    body = "".join(f'<tr><th scope="row">{name}</th>{_cells(heads[1:], cells)}</tr>' for name, cells in rows)
    table = f'<table class="stacked"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="table-scroll">{table}</div>'


def _cells(heads: Sequence[str], cells: Sequence[str]) -> str:
    return "".join(f'<td data-head="{head}">{cell}</td>' for head, cell in zip(heads, cells, strict=True))
