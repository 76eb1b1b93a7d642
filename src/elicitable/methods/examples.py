"""In-context learning: k worked examples of the task before the content."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from elicitable.errors import InputError
from elicitable.methods import rungs
from elicitable.methods.base import Method
from elicitable.methods.prompt import TokenContext, room_of, with_start
from elicitable.rng import generator

if TYPE_CHECKING:
    from elicitable.models.model import Model
    from elicitable.tasks.base import Task
    from elicitable.values import Item


class ExampleContext(TokenContext):
    """Worked examples as a context."""

    kind = "examples"


class Examples(Method):
    """Draws of k examples from the training split; how many and which is chosen on validation."""

    name = "examples"
    rung = rungs.EXAMPLES
    summary = "k worked examples before the content; k and the draw are chosen on validation"
    deployment = "Any server. They are text; their keys are paid in every request unless the server caches them."
    turn = 20
    options = ("task", "k", "seed", "items")

    def build(
        self,
        model: Model,
        size: int = 0,
        seed: int = 0,
        task: Any = None,
        k: int | None = None,
        items: Sequence[Item] | None = None,
        **options: Any,
    ) -> ExampleContext:
        """``k`` examples of ``task`` drawn by ``seed`` (labels in turn where there are labels), or ``items``.

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
        return ExampleContext(torch.cat([_tokens(model, item) for item in items], dim=1), k=len(items), seed=seed)

    def candidates(
        self, model: Model, task: Task, seed: int, draws: int = 2, longest: int = 512, **options: Any
    ) -> Iterator[ExampleContext]:
        """k = 1, 2, 4, 8 … in several draws, as far as the model's positions (and ``longest`` tokens) reach."""
        room = min(longest, room_of(model))
        for k in (1, 2, 4, 8, 16):
            for nth in range(draws):
                context = self.build(model, seed=1000 * seed + nth, task=task, k=k)
                if context.keys_per_layer() <= room:
                    with_start(model, context)
                    yield context


def task_of(task: Any) -> Task:
    """A task by name or path, or as it is."""
    from elicitable.tasks.catalog import task_from

    return task_from(task)


def draw(task: Task, k: int, seed: int) -> list[Item]:
    """k training items; with labels, as even over them as k allows, in random order."""
    rng = generator(seed, "examples", k)
    labels = task.labels()
    if labels is None:
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


def _tokens(model: Model, item: Item) -> Any:
    if isinstance(item.prompt, str):
        return model.ids(f"{item.prompt}{item.target}\n\n")
    return model.ids(torch.tensor([*item.prompt, *item.target]))
