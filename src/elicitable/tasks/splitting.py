"""Which texts are held out: a property of the text alone, so that no row order and no new row moves another.

u = the first 8 bytes of SHA-256(text) as a number in [0, 1): below 0.1 is validation, below 0.3 test, the rest
train. A split that is given as data of its own is not cut out of the rest: its share stays in train. The order
within a held-out split is by the following bytes of the same hash, so that its first n items are a fixed random
choice, whatever order the rows came in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from elicitable.values import Split

SPLITS: Final[tuple[Split, ...]] = ("train", "validation", "test")
SHARES: Final[dict[Split, float]] = {"train": 0.7, "validation": 0.1, "test": 0.2}

Pair = tuple[str, str]  # a text and its answer


def split_of(text: str, given: Collection[Split] = ()) -> Split:
    """The split of ``text``; splits in ``given`` are not cut out.

    >>> split_of("a fine film"), split_of("a long film"), split_of("a long film", given=["test"])
    ('train', 'test', 'train')
    """
    u = int.from_bytes(_digest(text)[:8], "big") / 2**64
    home: Split = "validation" if u < 0.1 else "test" if u < 0.3 else "train"
    return "train" if home in given else home


def split_pairs(given: Mapping[Split, Sequence[Pair]]) -> tuple[dict[Split, list[Pair]], int]:
    """The three splits from ``given`` (train, and validation and test where the data bring their own).

    Texts of the test split are removed from validation and train, those of validation from train. Returns the
    splits, held-out ones in their fixed order, and the number of pairs so removed.

    >>> splits, removed = split_pairs({"train": [("a", "1"), ("b", "0")], "test": [("a", "1")]})
    >>> splits["train"], splits["test"], removed
    ([('b', '0')], [('a', '1')], 1)
    """
    own = [split for split in given if split != "train"]
    splits: dict[Split, list[Pair]] = {split: list(given.get(split, ())) for split in SPLITS}
    splits["train"] = []
    for pair in given["train"]:
        splits[split_of(pair[0], own)].append(pair)
    before = sum(map(len, splits.values()))
    seen: set[str] = set()
    for split in reversed(SPLITS):
        splits[split] = [pair for pair in splits[split] if pair[0] not in seen]
        seen.update(text for text, _ in splits[split])
    for split in ("validation", "test"):
        splits[split].sort(key=lambda pair: (_digest(pair[0])[8:], pair))
    return splits, before - sum(map(len, splits.values()))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
