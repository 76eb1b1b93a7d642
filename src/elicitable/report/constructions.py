"""Draw the constructions: how a token is decoded, how far each one goes, and the error against the prefix length.

Reads records only; matplotlib is imported where a figure is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from elicitable.report.notation import drawn

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from elicitable.constructions.capacity import CapacityRow
    from elicitable.constructions.continuous_function import Approximation
    from elicitable.constructions.trace import Step, Trace

#: Logit lines drawn in full; larger vocabularies show those next to the symbol read.
MOST_LINES = 16

#: Characters of the longest bar in a terminal, less one.
BAR = 40


def plot_decoding(trace: Trace, step: int = 1, characters: str = "") -> Figure:
    """Say how step ``step`` (from 1) of a trace was decoded.

    Left: the coordinates of the virtual token, and the z that was read off one of them. Right: the logits
    (2j/V − 1)z + ¼ − (j/V)² less (z − ½)², which all share: parabolas in z, of which the highest at the z that was
    read names the symbol. Symbols are shown as ``characters`` where given.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1))
    shown = trace.steps[step - 1]
    _draw_token(left, trace, shown, characters)
    _draw_logits(right, trace, shown, characters)
    figure.suptitle(f"{trace.construction}, V = {trace.vocab}: step {step} reads z = {shown.z:.4f}")
    return figure


def _label(symbol: int, characters: str) -> str:
    """Return the symbol, and its character where there is one."""
    return f"{symbol} {characters[symbol]!r}" if characters else str(symbol)


def decoding_lines(trace: Trace, step: int = 1, characters: str = "") -> list[str]:
    """Draw step ``step`` (from 1) for a terminal: the logits that the trace kept, as bars, symbol by symbol.

    Logits are given less the largest, in units of 1/V²: in exact arithmetic −(j − Y)² for the right symbol Y.
    """
    shown = trace.steps[step - 1]
    below = {symbol: (shown.top[0][1] - logit) * trace.vocab**2 for symbol, logit in shown.top}
    scale = BAR / (max(below.values()) or 1.0)
    width = max(len(_label(symbol, characters)) for symbol in below)
    lines = [
        f"How step {step} is decoded: z = {shown.z:.4f} = {shown.z * trace.vocab:.2f}/V. "
        "Logits, less the largest, in 1/V²:"
    ]
    for symbol, less in sorted(below.items()):
        mark = ">" if symbol == shown.emitted else " "
        bar = "█" * (1 + round(BAR - less * scale))
        lines.append(f"{mark} {_label(symbol, characters):>{width}} {bar:{BAR + 1}} {0.0 - less:.2f}")
    return lines


def _draw_token(axes: Axes, trace: Trace, shown: Step, characters: str) -> None:
    """Return the values of every virtual token's coordinates; a line at the z that was read."""
    from matplotlib.ticker import MaxNLocator

    for number, token in enumerate(trace.tokens, start=1):
        places = np.arange(1, len(token) + 1)
        axes.plot(places, token, "o-", ms=4, lw=0.6, label=f"virtual token {number}" if len(trace.tokens) > 1 else None)
    axes.axhline(shown.z, color="C3", lw=1, label=f"z, emits {drawn(_label(shown.emitted, characters))}")
    axes.set(xlabel="coordinate", ylabel="value", title="the virtual token", ylim=(-0.05, 1.05))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(trace.tokens) <= 6:
        axes.legend(fontsize="small")


def _draw_logits(axes: Axes, trace: Trace, shown: Step, characters: str) -> None:
    """Draw logits_j(z) for the symbols next to the one read, and the z that was read."""
    vocab = trace.vocab
    nearby = range(vocab)
    if vocab > MOST_LINES:
        first = min(max(0, shown.emitted - 3), vocab - 7)
        nearby = range(first, first + 7)
    ends = np.array([max(0.0, (nearby[0] - 0.5) / vocab), (nearby[-1] + 0.5) / vocab])
    z = np.linspace(ends[0], ends[1], 201)
    for j in nearby:
        # without (z − ½)², which all symbols share: what is left is −(z − j/V)², drawn in units of the gap 1/V²
        lead = -((z - j / vocab) ** 2) * vocab**2
        emitted = j == shown.emitted
        axes.plot(z, lead, color="C3" if emitted else "0.6", lw=2 if emitted else 0.8)
        axes.annotate(drawn(_label(j, characters)), (j / vocab, 0.1), ha="center", fontsize="small")
    axes.axvline(shown.z, color="C3", ls=":", lw=1)
    axes.set(
        xlabel="z",
        ylabel="logit − (z − ½)², in units of 1/V²",
        ylim=(-4, 0.6),
        title=f"the largest logit leads by {shown.margin * vocab**2:.3f}/V²",
    )


def plot_capacity(rows: Sequence[CapacityRow]) -> Figure:
    """Draw the largest exact V of each construction by type; the temperature needed and its bound; margin and 1/V².

    A point on the diagonal is what exact arithmetic says.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 4.5), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.4, 1, 1))
    dtypes = list(dict.fromkeys(row.dtype for row in rows))
    kinds = list(dict.fromkeys(map(_kind, rows)))
    for place, dtype in enumerate(dtypes):
        own = [row for row in rows if row.dtype == dtype]
        at = [kinds.index(_kind(row)) + (place - (len(dtypes) - 1) / 2) * 0.2 for row in own]
        left.bar(at, [row.vocab for row in own], width=0.2, label=dtype)
        middle.scatter([row.temperature_bound for row in own], [row.temperature_needed for row in own], s=20)
        right.scatter([row.ideal_margin for row in own], [row.smallest_margin for row in own], s=20)
    left.set_xticks(range(len(kinds)), kinds, rotation=35, ha="right", fontsize="small")
    left.set(yscale="log", ylim=(1, None), ylabel="largest exact V that was run", title="capacity")
    left.legend(fontsize="small")
    middle.axline((0, 0), slope=1, color="0.6", lw=0.8)
    middle.set(xlabel="bound on T in exact arithmetic", ylabel="T needed", title="inverse temperature")
    right.axline((1, 1), (0.1, 0.1), color="0.6", lw=0.8)
    right.set(xscale="log", yscale="log", xlabel="1/V²", ylabel="smallest margin", title="lead of the right logit")
    return figure


def _kind(row: CapacityRow) -> str:
    """Return a construction with the size that tells its rows apart."""
    if row.n_input > 1:
        return f"{row.construction}, n_X = {row.n_input}"
    length = "N" if row.n_input == 0 else "n_Y"
    return f"{row.construction}, {length} = {row.n_answer}"


def plot_approximation(result: Approximation) -> Figure:
    """Draw left: the function and what the head answers with the longest prefix. Right: error against prefix length."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(result.inputs, result.wanted, color="0.6", lw=3, label="function")
    left.plot(result.inputs, result.given, color="C3", lw=1, label=f"head, prefix of {result.points[-1].prefix_length}")
    left.set(xlabel="x", title="one attention head")
    left.legend(fontsize="small")
    lengths = [point.prefix_length for point in result.points]
    right.loglog(lengths, [point.max_error for point in result.points], "o-", label="largest")
    right.loglog(lengths, [point.rms_error for point in result.points], "s--", label="root mean square")
    right.set(xlabel="prefix length", ylabel="error", title=f"falls like length^−{result.order:.2f}")
    right.legend(fontsize="small")
    return figure
