"""Show an object at a glance: the small pictures of a notebook, drawn in the colours of the page around them."""

from __future__ import annotations

import html
from collections.abc import Sequence

from elicitable.untrusted import in_one_line

Bar = tuple[str, float, float, float, bool]  # name, mean, low and high in [0, 1], whether it is the answer
ROW, NAMES, TRACK = 20, 150, 300  # heights and widths of the picture of bars
CELL = 14
CELLS = 'style="text-align:left;vertical-align:top"'
COLOUR = "#2f8fd0"  # stands out on light and on dark


def bars(title: str, rows: Sequence[Bar]) -> str:
    """Draw a bar for each row, with its interval; the answer's is strong.

    >>> bars("a < b", [("lora", 0.9, 0.85, 0.95, True)]).count("<rect")
    1
    """
    drawn = "".join(_bar(nth, *row) for nth, row in enumerate(rows))
    return f"<p>{_shown(title)}</p>{_svg(NAMES + TRACK + 60, ROW * len(rows), drawn)}"


def _bar(nth: int, name: str, mean: float, low: float, high: float, is_answer: bool) -> str:
    top, weight = ROW * nth, "bold" if is_answer else "normal"
    ends = [f"{NAMES + TRACK * min(max(end, 0.0), 1.0):.1f}" for end in (low, high)]
    text = 'fill="currentColor" font-size="12"'
    return (
        f'<text x="{NAMES - 8}" y="{top + 14}" text-anchor="end" font-weight="{weight}" {text}>{_shown(name)}'
        "</text>"
        f'<rect x="{NAMES}" y="{top + 4}" width="{TRACK * min(max(mean, 0.0), 1.0):.1f}" height="12" fill="{COLOUR}" '
        f'opacity="{1 if is_answer else 0.45}"/>'
        f'<line x1="{ends[0]}" x2="{ends[1]}" y1="{top + 10}" y2="{top + 10}" stroke="currentColor"/>'
        f'<text x="{NAMES + TRACK + 8}" y="{top + 14}" {text}>{mean:.3f}</text>'
    )


def heat(title: str, grid: Sequence[Sequence[float]]) -> str:
    """Draw (layer, head) shares in [0, 1]: layers from left to right, heads from top to bottom.

    >>> heat("mass", [[0.1, 0.2], [0.3, 0.4]]).count("<rect")
    4
    """
    cells = "".join(
        f'<rect x="{CELL * layer}" y="{CELL * head}" width="{CELL}" height="{CELL}" fill="{COLOUR}" '
        f'opacity="{min(max(share, 0.0), 1.0):.3f}"><title>layer {layer}, head {head}: {share:.3f}</title></rect>'
        for layer, row in enumerate(grid)
        for head, share in enumerate(row)
        if share == share  # a head that attends to nothing has none
    )
    return f"<p>{_shown(title)}</p>{_svg(CELL * len(grid), CELL * max(map(len, grid), default=0), cells)}"


def table(title: str, rows: Sequence[Sequence[str]], head: Sequence[str] = ()) -> str:
    """Draw rows of texts below ``head``; the first of a row names it.

    >>> table("a < b", [("rows", "3")], ("what", "how many")).count("<td")
    1
    """
    heads = "".join(f"<th {CELLS}>{_shown(one)}</th>" for one in head)
    body = "".join(
        f"<tr><th {CELLS}>{_shown(first)}</th>{''.join(f'<td {CELLS}>{_shown(one)}</td>' for one in rest)}</tr>"
        for first, *rest in rows
    )
    return f"<p>{_shown(title)}</p><table>{heads and f'<thead><tr>{heads}</tr></thead>'}<tbody>{body}</tbody></table>"


def _shown(text: str) -> str:
    return html.escape(in_one_line(text))


def _svg(width: int, height: int, drawn: str) -> str:
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} style="max-width:100%" role="img">{drawn}</svg>'
