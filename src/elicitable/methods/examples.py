"""In-context learning: k worked examples of the task before the content."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

from elicitable.errors import InputError
from elicitable.methods import rungs
from elicitable.methods.prompt import ChosenTokens, TokenContext, readable, room_of
from elicitable.models.layout import PLAIN, Layout
from elicitable.models.rows import context_ids, rows_of
from elicitable.rng import generator

if TYPE_CHECKING:
    from elicitable.models.model import Model
    from elicitable.tasks.base import Task
    from elicitable.values import Item


class ExampleContext(TokenContext):
    """Worked examples as a context."""

    kind = "examples"


class Examples(ChosenTokens):
    """Draws of k examples from the training split; how many and which is chosen on validation."""

    name = "examples"
    rung = rungs.EXAMPLES
    summary = "k worked examples before the content; k and the draw are chosen on validation"
    deployment = "Any server. They are text; their keys are paid in every request unless the server caches them."
    turn = 20
    options = ("task", "k", "seed", "items", "layout")

    def build(
        self,
        model: Model,
        size: int = 0,
        seed: int = 0,
        task: Any = None,
        k: int | None = None,
        items: Sequence[Item] | None = None,
        layout: Layout | None = None,
        **options: Any,
    ) -> ExampleContext:
        """``k`` examples of ``task`` drawn by ``seed`` (labels in turn where there are labels), or ``items``.

        In ``layout`` they are read as one text, with its separator after each (in a chat: as turns).

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
        if not items[0].is_text:
            rows = rows_of(model, items)
            ids = [id_ for row in rows for id_ in (*row.content, *row.answer)]
            return ExampleContext(model.ids(ids), k=len(items), seed=seed)
        own = replace(layout or PLAIN, examples=tuple(items))
        return ExampleContext(model.ids(context_ids(model, own)), own, k=len(items), seed=seed)

    def candidates(
        self,
        model: Model,
        task: Task,
        seed: int,
        draws: int = 2,
        longest: int = 512,
        layouts: Sequence[Layout] = (),
        **options: Any,
    ) -> Iterator[ExampleContext]:
        """k = 1, 2, 4, 8 … in several draws, as far as the model's positions (and ``longest`` tokens) reach.

        Each in those of ``layouts`` that differ in the chat template.
        """
        room = min(longest, room_of(model))
        tried = {layout.chat: layout for layout in reversed(readable(task, layouts))}
        for k, nth in product((1, 2, 4, 8, 16), range(draws)):
            for layout in reversed(tried.values()):
                context = self.build(model, seed=1000 * seed + nth, task=task, k=k, layout=layout)
                if context.keys_per_layer() <= room:
                    yield context


def task_of(task: Any) -> Task:
    """A task by name or path, or as it is."""
    from elicitable.tasks.catalog import task_from

    return task_from(task)


def draw(task: Task, k: int, seed: int) -> list[Item]:
    """k training items; with labels, as even over them as k allows, in random order."""
    rng = generator(seed, "examples", k)
    labels = task.labels()
    if not labels:
        return list(task.sample(k, rng))
    pool = task.sample(max(64, 16 * k), rng)
    wanted = [labels[i % len(labels)] for i in rng.permutation(k)]
    chosen: list[Item] = []
    for label in wanted:
        left = [item for item in pool if item not in chosen]
        if not left:  # fewer different items than were asked for
            break
        chosen.append(next((item for item in left if item.target == label), left[0]))
    return chosen
