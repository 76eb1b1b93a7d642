"""Make the microscope's part of the report, figures and one HTML fragment, from an inspection's record alone.

Every figure function returns a matplotlib figure of its own; nothing is shown and no global state is touched.
"""

from __future__ import annotations

import html
import io
import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.table import Table

from elicitable.cache import replacing_file
from elicitable.errors import InputError
from elicitable.report.conclusion import conclusion
from elicitable.report.html import ADVICE, Section
from elicitable.report.notation import drawn, visible
from elicitable.report.pictures.patterns import patterns_part
from elicitable.report.shareability import shared_part, shared_summary
from elicitable.report.stacked import stacked_table
from elicitable.report.verdict_json import plain_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from elicitable.microscope.inspect import HeadFacts, Inspection

_INK = "#777777"  # readable on light and dark pages
_LINES = ("#3b76c2", "#c2603b", "#4d9a57", "#8a63b5")
_VARIABLES = ("--soft", "--context", "--weights", "--accent", "--open")  # the page's, in the same order
_LONGEST_WORD, _MOST_TOKENS = 16, 40  # letters of a token in a table; names on a heatmap's axis: more cannot be read


def mass_map(found: Inspection) -> Figure:
    """Draw mean prefix mass α of every head: layers from left to right, heads from top to bottom; from 0 to 1."""
    grid = _transposed(_grid(found, lambda head: head.prefix_mass))
    figure, axis = _map_figure(len(grid))
    image = axis.imshow(grid, vmin=0, vmax=1, aspect="auto", cmap=_heat(), interpolation="nearest")
    axis.set(xlabel="layer", ylabel="head", title="prefix mass α")
    _scale(figure, image, axis)
    return figure


def drift_by_depth(found: Inspection) -> Figure:
    """Draw the drift of content attention by layer, its parts, and α beside it; means over heads, all in [0, 1]."""
    figure, axis = _figure(4.0, 2.6)
    lines: tuple[tuple[str, Callable[[HeadFacts], float], str], ...] = (
        ("drift (total variation)", lambda head: head.drift, "-"),
        ("by changed queries", lambda head: head.drift_by_queries, "--"),
        ("by changed keys", lambda head: head.drift_by_keys, "--"),
        ("prefix mass α", lambda head: head.prefix_mass, ":"),
    )
    for (label, pick, style), colour in zip(lines, _LINES, strict=True):
        means = [_mean(row) for row in _grid(found, pick)]
        axis.plot(range(len(means)), means, style, color=colour, label=label, marker=".", markersize=4)
    axis.set(xlabel="layer", ylim=(-0.02, 1.02), title="how far attention over the text moves")
    axis.legend(frameon=False, fontsize=7, labelcolor=_INK)
    return figure


def spectra(found: Inspection) -> Figure:
    """Draw the cumulative share of the bias's energy in its first directions, one line per layer, up to n."""
    figure, axis = _figure(4.0, 2.6)
    for facts in found.layers:
        total, line = 0.0, []
        for share in facts.spectrum:
            total += share
            line.append(total)
        depth = (facts.layer + 1) / max(one.layer + 1 for one in found.layers)
        axis.plot(range(1, len(line) + 1), line, color=_LINES[0], alpha=0.2 + 0.8 * depth, marker=".", linewidth=0.9)
    axis.set(
        xlabel=f"directions (theory allows {found.prefix})",
        ylim=(0, 1.02),
        title="energy of the bias, by layer",
    )
    return figure


def position_use(found: Inspection) -> Figure:
    """Draw mean attention on each context token: layers from left to right, tokens from top to bottom, as words."""
    rows = _transposed([list(facts.position_mass) for facts in found.layers])
    figure, axis = _map_figure(len(rows))
    image = axis.imshow(rows, vmin=0, aspect="auto", cmap=_heat(), interpolation="nearest")
    axis.set(xlabel="layer", ylabel="context token", title="mean attention on each context token")
    _name_axis(axis.set_yticks, [_short(name) for name in found.context_tokens[: len(rows)]])
    _scale(figure, image, axis)
    return figure


