"""Arrange labels as a trie, so that what several labels begin with is read once, and no last token is read at all.

The tokens t_1 … t_m of a label cost −Σ_i log p(t_i | content, t_1 … t_{i−1}). The content itself predicts t_1, and the
node of t_1 … t_{i−1} predicts t_i. So only inner nodes have to be run. Each is one token, which sees the content, the
nodes above it, and itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from elicitable.errors import InputError

ROOT = -1  # the content's last token, as a node
Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LabelIds:
    """Hold the token ids of one label as they stand behind a content.

    The first ``given`` of them belong to the content: they are read but not counted. There are some where another
    label's first token takes in the content's last characters, so that the labels part before the content ends.
    """

    ids: tuple[int, ...]
    given: int = 0


@dataclass(frozen=True, slots=True)
class Steps:
    """Hold which ``labels`` count a ``tokens`` that each of ``nodes`` predicts; (step,) each, by depth."""

    nodes: Numbers
    labels: Numbers
    tokens: Numbers


class Trie:
    """Hold the inner nodes of an item's labels, numbered so that parents come before children.

    ``tokens[n]`` is the token of node n, ``depths[n]`` how many nodes are above it, and ``paths[k]`` are the inner
    nodes of label k from the top.

    >>> trie = Trie([LabelIds((5, 6, 7)), LabelIds((4,)), LabelIds((5, 8, 9))])
    >>> trie.tokens.tolist(), trie.depths.tolist(), [path.tolist() for path in trie.paths]
    ([5, 6, 8], [0, 1, 1], [[0, 1], [], [0, 2]])
    """

    def __init__(self, labels: Sequence[LabelIds]) -> None:
        self.labels = tuple(labels)
        inner = sorted({label.ids[:length] for label in labels for length in range(1, len(label.ids))})
        number = {node: place for place, node in enumerate(inner)}
        self.tokens: Numbers = np.array([node[-1] for node in inner], dtype=np.int64)
        self.depths: Numbers = np.array([len(node) - 1 for node in inner], dtype=np.int64)
        self.paths: list[Numbers] = [
            np.array([number[label.ids[:length]] for length in range(1, len(label.ids))], dtype=np.int64)
            for label in labels
        ]
        self._lines = [[number[node[:length]] for length in range(1, len(node) + 1)] for node in inner]

    def __len__(self) -> int:
        return len(self.tokens)

    def steps(self, nodes: Numbers) -> Steps:
        """Return what ``nodes`` predict of the labels that count it; :data:`ROOT` is the content's last token."""
        found = [self._steps[node] for node in nodes.tolist()]
        if not found:
            return _NONE
        return Steps(*(np.concatenate(columns) for columns in zip(*found, strict=True)))

    def seen(self, nodes: Numbers, places: Numbers) -> NDArray[np.bool_]:
        """Return (node, place) bool: each of ``nodes`` sees those above it and itself, whose place is ``places[n]``.

        >>> Trie([LabelIds((5, 6, 7)), LabelIds((5, 8, 9))]).seen(np.arange(3), np.arange(3)).astype(int).tolist()
        [[1, 0, 0], [1, 1, 0], [1, 0, 1]]
        """
        seen = np.zeros((len(nodes), int(places.max(initial=-1)) + 1), dtype=np.bool_)
        for row, node in enumerate(nodes.tolist()):
            seen[row, places[self._lines[node]]] = True
        return seen

    def unrun(self, places: Numbers) -> Numbers:
        """Return (label,) how many of its inner nodes have no place yet (−1)."""
        counts: Numbers = (np.append(places, 0)[self._table] < 0).sum(axis=1)
        return counts

    @cached_property
    def _table(self) -> Numbers:
        table = np.full((len(self.paths), max(map(len, self.paths), default=0)), ROOT, dtype=np.int64)
        for row, path in zip(table, self.paths, strict=True):
            row[: len(path)] = path
        return table

    @cached_property
    def _steps(self) -> dict[int, tuple[Numbers, Numbers, Numbers]]:
        found: dict[int, list[tuple[int, int, int]]] = {node: [] for node in range(ROOT, len(self))}
        for k, (label, path) in enumerate(zip(self.labels, self.paths, strict=True)):
            for node, token in list(zip((ROOT, *path.tolist()), label.ids, strict=True))[label.given :]:
                found[node].append((node, k, token))
        tables = {node: np.array(rows, dtype=np.int64).reshape(-1, 3) for node, rows in found.items()}
        return {node: (table[:, 0], table[:, 1], table[:, 2]) for node, table in tables.items()}


_NONE = Steps(*(np.zeros(0, dtype=np.int64),) * 3)


def part(rows: Sequence[Sequence[int]], borders: Sequence[int]) -> tuple[tuple[int, ...], tuple[LabelIds, ...]]:
    """Return the common content of the ``rows`` of one item, a row for each label, and each label behind it.

    ``rows[k]`` is the text with label k as its tokenizer cuts it, ``borders[k]`` the place of the label's first token.
    Where a token spans the border of some rows, the content ends before it for all of them.

    Raises:
        InputError: a label has no token, or nothing stands before the labels that all rows begin with.

    >>> part([[1, 2, 3, 7], [1, 2, 9, 8]], [3, 2])
    ((1, 2), (LabelIds(ids=(3, 7), given=1), LabelIds(ids=(9, 8), given=0)))
    """
    for row, border in zip(rows, borders, strict=True):
        if not 0 <= border < len(row):
            raise InputError(f"a label has no tokens behind the {border} tokens of its content.")
    common = min(borders)
    for row in rows[1:]:
        common = next((i for i in range(common) if row[i] != rows[0][i]), common)
    if common == 0:
        raise InputError("nothing stands before the labels: every item needs a prompt of at least one token.")
    behind = zip(rows, borders, strict=True)
    return tuple(rows[0][:common]), tuple(LabelIds(tuple(row[common:]), border - common) for row, border in behind)
