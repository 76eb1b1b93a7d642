"""Price the labels of one item, and only as far as a decision needs it.

A decision rule answers argmin_k nats_k / d_k − b_k (:mod:`elicitable.training.decision_rules`). Nats only grow along
a label's tokens, so what the tokens so far cost bounds its cost from below, and under a rule

    nats so far / d_k − b_k  >  the least of the labels that are priced whole

means that label k cannot be the answer: the rest of it is not read (branch and bound: Land and Doig, Econometrica 28,
1960). The answer is the whole matrix's, ties included, since what could still tie is priced whole. The first tokens
cost nothing: the content predicts all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from elicitable.training.label_trie import Numbers, Trie

SLACK = 1e-3  # nats: a label that close to the best is priced whole, as passes over other rows differ in last digits
FIRST, GROWTH = 12, 8  # nodes of the first round, and how many times as many in each round after it
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Wanted:
    """Say what is asked of an item's costs: who is least by each rule, and what the labels ``whole`` cost.

    ``divisors`` and ``offsets`` are (rule, label).
    """

    divisors: Floats
    offsets: Floats
    whole: tuple[int, ...] = ()


class Search:
    """Hold what is known of the labels of one item; without a ``wanted`` every one is priced whole.

    ``nats`` (label,) are the costs so far, ``places`` (node,) where each node stands among those that were run (−1: it
    was not), and ``run`` how many have a place.
    """

    def __init__(self, trie: Trie, wanted: Wanted | None = None) -> None:
        self.trie, self.wanted = trie, wanted
        self.nats: Floats = np.zeros(len(trie.paths))
        self.places: Numbers = np.full(len(trie), -1, dtype=np.int64)
        self.run = 0
        self._left: Numbers = trie.unrun(self.places)
        self._round = 0

    def take(self, labels: Numbers, nats: Floats) -> None:
        """Add what a step of each of ``labels`` costs, a label's own steps in their order."""
        np.add.at(self.nats, labels, nats)

    def stand(self, nodes: Numbers, width: int) -> None:
        """Give ``nodes`` that are being run the next places, of which ``width`` are taken."""
        self.places[nodes] = self.run + np.arange(len(nodes))
        self.run += width
        self._left = self.trie.unrun(self.places)

    def next(self, most: int) -> Numbers:
        """Return the nodes to run next, at most ``most`` and parents first; none once all is known that was asked."""
        self._round += 1
        if self.wanted is None:
            return np.flatnonzero(self.places < 0)[:most]
        margins = self._margins(self.wanted)
        likely = self._foreseen(self.wanted) if self._round == 1 else margins
        live = np.flatnonzero((self._left > 0) & ~(margins > 0))
        if not len(live):
            return live
        order = live[np.argsort(margins[live], kind="stable")]
        return self._some(order[~(likely[order] > 0)].tolist(), self._firsts(self.wanted, order), most)

    def result(self) -> Floats:
        """Return (label,) costs; infinity where a label was left, which no rule can then answer with."""
        return np.where(self._left > 0, np.inf, self.nats)

    def _margins(self, wanted: Wanted) -> Floats:
        """Return (label,) how far each is above the best whole one, by the rule that favours it most."""
        bounds = self._bounds(wanted)
        best = bounds[:, self._left == 0].min(axis=1, initial=np.inf)
        slack = SLACK / wanted.divisors
        margins: Floats = (bounds - best[:, None] - slack).min(axis=0)
        margins[list(wanted.whole)] = -np.inf
        return margins

    def _bounds(self, wanted: Wanted) -> Floats:
        """Return (rule, label) the least that each can cost by each rule."""
        bounds: Floats = self.nats / wanted.divisors - wanted.offsets
        return bounds

    def _foreseen(self, wanted: Wanted) -> Floats:
        """Return (label,) how far each is above the best, were the others of a label's tokens as dear as its first.

        It says only which nodes are worth running before the best label is known, so that there are fewer rounds.
        """
        whole = self.nats * (1 + self._left) / wanted.divisors - wanted.offsets
        likely: Floats = (self._bounds(wanted) - whole.min(axis=1)[:, None]).min(axis=0)
        return likely

    def _firsts(self, wanted: Wanted, order: Numbers) -> list[int]:
        """Return the labels to be priced whole at once: those asked for, and in the first round each rule's best."""
        found = [k for k in wanted.whole if self._left[k] > 0]
        if self._round == 1:
            found += order[self._bounds(wanted)[:, order].argmin(axis=1)].tolist()
        return found

    def _some(self, order: Sequence[int], firsts: Sequence[int], most: int) -> Numbers:
        nodes: dict[int, None] = {}
        for k in firsts:
            nodes.update(dict.fromkeys(self._rest(k)))
        width, reach = FIRST * GROWTH ** (self._round - 1), 2 ** max(0, self._round - 2)
        for k in order:
            if len(nodes) >= width:
                break
            nodes.update(dict.fromkeys(self._rest(k)[:reach]))
        return np.array(sorted(list(nodes)[:most]), dtype=np.int64)

    def _rest(self, label: int) -> list[int]:
        path = self.trie.paths[label]
        return [int(node) for node in path[self.places[path] < 0]]
