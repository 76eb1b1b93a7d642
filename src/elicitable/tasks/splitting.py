"""Decide which rows are held out: by the text itself, and in a classification task by its label's other texts nearby.

u = the first 8 bytes of SHA-256(text) as a number in [0, 1): below 0.1 is validation, below 0.3 test, the rest
train. A split that is given as data of its own is not cut out of the rest: its share stays in train. The order
within a held-out split is by the following bytes of the same hash, so that its first n items are a fixed random
choice, whatever order the rows came in.

**Rows that belong together** go to one split: rows of the same text, and rows that a person's group column puts
together (then the group's name is hashed in place of the text).

**Stratified** splits keep every label's share. The texts of a label stand in the order of u, and the border is where
u says; but no further from the label's exact share than 5 % of that share, rounded to whole texts. A label of 1,000
texts has 190 to 210 in the test split, one of 10 has 2, and one text of every label stays in train. No order of rows
and no row of another label moves a text; new rows of its own label can, if it stands at the border and the bound of
5 % is met, which becomes rarer as the label grows: the hash alone is off by less than that.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from elicitable.tasks.messages import text_of
from elicitable.values import Messages, Split

SPLITS: Final[tuple[Split, ...]] = ("train", "validation", "test")
SHARES: Final[dict[Split, float]] = {"train": 0.7, "validation": 0.1, "test": 0.2}
_CUTS: Final[tuple[tuple[Split, float, int], ...]] = (("validation", 0.1, 10), ("test", 0.3, 20))  # border, percent
_SLACK: Final = 20  # a share may be off by one in so many


@dataclass(frozen=True, slots=True)
class Row:
    """Hold one row: the cells that are read (or a conversation's messages), the answer, and the group if there is one.

    ``accepted`` are all right answers, where there are several; ``choices`` what there is to choose from, where the row
    brings that itself.

    >>> Row(("a title", "a body"), "sports").text
    'a title\\x1fa body'
    """

    cells: tuple[str, ...] | Messages
    answer: str
    group: str = ""
    accepted: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """Say what the row is known by: equal exactly where what is read is equal."""
        if self.cells and not isinstance(self.cells[0], str):
            return text_of(self.messages)
        return "\x1f".join(map(str, self.cells))

    @property
    def messages(self) -> Messages:
        """Return the messages, empty where the row holds texts."""
        return tuple(cell for cell in self.cells if not isinstance(cell, str))


Splits = dict[Split, list[Row]]


def split_of(text: str, given: Collection[Split] = ()) -> Split:
    """Return the split of ``text`` where nothing is stratified; splits in ``given`` are not cut out.

    >>> split_of("a fine film"), split_of("a long film"), split_of("a long film", given=["test"])
    ('train', 'test', 'train')
    """
    u = _number(text)
    home: Split = "validation" if u < 0.1 else "test" if u < 0.3 else "train"
    return "train" if home in given else home


def split_rows(given: Mapping[Split, Sequence[Row]], is_stratified: bool = False) -> tuple[Splits, int]:
    """Return the three splits from ``given`` (train, and validation and test where the data bring their own).

    Rows that belong together with a row of the test split are removed from validation and train, those of validation
    from train. Returns the splits, held-out ones in their fixed order, and the number of rows so removed.

    >>> given = {"train": [Row(("a",), "1"), Row(("b",), "0")], "test": [Row(("a",), "1")]}
    >>> splits, removed = split_rows(given)
    >>> [row.text for row in splits["train"]], [row.text for row in splits["test"]], removed
    (['b'], ['a'], 1)
    """
    own = [split for split in given if split != "train"]
    units = units_of([row for rows in given.values() for row in rows])
    splits: Splits = {split: list(given.get(split, ())) for split in SPLITS}
    homes = _stratified(given["train"], units, own) if is_stratified else {}
    splits["train"] = []
    for row in given["train"]:
        unit = units[row.text]
        splits[homes[unit] if is_stratified else split_of(unit, own)].append(row)
    before = sum(map(len, splits.values()))
    seen: set[str] = set()
    for split in reversed(SPLITS):
        splits[split] = [row for row in splits[split] if units[row.text] not in seen]
        seen.update(units[row.text] for row in splits[split])
    for split in ("validation", "test"):
        splits[split].sort(key=lambda row: (_digest(row.text)[8:], row.text, row.answer))
    return splits, before - sum(map(len, splits.values()))


def units_of(rows: Sequence[Row]) -> dict[str, str]:
    """Return the name of what each text belongs to: itself, or its group; groups that share a text are one.

    >>> units_of([Row(("a",), "1", "g"), Row(("b",), "1", "g"), Row(("b",), "1", "h"), Row(("c",), "0")])
    {'a': 'g', 'b': 'g', 'c': 'c'}
    """
    parents: dict[str, str] = {}
    found: dict[str, str] = {}
    for row in rows:
        text = row.text
        name = row.group or text
        first = _root(parents, found.setdefault(text, name))
        second = _root(parents, name)
        if first != second:
            parents[max(first, second)] = min(first, second)
    return {text: _root(parents, name) for text, name in found.items()}


def _root(parents: dict[str, str], name: str) -> str:
    while (above := parents.get(name)) is not None:
        parents[name] = parents.get(above, above)  # halves the way, so that long chains stay cheap
        name = above
    return name


def _stratified(rows: Sequence[Row], units: Mapping[str, str], own: Collection[Split]) -> dict[str, Split]:
    """Return the split of every unit, label by label; a unit of several labels counts for its most frequent one."""
    answers: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        answers[units[row.text]][row.answer] += 1
    strata: defaultdict[str, list[str]] = defaultdict(list)
    for unit, counts in answers.items():
        strata[min(counts, key=lambda answer: (-counts[answer], answer))].append(unit)
    homes: dict[str, Split] = {}
    for stratum in strata.values():
        stratum.sort(key=_digest)
        start = 0
        for split, border, percent in _CUTS:
            below = sum(_number(unit) < border for unit in stratum) - start
            size = _bounded(below, len(stratum), percent, len(stratum) - start - 1)
            homes.update(dict.fromkeys(stratum[start : start + size], "train" if split in own else split))
            start += size
        homes.update(dict.fromkeys(stratum[start:], "train"))
    return homes


def _bounded(count: int, of: int, percent: int, most: int) -> int:
    """Bring ``count`` to within 5 % of ``percent`` of ``of``, in whole numbers, and to at most ``most``."""
    exact = of * percent // 100
    slack = exact // _SLACK
    least, greatest = exact - slack, -(-of * percent // 100) + slack
    return max(0, min(max(least, min(count, greatest)), most))


def _number(text: str) -> float:
    return int.from_bytes(_digest(text)[:8], "big") / 2**64


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
