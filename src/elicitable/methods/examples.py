"""In-context learning: worked examples of the task before the content, the same ones before every item."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from elicitable.errors import InputError
from elicitable.methods import rungs
from elicitable.methods.base import Method
from elicitable.methods.instructions import bank
from elicitable.methods.prompt import TokenContext, layout_of, readable, room_of
from elicitable.methods.search import Found, Offer, Search
from elicitable.models.layout import PLAIN, Layout
from elicitable.models.rows import context_ids, rows_of
from elicitable.rng import generator
from elicitable.tasks.base import in_short
from elicitable.values import Item, Message

if TYPE_CHECKING:
    import numpy as np

    from elicitable.models.model import Model
    from elicitable.tasks.base import Task

Pair = list[Any]  # prompt and target, as JSON holds them
COUNTS = (4, 8, 2, 16, 1, 32, 64)  # of examples, the likeliest first
LONGEST = 1_024  # tokens of all examples together, whatever the model's positions allow
DRAWS, MORE_DRAWS = 2, 8
HEADS = 6  # instructions that are put before the best examples
ROUNDS, A_ROUND = 3, 12  # of edits of the best: how often, and how many at once


class ExampleContext(TokenContext):
    """Worked examples as a context, with an instruction before them or without."""

    kind = "examples"

    def __init__(self, ids: Any, layout: Layout | None, items: Sequence[Item], **setting: Any) -> None:
        super().__init__(ids, layout, k=len(items), items=[plain_pair(item) for item in items], **setting)
        self.items = tuple(items)

    @property
    def shown(self) -> tuple[Item, ...]:
        """All of them."""
        return self.items

    def items_in_last(self, model: Model, count: int) -> tuple[Item, ...]:
        """Return those of which one of the last ``count`` tokens is made: as few as have the same last tokens."""
        layout = None if self.layout is None else replace(self.layout, examples=(), head="")
        text = None if self.layout is None else self.layout.head or None
        for k in range(1, len(self.items)):
            fewer = Examples().build(model, items=self.items[-k:], layout=layout, text=text)
            if torch.equal(fewer.ids[:, -count:], self.ids[:, -count:]):
                return self.items[-k:]
        return self.items

    @property
    def told(self) -> dict[str, Any]:
        """The setting without the seed, with each example in short, in their order."""
        own = {name: value for name, value in self.setting.items() if name not in ("items", "seed")}
        return own | {"shown": [" → ".join(in_short(item)) for item in self.items]}


class Examples(Method):
    """Draws of k examples from the training split; how many, which, and in which order is chosen on validation."""

    name = "examples"
    rung = rungs.EXAMPLES
    summary = "k worked examples before the content; how many, which and in which order is chosen on validation"
    deployment = "Any server. They are text; their keys are paid in every request unless the server caches them."
    turn = 20
    options = ("task", "k", "seed", "items", "layout", "text")

    def build(
        self,
        model: Model,
        size: int = 0,
        seed: int = 0,
        task: Any = None,
        k: int | None = None,
        items: Sequence[Item | Pair] | None = None,
        layout: Layout | None = None,
        text: str | None = None,
        **options: Any,
    ) -> ExampleContext:
        """``k`` examples of ``task`` drawn by ``seed`` (labels in turn where there are labels), or ``items``.

        In ``layout`` they are read as one text, with its separator after each (in a chat: as turns). An instruction
        ``text`` may stand before them.

        Raises:
            InputError: neither a task nor items, or k < 1.
        """
        k = size or 4 if k is None else k
        if items is None:
            if task is None:
                raise InputError("examples need task= (with k=) or items=.")
            if k < 1:
                raise InputError(f"examples need k of at least 1, got {k}.")
            items = draw(task_of(task), k, seed)
        if not items:
            raise InputError("examples need at least one item, got items=[].")
        shown = items_of(items)
        if not shown[0].is_text:
            rows = rows_of(model, shown)
            ids = [id_ for row in rows for id_ in (*row.content, *row.answer)]
            return ExampleContext(model.ids(ids), None, shown, seed=seed)
        own = replace(layout or PLAIN, examples=shown, head=text or "")
        return ExampleContext(model.ids(context_ids(model, own)), own, shown, seed=seed, text=text)

    def from_setting(self, model: Model, setting: Mapping[str, Any], layout: Layout) -> ExampleContext:
        """Build the examples of a record's setting again."""
        given = {name: setting[name] for name in ("seed", "items", "text") if name in setting}
        return self.build(model, layout=layout_of(setting, layout), **given)

    def search(
        self,
        model: Model,
        task: Task,
        seed: int,
        draws: int = DRAWS,
        longest: int = LONGEST,
        layouts: Sequence[Layout] = (),
        **options: Any,
    ) -> Search:
        """Look for examples: how many, then more draws of so many, instructions before them, and edits of the best.

        As many as the model's positions (and ``longest`` tokens) reach; at first in those of ``layouts`` that differ
        in the chat template.
        """
        shots = Shots(self, model, seed, min(longest, room_of(model)))
        tried = {layout.chat: layout for layout in reversed(readable(task, layouts))}
        drawn = [draw(task, k, 1000 * seed + nth) for k in COUNTS for nth in range(draws)]
        found = yield shots.offer(drawn, list(reversed(tried.values())), "draws of 1, 2, 4 …")
        if not found.best:
            raise no_room("worked example", model, shots.room)
        k, layout = len(shots.items_of(found)), shots.layout_of(found)
        found = yield shots.offer(
            [draw(task, k, 1000 * seed + nth) for nth in range(draws, draws + MORE_DRAWS)], [layout], f"draws of {k}"
        )
        if model.tokenizer is not None:
            heads = [replace(layout, head=text) for text in list(bank(task))[:HEADS]]
            found = yield shots.offer([shots.items_of(found)], heads, "behind an instruction")
        for nth in range(ROUNDS):
            rng = generator(seed, "example edits", nth)
            new = list(_edits(shots.items_of(found), task, rng))
            found = yield shots.offer(new, [shots.layout_of(found)], "edits")


