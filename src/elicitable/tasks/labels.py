"""Look at labels before they are believed: names that are nearly one, names of nothing, rare and common ones."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from math import inf, isfinite
from typing import Any, Final

from elicitable.errors import InputError, UnknownNameError
from elicitable.tasks.columns import Columns, why_no_labels
from elicitable.tasks.splitting import Row, Splits
from elicitable.tasks.tables import Table
from elicitable.values import Split

NOTHING: Final = frozenset(
    {"nan", "none", "null", "na", "n/a", "#n/a", "<na>", "nat", "nil", "undefined", "missing", "?"}
)
COMMON: Final = 0.8  # a share of one label from which on the floor is said
LISTED: Final = 10
LONGEST_NUMBER: Final = 16  # characters of a label that is compared as a number
#: Small letters of Cyrillic and Greek that look like Latin ones, and the Latin ones; dashes that look like a hyphen.
_LOOKS: Final = str.maketrans("авеёкмнорстухіїјѕһԁԛԝӏαεικνορτυχ‐‑‒–—−", "abeëkmhopctyxiïjshdqwlaeiknoptux------")
_DECIMAL: Final = re.compile(r"[+-]?[0-9]+([.][0-9]*)?(e[+-]?[0-9]+)?")
_JOINED: Final = re.compile(r"(?<=\w)-(?=\w)|_")
_ENDS: Final = " \t.,;:!?\"'’”»"


def renamed(
    source: str, rows: dict[Split, list[Row]], names: Mapping[str, str], order: Sequence[str]
) -> tuple[str, ...]:
    """Give the labels in ``rows`` their names, in place; return the distinct ones, numbers by size.

    Two labels of one name become one. Raises :class:`UnknownNameError` for an old name that no row has, and
    :class:`InputError` where all become one.
    """
    found = {row.answer for some in rows.values() for row in some}
    for unknown in sorted(set(names) - found):
        raise UnknownNameError("label", unknown, found, f"(in the label names for {source})")
    ranked = [label for label in order if label in found] + sorted(found - set(order), key=_rank)
    for split, some in rows.items():
        rows[split] = [Row(row.cells, names.get(row.answer, row.answer), row.group) for row in some]
    named = tuple(dict.fromkeys(names.get(label, label) for label in ranked))
    if len(named) == 1 < len(found):
        raise InputError(
            f"{source}: the label names make all of its {len(found):,} labels one, {named[0]!r}; a task needs at "
            "least two"
        )
    return named


def label_names(names: object) -> dict[str, str]:
    """Turn old and new names of labels into texts, so that ``{0: "negative"}`` means label ``"0"``."""
    if not isinstance(names, Mapping):
        raise InputError(f'label_names must map labels to names, like {{"0": "negative"}}, not {names!r}')
    found = {_plain(label): str(name).strip() for label, name in names.items()}
    if empty := [label for label, name in found.items() if not name]:
        raise InputError(f"label_names must give every label a name; {empty[0]!r} has none")
    return found


def _plain(label: Any) -> str:
    return str(label).lower() if isinstance(label, bool) else str(label)


def _rank(label: str) -> tuple[float, str]:
    try:
        number = float(label)
    except ValueError:
        number = inf
    return (number if isfinite(number) else inf), label


def check_labels(table: Table, columns: Columns, classes: Sequence[str], is_named: bool) -> None:
    """Raise :class:`InputError` for labels that are none: data in the first row, one label, too many, twins.

    ``is_named`` says that a person named the label column; then there may be as many labels as they like.
    """
    if columns.answer in classes:
        raise InputError(
            f"{table.source}: {columns.answer!r} is the name of the label column and also a label: the first row "
            "seems to be data; put column names above it"
        )
    if len(classes) == 1:
        raise InputError(
            f"{table.source}: every row has the label {classes[0]!r} in column {columns.answer!r}; "
            "a task needs at least two"
        )
    if not is_named and len(classes) > 2 and (why := why_no_labels(table, columns.answer)):
        raise InputError(
            f"{table.source}: column {columns.answer!r} {why}. If they are labels, say so: "
            f"--label-column {columns.answer}. If they are answers to be written, name the columns as prompt and "
            f"target: --prompt-column {columns.text} --target-column {columns.answer}"
        )
    for twins in near_equal(classes, _same):
        raise InputError(
            f"{table.source}: the labels {' and '.join(map(ascii, twins))} look the same and are spelled with other "
            "characters; make them one in the data, or with label names"
        )


def near_equal(labels: Iterable[str], key: Any = None) -> list[tuple[str, ...]]:
    """Find labels that differ only in case, white space, punctuation at the end, in how a character is composed, in
    characters that are not seen, in letters of another script that look the same, or in how a number is written.

    >>> near_equal(["Billing Question", "billing question", "app", "billing  question.", "+", "-"])
    [('Billing Question', 'billing question', 'billing  question.')]
    """
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for label in labels:
        alike[(key or _near)(label)].append(label)
    return [tuple(found) for found in alike.values() if len(found) > 1]


def _same(label: str) -> str:
    return " ".join(unicodedata.normalize("NFC", label).split())


def _near(label: str) -> str:
    folded = " ".join(_JOINED.sub(" ", _seen(label).casefold().translate(_LOOKS)).split()).strip(_ENDS)
    if _DECIMAL.fullmatch(folded) and len(folded) < LONGEST_NUMBER:
        return str(Decimal(folded).normalize())  # exact: codes of many digits are not alike
    return folded or label


def _seen(label: str) -> str:
    """Return a label without the characters that are not seen, such as what says how an emoji is drawn."""
    letters = unicodedata.normalize("NFKC", label)
    return "".join(one for one in letters if unicodedata.category(one) != "Cf" and not "\ufe00" <= one <= "\ufe0f")


def label_warnings(splits: Splits, classes: Sequence[str]) -> list[str]:
    """Say what a person should know about the labels, in words."""
    counts = Counter(row.answer for rows in splits.values() for row in rows)
    found = [
        f"labels that are nearly the same, counted as different: {_quoted(twins, counts)}; label names make them one"
        for twins in near_equal(classes)
    ]
    if unseen := [label for label in classes if not _seen(label).strip()]:
        found.append(f"labels of characters that are not seen: {_listed(list(map(ascii, unseen)), quote=False)}")
    if nothing := [label for label in classes if label.casefold() in NOTHING]:
        found.append(f"labels that look like missing values: {_quoted(nothing, counts)}; they are taken as labels")
    if once := [label for label in classes if counts[label] == 1]:
        found.append(f"labels with one row: {_listed(once)}; nothing can be learned and scored from one")
    return [*found, *_common(splits)]


def _common(splits: Splits) -> list[str]:
    """Return the floor, where one label is most of the data: what always giving that answer scores."""
    counts = Counter(row.answer for row in splits["train"])
    label, count = counts.most_common(1)[0]
    share = count / sum(counts.values())
    if share < COMMON:
        return []
    test = splits["test"]
    floor = sum(row.answer == label for row in test) / len(test) if test else share
    return [
        f"{share:.0%} of the training rows have the label {label!r}: always answering it scores {floor:.3f}, the floor"
    ]


def _quoted(labels: Sequence[str], counts: Mapping[str, int]) -> str:
    """List labels with their counts; where letters of two scripts look the same, by their numbers."""
    spelt = {label.casefold() for label in labels}
    show = ascii if len({one.translate(_LOOKS) for one in spelt}) < len(spelt) else repr
    return _listed([f"{show(label)} ({counts[label]:,} rows)" for label in labels], quote=False)


def _listed(labels: Sequence[str], quote: bool = True) -> str:
    shown = [repr(label) if quote else label for label in labels[:LISTED]]
    return ", ".join(shown) + (f" and {len(labels) - LISTED:,} more" if len(labels) > LISTED else "")
