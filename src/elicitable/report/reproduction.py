"""The tables of a reproduction: ours beside the source's, a mark per claim. Made from ``results.json`` alone."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from elicitable.cache import replace_file
from elicitable.report.html import Section, write_page

MARKS = {"reproduced": "✓", "differs": "✗", "not testable here": "–", "not run yet": "…"}
Results = Mapping[str, Any]
_HEADS = ("", "claim", "ours", "source", "reproduced if", "note")


def reproduction_markdown(results: Results) -> str:
    """All experiments as Markdown.

    >>> empty = {"preset": "quick", "seeds": 1, "experiments": [], "outcomes": {}, "seconds": 0.0}
    >>> reproduction_markdown(empty).splitlines()[0]
    'Preset quick, 1 seed, 0.0 minutes of trials on one core each: no claims.'
    """
    parts = [summary(results)]
    for experiment in results["experiments"]:
        parts += [f"## {experiment['title']}", f"`{experiment['name']}`, {experiment['source']} of the paper."]
        parts.append(_markdown_table(_HEADS, [_row(claim) for claim in experiment["claims"]]))
        if any(len(trial["sweep"]) > 1 for trial in experiment["trials"]):
            parts.append(_markdown_table(_SWEEP_HEADS, _sweep_rows(experiment)))
        parts.append("\n".join(f"* {one}" for one in experiment["deviations"]))
    return "\n\n".join(part for part in parts if part) + "\n"


def write_reproduction(results: Results, folder: str | os.PathLike[str]) -> Path:
    """Write ``report.html`` and ``results.md`` into ``folder``; the report's path.

    Raises:
        StoreError: ``folder`` cannot be written to.
    """
    folder = Path(folder)
    report = write_page("The paper's experiments, reproduced", reproduction_sections(results), folder / "report.html")
    text = reproduction_markdown(results).encode()
    replace_file(folder / "results.md", text, "Free the place or choose another --out.")
    return report


def summary(results: Results) -> str:
    """One line: preset, seeds, time, and how the claims came out."""
    seeds = f"{results['seeds']} seed{'s' if results['seeds'] != 1 else ''}"
    counted = ", ".join(f"{results['outcomes'][name]} {name}" for name in MARKS if name in results["outcomes"])
    spent = f"{results['seconds'] / 60:.1f} minutes of trials on one core each"
    return f"Preset {results['preset']}, {seeds}, {spent}: {counted or 'no claims'}."


def reproduction_sections(results: Results) -> tuple[Section, ...]:
    """One section of the report an experiment; every text in it is escaped."""
    return tuple(Section(experiment["title"], _html(experiment)) for experiment in results["experiments"])


def _html(experiment: Mapping[str, Any]) -> str:
    parts = [f'<p class="note">{escape(experiment["name"])}, {escape(experiment["source"])} of the paper.</p>']
    parts.append(_html_table(_HEADS, [_row(claim) for claim in experiment["claims"]]))
    if any(len(trial["sweep"]) > 1 for trial in experiment["trials"]):
        rows = _html_table(_SWEEP_HEADS, _sweep_rows(experiment))
        parts.append(f"<details><summary>The whole sweep</summary>{rows}</details>")
    parts.append("<ul>" + "".join(f"<li>{escape(one)}</li>" for one in experiment["deviations"]) + "</ul>")
    return "".join(parts)


def _row(claim: Mapping[str, Any]) -> tuple[str, ...]:
    bound = claim["bound"]
    needed = f"{bound['relation']} {bound['value']:g}" + (" of it" if bound["relation"] == "within" else "")
    mark = f"{MARKS[claim['outcome']]} {claim['outcome']}"
    return (mark, claim["text"], ours_text(claim), _number(claim["source"], claim["unit"]), needed, claim["reason"])


def ours_text(claim: Mapping[str, Any]) -> str:
    """Mean ± standard deviation over seeds, and the 95 % interval where there is one.

    >>> ours_text({"mean": 97.5, "sd": 1.25, "low": 95.0, "high": 99.0, "unit": "%", "values": [96.25, 98.75]})
    '97.50 ± 1.25 % [95.00, 99.00]'
    """
    if claim["mean"] is None:
        return "—"
    spread = "" if claim["sd"] is None else f" ± {_plain(claim['sd'], claim['unit'])}"
    unit = f" {claim['unit']}" if claim["unit"] else ""
    inside = ""
    if claim["low"] is not None:
        inside = f" [{_plain(claim['low'], claim['unit'])}, {_plain(claim['high'], claim['unit'])}]"
    return f"{_plain(claim['mean'], claim['unit'])}{spread}{unit}{inside}"


def _number(value: float | None, unit: str) -> str:
    return "in words" if value is None else f"{_plain(value, unit)} {unit}".strip()


def _plain(value: float, unit: str) -> str:
    return f"{value:.2f}" if unit else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


_SWEEP_HEADS = ("trial", "seed", "rate", "restart", "validation", "steps", "stopped")


def _sweep_rows(experiment: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            trial["name"],
            str(one["seed"]),
            "—" if one["rate"] is None else f"{one['rate']:g}",
            str(one["restart"]),
            "—" if one["validation"] is None else f"{100 * one['validation']:.2f} %",
            f"{one['steps']:,}",
            one["stopped"],
        )
        for trial in experiment["trials"]
        for one in trial["sweep"]
    ]


def _markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _html_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(one)}</th>" for one in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="table-scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