def ablations(found: Inspection) -> Figure:
    """Draw points of score lost without each part of the context; bars to the left are gains."""
    parts = list(reversed(found.ablations))
    figure, axis = _figure(4.0, max(2.4, 0.8 + 0.16 * len(parts)))
    kinds = ("token", "layer", "head")
    colours = [_LINES[kinds.index(_kind(part.what))] for part in parts]
    axis.barh(range(len(parts)), [100 * part.lost for part in parts], color=colours)
    axis.set_yticks(range(len(parts)), labels=[part.what for part in parts])
    axis.axvline(0, color=_INK, linewidth=0.8)
    axis.set(xlabel="points lost", title="score lost without …")
    return figure


def _kind(what: str) -> str:
    return "head" if "head" in what else what.split()[0].rstrip("s")


def attention_heatmaps(found: Inspection) -> Figure:
    """Draw one head on one text: with the context, without it, and the first rescaled by 1/(1 − α), as the paper does.

    Raises:
        InputError: the inspection kept no head.
    """
    kept = found.heatmap
    if kept is None:
        raise InputError("this inspection kept no attention: inspect(…, heatmap=(layer, head)).")
    from matplotlib.figure import Figure

    side = min(2.2 + 0.14 * len(kept.tokens), 6.0)
    panels = (
        ("with the context", kept.with_context, (*kept.prefix_tokens, *kept.tokens)),
        ("without", kept.without, kept.tokens),
        ("with, content ÷ (1 − α)", kept.rescaled, kept.tokens),
    )
    # a cell is as large in every panel, unless the context is much longer than the content
    widths = [min(len(columns) / len(kept.tokens), 3.0) for _, _, columns in panels]
    figure = Figure(figsize=(side * sum(widths), side + 0.8), layout="constrained")
    figure.patch.set_alpha(0)
    for axis, (title, weights, columns) in zip(figure.subplots(1, 3, width_ratios=widths), panels, strict=True):
        _style(axis)
        axis.imshow(weights, vmin=0, vmax=1, cmap=_heat(), interpolation="nearest")
        axis.set_title(title, color=_INK, fontsize=9)
        _name_axis(axis.set_xticks, columns, rotation=90)
        _name_axis(axis.set_yticks, kept.tokens)
    figure.suptitle(f"layer {kept.layer}, head {kept.head}", color=_INK, fontsize=9)
    return figure


def write_figures(found: Inspection, folder: str | os.PathLike[str], suffix: str = "svg") -> list[Path]:
    """Write every figure there is to ``folder`` as ``mass-map.svg`` and so on, and remove all others; the paths."""
    folder, drawn_now = Path(folder), dict(_figures(found))
    paths = [folder / f"{name}.{suffix}" for name in drawn_now]
    for path, draw in zip(paths, drawn_now.values(), strict=True):
        with _reproducible(), replacing_file(path, ADVICE) as partial:
            draw(found).savefig(partial, format=suffix, metadata=None if suffix == "png" else {"Date": None})
    for name in _SAID.keys() - drawn_now.keys():  # of an inspection that was here before
        (folder / f"{name}.{suffix}").unlink(missing_ok=True)
    return paths


def microscope_section(found: Inspection) -> Section:
    """Make the report's second part: measurements, figures, what the bias says, warnings. All texts are escaped."""
    figures = {name: _svg(draw(found), name) + f'<p class="note">{_SAID[name]}</p>' for name, draw in _figures(found)}
    wide = figures.pop("attention", "")  # three panels side by side
    panels = "".join(f'<div class="panel">{figure}</div>' for figure in figures.values())
    return Section(
        "Inside the model",
        f"<p>{html.escape(' '.join(conclusion(found)))}</p>"
        f'<p class="note">{_summary(found)}</p>{_warnings(found)}'
        f'<div class="panels large">{panels}</div>{patterns_part(found)}<div>{wide}</div>'
        f"<h3>What the bias says</h3>{_words_table(found)}"
        f"<h3>Heads the context governs most</h3>{_heads_table(found)}{shared_part(found)}",
    )


def inspection_to_json(found: Inspection) -> dict[str, Any]:
    """Return the inspection as strict JSON: every field, with null for what is not defined."""
    plain: dict[str, Any] = plain_json(asdict(found))
    return plain | {
        "largest_residual_first_layer": plain_json(found.largest_residual(slice(0, 1))),
        "largest_residual": plain_json(found.largest_residual()),
    }


