"""Print the verdict in a terminal: the answer, a table of the arms, and the reasons.

The text is plain when colour is off or the output is piped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from os import PathLike
from typing import Literal

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from elicitable.report import notation, phrases, standing
from elicitable.untrusted import in_one_line, visible
from elicitable.values import ArmResult, Verdict

GAP = 2
BAR_CELLS = 8
WIDE_BAR_CELLS = 20
WIDE = 100
COLOURS = {"nothing": "", "context": "cyan", "weights": "yellow", "control": "dim", "other": ""}


@dataclass(frozen=True)
class _Column:
    """Hold one column: its head (lines), how a cell is written, and when it is given up in a narrow terminal."""

    head: str
    cell: Callable[[ArmResult], str]
    align: Literal["left", "right"] = "right"
    given_up: int = 0  # the highest goes first; 0 never goes


def verdict_table(verdict: Verdict) -> RenderableType:
    """Return the arms as a rich table, least invasive first; the arm the verdict speaks of is marked ``>``.

    It gives up columns (bar, steps, learning rate, …) rather than break below 80 columns.
    """
    return _VerdictTable(verdict)


def print_verdict(verdict: Verdict, console: Console, report: str | PathLike[str] | None = None) -> None:
    """Print the whole verdict: answer, table, reasons, warnings, path of the report.

    Args:
        verdict: what to print.
        console: where; width, colour and encoding are the console's.
        report: path of the report, printed last when given.

    Raises:
        UnknownNameError: the verdict's label is none that an arm or the report knows.

    Example:
        >>> print_verdict(
        ...     Verdict("inconclusive", ("Two more seeds would settle it.",), (), "toy:mixed", "ascending", 0.02),
        ...     Console(width=90),
        ... )
        inconclusive: The evidence does not settle what toy:mixed needs for ascending.
        No arm that could be the answer ran through.
        <BLANKLINE>
        Why
          - Two more seeds would settle it.
    """
    console.print(Text.assemble((verdict.label, "bold"), ": ", plain(phrases.answer(verdict))))
    console.print(Text(plain(phrases.evidence(verdict))))
    console.print()
    if verdict.arms:
        console.print(verdict_table(verdict))
        console.print(Text(_legend(verdict), style="dim"))
        console.print()
    _print_list(console, "Why", verdict.reasons)
    tried = [f"{arm.method}: {words}." for arm in verdict.arms if (words := phrases.searched(arm))]
    _print_list(console, "Searched", tried)
    _print_list(console, "Warnings", warnings_of(verdict), style="bold red")
    if report is not None:
        # One unbroken line: a path that is wrapped cannot be clicked or copied.
        console.print(Text(f"Report: {plain(str(report))}"), soft_wrap=True)


def print_next(commands: Iterable[str], console: Console) -> None:
    """Print the commands to type next, each on one unbroken line, so that it can be copied; nothing for none."""
    for nth, command in enumerate(commands):
        if nth == 0:
            console.print(Text("Next", style="bold"))
        console.print(Text(f"  {plain(command)}"), soft_wrap=True)


def warnings_of(verdict: Verdict) -> tuple[str, ...]:
    """Return the warnings that the race left in ``provenance["warnings"]``: one text or a list of them."""
    found = verdict.provenance.get("warnings", ())
    return (found,) if isinstance(found, str) else tuple(str(warning) for warning in found or ())


def plain(text: str) -> str:
    r"""Write ``text`` on one line with its control characters written out, so that no file can act on the screen.

    >>> print(plain("two\nlines \x1b[31mred"))
    two lines \u001b[31mred
    """
    return in_one_line(text)


def print_wrapped(sentences: Iterable[str], console: Console) -> None:
    """Print each sentence on lines of its own, broken between words at the console's width."""
    for sentence in sentences:
        print_hanging(sentence, console, indent="")


def print_hanging(line: str, console: Console, indent: str = "    ", first: str = "") -> None:
    """Print one line behind ``first``, broken between words at the console's width; what follows is indented."""
    for nth, part in enumerate(Text(visible(line)).wrap(console, max(console.width - len(indent), 10))):
        part.rstrip()
        console.print(Text(indent if nth else first) + part)


def _print_list(console: Console, title: str, lines: Iterable[str], style: str = "bold") -> None:
    """Return a titled list with hanging indents; nothing when there are no lines."""
    lines = list(lines)
    if not lines:
        return
    console.print(Text(title, style=style))
    for line in lines:
        print_hanging(plain(line), console, first="  - ")


def _legend(verdict: Verdict) -> str:
    """Say what the column of scores holds."""
    scored = [arm for arm in verdict.arms if standing.is_scored(arm)]
    size = ""
    if scored:
        size = f", {notation.plural(max(arm.items for arm in scored), 'test item')}"
        size += f", {notation.plural(max(arm.seeds for arm in scored), 'seed')}"
    return f"score: mean [interval]{size}; margin {notation.points(verdict.margin)}"


class _VerdictTable:
    """Draw the table, with the columns chosen when the width of the terminal is known."""

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict
        self.arms = tuple(arm for _, arms in standing.grouped(verdict) for arm in arms)
        self.winner = standing.winner(verdict)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns, gap = self._fitting(options.max_width, options.ascii_only)
        table = Table(box=None, padding=(0, gap, 0, 0), pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column.head, justify=column.align, vertical="bottom", overflow="fold")
        before = None
        for arm in self.arms:
            group = arm.rung.group
            style = "bold" if arm is self.winner else COLOURS[group]
            if before is not None and group != before:
                table.add_row()
            before = group
            table.add_row(*(Text(column.cell(arm), style=style) for column in columns))
        yield table

    def _fitting(self, width: int, ascii_only: bool) -> tuple[list[_Column], int]:
        """Choose the columns that fit in ``width`` and the gap between them; a gap is narrowed before a column goes."""
        columns = self._columns(WIDE_BAR_CELLS if width >= WIDE else BAR_CELLS, ascii_only)
        while True:
            for gap in (GAP, 1):
                if self._width(columns, gap) <= width:
                    return columns, gap
            spare = max(columns, key=lambda column: column.given_up)
            if spare.given_up == 0:
                return columns, 1
            columns.remove(spare)

    def _width(self, columns: list[_Column], gap: int) -> int:
        cells = [[*column.head.split("\n"), *(column.cell(arm) for arm in self.arms)] for column in columns]
        return sum(max(len(cell) for cell in column) for column in cells) + gap * (len(columns) - 1)

    def _columns(self, bar_cells: int, ascii_only: bool) -> list[_Column]:
        full, empty = ("#", ".") if ascii_only else ("━", "·")
        return [
            _Column("  method", self._method, "left"),
            _Column("score", notation.score, "left"),
            _Column("", lambda arm: bar(arm.mean, bar_cells, full, empty), "left", given_up=5),
            _Column("numbers\ntrained", lambda arm: notation.count(arm.budget.numbers_trained), given_up=1),
            _Column("keys/\nlayer", lambda arm: notation.count(arm.budget.keys_per_layer), given_up=2),
            _Column("learn.\nrate", lambda arm: notation.rate(arm.learning_rate), given_up=4),
            _Column("side\nnats", lambda arm: notation.nats(arm.side_effect_nats), given_up=3),
            _Column("status", lambda arm: plain(arm.status), "left"),
        ]

    def _method(self, arm: ArmResult) -> str:
        return f"{'>' if arm is self.winner else ' '} {plain(arm.method)}"


def bar(mean: float | None, cells: int, full: str = "━", empty: str = "·") -> str:
    """Return a score in [0, 1] as a bar of ``cells`` letters; empty without a score.

    >>> bar(0.5, 8, "#", ".")
    '####....'
    """
    if mean is None:
        return ""
    filled = round(min(max(mean, 0.0), 1.0) * cells)
    return full * filled + empty * (cells - filled)
