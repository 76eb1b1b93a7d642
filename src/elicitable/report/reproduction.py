"""Make the tables of a reproduction from ``results.json`` alone: ours beside the source's, with a mark per claim."""

from __future__ import annotations

import base64
import os
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from elicitable.cache import replace_file
from elicitable.report.experiment_figures import experiment_figure, figure_names
from elicitable.report.html import Section, write_page
from elicitable.report.microscope import figure_svg
from elicitable.report.notation import plural
from elicitable.report.stacked import stacked_table
from elicitable.report.table import print_hanging, print_wrapped
from elicitable.untrusted import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKS = {"reproduced": "✓", "differs": "✗", "not settled": "~", "not testable here": "–", "not run yet": "…"}
TITLE = "The paper's experiments, reproduced"
LONG = 40  # characters of a cell that takes the whole width of a telephone
FIGURES, TABLES = "figures", "results.md"
COMPANION = (
    "Times are of one core each. The companion code's is extrapolated to the seeds that are whole: its iterations, "
    "times what one was measured to take on a 2-core CPU."
)
Results = Mapping[str, Any]
_HEADS = ("", "claim", "ours", "source", "reproduced if", "it would be refuted if", "note")


def reproduction_markdown(results: Results, figures: str | None = None) -> str:
    """Return all experiments as Markdown; with links to figures in the folder ``figures`` where one is named.

    >>> empty = {"preset": "quick", "seeds": 1, "experiments": [], "outcomes": {}, "seconds": 0.0}
    >>> reproduction_markdown(empty).splitlines()[0]
    'Preset quick, 1 seed, 0.0 min of trials on one core each: no claims.'
    """
    return _markdown(results, {} if figures is None else _pictures(results), figures)


def _markdown(results: Results, pictures: Pictures, folder: str | None) -> str:
    parts = [f"# {TITLE}" if folder else "", summary(results)]
    if results["experiments"]:
        parts += [_markdown_table(_OVERVIEW_HEADS, _overview(results)), COMPANION]
    for experiment in results["experiments"]:
        parts += [f"## {experiment['title']}", f"`{experiment['name']}`, {experiment['source']} of the paper."]
        parts.append(_markdown_table(_HEADS, [_row(claim, results) for claim in experiment["claims"]]))
        for one in pictures.get(experiment["name"], ()):
            parts.append(f"![{one.caption}]({folder}/{one.name}.svg)\n\n*{one.caption}*")
        if any(len(trial["sweep"]) > 1 for trial in experiment["trials"]):
            parts.append(_markdown_table(_SWEEP_HEADS, _sweep_rows(experiment)))
        parts.append("\n".join(f"* {one}" for one in experiment["deviations"]))
    return "\n\n".join(part for part in parts if part) + "\n"


def write_reproduction(results: Results, folder: str | os.PathLike[str]) -> Path:
    """Write ``report.html``, ``results.md`` and ``figures/`` into ``folder``; the report's path.

    Raises:
        StoreError: ``folder`` cannot be written to.
    """
    folder, advice, pictures = Path(folder), "Free the place or choose another --out.", _pictures(results)
    for one in (one for drawn in pictures.values() for one in drawn):
        replace_file(folder / FIGURES / f"{one.name}.svg", one.svg, advice)
    replace_file(folder / TABLES, _markdown(results, pictures, FIGURES).encode(), advice)
    return write_page(TITLE, _sections(results, pictures), folder / "report.html")


def print_reproduction(results: Results, console: Console, report: Path) -> None:
    """Print every claim with its mark, ours and the source's figure, and where the whole tables are.

    Args:
        results: what :func:`elicitable.reproduce` returns.
        console: where; lines are broken at its width.
        report: the path of ``report.html``, beside ``results.md``.
    """
    print_wrapped([summary(results)], console)
    for experiment in results["experiments"]:
        print_wrapped(["", experiment["title"]], console)
        print_hanging(f"{experiment['name']}, {experiment['source']} of the paper", console, "  ", "  ")
        for claim in experiment["claims"]:
            mark, text, ours, source, *_, note = _row(claim, results)
            told = f"{text}: ours {ours}, source {source}{f' ({note})' if note else ''}"
            print_hanging(told, console, indent=" " * 20, first=f"  {mark:<18}")
    console.print()
    if failed := results.get("trials_failed"):
        print_wrapped([f"{plural(failed, 'trial')} failed: --status says why, and --retry runs them again."], console)
    for name, path in (("Tables", report.with_name(TABLES)), ("Report", report)):
        console.print(Text(f"{name}: {visible(str(path))}"), soft_wrap=True)


