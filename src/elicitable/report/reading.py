"""Say back how a task's data were read: in the terminal before a model is loaded, in the report, and as JSON."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from elicitable.report.html import Section
from elicitable.report.notation import plural
from elicitable.report.table import plain
from elicitable.report.verdict_json import plain_json
from elicitable.values import Item, Message

if TYPE_CHECKING:
    from elicitable.tasks.reading import Lengths, Summary

INDENT = 12
LABELS_SHOWN = 12
EXAMPLE_SHOWN = 600  # characters in the terminal, from both ends
MOST_CHOICES = 5  # of a row, that an example shows
_TURNS = (
    "the messages of a conversation, in the model's chat template; where it has none, or with --chat off, as a "
    "transcript: what the system says, then User: … and Assistant: … line by line; the answer ends at \\nUser:"
)
_UNITS = ("tokens", "characters", "words")


def print_reading(summary: Summary, console: Console) -> None:
    """Print what was understood of a task, at the console's width.

    Example:
        >>> from elicitable.tasks.catalog import task_from
        >>> from elicitable.tasks.reading import summary_of
        >>> rows = [{"text": f"text {i}", "label": "yn"[i % 2]} for i in range(60)]
        >>> print_reading(summary_of(task_from(rows)), Console(width=80))
        data: classification, 2 labels
          source    data
          read      text
          label     label
          shown as  {text}\\nLabel: …
          splits    train 42, validation 6, test 12
          prompt    median 14 characters, 3 words; 95 % up to 14, 3; longest 14, 3
          target    median 2 characters, 1 words; 95 % up to 2, 1; longest 2, 1
          labels    n: train 21, validation 3, test 6
                    y: train 21, validation 3, test 6
          example   text 0
                    Label: → y
        warning: the test split has only 12 items: intervals will be wide
    """
    console.print(Text(plain(_title(summary)), style="bold"))
    for name, text in facts(summary):
        _print_under(console, name, [text])
    _print_under(console, "labels", _label_lines(summary))
    _print_under(console, "example", _clipped(_example(summary.example)).rstrip().split("\n"))
    for warning in summary.warnings:
        for part in Text(f"warning: {plain(warning)}", style="bold red").wrap(console, max(console.width, 10)):
            part.rstrip()
            console.print(part)


def _print_under(console: Console, name: str, lines: Sequence[str]) -> None:
    """Print lines beside a name, each wrapped under itself."""
    head = f"  {name}".ljust(INDENT - 1) + " "
    for line in lines:
        for part in Text(plain(line)).wrap(console, max(console.width - len(head), 10)):
            part.rstrip()
            console.print(Text(head) + part)
            head = " " * len(head)


def facts(summary: Summary) -> list[tuple[str, str]]:
    """Name and text of everything in ``summary`` but labels, example and warnings."""
    reading = summary.reading
    found = []
    if reading is not None:
        found.append(("source", reading.source))
        roles: dict[str, list[str]] = {}
        for name, role in reading.used:
            roles.setdefault(role, []).append(name)
        found += [(role, ", ".join(names)) for role, names in roles.items()]
        if reading.unused:
            found.append(
                ("not used", "; ".join(f"{name or '(no name)'}{why and f' ({why})'}" for name, why in reading.unused))
            )
        shown = reading.template.replace("\n", "\\n") or _TURNS
        found.append(("shown as", shown))
        if reading.several:
            found.append(("answers", reading.several))
    found.append(("splits", ", ".join(_size(summary, split) for split in summary.sizes)))
    return [*found, *((what, _length(summary, what)) for what in ("prompt", "target"))]


def reading_section(summary: Summary) -> Section:
    """Return the reading as a part of the report; every text in it is escaped."""
    rows = [f"<tr><th>{html.escape(name)}</th><td>{html.escape(text)}</td></tr>" for name, text in facts(summary)]
    parts = [f'<p>{html.escape(_title(summary))}</p><div class="table-scroll"><table>{"".join(rows)}</table></div>']
    if summary.labels:
        heads = "".join(f"<th>{html.escape(name)}</th>" for name in ("label", *summary.sizes))
        body = "".join(_label_row(label, counts, list(summary.sizes)) for label, counts in _by_size(summary))
        parts.append(f'<div class="table-scroll"><table><tr>{heads}</tr>{body}</table></div>')
    parts.append(f"<p>One item, as the model reads it:</p><pre>{html.escape(_example(summary.example))}</pre>")
    parts += [f'<p class="note">{html.escape(warning)}</p>' for warning in summary.warnings]
    return Section("The data, as they were read", "\n".join(parts))


def reading_to_json(summary: Summary) -> dict[str, Any]:
    """Return the reading as plain data: every field of the summary under its own name."""
    found: dict[str, Any] = plain_json(asdict(summary))
    return found


def _title(summary: Summary) -> str:
    labels = f", {plural(len(summary.labels), 'label')}" if summary.labels else ""
    return f"{summary.task}: {summary.kind}{labels}"


def _size(summary: Summary, split: Any) -> str:
    size, distinct = summary.sizes[split], summary.distinct[split]
    return f"{split} {size:,}" + (f" ({distinct:,} different)" if distinct != size else "")


def _length(summary: Summary, what: str) -> str:
    """Return the median, 95th percentile and longest, each in every unit."""
    found = [(unit, summary.lengths[f"{what} {unit}"]) for unit in _UNITS if f"{what} {unit}" in summary.lengths]
    median = ", ".join(f"{one.median:,} {unit}" for unit, one in found)
    most, longest = (", ".join(f"{number:,}" for number in numbers) for numbers in _upper(found))
    return f"median {median}; 95 % up to {most}; longest {longest}"


def _upper(found: Sequence[tuple[str, Lengths]]) -> tuple[list[int], list[int]]:
    return [one.most for _, one in found], [one.longest for _, one in found]


def _by_size(summary: Summary) -> Sequence[tuple[str, Mapping[Any, int]]]:
    return sorted(summary.labels.items(), key=lambda pair: -sum(pair[1].values()))


def _label_lines(summary: Summary) -> list[str]:
    """Return the labels with their counts by split, the most frequent ones."""
    ordered = _by_size(summary)
    lines = [
        f"{label}: " + ", ".join(f"{split} {counts[split]:,}" for split in summary.sizes)
        for label, counts in ordered[:LABELS_SHOWN]
    ]
    rest = ordered[LABELS_SHOWN:]
    if rest:
        rarest = rest[-1]
        lines.append(f"and {len(rest):,} more, down to {rarest[0]}: {plural(sum(rarest[1].values()), 'row')}")
    return lines


def _label_row(label: str, counts: Mapping[Any, int], splits: Sequence[Any]) -> str:
    return f"<tr><td>{html.escape(label)}</td>{''.join(f'<td>{counts[split]:,}</td>' for split in splits)}</tr>"


def _example(item: Item) -> str:
    """Return the prompt and target, and a mark between them; below, what else there is to choose from."""
    others = "".join(f"\n  not{_written(one)}" for one in item.choices[:MOST_CHOICES] if one != item.target)
    return f"{_written(item.prompt)} →{_written(item.target)}{others}"


def _written(text: Any) -> str:
    if isinstance(text, str):
        return text
    if text and isinstance(text[0], Message):
        return "\n".join([*(f"{turn.role}: {turn.shown}" for turn in text), "assistant:"])
    return "".join(f" {token}" for token in text)


def _clipped(text: str) -> str:
    if len(text) <= EXAMPLE_SHOWN:
        return text
    half = EXAMPLE_SHOWN // 2
    return f"{text[:half]} [… {len(text) - 2 * half:,} characters …] {text[-half:]}"
