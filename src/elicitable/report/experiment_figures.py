"""Redraw the paper's figures from ``results.json`` alone: attention, activations along the bias, curves, sweeps.

Every function returns a matplotlib figure of its own, or None where there is nothing to draw yet. A figure's numbers
are in percent where the tables' are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from elicitable.errors import UnknownNameError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Drawn = Mapping[str, Any]  # a figure of results.json: its kind, its caption, its series
Rows = NDArray[np.float64]

INK = "#777777"  # readable on light and dark pages
COLOURS = ("#3b76c2", "#c2603b", "#4d9a57", "#8a63b5")
PANEL_INCHES = 2.9
MOST_COLUMNS = 4


Draw = Callable[[Drawn, Mapping[str, Any]], "Figure | None"]
FIGURES: dict[str, Draw] = {}


def figure(kind: str) -> Callable[[Draw], Draw]:
    """Register the decorated function as the one that draws figures of that kind.

    It is given the figure's entry of ``results.json`` (for every trial of it ``curves`` and ``pictures``, one per seed)
    and the whole experiment's.
    """

    def register(draw: Draw) -> Draw:
        FIGURES[kind] = draw
        return draw

    return register


def experiment_figure(drawn: Drawn, experiment: Mapping[str, Any]) -> Figure | None:
    """Return the figure of an experiment, or None where no record has what it shows.

    Raises:
        UnknownNameError: figures of that kind are not drawn here.
    """
    if drawn["kind"] not in FIGURES:
        raise UnknownNameError("figure", drawn["kind"], FIGURES)
    return FIGURES[drawn["kind"]](drawn, experiment)


def _grid(count: int, height: float = 2.5, width: float = PANEL_INCHES) -> tuple[Figure, list[Axes]]:
    """Lay out ``count`` panels side by side, in rows of at most :data:`MOST_COLUMNS`."""
    from matplotlib.figure import Figure

    columns = min(count, MOST_COLUMNS)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    figure.patch.set_alpha(0)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for panel in panels[count:]:
        panel.set_axis_off()
    return figure, panels[:count]


def _finish(panel: Axes, title: str = "", x: str = "", y: str = "") -> None:
    """Set names and ink that can be read on light and dark pages."""
    panel.patch.set_alpha(0)
    panel.set_title(title, color=INK, fontsize=8)
    panel.set_xlabel(x, color=INK, fontsize=8)
    panel.set_ylabel(y, color=INK, fontsize=8)
    panel.tick_params(colors=INK, labelsize=7)
    for spine in panel.spines.values():
        spine.set_color(INK)
    legend = panel.get_legend()
    if legend is not None:
        legend.set_frame_on(False)
        for text in legend.get_texts():
            text.set(color=INK, fontsize=7)


@figure("bars")
def bars(drawn: Drawn, experiment: Mapping[str, Any]) -> Figure | None:
    """Draw ours, with its interval, beside the source's, for every claim in percent about the figure's trials."""
    trials = {series["trial"] for series in drawn["series"]}
    claims = [
        claim
        for claim in experiment["claims"]
        if claim["trial"] in trials
        and claim["unit"] == "%"
        and claim["mean"] is not None
        and claim["source"] is not None
    ]
    if not claims:
        return None
    figure, [panel] = _grid(1, 0.9 + 0.55 * len(claims), 6.5)
    places = np.arange(len(claims), dtype=float)
    panel.barh(places - 0.18, [claim["mean"] for claim in claims], 0.34, color=COLOURS[0], label="ours")
    panel.barh(places + 0.18, [claim["source"] for claim in claims], 0.34, color=COLOURS[1], label="source")
    for place, claim in zip(places, claims, strict=True):
        if claim["low"] is not None:
            panel.plot([claim["low"], claim["high"]], [place - 0.18] * 2, color=INK, linewidth=1.2)
    panel.set_yticks(places, [claim["text"] for claim in claims])
    panel.invert_yaxis()
    panel.set_xlim(0, 100)
    panel.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    _finish(panel, x="%")
    return figure


@figure("learning curves")
def learning_curves(drawn: Drawn, experiment: Mapping[str, Any]) -> Figure | None:
    """Draw the validation score by step of the chosen run of every seed, one panel per trial."""
    shown = [series for series in drawn["series"] if any(series["curves"])]
    if not shown:
        return None
    figure, panels = _grid(len(shown), 2.2)
    for panel, series in zip(panels, shown, strict=True):
        for curve in series["curves"]:
            points = [(step, 100 * validation) for step, _, validation in curve if validation is not None]
            panel.plot(*zip(*points, strict=True) if points else ([], []), color=COLOURS[0], linewidth=1, alpha=0.8)
        panel.set_ylim(-3, 103)
        panel.set_xlim(left=0)
        _finish(panel, series["trial"], "step", "validation, %")
    return figure


@figure("sweep")
def sweep(drawn: Drawn, experiment: Mapping[str, Any]) -> Figure | None:
    """Draw the validation score at every learning rate, every seed a dot and their mean a line."""
    names = [series["trial"] for series in drawn["series"]]
    runs = {
        trial["name"]: [one for one in trial["sweep"] if one["validation"] is not None and one["rate"]]
        for trial in experiment["trials"]
        if trial["name"] in names
    }
    if not any(runs.values()):
        return None
    figure, [panel] = _grid(1, 3.0, 6.0)
    for nth, (name, entries) in enumerate(runs.items()):
        colour, rates = COLOURS[nth % len(COLOURS)], sorted({one["rate"] for one in entries})
        scores = [[100 * one["validation"] for one in entries if one["rate"] == rate] for rate in rates]
        panel.plot(rates, [sum(at) / len(at) for at in scores], color=colour, label=name)
        for rate, at in zip(rates, scores, strict=True):
            panel.plot([rate] * len(at), at, "o", color=colour, markersize=4, alpha=0.7)
    panel.set_xscale("log")
    panel.set_ylim(-3, 103)
    panel.legend()
    _finish(panel, x="learning rate", y="validation, %")
    return figure


@figure("attention")
def attention(drawn: Drawn, experiment: Mapping[str, Any]) -> Figure | None:
    """Draw the attention of one head, query × key, one panel per trial; the prefix's columns come first, before a line.

    Colours go by the square root of the weight, so that small weights can be told from none.
    """
    from matplotlib.colors import PowerNorm

    shown = [(series["trial"], series["pictures"][0]) for series in drawn["series"] if series["pictures"]]
    if not shown:
        return None
    figure, panels = _grid(len(shown), PANEL_INCHES)
    for panel, (name, picture) in zip(panels, shown, strict=True):
        prefix, tokens = picture["prefix"], picture["tokens"]
        norm = PowerNorm(0.5, vmin=0, vmax=1)
        panel.imshow(picture["weights"], norm=norm, cmap="viridis", interpolation="nearest", aspect="auto")
        if prefix:
            panel.axvline(prefix - 0.5, color="#ffffff", linewidth=1.5)
        columns = [*["p"] * prefix, *map(str, tokens)]
        panel.set_xticks(range(len(columns)), columns)
        panel.set_yticks(range(len(tokens)), list(map(str, tokens)))
        _finish(panel, name, "key", "query")
    return figure


@figure("activations")
def activations(drawn: Drawn, experiment: Mapping[str, Any]) -> Figure | None:
    """Draw the outputs of one head before (ring) and after (dot) each adaptation.

    A context is shown on the plane of its own bias and of the direction, at a right angle to it, in which the outputs
    before it differ most; changed weights, which have no bias, on the first context's plane.
    """
    shown = [(series["trial"], series["pictures"][0]) for series in drawn["series"] if series["pictures"]]
    first = next((picture for _, picture in shown if picture["bias"] is not None), None)
    if first is None:
        return None
    figure, panels = _grid(len(shown), PANEL_INCHES)
    for panel, (name, picture) in zip(panels, shown, strict=True):
        of = picture if picture["bias"] is not None else first
        plane = bias_plane(np.asarray(of["before"]), np.asarray(of["bias"]))
        before, after = (np.asarray(picture[key]) @ plane.T for key in ("before", "after"))
        for start, end in zip(before, after, strict=True):
            panel.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": INK, "lw": 0.7})
        panel.plot(*before.T, "o", color=COLOURS[0], fillstyle="none", markersize=5, label="before")
        panel.plot(*after.T, "o", color=COLOURS[1], markersize=5, label="after")
        panel.set_aspect("equal", adjustable="datalim")
        if panel is panels[0]:
            panel.legend()
        _finish(panel, name, "along the bias" if of is picture else "along the first prefix's bias", "across it")
    return figure


def bias_plane(before: Rows, bias: Rows) -> Rows:
    """Return (2, d): the bias's unit vector, and the main direction of ``before`` (item, d) at a right angle to it.

    >>> bias_plane(np.array([[0.0, 1.0, 0.0], [5.0, -1.0, 0.0]]), np.array([2.0, 0.0, 0.0])).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """
    along = bias / max(float(np.linalg.norm(bias)), 1e-12)
    rest = before - before.mean(axis=0)
    rest = rest - np.outer(rest @ along, along)
    across = np.linalg.svd(rest, full_matrices=False)[2][0]
    across = across * (1.0 if across[np.abs(across).argmax()] > 0 else -1.0)
    return np.stack([along, across]) + 0.0


@figure("position shares")
def position_shares(drawn: Drawn, experiment: Mapping[str, Any]) -> Figure | None:
    """Draw the share of the prefix's mass, layer × position, one panel per trained prefix."""
    pictures = [picture for series in drawn["series"] for picture in series["pictures"]]
    if not pictures:
        return None
    figure, panels = _grid(len(pictures), PANEL_INCHES, 2.4)
    for nth, (panel, picture) in enumerate(zip(panels, pictures, strict=True), start=1):
        image = panel.imshow(picture["shares"], vmin=0, vmax=1, cmap="viridis", interpolation="nearest", aspect="auto")
        _finish(panel, f"prefix {nth}", "position", "layer")
    bar = figure.colorbar(image, ax=panels, fraction=0.03)
    bar.ax.tick_params(colors=INK, labelsize=7)
    return figure