class Shots:
    """Makes candidates of lists of worked examples, those that fit and each once."""

    def __init__(self, method: Examples, model: Model, seed: int, room: int) -> None:
        self.method, self.model, self.seed, self.room = method, model, seed, room
        self.known: set[tuple[tuple[Item, ...], Layout]] = set()

    def offer(self, lists: Iterable[Sequence[Item]], layouts: Sequence[Layout], origin: str) -> Offer:
        """Every new list in every one of ``layouts``, the instruction of which stands before the examples."""
        new = dict.fromkeys((tuple(items), layout) for items in lists for layout in layouts if items)
        fresh = [pair for pair in new if pair not in self.known]
        self.known |= set(fresh)
        built = [
            self.method.build(self.model, seed=self.seed, items=items, layout=layout, text=layout.head or None)
            for items, layout in fresh
        ]
        return Offer([one for one in built if one.keys_per_layer() <= self.room], origin)

    def items_of(self, found: Found) -> tuple[Item, ...]:
        """The examples of the best candidate."""
        best = found.best[0].adaptation
        assert isinstance(best, ExampleContext)
        return best.items

    def layout_of(self, found: Found) -> Layout:
        """The layout of the best candidate, without its examples."""
        return replace(found.best[0].adaptation.layout or PLAIN, examples=())


def no_room(what: str, model: Model, room: int) -> InputError:
    """Return what is raised where nothing can be shown before an item."""
    return InputError(
        f"no {what} has room: each that was drawn takes more than {room:,} tokens, all that {model.name} has for it; "
        "shorten the texts."
    )


def _edits(items: Sequence[Item], task: Task, rng: np.random.Generator) -> Iterator[list[Item]]:
    """Other orders, and lists with one example exchanged for another draw, left out, or added."""
    others = [item for item in task.sample(A_ROUND, rng) if item not in items]
    for nth in range(A_ROUND):
        kind, at = nth % 3, int(rng.integers(len(items)))
        if kind == 0:
            yield [items[place] for place in rng.permutation(len(items))]
        elif kind == 1 and others:
            yield [*items[:at], others[nth % len(others)], *items[at + 1 :]]
        elif others and rng.integers(2):
            yield [*items[:at], others[nth % len(others)], *items[at:]]
        else:
            yield [*items[:at], *items[at + 1 :]]


def task_of(task: Any) -> Task:
    """A task by name or path, or as it is."""
    from elicitable.tasks.catalog import task_from

    return task_from(task)


def draw(task: Task, k: int, seed: int) -> list[Item]:
    """k training items; with labels, as even over them as k allows, in random order; of more labels than k, any k."""
    rng = generator(seed, "examples", k)
    labels = task.labels()
    if not labels:
        return list(task.sample(k, rng))
    pool = task.sample(max(64, 16 * k), rng)
    wanted = [labels[i % len(labels)] for i in rng.permutation(max(k, len(labels)))[:k]]
    chosen: list[Item] = []
    for label in wanted:
        left = [item for item in pool if item not in chosen]
        if not left:  # fewer different items than were asked for
            break
        chosen.append(next((item for item in left if item.target == label), left[0]))
    return chosen


def items_of(given: Sequence[Item | Pair]) -> tuple[Item, ...]:
    """Worked examples as items, from items or from what :func:`plain_pair` wrote."""
    return tuple(one if isinstance(one, Item) else item_of_pair(one) for one in given)


def plain_pair(item: Item) -> Pair:
    """A worked example as JSON holds it: the prompt (a text, ids, or turns as role and content) and the target."""
    prompt: Any = item.prompt
    if not isinstance(prompt, str):
        prompt = [[*_plain(turn)] if isinstance(turn, Message) else turn for turn in prompt]
    return [prompt, item.target if isinstance(item.target, str) else list(item.target)]


def _plain(turn: Message) -> tuple[str, ...]:
    return (turn.role, turn.content, turn.parts) if turn.parts else (turn.role, turn.content)


def as_tuples(plain: Any) -> Any:
    """Lists as tuples: what is sent to workers is told apart by its hash."""
    return tuple(map(as_tuples, plain)) if isinstance(plain, list | tuple) else plain


def item_of_pair(pair: Pair) -> Item:
    """The worked example that :func:`plain_pair` wrote.

    >>> item_of_pair([[["user", "Hi"]], " Hello"])
    Item(prompt=(Message(role='user', content='Hi'),), target=' Hello')
    """
    prompt, target = pair
    if not isinstance(prompt, str):
        prompt = tuple(Message(*turn) if isinstance(turn, list | tuple) else turn for turn in prompt)
    return Item(prompt, target if isinstance(target, str) else tuple(target))