@dataclass(frozen=True)
class Picture:
    """Hold a figure that was drawn: its file's name without the ending, its caption, and the file."""

    name: str
    caption: str
    figure: Figure

    @cached_property
    def svg(self) -> bytes:
        """Return the SVG file."""
        return figure_svg(self.figure)


Pictures = Mapping[str, Sequence[Picture]]  # by the experiment's name


def _pictures(results: Results) -> Pictures:
    return {experiment["name"]: drawn_figures(experiment) for experiment in results["experiments"]}


def drawn_figures(experiment: Mapping[str, Any]) -> list[Picture]:
    """Return the figures of an experiment for which there are records."""
    found = []
    for name, drawn in zip(figure_names(experiment), experiment["figures"], strict=True):
        figure = experiment_figure(drawn, experiment)
        if figure is not None:
            found.append(Picture(name, drawn["caption"], figure))
    return found


def summary(results: Results) -> str:
    """Say in one line the preset, seeds, time, kinds of processor where known, and how the claims came out."""
    seeds = f"{results['seeds']} seed{'s' if results['seeds'] != 1 else ''}"
    counted = ", ".join(f"{results['outcomes'][name]} {name}" for name in MARKS if name in results["outcomes"])
    processors = ", ".join(results.get("processors", ()))  # records made before this was kept do not say
    spent = f"{span(results['seconds'])} of trials on one core each{f' ({processors})' if processors else ''}"
    return f"Preset {results['preset']}, {seeds}, {spent}: {counted or 'no claims'}."


def in_a_line(results: Results) -> str:
    """Say in one line how much is run and how the claims came out, for whoever looks once.

    >>> in_a_line({"trials": 8, "trials_recorded": 4, "outcomes": {"reproduced": 3, "differs": 1, "not run yet": 2}})
    '4 of 8 trials are run; of 6 claims 3 reproduced, 1 differs, 2 not run yet.'
    """
    outcomes = results["outcomes"]
    counted = ", ".join(f"{outcomes[name]} {name}" for name in MARKS if name in outcomes) or "none was looked at"
    run = f"{results['trials_recorded']:,} of {results['trials']:,} trials are run"
    return f"{run}; of {sum(outcomes.values())} claims {counted}."


def reproduction_sections(results: Results) -> tuple[Section, ...]:
    """Return the outcomes at a glance, then one section per experiment; every text in it is escaped."""
    return _sections(results, _pictures(results))


def _sections(results: Results, pictures: Pictures) -> tuple[Section, ...]:
    told = f"<p>{escape(summary(results))}</p>"
    counted = told + _html_table(_OVERVIEW_HEADS, _overview(results)) + f'<p class="note">{escape(COMPANION)}</p>'
    each = (Section(one["title"], _html(one, results, pictures[one["name"]])) for one in results["experiments"])
    return (Section("At a glance", counted), *each)


def _html(experiment: Mapping[str, Any], results: Results, pictures: Sequence[Picture]) -> str:
    parts = [f'<p class="note">{escape(experiment["name"])}, {escape(experiment["source"])} of the paper.</p>']
    parts.append(_html_table(_HEADS, [_row(claim, results) for claim in experiment["claims"]]))
    parts += [_html_figure(one) for one in pictures]
    if any(len(trial["sweep"]) > 1 for trial in experiment["trials"]):
        rows = _html_table(_SWEEP_HEADS, _sweep_rows(experiment))
        parts.append(f"<details><summary>The whole sweep</summary>{rows}</details>")
    parts.append("<ul>" + "".join(f"<li>{escape(one)}</li>" for one in experiment["deviations"]) + "</ul>")
    return "".join(parts)


def _html_figure(one: Picture) -> str:
    data = base64.b64encode(one.svg).decode()
    caption = escape(one.caption, quote=True)
    image = f'<img alt="{caption}" style="max-width:100%;height:auto" src="data:image/svg+xml;base64,{data}">'
    return f'<figure style="margin:18px 0">{image}<figcaption class="small">{caption}</figcaption></figure>'