@figure("residuals")
def residuals(drawn: Drawn, experiment: Mapping[str, Any]) -> Figure | None:
    """Draw the residuals of both equations (log scale), and drift beside mass, layer by layer."""
    pictures = [picture for series in drawn["series"] for picture in series["pictures"]]
    if not pictures:
        return None
    figure, [exact, moved] = _grid(2, 2.6, 4.2)
    for panel, names in ((exact, ("attention residual", "output residual")), (moved, ("drift", "mass"))):
        for name, colour in zip(names, COLOURS, strict=False):
            for nth, picture in enumerate(pictures):
                panel.plot(picture[name], color=colour, linewidth=1, label=None if nth else name)
    exact.set_yscale("log")
    moved.set_ylim(-0.02, 1.02)
    for panel, title in ((exact, "given the layer's input, largest over heads"), (moved, "mean over heads")):
        panel.legend()
        _finish(panel, title, "layer")
    return figure


def figure_names(experiment: Mapping[str, Any]) -> Sequence[str]:
    """Return a file name, without its ending, for every figure of an experiment.

    >>> figure_names({"name": "new-task", "figures": [{"kind": "learning curves"}]})
    ['new-task-learning-curves']
    """
    return [f"{experiment['name']}-{drawn['kind'].replace(' ', '-')}" for drawn in experiment["figures"]]