def inspection_table(found: Inspection) -> RenderableType:
    """Make a table with one row per layer, means over its heads, that is readable at 80 columns."""
    table = Table(box=None, pad_edge=False)
    for name in ("layer", "mass α", "drift", "bias norm", "bias cos.", "eff. rank", "attn. resid.", "out. resid."):
        table.add_column(name, justify="right")
    for layer in range(len(found.layers)):
        heads = [head for head in found.heads if head.layer == layer]
        means = (
            f"{_mean([getattr(head, name) for head in heads]):.{digits}f}"
            for name, digits in (
                ("prefix_mass", 3),
                ("drift", 3),
                ("bias_norm", 3),
                ("bias_cosine", 2),
                ("effective_rank", 2),
            )
        )
        worst = (
            f"{max(getattr(head, name) for head in heads):.0e}" for name in ("attention_residual", "output_residual")
        )
        table.add_row(str(layer), *means, *worst)
    return table


def ablation_table(found: Inspection) -> RenderableType:
    """Say what the score loses without each part of the context, the dearest first."""
    table = Table(box=None, pad_edge=False)
    table.add_column("without")
    for name in ("score", "points lost"):
        table.add_column(name, justify="right")
    for part in sorted(found.ablations, key=lambda part: -part.lost):
        table.add_row(part.what, f"{part.score:.3f}", f"{100 * part.lost:+.1f}")
    return table


def details(found: Inspection) -> list[str]:
    """Say in sentences what was looked at, how exact it is, what compiling could keep, and what to beware of."""
    said = [html.unescape(_summary(found)), *filter(None, [shared_summary(found)])]
    return [*said, *(f"warning: {text}" for text in found.warnings)]


def _figures(found: Inspection) -> Iterable[tuple[str, Callable[[Inspection], Figure]]]:
    yield "mass-map", mass_map
    if any(not math.isnan(head.drift) for head in found.heads):
        yield "drift-by-depth", drift_by_depth
    if found.prefix:
        yield "spectra", spectra
        yield "position-use", position_use
    if found.ablations:
        yield "left-out", ablations
    if found.heatmap is not None:
        yield "attention", attention_heatmaps


_SAID = {
    "mass-map": "How much of each head's attention the context takes, mean over queries.",
    "drift-by-depth": "How far attention over the text itself moved: 0 is not at all. Nothing lies below layer 0; "
    "deeper layers move because their queries or keys have changed. Means over heads.",
    "spectra": "How few directions the context pushes a head's output in: a line that starts "
    "high uses one. Faint lines are the first layers, strong ones the last.",
    "position-use": "Which tokens of the context are attended to, mean over heads and queries.",
    "left-out": "Measured: the score on validation items with one part of the context gone, all else as it was.",
    "attention": "One head on the first text, queries down, keys across. Where nothing below has changed, the third "
    "panel equals the second: the context only rescales attention over the text.",
}


def _summary(found: Inspection) -> str:
    first, worst = found.largest_residual(slice(0, 1)), found.largest_residual()
    return html.escape(
        f"{found.model} with {found.context}: {found.texts} texts, {found.queries} queries, {found.prefix} context "
        f"tokens, in {found.dtype}. Largest deviation from the two identities of one attention layer, given that "
        f"layer's input: {first:.1e} in layer 0, {worst:.1e} in any layer."
    ) + (
        f" Context tokens that no head uses (under {100 * found.dead_share:.2g}% of its prefix mass): "
        f"{', '.join(map(str, found.dead_positions))}."
        if found.dead_positions
        else ""
    )


def _warnings(found: Inspection) -> str:
    return "".join(f'<p class="note">{html.escape(text)}</p>' for text in found.warnings)


def _words_table(found: Inspection) -> str:
    def words(pairs: Sequence[tuple[str, float]]) -> str:
        return " · ".join(f"<code>{html.escape(_short(visible(word)))}</code>" for word, _ in pairs[:6])

    rows = "".join(
        f"<tr><td>{facts.layer}</td><td>{words(facts.promoted)}</td><td>{words(facts.suppressed)}</td></tr>"
        for facts in found.layers
        if facts.promoted
    )
    if not rows:
        return '<p class="note">No output projection was found to read the bias through.</p>'
    head = "<tr><th>layer</th><th>promoted</th><th>suppressed</th></tr>"
    return f'<div class="table-scroll"><table>{head}{rows}</table></div>'


