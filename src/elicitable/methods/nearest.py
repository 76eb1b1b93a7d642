"""Worked examples that differ from item to item: the training texts nearest to it, by the model's own hidden states.

    s(x) = mean over x's tokens of the residual stream in the middle of the model;  near(x, y) = cos(s(x) − m, s(y) − m)

with m the mean of s over the training texts, as all states share one large direction. The most similar example stands
right before the item. Source: Liu et al., DeeLIO 2022 (arXiv 2101.06804).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from elicitable.errors import InputError
from elicitable.methods import rungs
from elicitable.methods.base import Adaptation, Method
from elicitable.methods.examples import Pair, items_of, no_room, plain_pair, task_of
from elicitable.methods.instructions import plain
from elicitable.methods.prompt import layout_of, readable, room_of
from elicitable.methods.search import Offer, Search
from elicitable.models.capture import capture_tokens
from elicitable.models.layout import PLAIN, Layout, layout_unsaid
from elicitable.models.prefixes import stack_rows
from elicitable.models.rows import Row, common_context, context_ids, rows_of
from elicitable.models.states import text_states
from elicitable.rng import generator
from elicitable.tasks.wider import whole
from elicitable.values import Budget, Item, PrefixKV

if TYPE_CHECKING:
    from collections.abc import Mapping

    from elicitable.models.model import Model
    from elicitable.tasks.base import Task

COUNTS = (4, 8, 2, 16, 1)
POOL, FEW = 256, 32  # training texts to choose from, and for a first look
LONGEST = 1_024  # tokens of an item's examples together
KEPT = 4_096  # states of texts that were asked about, at most
READ = 256  # tokens of a text that its state is made of


class Pool:
    """Training items with their states, and the states of what was asked about them."""

    def __init__(self, model: Model, items: Sequence[Item]) -> None:
        self.items = list({item.prompt: item for item in items}.values())
        self.lengths = [len(row) + 4 for row in _rows(model, self.items)] if self.items else []
        self._states: dict[Any, Tensor] = {}
        states = self._of(model, self.items)
        self._mean = states.mean(0)
        self._units = torch.nn.functional.normalize(states - self._mean, dim=1)

    def near(self, model: Model, items: Sequence[Item]) -> Tensor:
        """(item, pool) cosines; an item's own text among the pool counts as the furthest."""
        asked = torch.nn.functional.normalize(self._of(model, items) - self._mean, dim=1)
        found = asked @ self._units.T
        for row, item in enumerate(items):
            for place, one in enumerate(self.items):
                if one.prompt == item.prompt:
                    found[row, place] = -torch.inf
        return found

    def _of(self, model: Model, items: Sequence[Item]) -> Tensor:
        if len(self._states) > KEPT:
            self._states.clear()
        new = {item.prompt: item for item in items if item.prompt not in self._states}
        if new:
            rows = [_ids(model, item) for item in new.values()]
            states = text_states(model, rows, model.anatomy.depth // 2)
            self._states |= dict(zip(new, states, strict=True))
        return torch.stack([self._states[item.prompt] for item in items])


def _rows(model: Model, items: Sequence[Item]) -> list[Row]:
    """Return items as rows: conversations by the chat template or as it stands for one, all else as it is."""
    turns = any(not isinstance(item.prompt, str) for item in items if item.is_text)
    return rows_of(model, items, layout_unsaid(model, turns=True)) if turns else rows_of(model, items)


def _ids(model: Model, item: Item) -> list[int]:
    if not item.is_text:
        return [int(id_) for id_ in item.prompt]  # type: ignore[arg-type]
    return [*model.start_ids(), *model.ids(plain(item)).flatten().tolist()[:READ]]


class NearestExamples(Adaptation):
    """The ``k`` nearest of the pool before each item; with ``even``, as many of every label as k allows.

    What stands in a row differs from row to row, so it is read with the row and holds no keys of its own.
    """

    kind = "nearest-examples"

    def __init__(self, pool: Pool, k: int, even: bool, room: int, layout: Layout | None, **setting: Any) -> None:
        plain_layout = layout.setting() if layout else {}
        pairs = [plain_pair(item) for item in pool.items]
        super().__init__(k=k, even=even or None, room=room, items=pairs, **plain_layout, **setting)
        self.pool, self.k, self.even, self.room, self.layout = pool, k, even, room, layout

    @property
    def told(self) -> dict[str, Any]:
        """The setting with the number of texts to choose from in their place."""
        own = {name: value for name, value in self.setting.items() if name != "items"}
        return own | {"texts": len(self.pool.items)}

    @property
    def asks_otherwise(self) -> bool:
        """They do: every item has examples of its own."""
        return True

    def asked(self, model: Model, items: Sequence[Item]) -> list[Item]:
        """Give every item its nearest examples, the nearest last, as many as fit."""
        near = self.pool.near(model, items)
        return [replace(item, shown=(*item.shown, *self._chosen(row))) for item, row in zip(items, near, strict=True)]

    def _chosen(self, near: Tensor) -> list[Item]:
        chosen: list[int] = []
        counts: dict[Any, int] = {}
        left, most = self.room, -(-self.k // len({item.target for item in self.pool.items})) if self.even else self.k
        for place in near.argsort(descending=True, stable=True).tolist():
            target, length = self.pool.items[place].target, self.pool.lengths[place]
            if len(chosen) == self.k or near[place] == -torch.inf:
                break
            if counts.get(target, 0) < most and length <= left:
                chosen.append(place)
                counts[target], left = counts.get(target, 0) + 1, left - length
        return [self.pool.items[place] for place in reversed(chosen)]

    def before(self, model: Model, items: Sequence[Item]) -> PrefixKV:
        """Return the contexts of ``items`` as one, with a row for each, which :func:`elicitable.use` takes.

        Each holds the first tokens of its item's whole text, start included; what is read behind it is the rest.
        """
        rows = []
        for item in self.asked(model, items):
            ids = _context_of(model, item, self.layout)
            rows.append(capture_tokens(model, model.ids(ids)))
        return stack_rows(rows)

    def state(self) -> dict[str, Tensor]:
        """Nothing: the pool's texts are in the setting."""
        return {}

    def budget(self) -> Budget:
        """The keys of k examples of mean length, and the bytes of the pool's states."""
        keys = min(self.room, round(self.k * sum(self.pool.lengths) / len(self.pool.lengths)))
        return Budget(0, 4 * self.pool._units.numel(), keys)


def _context_of(model: Model, item: Item, layout: Layout | None) -> list[int]:
    if not item.is_text:
        return [id_ for row in rows_of(model, item.shown) for id_ in (*row.content, *row.answer)]
    own = replace(layout or PLAIN, examples=item.shown)
    return common_context(model, [replace(item, shown=())], own, context_ids(model, own))


class Nearest(Method):
    """The nearest training texts before each item; how many, and whether evenly over labels, is chosen."""

    name = "nearest-examples"
    rung = rungs.EXAMPLES
    summary = "for each item the k most similar training examples, by the model's own hidden states"
    deployment = (
        "Any server, behind a search: every request needs the states of its text and of the stored examples, and no "
        "server can cache the examples, since they differ from request to request."
    )
    turn = 25
    is_seeded = False
    options = ("task", "k", "items", "even", "room", "layout", "seed")

    def build(
        self,
        model: Model,
        size: int = 0,
        seed: int = 0,
        task: Any = None,
        k: int | None = None,
        items: Sequence[Item | Pair] | None = None,
        even: bool = False,
        room: int | None = None,
        layout: Layout | None = None,
        pool: Pool | None = None,
        **options: Any,
    ) -> NearestExamples:
        """``k`` examples for each item out of ``items``, or out of training items of ``task`` drawn by ``seed``.

        Raises:
            InputError: neither a task nor items, or k < 1.
        """
        k = size or 4 if k is None else k
        if k < 1:
            raise InputError(f"examples need k of at least 1, got {k}.")
        if pool is None:
            if items is None and task is None:
                raise InputError("nearest examples need task= or items= to choose from.")
            drawn = task_of(task).sample(POOL, generator(seed, "pool")) if items is None else items
            if not drawn:
                raise InputError("nearest examples need at least one item, got items=[].")
            pool = Pool(model, items_of(drawn))
        return NearestExamples(pool, k, even, room or min(LONGEST, room_of(model)), layout)

    def from_setting(self, model: Model, setting: Mapping[str, Any], layout: Layout) -> NearestExamples:
        """Build the examples of a record's setting again."""
        own = layout_of(setting, layout) if model.tokenizer is not None else None
        given = {name: setting[name] for name in ("k", "items", "even", "room") if name in setting}
        return self.build(model, layout=own, **given)

    def search(self, model: Model, task: Task, seed: int, layouts: Sequence[Layout] = (), **options: Any) -> Search:
        """Look for how many, in the layouts that differ in the chat template, and whether as many of every label.

        The pool is as large as its states are affordable, 256 texts at most.
        """
        room = min(LONGEST, room_of(model))
        is_text = model.tokenizer is not None
        chats = {one.chat: one for one in reversed(readable(task, layouts))} if is_text else {False: PLAIN}
        ways = (False, True) if task.labels() else (False,)
        drawn = whole(task).sample(POOL, generator(seed, "pool"))  # an item's own row is never shown to it
        few = Pool(model, drawn[:FEW])  # a first look, which also tells what a larger pool would take
        first = next(iter(reversed(chats.values())))
        looks = [self.build(model, k=1, room=room, layout=first if is_text else None, pool=few)]
        found = yield Offer(looks if min(few.lengths) <= room else [], f"nearest of {FEW}", passes=len(few.items))
        if not found.best:
            raise no_room("training text", model, room)
        pool = Pool(model, drawn[: max(FEW, min(POOL, found.left // 4))])
        offered = [
            self.build(model, k=k, even=even, room=room, layout=layout if is_text else None, pool=pool)
            for k in COUNTS
            if k * min(pool.lengths) <= room
            for even in ways
            for layout in reversed(chats.values())
        ]
        yield Offer(offered, f"nearest of {len(pool.items)}", passes=len(pool.items))
