"""Tasks of texts: a template, three splits, and labels where it is classification.

**Where the space goes.** A prompt ends without a space and every target begins with the separator, by default one
space, so that ``prompt + target`` is the text as a person would write it, and the common tokenizers, which join a
space with the word after it, see the same tokens as in running text.

**Cutting.** Where ``max_words`` is set, the text itself is cut to its first words before it enters the template
(and before it is split, so that two texts with the same beginning never end up in different splits); the template
stays whole. A word is what stands between white space; what has none (some scripts, some code) is not cut here.

**Where a label ends.** Labels are compared by the likelihood of all their tokens. A label that another one begins with
("very" and "very happy") would never be the less likely of the two, so there every label ends with a line break.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from elicitable.errors import InputError
from elicitable.tasks.base import HeldOut, Kind, checked_count, checked_split, fingerprint_of
from elicitable.tasks.splitting import SPLITS, Pair
from elicitable.values import Item, Split

if TYPE_CHECKING:
    import numpy as np

DEFAULT_ITEMS: Final = {"validation": 500, "test": 1_000}
FEW_TEST_ITEMS: Final = 100
SLOTS: Final[dict[Kind, str]] = {"classification": "{text}", "generation": "{prompt}"}


@dataclass(frozen=True, slots=True)
class Template:
    """What stands before and after a text, and between prompt and answer."""

    prefix: str
    suffix: str
    separator: str = " "

    @classmethod
    def parse(cls, template: str, kind: Kind, separator: str | None = None) -> Template:
        r"""Read a template with one slot: ``{text}`` for classification, ``{prompt}`` for generation.

        ``\n`` and ``\t`` typed as two characters are a line break and a tab. White space at the end of the
        template is taken as the separator; otherwise that is one space. ``separator`` overrides both.

        >>> Template.parse("Review: {text}\nSentiment:", "classification").item("Fine.", "positive")
        Item(prompt='Review: Fine.\nSentiment:', target=' positive')
        >>> Template.parse("{prompt}\n", "generation").item("1+1=", "2")
        Item(prompt='1+1=', target='\n2')
        """
        slot = SLOTS[kind]
        template = template.replace("\\n", "\n").replace("\\t", "\t")
        if template.count(slot) != 1:
            raise InputError(f"template {template!r} must contain {slot} exactly once")
        body = template.rstrip()
        tail = template[len(body) :] or " "
        prefix, _, suffix = body.partition(slot)
        return cls(prefix, suffix, tail if separator is None else separator)

    def item(self, text: str, answer: str) -> Item:
        """The item that asks for ``answer`` to ``text``."""
        return Item(self.prefix + text + self.suffix, self.separator + answer)


class TextTask:
    """A task over texts, whatever they came from.

    ``splits`` are pairs of text and answer, held-out splits in their fixed order (:func:`split_pairs`);
    ``classes`` are the possible answers without the separator, None for generation.

    >>> splits = {"train": [("good", "yes")], "validation": [("fine", "yes")], "test": [("bad", "no")]}
    >>> task = TextTask("demo", splits, Template("", "?"), classes=("no", "yes"))
    >>> task.labels(), task.held_out("test")
    ((' no', ' yes'), [Item(prompt='bad?', target=' no')])
    """

    def __init__(
        self,
        name: str,
        splits: Mapping[Split, Sequence[Pair]],
        template: Template,
        *,
        classes: Sequence[str] | None = None,
        warnings: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.template = template
        self.kind: Kind = "generation" if classes is None else "classification"
        self.warnings = (*warnings, *_split_warnings(splits, classes is not None))
        self._classes = None if classes is None else tuple(classes)
        self._ending = "\n" if _begins_another(self._classes or ()) else ""
        self._splits = {split: tuple(splits[split]) for split in SPLITS}
        self._fingerprint: str | None = None
        for split, pairs in self._splits.items():
            if not pairs:
                raise InputError(f"{name}: the {split} split is empty; give more rows, or a file of its own for it")

    @property
    def sizes(self) -> dict[Split, int]:
        """Number of items in each split."""
        return {split: len(pairs) for split, pairs in self._splits.items()}

    def labels(self) -> tuple[str, ...] | None:
        """The possible targets, each with the separator in front; None for generation."""
        if self._classes is None:
            return None
        return tuple(self.template.separator + answer + self._ending for answer in self._classes)

    def sample(self, n: int, rng: np.random.Generator) -> list[Item]:
        """``n`` training items, drawn uniformly; within one call no item returns before all others were drawn."""
        pairs = self._splits["train"]
        order: list[int] = []
        while len(order) < checked_count(n):
            count = min(n - len(order), len(pairs))
            order += rng.choice(len(pairs), count, replace=False).tolist()
        return [self._item(pairs[index]) for index in order]

    def held_out(self, split: HeldOut, n: int | None = None) -> list[Item]:
        """The first ``n`` items, or all if there are fewer; by default 500 for validation and 1,000 for test."""
        n = DEFAULT_ITEMS[checked_split(split)] if n is None else checked_count(n)
        return [self._item(pair) for pair in self._splits[split][:n]]

    def _item(self, pair: Pair) -> Item:
        text, answer = pair
        return self.template.item(text, answer + self._ending)

    def fingerprint(self) -> str:
        """Hash of all rows of all splits, the labels and the template."""
        if self._fingerprint is None:
            shape = [self.template.prefix, self.template.suffix, self.template.separator + self._ending]
            sizes = [str(size) for size in self.sizes.values()]
            rows = [field for pairs in self._splits.values() for pair in pairs for field in pair]
            parts = ["text", self.kind, *shape, *sizes, *(self._classes or ()), *rows]
            self._fingerprint = fingerprint_of(parts)
        return self._fingerprint

    def __repr__(self) -> str:
        return f"TextTask({self.name!r}, {self.kind}, {self.sizes})"


def _begins_another(labels: Sequence[str]) -> bool:
    return any(one != other and other.startswith(one) for one in labels for other in labels)


def cut_words(text: str, max_words: int | None) -> str:
    """The first ``max_words`` words of ``text`` with the white space between them as it was; None cuts nothing.

    >>> cut_words("one  two three", 2)
    'one  two'
    """
    if max_words is not None:
        for count, word in enumerate(re.finditer(r"\S+", text), start=1):
            if count == max_words:
                return text[: word.end()]
    return text


def word_limit(asked: int | None, default: int | None) -> int | None:
    """The limit that was asked for: None is the default, 0 is none; anything else a number of words, at least 1.

    >>> word_limit(None, 60), word_limit(0, 60), word_limit(5, 60)
    (60, None, 5)
    """
    if asked is None:
        return default
    return checked_count(asked, "max_words") if asked != 0 else None


def _split_warnings(splits: Mapping[Split, Sequence[Pair]], has_labels: bool) -> list[str]:
    found = []
    if len(splits["test"]) < FEW_TEST_ITEMS:
        found.append(f"the test split has only {len(splits['test'])} items: intervals will be wide")
    if has_labels:
        trained = {answer for _, answer in splits["train"]}
        for split in ("validation", "test"):
            for answer in sorted({answer for _, answer in splits[split]} - trained):
                found.append(f"label {answer!r} occurs in the {split} split but never in train")
    return found
