"""Decide which columns of a table are read, and which one is answered.

Columns that a person names are taken as named. Otherwise these are tried in order: conversations; the chosen one of two
answers; the usual names; if both readings fit (``input``/``target``), the one that the values suggest; and in a table
of just two columns, the one with fewer distinct values is the label if its values can be labels, and else the first is
the prompt.

Some forms of data spread what is read over two columns (Alpaca's instruction and input, a passage and a question, a
title and a body, a premise and a hypothesis). Both are shown, unless a person names a column or a template.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from elicitable.errors import InputError
from elicitable.tasks.base import Kind
from elicitable.tasks.messages import ANSWERER
from elicitable.tasks.options import TaskOptions
from elicitable.tasks.tables import TALK, UNWANTED, WANTED, Table

TEXT_NAMES: Final = ("text", "sentence", "review", "content", "input", "question", "body", "message", "utterance")
LABEL_NAMES: Final = ("label", "labels", "sentiment", "class", "category", "intent", "target")
PROMPT_NAMES: Final = ("prompt", "instruction", "input", "question", "query", "text", "article", "document", "dialogue")
_ONE: Final = ("target", "completion", "output", "response", "answer", "summary", "highlights")
TARGET_NAMES: Final = (*_ONE, "answers", "answers.text", "answer.text")
_NAMES: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "classification": (TEXT_NAMES, LABEL_NAMES),
    "generation": (PROMPT_NAMES, TARGET_NAMES),
}
CHAT_NAMES: Final = ("messages", "conversations", "conversation")
ABOUT: Final = "category"  # a label that beside free answers says what they are about
MARK: Final = "label"  # beside an answer: whether people wanted it
KTO: Final = ("prompt", "completion")  # beside which the mark may also be a number
CHOSEN, REJECTED = "chosen", "rejected"  # two answers to the same prompt, of which people preferred the first
MAX_LABELS: Final = 1_000  # that are guessed; a column that is named as the label may have more
LISTED: Final = 20  # columns that a message names
MOST_WORDS: Final = 3  # of a name that is no sentence
LONGEST_LABEL: Final = 100  # characters of a value that is guessed to be a label

_BODIES: Final = ("content", "text", "description", "body", "article", "abstract", "review", "message")
_PLAIN: Final = "{{{first}}}\n{{{second}}}"
FORMS: Final[tuple[tuple[tuple[str, ...], tuple[str, ...], int, str], ...]] = (
    # names of the first column, of the second, which of them is the main one, and how both are shown
    (("instruction",), ("input", "context"), 0, _PLAIN),
    (("premise",), ("hypothesis",), 0, "Premise: {{{first}}}\nHypothesis: {{{second}}}"),
    (("passage", "context", "paragraph", "document", "article"), ("question", "query"), 1, _PLAIN),
    (("title", "headline", "subject"), _BODIES, 1, _PLAIN),
    (("sentence1",), ("sentence2",), 0, _PLAIN),
    (("sentence_1",), ("sentence_2",), 0, _PLAIN),
    (("sentence_a",), ("sentence_b",), 0, _PLAIN),
    (("question1",), ("question2",), 0, _PLAIN),
    (("text1",), ("text2",), 0, _PLAIN),
    (("question",), ("sentence",), 0, _PLAIN),
    (("text",), ("text_pair",), 0, _PLAIN),
)


@dataclass(frozen=True, slots=True)
class Columns:
    """Hold the main column that is read and the column that is answered (the same where it holds conversations).

    ``form`` shows a known form's two columns; empty where the main column is read alone. ``choices`` are the columns of
    choices that a row brings itself: one that holds lists, or one for each.
    """

    kind: Kind
    text: str
    answer: str
    form: str = ""
    choices: tuple[str, ...] = ()


Readings = tuple[Columns | None, Columns | None]  # as labels, and as answers to be written


def find_columns(table: Table, wanted: TaskOptions) -> Columns:
    """Return the columns of ``table`` as the head of this module says.

    Raises :class:`InputError` for a column that is not there, for names that contradict each other, and where the
    columns cannot be told.

    >>> table = Table("t.csv", ("body", "stars"), (("Fine.", "5"), ("Dull.", "1"), ("Grand.", "5")), ("", "", ""))
    >>> find_columns(table, TaskOptions())
    Columns(kind='classification', text='body', answer='stars', form='', choices=())
    """
    _check_names(table, wanted)
    shown = _shown(table, wanted)
    if wanted.text_column is not None or wanted.label_column is not None:
        return _complete(table, "classification", wanted.text_column, wanted.label_column, shown)
    if wanted.prompt_column is not None or wanted.target_column is not None:
        return _complete(table, "generation", wanted.prompt_column, wanted.target_column, shown)
    if shown:
        return _likelier(table, _shown_readings(table, shown)) or _give_up(table)
    found = _conversations(table) or _preferred(table) or _likelier(table, _readings(table)) or _of_two_columns(table)
    return found or _give_up(table)


def names_columns(wanted: TaskOptions) -> bool:
    """Say whether a person named a column that is read or answered."""
    names = (wanted.text_column, wanted.label_column, wanted.prompt_column, wanted.target_column)
    return any(name is not None for name in names)


def looks_like_labels(table: Table, column: str) -> bool:
    """Say whether the values are short and come again: every one twice on average, and at most 1,000 of them."""
    return not why_no_labels(table, column)


def why_no_labels(table: Table, column: str) -> str:
    """Say why the values do not look like labels; "" where they do."""
    values, rows = table.distinct(column), len(table.rows)
    if len(values) > MAX_LABELS or 2 * len(values) > max(rows, 4):
        return f"has {len(values):,} distinct values in {rows:,} rows, too many for labels that come again"
    long = [value for value in values if len(value) > LONGEST_LABEL or "\n" in value]
    if long:
        return f"holds {reprlib.repr(min(long))}, a label of several lines or more than {LONGEST_LABEL} characters"
    return ""


def _check_names(table: Table, wanted: TaskOptions) -> None:
    texts, prompts = (wanted.text_column, wanted.label_column), (wanted.prompt_column, wanted.target_column)
    named = [name for name in (*texts, *prompts) if name is not None]
    for name in (*named, *([] if wanted.group_column is None else [wanted.group_column])):
        if name not in table.columns:
            raise InputError(f"{table.source} has no column {name!r}; it has {_listed(table)}")
    if len(set(named)) < len(named):
        raise InputError(f"{table.source}: the column {named[0]!r} cannot be both what is read and the answer")
    if any(texts) and any(prompts):
        raise InputError("give text and label columns (classification), or prompt and target columns, not both")


def _conversations(table: Table) -> Columns | None:
    """Return a column of conversations, of which the last answer is asked for; where none ends with one, a label.

    Raises :class:`InputError` where not one of its conversations can be read.
    """
    chat = first_of(table, CHAT_NAMES, ())
    if chat is None:
        return None
    if not table.holds_messages(chat):
        if not table.distinct(chat):
            raise InputError(f"{table.source}: no cell of column {chat!r} is a conversation that can be read: {TALK}")
        return None
    label = first_of(table, LABEL_NAMES, (chat,))
    lasts = {turns[-1].role for turns in table.conversations(chat)}
    if label is not None and ANSWERER not in lasts and looks_like_labels(table, label):
        return Columns("classification", chat, label)
    return Columns("generation", chat, chat)


def _preferred(table: Table) -> Columns | None:
    """Return the chosen one of two answers as what is to be written; the rejected one is never an answer.

    Both may hold the whole conversation, or stand beside a prompt.
    """
    chosen, rejected = first_of(table, (CHOSEN,), ()), first_of(table, (REJECTED,), ())
    if chosen is None or rejected is None:
        return None
    firsts = {turns[0].role for turns in table.conversations(chosen)} if table.holds_messages(chosen) else set()
    if firsts - {ANSWERER}:
        return Columns("generation", chosen, chosen)
    prompt = first_of(table, PROMPT_NAMES, (chosen, rejected))
    return _give_up(table) if prompt is None else Columns("generation", prompt, chosen)


def mark_column(table: Table, columns: Columns, shown: tuple[str, ...] = ()) -> str | None:
    """Return the column that says of each answer whether people wanted it, as rows for KTO do; None where none does.

    It is true or false in every row, or 1 or 0 beside a prompt and a completion, stands beside answers that are to be
    written, and no template shows it.

    >>> table = Table("t.csv", ("prompt", "completion", "label"), (("1 + 1?", "3", "false"),), ("line 2",))
    >>> mark_column(table, Columns("generation", "prompt", "completion"))
    'label'
    """
    column = first_of(table, (MARK,), (columns.text, columns.answer, *shown))
    if columns.kind == "classification" or column is None:
        return None
    values = {value.casefold() for value in table.distinct(column)}
    is_kto = (columns.text.casefold(), columns.answer.casefold()) == KTO
    known = WANTED | UNWANTED if is_kto else {"true", "false"}
    return column if values and values <= known else None


def _shown(table: Table, wanted: TaskOptions) -> tuple[str, ...]:
    """Return the columns that a template shows by name."""
    return tuple(name for name in table.columns if f"{{{name}}}" in (wanted.template or ""))


def _complete(table: Table, kind: Kind, text: str | None, answer: str | None, shown: tuple[str, ...]) -> Columns:
    """Find the partner of a named column: shown by the template, by its usual names, else the other one of two."""
    texts, answers = _NAMES[kind]
    if text is None:
        text = next((name for name in shown if name != answer), None)
    elif answer is None and kind == "generation" and table.holds_messages(text):
        return Columns(kind, text, text)
    if text is None and (found := form_of(table, answer)) is not None:
        answer = answer or first_of(table, answers, found[:2])
        if answer is not None:
            return Columns(kind, found[0], answer, found[2])
    text = text or first_of(table, texts, (answer,)) or _other(table, answer)
    answer = answer or first_of(table, answers, (text, *shown)) or _other(table, text)
    if text is None or answer is None:
        return _give_up(table)
    return Columns(kind, text, answer)


def other_reading(table: Table, wanted: TaskOptions, columns: Columns) -> list[str]:
    """Say of columns that were found by their names which option reads the same rows the other way, if there is one.

    >>> rows = tuple((f"What is {i}?", f"It is {i}.", "xy"[i % 2]) for i in range(60))
    >>> table = Table("t", ("question", "answer", "label"), rows, ("",) * 60)
    >>> other_reading(table, TaskOptions(), find_columns(table, TaskOptions()))
    ["'label' is read as labels; --target-column answer reads 'answer' as answers to be written"]
    """
    if names_columns(wanted):
        return []
    as_labels, as_answers = _shown_readings(table, shown) if (shown := _shown(table, wanted)) else _readings(table)
    if as_labels is None or as_answers is None or columns not in (as_labels, as_answers):
        return []
    if not looks_like_labels(table, as_labels.answer) or looks_like_labels(table, as_answers.answer):
        return []
    label, target = as_labels.answer, as_answers.answer
    if columns == as_labels:
        return [f"{label!r} is read as labels; --target-column {target} reads {target!r} as answers to be written"]
    return [f"{target!r} is read as answers to be written; --label-column {label} reads {label!r} as labels"]


def _readings(table: Table) -> Readings:
    return _named(table, "classification"), _named(table, "generation")


def _likelier(table: Table, readings: Readings) -> Columns | None:
    """Choose the first reading that there is, as labels or as answers; where there are both, the values decide.

    A category beside free answers only says what they are about, as in Dolly.
    """
    as_labels, as_answers = readings
    if as_labels is None or as_answers is None:
        return as_labels or as_answers
    is_about = as_labels.answer.casefold() == ABOUT and not looks_like_labels(table, as_answers.answer)
    return as_answers if is_about or not looks_like_labels(table, as_labels.answer) else as_labels


def _named(table: Table, kind: Kind) -> Columns | None:
    """Return the reading as ``kind`` by usual names alone, if there is one."""
    texts, answers = _NAMES[kind]
    answer = first_of(table, answers, ())
    if answer is None:
        return None
    if (found := form_of(table, answer)) is not None:
        return Columns(kind, found[0], answer, found[2])
    text = first_of(table, texts, (answer,))
    return None if text is None else Columns(kind, text, answer)


def _shown_readings(table: Table, shown: tuple[str, ...]) -> Readings:
    """Return the readings where a template shows some columns and one of the others is the answer."""
    labels, targets = (first_of(table, _NAMES[kind][1], shown) for kind in ("classification", "generation"))
    if labels is None and targets is None:
        rest = [name for name in table.columns if name not in shown]
        if len(rest) != 1:
            return None, None
        labels, targets = (rest[0] if looks_like_labels(table, rest[0]) else None), rest[0]
    as_labels = Columns("classification", shown[0], labels) if labels is not None else None
    return as_labels, Columns("generation", shown[0], targets) if targets is not None else None


def form_of(table: Table, answer: str | None) -> tuple[str, str, str] | None:
    """Return the main column, its companion, and how both are shown, of the first known form that the table has."""
    for firsts, seconds, main, shown in FORMS:
        first = first_of(table, firsts, (answer,))
        second = first_of(table, seconds, (answer, first))
        if first is not None and second is not None and table.distinct(first) and table.distinct(second):
            pair = (first, second)
            return pair[main], pair[1 - main], shown.format(first=first, second=second)
    return None


def _of_two_columns(table: Table) -> Columns | None:
    if len(table.columns) != 2:
        return None
    first, second = table.columns
    sizes = {name: (len(table.distinct(name)), sum(map(len, table.distinct(name)))) for name in table.columns}
    label = first if sizes[first] < sizes[second] else second
    if looks_like_labels(table, label):
        return Columns("classification", second if label == first else first, label)
    return Columns("generation", first, second)


def names_like_data(table: Table, wanted: TaskOptions) -> list[str]:
    """Say of two columns of which a person named none, and neither has a usual name, that their names look like data.

    >>> names_like_data(Table("t.csv", ("I loved it.", "pos"), (), ()), TaskOptions())
    ["t.csv: the columns are called 'I loved it.' and 'pos'; if that is a row of data, put column names above it"]
    """
    usual = {name for names in _NAMES.values() for some in names for name in some}
    is_guessed = len(table.columns) == 2 and usual.isdisjoint(name.casefold() for name in table.columns)
    if not is_guessed or names_columns(wanted) or wanted.template is not None:
        return []
    if not any(_is_sentence(name) or name in table.distinct(name) for name in table.columns):
        return []
    called = " and ".join(map(repr, table.columns))
    return [f"{table.source}: the columns are called {called}; if that is a row of data, put column names above it"]


def _is_sentence(name: str) -> bool:
    return name.endswith((".", "!", "?", "。")) or len(name.split()) > MOST_WORDS


def _give_up(table: Table) -> Columns:
    raise InputError(
        f"{table.source}: cannot tell which columns to use; it has {_listed(table)}. Name them: a text column and "
        "a label column (--text-column, --label-column), or a prompt column and a target column "
        "(--prompt-column, --target-column)."
    )


def first_of(table: Table, names: tuple[str, ...], taken: Iterable[str | None]) -> str | None:
    """Return the first column, in the order of ``names`` and whatever its case, that is not ``taken``."""
    by_name = {column.lower(): column for column in reversed(table.columns) if column not in taken}
    return next((by_name[name] for name in names if name in by_name), None)


def _other(table: Table, taken: str | None) -> str | None:
    return next(name for name in table.columns if name != taken) if len(table.columns) == 2 else None


def _listed(table: Table) -> str:
    more = f" and {len(table.columns) - LISTED:,} more" if len(table.columns) > LISTED else ""
    what = "the columns " if len(table.columns) > 1 else "only the column "
    found = what + ", ".join(table.columns[:LISTED]) + more if table.columns else "no column that is read"
    unread = ", ".join(f"{name} ({why})" for name, why in table.left_out[:LISTED] if name)
    return f"{found}; not read: {unread}" if unread else found
