"""Make tasks of texts: a template, three splits, and labels where it is classification.

**Whole texts.** A text enters the template as it is, whatever its length; what a model cannot read is cut where its
tokens are known.

**Where a label ends.** Labels are compared by the likelihood of all their tokens. A label that another one begins with
("very" and "very happy") would never be the less likely of the two, so there every label ends with a line break.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from elicitable.errors import InputError
from elicitable.tasks.base import HeldOut, Kind, checked_count, checked_split, fingerprint_of, picture_of
from elicitable.tasks.splitting import SPLITS, Row, Splits, units_of
from elicitable.tasks.template import Template
from elicitable.values import Item, Split

if TYPE_CHECKING:
    import numpy as np

    from elicitable.tasks.reading import Reading

DEFAULT_ITEMS: Final = {"validation": 500, "test": 1_000}
FEW_TEST_ITEMS: Final = 100


class TextTask:
    """Hold a task over texts, whatever they came from.

    ``splits`` are rows, held-out splits in their fixed order (:func:`~elicitable.tasks.splitting.split_rows`);
    ``classes`` are the possible answers without the separator, None for generation, none where every row brings its own
    choices. ``ending`` stands behind every answer that is compared (see above). ``reading`` is how the rows were
    found in their source.

    >>> splits = {"train": [Row(("good",), "y")], "validation": [Row(("fine",), "y")], "test": [Row(("bad",), "n")]}
    >>> task = TextTask("demo", splits, Template(("", "?")), classes=("n", "y"))
    >>> task.labels(), task.held_out("test")
    ((' n', ' y'), [Item(prompt='bad?', target=' n')])
    """

    def __init__(
        self,
        name: str,
        splits: Splits,
        template: Template,
        *,
        classes: Sequence[str] | None = None,
        warnings: Sequence[str] = (),
        reading: Reading | None = None,
    ) -> None:
        self.name = name
        self.template = template
        self.kind: Kind = "generation" if classes is None else "classification"
        self.reading = reading
        self._classes = None if classes is None else tuple(classes)
        self._splits = {split: tuple(splits[split]) for split in SPLITS}
        compared = {self._classes or (), *(row.choices for rows in self._splits.values() for row in rows)}
        self.ending = "\n" if any(map(_begins_another, compared)) else ""
        self._units = units_of([row for rows in self._splits.values() for row in rows])
        self.warnings = (*warnings, *self._split_warnings())
        self._fingerprint: str | None = None
        for split, rows in self._splits.items():
            if not rows:
                raise InputError(f"{name}: the {split} split is empty; give more rows, or a file of its own for it")

    @property
    def sizes(self) -> dict[Split, int]:
        """Count the items in each split."""
        return {split: len(rows) for split, rows in self._splits.items()}

    def rows(self, split: Split) -> tuple[Row, ...]:
        """Return all rows of a split, in its order."""
        return self._splits[split]

    def labels(self) -> tuple[str, ...] | None:
        """Return the possible targets, each with the separator in front; None for generation, none of own choices."""
        if self._classes is None:
            return None
        return tuple(self.template.target(answer, self.ending) for answer in self._classes)

    def sample(self, n: int, rng: np.random.Generator) -> list[Item]:
        """Draw ``n`` training items uniformly; within one call no item returns before all others were drawn."""
        rows = self._splits["train"]
        order: list[int] = []
        while len(order) < checked_count(n):
            count = min(n - len(order), len(rows))
            order += rng.choice(len(rows), count, replace=False).tolist()
        return [self.item(rows[index]) for index in order]

    def held_out(self, split: HeldOut, n: int | None = None) -> list[Item]:
        """Return the first ``n`` items, or all if there are fewer; by default 500 for validation and 1,000 for test."""
        return [self.item(row) for row in self._first(split, n)]

    def groups(self, split: HeldOut, n: int | None = None) -> tuple[int, ...]:
        """Return the group of each item of ``held_out(split, n)``, numbered in order of first appearance.

        Items of the same text, or of the same value in the group column, are one group: they are one piece of
        evidence, and an interval resamples them together.
        """
        numbers: dict[str, int] = {}
        return tuple(numbers.setdefault(self._units[row.text], len(numbers)) for row in self._first(split, n))

    def with_template(self, template: str) -> TextTask:
        """Return the task of the same rows, in the same order and with the same answers, shown by another template.

        The separator stays, so white space at the end of ``template`` does not count.

        Raises:
            InputError: the template shows none of the columns, or names another one.
        """
        names = self.template.names
        other = Template.parse(template, self.kind, self.template.separator, columns=names, main=names[0])
        splits = {split: list(rows) for split, rows in self._splits.items()}
        return TextTask(self.name, splits, other, classes=self._classes, reading=self.reading)

    def item(self, row: Row) -> Item:
        """Return the item of a row."""
        return self.template.item(row, self.ending)

    def fingerprint(self) -> str:
        """Hash all rows of all splits, the labels and the template."""
        if self._fingerprint is None:
            several = [str(len(self.template.literals))] if len(self.template.literals) != 2 else []
            shape = [*several, *self.template.literals, self.template.separator + self.ending]
            sizes = [str(size) for size in self.sizes.values()]
            rows = [
                field
                for rows in self._splits.values()
                for row in rows
                for field in (row.text, row.answer, *row.accepted, *row.choices)
            ]
            self._fingerprint = fingerprint_of(["text", self.kind, *shape, *sizes, *(self._classes or ()), *rows])
        return self._fingerprint

    def _first(self, split: HeldOut, n: int | None) -> tuple[Row, ...]:
        return self._splits[checked_split(split)][: DEFAULT_ITEMS[split] if n is None else checked_count(n)]

    def _split_warnings(self) -> list[str]:
        test = self._splits["test"]
        distinct = len({self._units[row.text] for row in test})
        found = []
        if distinct < FEW_TEST_ITEMS:
            of = "" if distinct == len(test) else f", of which {distinct} are different"
            found.append(f"the test split has only {len(test)} items{of}: intervals will be wide")
        if self._classes:
            trained = {row.answer for row in self._splits["train"]}
            for split in ("validation", "test"):
                for answer in sorted({row.answer for row in self._splits[split]} - trained):
                    found.append(f"label {answer!r} occurs in the {split} split but never in train")
        return found

    def __repr__(self) -> str:
        return f"TextTask({self.name!r}, {self.kind}, {self.sizes})"

    def _repr_html_(self) -> str:
        """Return a few of its items as a table, for a notebook."""
        return picture_of(self)


def _begins_another(labels: Sequence[str]) -> bool:
    ordered = sorted(set(labels))  # a label stands right before the first of those that it begins
    return any(after.startswith(one) for one, after in pairwise(ordered))
