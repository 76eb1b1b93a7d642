"""Record how a table was read, so that it can be said back before a model is loaded.

That is its columns, labels, splits and lengths, and one example.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from elicitable.errors import InputError
from elicitable.tasks.base import Kind, Task, warnings_of
from elicitable.tasks.choices import keys_column
from elicitable.tasks.columns import Columns, mark_column
from elicitable.tasks.rows import beside_conversations
from elicitable.tasks.splitting import SPLITS
from elicitable.tasks.tables import Table, texts_of_cell
from elicitable.tasks.template import Template
from elicitable.values import Item, Message, Messages, Split, Text

if TYPE_CHECKING:
    from elicitable.tasks.text import TextTask

CHOSEN_FROM: Final = "choices"
HELD_OUT: Final = ("validation", "test")


@dataclass(frozen=True, slots=True)
class Reading:
    """Say where rows came from: ``used`` are columns and what each is, ``unused`` the others and why, "" for no reason.

    ``template`` is how a row is shown; empty for conversations. ``several`` says how lists of right answers are used;
    empty where there are none.
    """

    source: str
    used: tuple[tuple[str, str], ...]
    unused: tuple[tuple[str, str], ...]
    template: str
    several: str = ""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Hold the median, 95th percentile and greatest of a number of characters or words."""

    median: int
    most: int  # 95 of 100 are at most this long
    longest: int


@dataclass(frozen=True, slots=True)
class Summary:
    """Say what is understood of a task.

    ``sizes`` and ``distinct`` are the items of each split and how many of them are different, without train where it
    has no end; ``labels`` the counts of each label by split; ``lengths`` those of prompts and targets, in characters
    and words (``"prompt characters"``, …).
    """

    task: str
    kind: Kind
    reading: Reading | None
    sizes: Mapping[Split, int]
    distinct: Mapping[Split, int]
    labels: Mapping[str, Mapping[Split, int]]
    lengths: Mapping[str, Lengths]
    example: Item
    warnings: tuple[str, ...] = field(default=())


def reading_of(tables: Mapping[Split, Table], columns: Columns, template: Template, group: str | None) -> Reading:
    """Return the reading of ``tables``: every column of the training data is in it, used or not."""
    train = tables["train"]
    roles = {name: "read" for name in (columns.text, *template.names) if name in template.names}
    answered = "label" if columns.kind == "classification" else "target"
    roles[columns.answer] = answered if columns.answer != columns.text else "read, but its last answer: the target"
    roles |= dict.fromkeys(columns.choices, CHOSEN_FROM)
    if (keys := keys_column(train, columns)) is not None:
        roles[keys] = "what the choices are called"
    beside = beside_conversations(train, columns)
    if beside.system is not None:
        roles[beside.system] = "the system message of a conversation that begins with none"
    if beside.tools is not None:
        roles[beside.tools] = "the tools that the conversation may call"
    if (mark := mark_column(train, columns, template.names)) is not None:
        roles[mark] = "whether an answer is wanted (true or 1) or not (false or 0)"
    if group is not None:
        roles[group] = f"{roles[group]}, group" if group in roles else "group"
    unused = tuple((name, "") for name in train.columns if name not in roles)
    source = ", ".join(table.source for table in tables.values())
    read = (source, tuple(roles.items()), (*unused, *train.left_out), _template(template))
    return Reading(*read, _several(tables.values(), columns))


def _several(tables: Iterable[Table], columns: Columns) -> str:
    holding = [table for table in tables if columns.answer in table.columns and table.holds_lists(columns.answer)]
    if columns.kind == "classification" or not holding:
        return ""
    counts = [len(texts_of_cell(cell)) for table in holding for cell in table.cells(columns.answer)]
    if max(counts, default=0) < 2:
        return ""
    return (
        f"a list a row, {sum(counts) / max(1, len(counts)):.1f} on average, {max(counts)} at most: the first is "
        "trained on, and what is written is scored against the best of all"
    )


def _template(template: Template) -> str:
    if not template.literals:
        return ""
    names = [f"{{{template.names[slot]}}}" for slot in template.slots]
    pieces = zip(template.literals, [*names, template.separator + "…"], strict=True)
    return "".join(piece for pair in pieces for piece in pair)


def summary_of(task: Task) -> Summary:
    """Return the summary of any task; of one that draws its training items without end, of its held-out items.

    >>> from elicitable.tasks.catalog import task_from
    >>> summary_of(task_from("add-1")).sizes
    {'validation': 500, 'test': 1000}
    """
    from elicitable.tasks.text import TextTask

    items = _items_of(task) if isinstance(task, TextTask) else {split: task.held_out(split) for split in HELD_OUT}
    if not any(items.values()):
        raise InputError(f"task {task.name!r} has no held-out items")
    known = task.labels()
    counts = {split: Counter(item.target for item in found) for split, found in items.items()}
    everything = [item for found in items.values() for item in found]
    return Summary(
        task=task.name,
        kind="generation" if known is None else "classification",
        reading=getattr(task, "reading", None),
        sizes={split: len(found) for split, found in items.items()},
        distinct={split: len({item.prompt for item in found}) for split, found in items.items()},
        labels={label.strip(): {split: counts[split][label] for split in items} for label in known or ()},
        lengths=_all_lengths(everything),
        example=next(iter(items[split] for split in SPLITS if items.get(split)))[0],
        warnings=warnings_of(task),
    )


def _items_of(task: TextTask) -> dict[Split, list[Item]]:
    return {split: [task.item(row) for row in task.rows(split)] for split in SPLITS}


def _all_lengths(items: list[Item]) -> dict[str, Lengths]:
    found = {}
    for what, texts in (("prompt", [item.prompt for item in items]), ("target", [item.target for item in items])):
        if all(isinstance(text, tuple) and not _is_chat(text) for text in texts):
            found[f"{what} tokens"] = _lengths(len(text) for text in texts)
            continue
        written = [_written(text) for text in texts]
        found[f"{what} characters"] = _lengths(map(len, written))
        found[f"{what} words"] = _lengths(len(text.split()) for text in written)
    return found


def _lengths(numbers: Iterable[int]) -> Lengths:
    ordered = sorted(numbers)
    return Lengths(int(statistics.median(ordered)), ordered[(len(ordered) * 95 - 1) // 100], ordered[-1])


def _is_chat(text: Text | Messages) -> bool:
    return bool(text) and isinstance(text[0], Message)


def _written(text: Text | Messages) -> str:
    if isinstance(text, str):
        return text
    return "\n".join(part.content if isinstance(part, Message) else str(part) for part in text)
