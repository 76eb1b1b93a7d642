"""Show which label was taken for which: in the terminal, in the HTML report, and as JSON.

Labels are texts of a person's file, so they are escaped and cut.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from typing import Any

from rich.cells import cell_len, chop_cells

from elicitable.report.html import Section
from elicitable.report.notation import NONE, plural
from elicitable.report.token_reach import shown
from elicitable.values import ClassResult, ClassResults

WIDEST_TABLE = 20  # labels; of more, the report lists the commonest confusions instead
LISTED = 20
LONGEST_LABEL = 26
NO_LABEL = "no label"
ROW_HEAD = "target"
ROW = "Rows are targets, columns are answers."


def classes_json(found: ClassResults) -> dict[str, Any]:
    """Return the results as plain lists and numbers; the last count of a row is of answers that are not labels.

    >>> classes_json(ClassResults(("a",), ((1, 0),), (ClassResult("a", 1.0, 1.0, 1.0, 1),)))["classes"]
    [{'label': 'a', 'precision': 1.0, 'recall': 1.0, 'f1': 1.0, 'support': 1}]
    """
    return {
        "labels": list(found.labels),
        "confusion": [list(row) for row in found.counts],
        "classes": [
            {"label": one.label, "precision": one.precision, "recall": one.recall, "f1": one.f1, "support": one.support}
            for one in found.classes
        ],
    }


def classes_lines(found: ClassResults, width: int = 80) -> list[str]:
    """Return the results as lines of at most ``width`` columns: every class, then the table or commonest confusions.

    Columns of the table are the numbers that stand before the labels.
    """
    digits = len(str(len(found.labels)))
    names = [f"{number:>{digits}} {_cut(one.label)}" for number, one in enumerate(found.classes, 1)]
    longest = max(map(cell_len, names))
    head = _padded("", longest) + "  precision  recall    F1   items"
    lines = [head, *(_class_line(name, longest, one) for name, one in zip(names, found.classes, strict=True)), ""]
    columns = [*range(1, len(found.labels) + 1), *([NO_LABEL] if has_no_label(found) else [])]
    table = [columns, *_counted(found)]
    wide = max(len(str(cell)) for row in table for cell in row) + 1
    if longest + 1 + wide * len(columns) <= width:
        rows = zip([ROW_HEAD, *names], table, strict=True)
        return [
            *lines,
            *(_padded(name, longest + 1) + "".join(f"{cell:>{wide}}" for cell in row) for name, row in rows),
        ]
    return [*lines, *(_confusion(one) for one in confusions(found))]


def classes_section(found: ClassResults, of: str = "") -> Section:
    """Return the section of the HTML report: every class, then the confusion table.

    Of more than twenty labels the commonest confusions stand in for the table. ``of`` names the arm whose answers they
    are.
    """
    head = ("label", "precision", "recall", "F1", "items")
    rows = [(one.label, *map(_share, (one.precision, one.recall, one.f1)), f"{one.support:,}") for one in found.classes]
    note = (
        '<p class="note">Precision: how many of the answers with this label are right. Recall: how many of the items '
    )
    note += "with this label are answered right. F1: their harmonic mean.</p>"
    body = note + _table(head, rows) + (_square(found) if len(found.labels) <= WIDEST_TABLE else _list(found))
    return Section(title=f"Labels one by one: {of}" if of else "Labels one by one", html=body)


def confusions(found: ClassResults) -> list[tuple[str, str, int]]:
    """Return the commonest (target, answer, items) where they differ, at most twenty."""
    answers = [*found.labels, NO_LABEL]
    wrong = [
        (label, answers[place], count)
        for number, (label, row) in enumerate(zip(found.labels, found.counts, strict=True))
        for place, count in enumerate(row)
        if count and place != number
    ]
    return sorted(wrong, key=lambda one: -one[2])[:LISTED]


def has_no_label(found: ClassResults) -> bool:
    """Say whether any answer is not a label at all."""
    return any(row[-1] for row in found.counts)


def _counted(found: ClassResults) -> list[tuple[int, ...]]:
    return [row if has_no_label(found) else row[:-1] for row in found.counts]


def _class_line(name: str, longest: int, one: ClassResult) -> str:
    shares = f"{_share(one.precision):>11}{_share(one.recall):>8}{_share(one.f1):>6}"
    return f"{_padded(name, longest)}{shares}{one.support:>8,}"


def _confusion(one: tuple[str, str, int]) -> str:
    target, answer, count = one
    return f"{plural(count, 'time'):>11}  {_cut(target)} answered as {_cut(answer)}"


def _square(found: ClassResults) -> str:
    answers = [*found.labels, *([NO_LABEL] if has_no_label(found) else [])]
    rows = [(label, *map(str, row)) for label, row in zip(found.labels, _counted(found), strict=True)]
    return f'<p class="note">{ROW}</p>' + _table(("target", *answers), rows)


def _list(found: ClassResults) -> str:
    rows = [(target, answer, str(count)) for target, answer, count in confusions(found)]
    return '<p class="note">The commonest confusions.</p>' + _table(("target", "answered as", "items"), rows)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose first column heads its rows; every cell is escaped."""
    head = "".join(f'<th scope="col">{_safe(name)}</th>' for name in columns)
    body = "".join("<tr>" + "".join(_cells(row)) + "</tr>" for row in rows)
    return f'<div class="table-scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cells(row: Sequence[str]) -> Iterator[str]:
    yield f'<th scope="row">{_safe(row[0])}</th>'
    yield from (f"<td>{_safe(cell)}</td>" for cell in row[1:])


def _safe(text: str) -> str:
    return html.escape(shown(text))


def _share(share: float | None) -> str:
    return NONE if share is None else f"{share:.2f}"


def _cut(label: str) -> str:
    """Return a label in at most 26 columns of a terminal."""
    text = shown(label)
    return text if cell_len(text) <= LONGEST_LABEL else chop_cells(text, LONGEST_LABEL - 1)[0] + "…"


def _padded(text: str, width: int) -> str:
    return text + " " * (width - cell_len(text))
