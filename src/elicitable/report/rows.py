"""Show how the contenders grow with the training rows: in the terminal, in the HTML report, and as JSON."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from elicitable.report.html import Section
from elicitable.report.token_reach import shown

if TYPE_CHECKING:
    from elicitable.diagnosis.rows import Crossing, Estimate, Growth

WIDTH, HEIGHT, LEFT, BOTTOM = 640, 300, 44, 34  # of the picture, in its own units
COLOURS = ("--context", "--weights")


def rows_json(growths: Sequence[Growth], crossing: Crossing | None) -> dict[str, Any]:
    """Return the curves as plain lists and numbers."""
    return {
        "methods": [
            {
                "method": one.method,
                "scores": [{"rows": rows, **_numbers(score)} for rows, score in one.scores.items()],
                "curve": [{"rows": rows, **_numbers(score)} for rows, score in one.curve.items()],
                "next_rows": one.next_rows,
                "gain": _numbers(one.gain),
            }
            for one in growths
        ],
        "crossing": None
        if crossing is None
        else {
            "first": crossing.first,
            "second": crossing.second,
            "share": crossing.share,
            "rows": None if crossing.rows is None else _numbers(crossing.rows),
        },
    }


def rows_lines(growths: Sequence[Growth], crossing: Crossing | None) -> list[str]:
    """Return the scores by rows as a table in lines, then what more labels bring and where the two cross."""
    numbers = sorted({rows for one in growths for rows in one.scores})
    lines = ["rows".rjust(8) + "".join(f"  {one.method:>18}" for one in growths)]
    for rows in numbers:
        cells = [_shown(one.scores[rows]) if rows in one.scores else "" for one in growths]
        lines.append(f"{rows:>8,}" + "".join(f"  {cell:>18}" for cell in cells))
    return [*lines, "", *said(growths, crossing)]


def said(growths: Sequence[Growth], crossing: Crossing | None) -> list[str]:
    """Say what the next labels buy, and from how many rows on the weights are ahead of the context."""
    sentences = [
        f"{one.next_rows} labels more than {max(one.scores):,} bring {one.method} {100 * one.gain.mean:+.1f} points "
        f"(95 % interval {100 * one.gain.low:+.1f} to {100 * one.gain.high:+.1f}), if its curve goes on as fitted."
        for one in growths
    ]
    if crossing is None:
        return sentences
    ahead = f"{crossing.second} is ahead of {crossing.first}"
    if crossing.rows is None:
        return [*sentences, f"Nowhere up to four times these rows {ahead}."]
    where = f"{crossing.rows.mean:,.0f} rows on (95 % interval {crossing.rows.low:,.0f} to {crossing.rows.high:,.0f})"
    return [*sentences, f"In {100 * crossing.share:.0f} % of the resampled curves {ahead}, from about {where}."]


def rows_section(growths: Sequence[Growth], crossing: Crossing | None) -> Section:
    """Return the section of the HTML report: the picture, the table, and the sentences."""
    head = "".join(f"<th scope='col'>{name}</th>" for name in ("rows", *(_safe(one.method) for one in growths)))
    numbers = sorted({rows for one in growths for rows in one.scores})
    body = "".join(
        f"<tr><th scope='row'>{rows:,}</th>"
        + "".join(f"<td>{_shown(one.scores[rows]) if rows in one.scores else ''}</td>" for one in growths)
        + "</tr>"
        for rows in numbers
    )
    table = f'<div class="table-scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    sentences = "".join(f"<p>{_safe(sentence)}</p>" for sentence in said(growths, crossing))
    note = '<p class="note">Points are scores on the test items; lines are c − a · n⁻ᵇ, with 95 % intervals.</p>'
    return Section(title="How many rows?", html=_picture(growths) + note + table + sentences)


def _picture(growths: Sequence[Growth]) -> str:
    """Return an SVG of the curves over the logarithm of the rows, with the band of each and its points."""
    places = sorted({rows for one in growths for rows in one.curve})
    low, high = math.log(places[0]), math.log(places[-1])

    def x(rows: float) -> float:
        return LEFT + (WIDTH - LEFT - 10) * (math.log(rows) - low) / (high - low)

    def y(score: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - 10) * min(1.0, max(0.0, score))

    parts = [_axes(growths, x, y)]
    for nth, one in enumerate(growths):
        colour = f"var({COLOURS[nth % len(COLOURS)]})"
        upper = [f"{x(rows):.1f},{y(score.high):.1f}" for rows, score in one.curve.items()]
        lower = [f"{x(rows):.1f},{y(score.low):.1f}" for rows, score in one.curve.items()]
        line = [f"{x(rows):.1f},{y(score.mean):.1f}" for rows, score in one.curve.items()]
        parts.append(f'<polygon points="{" ".join([*upper, *reversed(lower)])}" fill="{colour}" opacity="0.15"/>')
        parts.append(f'<polyline points="{" ".join(line)}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{x(rows):.1f}" cy="{y(score.mean):.1f}" r="3.5" fill="{colour}"/>'
            for rows, score in one.scores.items()
        ]
        parts.append(f'<text x="{LEFT + 8}" y="{22 + 16 * nth}" style="fill:{colour}">{_safe(one.method)}</text>')
    label = "Score by training rows"
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="100%" style="max-width:{WIDTH}px"'
    return f'<svg {size} role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _axes(growths: Sequence[Growth], x: Any, y: Any) -> str:
    numbers = sorted({rows for one in growths for rows in one.scores})
    style = 'style="font-size:11px"'  # the page's own style of texts goes before attributes
    columns = [f'<text x="{x(n):.1f}" y="{HEIGHT - 14}" text-anchor="middle" {style}>{n:,}</text>' for n in numbers]
    rows = [
        f'<line x1="{LEFT}" x2="{WIDTH - 10}" y1="{y(score):.1f}" y2="{y(score):.1f}" stroke="var(--line)"/>'
        f'<text x="{LEFT - 6}" y="{y(score) + 4:.1f}" text-anchor="end" {style}>{score:.2f}</text>'
        for score in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    return "".join([*rows, *columns])


def _numbers(one: Estimate) -> dict[str, float]:
    return {"mean": one.mean, "low": one.low, "high": one.high}


def _shown(one: Estimate) -> str:
    return f"{one.mean:.2f} [{one.low:.2f}, {one.high:.2f}]"


def _safe(text: str) -> str:
    return html.escape(shown(text))
