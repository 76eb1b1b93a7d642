"""Arrange labels as a trie, so that what several labels begin with is read once, and no last token is read at all.

The tokens t_1 … t_m of a label cost −Σ_i log p(t_i | content, t_1 … t_{i−1}). The content itself predicts t_1, and the
node of t_1 … t_{i−1} predicts t_i. So only inner nodes have to be run. Each is one token, which sees the content, the
nodes above it, and itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from elicitable.errors import InputError

ROOT = -1


@dataclass(frozen=True, slots=True)
class LabelIds:
    """Hold the token ids of one label as they stand behind a content.

    The first ``given`` of them belong to the content: they are read but not counted. There are some where another
    label's first token takes in the content's last characters, so that the labels part before the content ends.
    """

    ids: tuple[int, ...]
    given: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """Record that ``node`` predicts ``token``, which is one of the counted tokens of ``label``."""

    label: int
    node: int
    token: int


@dataclass(frozen=True, slots=True)
class Trie:
    """Hold inner nodes of some labels, parents before children, and the steps that they predict.

    ``tokens[i]`` is the token of node i, ``parents[i]`` the node above it (:data:`ROOT` for the content's last token),
    ``depths[i]`` how many nodes are above it.
    """

    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    depths: tuple[int, ...]
    steps: tuple[Step, ...]

    def __len__(self) -> int:
        return len(self.tokens)

    def seen(self) -> Tensor:
        """Return (node, node) bool: each node sees the nodes above it and itself.

        >>> next(tries([LabelIds((5, 6, 7)), LabelIds((5, 8, 9))], 9)).seen().int().tolist()
        [[1, 0, 0], [1, 1, 0], [1, 0, 1]]
        """
        seen = torch.eye(len(self), dtype=torch.bool)
        for node, parent in enumerate(self.parents):
            if parent != ROOT:
                seen[node] |= seen[parent]
        return seen


def tries(labels: Sequence[LabelIds], most: int) -> Iterator[Trie]:
    """Build tries of at most ``most`` nodes that have every step behind the root of every label, together, once.

    Neighbours in the order of their tokens share a trie; what two tries' labels both begin with is in both. A label
    of more than ``most`` inner nodes has a trie of its own. The first tokens of all labels are :func:`first_steps`.

    >>> [trie.tokens for trie in tries([LabelIds((5, 6, 7)), LabelIds((4,)), LabelIds((5, 8, 9))], 2)]
    [(5, 6), (5, 8)]
    """
    nodes: dict[tuple[int, ...], int] = {}
    steps: list[Step] = []
    for label in sorted(range(len(labels)), key=lambda k: labels[k].ids):
        ids, given = labels[label].ids, labels[label].given
        inner = [ids[:length] for length in range(1, len(ids))]
        if nodes and len(nodes) + sum(node not in nodes for node in inner) > most:
            yield _trie(nodes, steps)
            nodes, steps = {}, []
        for node in inner:
            nodes.setdefault(node, len(nodes))
        steps += [Step(label, nodes[ids[:i]], ids[i]) for i in range(max(1, given), len(ids))]
    if nodes:
        yield _trie(nodes, steps)


def _trie(nodes: dict[tuple[int, ...], int], steps: list[Step]) -> Trie:
    return Trie(
        tokens=tuple(node[-1] for node in nodes),
        parents=tuple(nodes.get(node[:-1], ROOT) for node in nodes),
        depths=tuple(len(node) - 1 for node in nodes),
        steps=tuple(steps),
    )


def first_steps(labels: Sequence[LabelIds]) -> list[Step]:
    """Say what the content's last token predicts: the first token of every label that counts it."""
    return [Step(k, ROOT, label.ids[0]) for k, label in enumerate(labels) if label.given == 0]


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
