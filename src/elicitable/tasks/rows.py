"""Turn the cells of a table into rows that are read and answered, and say what is odd about the rows as a whole."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from elicitable.tasks.choices import fault_in_choices, listed
from elicitable.tasks.columns import Columns
from elicitable.tasks.labels import NOTHING
from elicitable.tasks.messages import ANSWERER, conversation, is_of_system, tools_in, with_system, with_tools
from elicitable.tasks.splitting import Row, Splits, units_of
from elicitable.tasks.tables import (
    Cell,
    Table,
    Texts,
    fault_of,
    is_of_tools,
    said_in,
    shown_cell,
    text_of_cell,
    texts_of_cell,
)
from elicitable.tasks.template import Template
from elicitable.values import Messages, Split

SHARED: Final = 2  # rows for one value of a column, on average, from which on the value is said to be shared
LONG: Final = 40  # characters of a value that is more than a word or two
LARGE: Final = 0.3  # a share of the rows from which on one group makes the splits uneven
SIGNS: Final = frozenset("*/%#&@\\")  # which Unicode counts as punctuation
_MINUS: Final = re.compile(r"(?<![^\W\d])-(?=\s*\d)|(?<=\s)-(?=\s)")  # before a number or alone: no hyphen
FEW: Final = 20  # distinct answers that could be labels


def rows_of(table: Table, columns: Columns, template: Template, group: str | None) -> list[Row]:
    """Return the rows of a table without bad rows."""
    if not template.literals:
        return _conversations(table, columns, group)
    shown = [table.cells(name) for name in template.names]
    groups, accepted = _groups(table, group), _accepted(table, columns)
    answers = [text_of_cell(cell) for cell in table.cells(columns.answer)]
    choices = [_choices(table, row, columns) for row in table.rows]
    return [
        Row(tuple(shown_cell(cell) for cell in cells), answer, one, several, own)
        for cells, answer, one, several, own in zip(
            zip(*shown, strict=True), answers, groups, accepted, choices, strict=True
        )
    ]


def _choices(table: Table, row: tuple[Cell, ...], columns: Columns) -> Texts:
    """Return the different choices of a row, in their order."""
    if not columns.choices:
        return ()
    return tuple(dict.fromkeys(filter(None, listed([row[table.columns.index(name)] for name in columns.choices]))))


def _accepted(table: Table, columns: Columns) -> list[Texts]:
    """Return all right answers of every row, where any row has several; else nothing."""
    if columns.kind == "classification" or not table.holds_lists(columns.answer):
        return [()] * len(table.rows)
    found = [texts_of_cell(cell) for cell in table.cells(columns.answer)]
    return found if any(len(one) > 1 for one in found) else [()] * len(found)


def fault_in(table: Table, columns: Columns, template: Template) -> Callable[[tuple[Cell, ...]], str | None]:
    """Return a function that says what is wrong with the cells of a row; None where it can be used.

    A row needs an answer and its main column. Of the other columns that a template shows, one may be empty.
    """
    main = columns.text if columns.text in template.names else template.names[0]
    wanted = [(name, table.columns.index(name)) for name in dict.fromkeys((main, columns.answer))]
    others = [(name, table.columns.index(name)) for name in template.names if name not in (main, columns.answer)]
    beside = beside_conversations(table, columns)

    def fault(row: tuple[Cell, ...]) -> str | None:
        for name, index in wanted:
            if why := fault_of(row[index]):
                if row[index] is None and table.holds_messages(name):
                    why = "is missing, or holds a message without a text, or with a key twice"
                return f"column {name!r} {why}"
        if columns.kind == "classification" and len(texts_of_cell(row[wanted[-1][1]])) > 1:
            return f"column {columns.answer!r} is a list of several values, and a label is one"
        if columns.choices and (
            why := fault_in_choices(text_of_cell(row[wanted[-1][1]]), _choices(table, row, columns), columns.answer)
        ):
            return why
        for name, index in others:
            if row[index] and (why := fault_of(row[index])) and why != "is empty":
                return f"column {name!r} {why}"
        if not template.literals and isinstance(talk := _talk(row, table, columns, beside), str):
            return f"column {columns.answer!r} {talk}"
        return None

    return fault


def row_warnings(splits: Splits, columns: Columns, template: Template, group: str | None) -> list[str]:
    """Say what a person should know about the rows, in words."""
    found = [*_contradictions(splits, columns), *_repeated(splits), *_near_twins(splits)]
    found += _nothing(splits, columns, template)
    if group is None:
        found += _shared_cells(splits, template)
    if columns.kind == "generation":
        found += _few_answers(splits, columns)
    return found


def group_warnings(splits: Splits, group: str | None) -> list[str]:
    """Say how many rows have no group, which groups look like none, and whether one makes the splits uneven."""
    rows = [row for some in splits.values() for row in some]
    count = sum(not row.group for row in rows) if group else 0
    found = [f"rows without a value in column {group!r}, each on its own: {count:,}"] if count else []
    if nothing := Counter(row.group for row in rows if row.group and row.group.casefold() in NOTHING):
        shown = ", ".join(f"{name!r} ({size:,} rows)" for name, size in nothing.most_common())
        found.append(
            f"groups by column {group!r} that look like missing values: {shown}; the rows of each are kept together; "
            "empty cells are rows on their own"
        )
    units = units_of(rows)
    sizes = Counter(units[row.text] for row in rows if row.group)
    for unit, size in sizes.most_common(1):
        if size > LARGE * len(rows):
            name = next(row.group for row in rows if row.group and units[row.text] == unit)
            sizes_of = ", ".join(f"{split} {len(some):,}" for split, some in splits.items())
            found.append(
                f"{size:,} of {len(rows):,} rows are one group by column {group!r} ({name!r}) and stand in one split, "
                f"so the splits are uneven: {sizes_of}"
            )
    return found


def behind_answers(tables: Mapping[Split, Table], columns: Columns) -> list[str]:
    """Say how many conversations do not end with the answer that is asked for."""
    if columns.text != columns.answer:
        return []
    talks = [turns for table in tables.values() for turns in table.conversations(columns.text)]
    count = sum(turns[-1].role != ANSWERER for turns in talks)
    said = "conversations that go on behind the assistant's last message, which is left out"
    return [f"{said}: {count:,}"] if count else []


def _conversations(table: Table, columns: Columns, group: str | None) -> list[Row]:
    rows, beside = [], beside_conversations(table, columns)
    for row, one, several in zip(table.rows, _groups(table, group), _accepted(table, columns), strict=True):
        talk = _talk(row, table, columns, beside)
        assert not isinstance(talk, str)  # bad rows are gone
        rows.append(Row(talk[0], talk[1], one, several))
    return rows


def _talk(row: tuple[Cell, ...], table: Table, columns: Columns, beside: Beside) -> tuple[Messages, str] | str:
    read, answer = (said_in(row[table.columns.index(name)]) for name in (columns.text, columns.answer))
    found = conversation(read, None if columns.text == columns.answer else answer)
    if isinstance(found, str):
        return found
    system, tools = (row[table.columns.index(name)] if name else None for name in (beside.system, beside.tools))
    if (fault := fault_of(system)) and text_of_cell(system):
        return f"stands beside a column {beside.system!r} that {fault}"
    if text_of_cell(tools) and not tools_in(text_of_cell(tools)):
        return f"stands beside a column {beside.tools!r} that holds no list of tools"
    return with_tools(with_system(found[0], text_of_cell(system)), tools_in(text_of_cell(tools))), found[1]


@dataclass(frozen=True, slots=True)
class Beside:
    """Name the columns that belong to conversations: their system message, and the tools that they may call."""

    system: str | None = None
    tools: str | None = None


def beside_conversations(table: Table, columns: Columns) -> Beside:
    """Return the columns that belong to conversations; none where there are no conversations.

    A column of the name in which nothing is a text, or a list of tools, is none.
    """
    read = (columns.text, columns.answer)
    if not any(table.holds_messages(name) for name in read):
        return Beside()
    others = [name for name in table.columns if name not in read]
    system = next((name for name in others if is_of_system(name) and table.distinct(name)), None)
    tools = [name for name in others if is_of_tools(name)]
    return Beside(system, next((name for name in tools if any(map(tools_in, table.distinct(name)))), None))


def joins(tables: Mapping[Split, Table], columns: Columns, template: Template) -> list[str]:
    """Say how many rows have another white space than the separator where prompt and target join."""
    if columns.kind == "classification" or not template.literals:
        return []
    last = None if template.literals[-1] else template.names[template.slots[-1]]  # the column that ends the prompt
    counts: Counter[str] = Counter()
    for table in tables.values():
        at, end = table.columns.index(columns.answer), None if last is None else table.columns.index(last)
        counts.update(_behind("" if end is None else row[end]) + _before(row[at]) for row in table.rows)
    rows = counts.total()
    del counts[""], counts[template.separator]
    if not counts:
        return []
    most = counts.most_common(1)[0][0].replace("\n", "\\n").replace("\t", "\\t")
    return [
        f"{counts.total():,} of {rows:,} rows have white space where prompt and target join, which is replaced by the "
        f"separator {template.separator!r}; --separator '{most}' writes what most of them have"
    ]


def _before(cell: Cell) -> str:
    return cell[: len(cell) - len(cell.lstrip())] if isinstance(cell, str) else ""


def _behind(cell: Cell) -> str:
    return cell[len(cell.rstrip()) :] if isinstance(cell, str) else ""


def _groups(table: Table, name: str | None) -> list[str]:
    """Return the group of every row, "" where the column has no value."""
    return [""] * len(table.rows) if name is None else [shown_cell(cell) for cell in table.cells(name)]


def _contradictions(splits: Splits, columns: Columns) -> list[str]:
    answers: defaultdict[str, set[str]] = defaultdict(set)
    for rows in splits.values():
        for row in rows:
            answers[row.text].add(row.answer)
    count = sum(len(found) > 1 for found in answers.values())
    what = "labels" if columns.kind == "classification" else "targets"
    return [f"texts that occur with different {what}: {count} (they stay in the data)"] if count else []


def _nothing(splits: Splits, columns: Columns, template: Template) -> list[str]:
    """Return the texts and targets that look like missing values; labels are looked at among themselves."""
    rows = [row for some in splits.values() for row in some]
    place = template.names.index(columns.text) if columns.text in template.names else 0
    said = {"texts": [str(row.cells[place]) for row in rows] if template.literals else []}
    said["targets"] = [row.answer for row in rows] if columns.kind == "generation" else []
    found = []
    for what, texts in said.items():
        if counts := Counter(text for text in texts if text.casefold() in NOTHING):
            listed = ", ".join(f"{text!r} ({count:,} rows)" for text, count in counts.most_common())
            found.append(f"{what} that look like missing values: {listed}; they are taken as {what}")
    return found


def _repeated(splits: Splits) -> list[str]:
    rows = sum(map(len, splits.values()))
    distinct = len({row.text for some in splits.values() for row in some})
    if rows == distinct:
        return []
    return [f"{rows:,} rows hold {distinct:,} different texts; rows of the same text count as one in the intervals"]


def _near_twins(splits: Splits) -> list[str]:
    """Return the held-out texts that a text of train repeats but for case, white space, punctuation and composition."""
    trained = {_plain(row.text) for row in splits["train"]} - {""}
    found = []
    for split in ("validation", "test"):
        count = len({row.text for row in splits[split] if _plain(row.text) in trained})
        if count:
            found.append(
                f"{count:,} texts of the {split} split are in train too but for case, white space, punctuation or how "
                "characters are composed"
            )
    return found


class _Plain(dict[int, str]):
    """Hold what is left of a character where letters, digits, marks on them and signs count; found when asked for."""

    def __missing__(self, code: int) -> str:
        letter = chr(code)
        category = unicodedata.category(letter)
        counts = letter.isalnum() or category.startswith(("M", "S")) or letter in SIGNS
        self[code] = "" if category == "Cf" else letter if counts else " "
        return self[code]


_LETTERS: Final = _Plain()


def _plain(text: str) -> str:
    """Return a text without case, punctuation, what is not seen, and the ways to compose a character.

    Signs such as +, an emoji, and a minus are no punctuation.

    >>> _plain("Cafe\u0301\u200b,  ok!") == _plain("CAF\u00c9 ok"), _plain("कि") == _plain("का")
    (True, False)
    """
    composed = _MINUS.sub("\N{MINUS SIGN}", unicodedata.normalize("NFKC", text))
    return " ".join(composed.casefold().translate(_LETTERS).split())


def _shared_cells(splits: Splits, template: Template) -> list[str]:
    """Return the long values of one column that many rows share, such as a passage with several questions."""
    found: list[str] = []
    if not template.literals or len(template.names) < 2:
        return found
    for index, name in enumerate(template.names):
        counts = Counter(str(row.cells[index]) for rows in splits.values() for row in rows)
        counts.pop("", None)
        if counts and sum(counts.values()) >= SHARED * len(counts) and max(map(len, counts)) >= LONG:
            found.append(
                f"column {name!r} has {len(counts):,} values in {sum(counts.values()):,} rows, so train and test share "
                f"some of them; --group-column {name} keeps such rows in one split"
            )
    return found


def _few_answers(splits: Splits, columns: Columns) -> list[str]:
    distinct = {row.answer for rows in splits.values() for row in rows}
    rows = sum(map(len, splits.values()))
    if not 1 < len(distinct) <= FEW or rows < 5 * len(distinct) or columns.text == columns.answer:
        return []
    return [
        f"the targets have only {len(distinct)} different values; --label-column {columns.answer} takes them as labels"
    ]