_OVERVIEW_HEADS = ("experiment", *MARKS, "trials", "whole seeds", "time", "companion code")


def _overview(results: Results) -> list[tuple[str, ...]]:
    """Return a line per experiment: claims by outcome, trials, their time and the companion code's; then the sum.

    What experiments share counts once in the sum.
    """
    tables, rows = results["experiments"], []
    for one in tables:
        recorded, planned = (sum(trial[key] for trial in one["trials"]) for key in ("recorded", "planned"))
        rows.append(_at_a_glance(one["name"], [one], recorded, planned, one["seconds"], results["seeds"]))
    if len(tables) > 1:
        counts = results["trials_recorded"], results["trials"]
        rows.append(_at_a_glance("together", tables, *counts, results["seconds"], results["seeds"]))
    return rows


def _at_a_glance(
    name: str, tables: Sequence[Mapping[str, Any]], recorded: int, planned: int, seconds: float, seeds: int
) -> tuple[str, ...]:
    counted = Counter(claim["outcome"] for one in tables for claim in one["claims"])
    companion = [one["companion_seconds"] for one in tables if one["companion_seconds"] is not None]
    return (
        name,
        *(str(counted.get(mark, 0)) for mark in MARKS),
        f"{recorded:,}" if recorded == planned else f"{recorded:,} of {planned:,}",
        f"{min(one['seeds_whole'] for one in tables)} of {seeds}",
        span(seconds),
        span(sum(companion) if companion else None),
    )


def span(seconds: float | None) -> str:
    """Write a time span in the unit that suits it.

    >>> span(90.0), span(3_000.0), span(7_200.0), span(None)
    ('1.5 min', '50.0 min', '2.0 h', '—')
    """
    if seconds is None:
        return "—"
    return f"{seconds / 60:.1f} min" if seconds < 3_600 else f"{seconds / 3_600:,.1f} h"


def _row(claim: Mapping[str, Any], results: Results) -> tuple[str, ...]:
    bound = claim["bound"]
    needed = f"{bound['relation']} {bound['value']:g}" + (" of it" if bound["relation"] == "within" else "")
    mark = f"{MARKS[claim['outcome']]} {claim['outcome']}"
    fewer = 0 < len(claim["values"]) < results["seeds"]
    ours = ours_text(claim) + (f" ({len(claim['values'])} of {results['seeds']} seeds)" if fewer else "")
    return (
        mark,
        claim["text"],
        ours,
        _number(claim["source"], claim["unit"]),
        needed,
        claim["refuted"],
        claim["reason"],
    )


def ours_text(claim: Mapping[str, Any]) -> str:
    """Write mean ± standard deviation over seeds, and the 95 % interval where there is one.

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


_SWEEP_HEADS = ("trial", "rate", "restart", "seeds", "validation", "steps", "stopped")


def _sweep_rows(experiment: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return a line for every rate and restart of a trial, over its seeds."""
    grouped: dict[tuple[str, Any, int], list[Mapping[str, Any]]] = {}
    for trial in experiment["trials"]:
        for one in trial["sweep"]:
            grouped.setdefault((trial["name"], one["rate"], one["restart"]), []).append(one)
    return [
        (
            name,
            "—" if rate is None else f"{rate:g}",
            str(restart),
            str(len(runs)),
            _range([100 * one["validation"] for one in runs if one["validation"] is not None]),
            f"{round(statistics.fmean(one['steps'] for one in runs)):,}",
            ", ".join(f"{name} {count}" for name, count in Counter(one["stopped"] for one in runs).most_common()),
        )
        for (name, rate, restart), runs in grouped.items()
    ]


def _range(values: Sequence[float]) -> str:
    """Write the lowest and the highest value.

    >>> _range([50.0]), _range([50.0, 60.0]), _range([])
    ('50.00 %', '55.00 % (50.00 to 60.00)', '—')
    """
    if not values:
        return "—"
    spread = f" ({min(values):.2f} to {max(values):.2f})" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.2f} %{spread}"


def _markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _html_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    plain = ((escape(first), [escape(cell) for cell in cells]) for first, *cells in rows)
    wide = {head for head in heads if any(len(row[heads.index(head)]) > LONG for row in rows)}
    return stacked_table([escape(one) for one in heads], plain, wide)
