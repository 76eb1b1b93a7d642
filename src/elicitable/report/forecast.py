"""Print a forecast in a terminal of 80 columns or more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from elicitable.report.table import plain, print_hanging, print_next, print_wrapped

if TYPE_CHECKING:
    from elicitable.forecasting.forecast import Forecast
    from elicitable.forecasting.model import ScoreGrowth

LEAST = 0.05  # in logits, below which a signal pushes nowhere


def print_forecast(found: Forecast, words: Mapping[str, str], command: str, console: Console) -> None:
    """Print the answer, the signals that push most, the scores, and the next command; where it is not known, why.

    Args:
        found: what to print.
        words: what each signal is, in plain words.
        command: what to type next.
        console: where; at least 80 columns wide.
    """
    console.print(Text(plain(found.answer), style="bold"))
    for reason in found.reasons:
        print_hanging(plain(reason), console, first="  ")
    if not found.is_known:
        console.print(Text("So no score is foretold. What was measured:"))
    console.print()
    console.print(signal_table(found, words))
    if found.is_known:
        console.print()
        for line in score_lines(found.prediction.growth, found.arms):
            console.print(Text(line))
        print_wrapped(told_of_scores(found.prediction.growth), console)
    console.print(Text(f"\nMeasured in {found.seconds['all']:.0f} s, without the test split."))
    print_next([command], console)


def signal_table(found: Forecast, words: Mapping[str, str]) -> Table:
    """Return the signals that push most, each with its value and, where a probability is known, the way it pushes."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("signal", overflow="fold")
    table.add_column("here", justify="right")
    if found.is_known:
        table.add_column("pushes towards")
    for name in found.strongest():
        push = [pushed(found.prediction.pushes[name])] if found.is_known else []
        table.add_row(words[name], found.figure(name), *push)
    return table


def pushed(push: float) -> str:
    """Say which way a push in logits goes, and how far.

    >>> pushed(0.8), pushed(-0.8), pushed(0.01)
    ('a context  +0.80', 'weights    -0.80', 'neither    +0.01')
    """
    towards = "neither" if abs(push) < LEAST else "a context" if push > 0 else "weights"
    return f"{towards:<11}{push:+.2f}"


def score_lines(growth: ScoreGrowth, arms: Mapping[str, str]) -> list[str]:
    """Return the expected scores of ``arms`` by rows as lines of a table."""
    lines = [f"{'rows':>8}  {arms['context']:<22}  {arms['weights']}"]
    for context, weights in zip(growth.context, growth.weights, strict=True):
        cells = [f"{one.mean:.2f} ({one.low:.2f} to {one.high:.2f})" for one in (context, weights)]
        lines.append(f"{context.rows:>8,}  {cells[0]:<22}  {cells[1]}")
    return lines


def told_of_scores(growth: ScoreGrowth) -> tuple[str, str]:
    """Say what the expected scores are of, and where the weights get ahead."""
    of = (
        f"Expected after {growth.steps} steps of each at one learning rate, with 90 % intervals: how fast it goes, not "
        "what a finished race comes to."
    )
    if not growth.crossing:
        return of, "Weights are not expected to get ahead by then at any of these rows."
    middle, low, high = growth.crossing
    between = f"{middle:,}" if low == high else f"{middle:,} ({low:,} to {high:,})"
    return of, f"Weights are ahead by then, from about {between} rows, in {growth.overtaken:.0%} of what is likely."
