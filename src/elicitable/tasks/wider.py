"""A task with more to choose by: validation items, and training rows that are never drawn for it.

A file of 300 rows has 30 validation rows, and the best of forty prompts on 30 rows is a lucky one. What trains nothing
can be chosen on training rows just as well, as long as it shows none of them; so some are set apart.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from elicitable.rng import generator
from elicitable.tasks.base import HeldOut, groups_of

if TYPE_CHECKING:
    import numpy as np

    from elicitable.tasks.base import Task
    from elicitable.values import Item

LOOKED_AT = 4  # times as many training items as are wanted are looked at, so that rare labels do not stand in the way


def wider(task: Task, items: int) -> Task:
    """Return ``task`` with a validation split of ``items``, filled up with training items that it then never draws.

    At most every second training item of a label is set apart (of all items where there are no labels), always the same
    ones; so the split may stay shorter. ``task`` itself where its own is long enough.

    >>> from elicitable.tasks.catalog import task_from
    >>> task = task_from("add-1")
    >>> wider(task, 8) is task
    True
    """
    known = task.held_out("validation", items)
    wanted = items - len(known)
    apart = _apart(task, wanted, {item.prompt for item in known}) if wanted > 0 else []
    return Wider(task, known, apart) if apart else task


def whole(task: Task) -> Task:
    """Return the task that :func:`wider` was given: for what leaves an item's own row out by itself."""
    return task.whole if isinstance(task, Wider) else task


def _apart(task: Task, wanted: int, known: set[Any]) -> list[Item]:
    labels, seen, found = task.labels(), Counter[Any](), []
    drawn = task.sample(LOOKED_AT * wanted, generator(0, "set apart"))
    for item in {one.prompt: one for one in drawn if one.prompt not in known}.values():
        kind = item.target if labels else None
        seen[kind] += 1
        if seen[kind] % 2 == 0:
            found.append(item)
    return found[:wanted]


class Wider:
    """``task`` with ``apart``, some of its training items, behind its ``known`` validation items."""

    def __init__(self, task: Task, known: list[Item], apart: list[Item]) -> None:
        self.whole, self.name = task, task.name
        self._validation = [*known, *apart]
        self._groups = (*groups_of(task, "validation", len(known)), *(f"apart {nth}" for nth in range(len(apart))))
        self._apart = {item.prompt for item in apart}

    def __getattr__(self, name: str) -> Any:
        if name == "whole":  # not there yet: a copy is being made
            raise AttributeError(name)
        return getattr(self.whole, name)

    def labels(self) -> tuple[str, ...] | None:
        """Return those of the task."""
        return self.whole.labels()

    def fingerprint(self) -> str:
        """Return that of the task: what is chosen is chosen for it."""
        return self.whole.fingerprint()

    def sample(self, n: int, rng: np.random.Generator) -> list[Item]:
        """Draw ``n`` training items, none of them set apart."""
        found: list[Item] = []
        while len(found) < n:
            drawn = self.whole.sample(n + len(self._apart), rng)
            found += [item for item in drawn if item.prompt not in self._apart]
        return found[:n]

    def held_out(self, split: HeldOut, n: int | None = None) -> list[Item]:
        """Return the first ``n`` items of ``split``; by default of the validation split all."""
        return self._validation[:n] if split == "validation" else self.whole.held_out(split, n)

    def groups(self, split: HeldOut, n: int | None = None) -> tuple[int | str, ...]:
        """Return the group of each item of ``held_out(split, n)``; an item that is set apart is one of its own."""
        return self._groups[:n] if split == "validation" else groups_of(self.whole, split, n)