def _heads_table(found: Inspection) -> str:
    columns = (
        ("α", "prefix_mass", ".3f"),
        ("drift", "drift", ".3f"),
        ("‖bias‖", "bias_norm", ".3g"),
        ("‖content‖", "content_norm", ".3g"),
        ("cosine", "bias_cosine", "+.2f"),
        ("effective rank", "effective_rank", ".2f"),
        ("residual, attention", "attention_residual", ".0e"),
        ("residual, output", "output_residual", ".0e"),
    )
    rows = (
        (f"layer {head.layer}, head {head.head}", [f"{getattr(head, field):{form}}" for _, field, form in columns])
        for head in sorted(found.heads, key=lambda head: -head.prefix_mass)[:10]
    )
    return stacked_table(("", *(name for name, _, _ in columns)), rows)


def _grid(found: Inspection, pick: Callable[[HeadFacts], float]) -> list[list[float]]:
    """Draw (layer, head); missing heads are NaN."""
    width = max(head.head for head in found.heads) + 1
    grid = [[math.nan] * width for _ in range(max(head.layer for head in found.heads) + 1)]
    for head in found.heads:
        grid[head.layer][head.head] = pick(head)
    return grid


def _transposed(rows: Sequence[Sequence[float]]) -> list[list[float]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _heat() -> Any:
    """Return the report's own scale: from the page's colour to the colour of contexts, so it fits light and dark."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgba

    return LinearSegmentedColormap.from_list("heat", [to_rgba(_LINES[0], 0.0), to_rgba(_LINES[0], 1.0)])


def _scale(figure: Figure, image: Any, axis: Any) -> None:
    _style(figure.colorbar(image, ax=axis, fraction=0.05).ax)


def _mean(row: Sequence[float]) -> float:
    present = [value for value in row if not math.isnan(value)]
    return sum(present) / len(present) if present else math.nan


def _map_figure(rows: int) -> tuple[Figure, Any]:
    figure, axis = _figure(4.0, max(2.4, 0.7 + 0.16 * rows))
    axis.yaxis.set_major_locator(_whole_numbers())
    return figure, axis


def _figure(width: float, height: float) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    axis = figure.subplots()
    axis.xaxis.set_major_locator(_whole_numbers())  # layers, heads, tokens, directions
    _style(axis)
    return figure, axis


def _whole_numbers() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(integer=True, min_n_ticks=1)  # one layer is one tick


def _style(axis: Any) -> None:
    axis.patch.set_alpha(0)
    axis.tick_params(colors=_INK, labelsize=8)
    for text in (axis.title, axis.xaxis.label, axis.yaxis.label):
        text.set_color(_INK)
        text.set_fontsize(9)
    for spine in axis.spines.values():
        spine.set_color(_INK)


def _name_axis(set_ticks: Any, names: Sequence[str], **options: Any) -> None:
    step = math.ceil(len(names) / _MOST_TOKENS)
    at = range(0, len(names), step)
    labels = [drawn(names[i]) for i in at]
    set_ticks(list(at), labels=labels, fontsize=6, **options)


def _short(word: str) -> str:
    return word if len(word) <= _LONGEST_WORD else word[: _LONGEST_WORD - 1] + "…"


def _reproducible(is_text: bool = False) -> Any:
    from matplotlib import rc_context

    return rc_context({"svg.hashsalt": "elicitable", "svg.fonttype": "none" if is_text else "path"})


def figure_svg(figure: Figure, is_text: bool = False) -> bytes:
    """Return a figure as an SVG file, its letters as paths or as text; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    with _reproducible(is_text):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _svg(figure: Figure, name: str) -> str:
    """Return the figure as inline SVG that fits its panel, in the page's colours and font.

    Its ids are made its own, since a page shares them.
    """
    svg = figure_svg(figure, is_text=True).decode()
    svg = svg[svg.index("<svg") :]
    for colour, variable in zip((_INK, *_LINES), _VARIABLES, strict=True):
        svg = svg.replace(colour, f"var({variable}, {colour})")
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    svg = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    return re.sub(r'(<svg[^>]*?) width="[^"]*"', r'\1 style="width:100%;height:auto"', svg, count=1)
