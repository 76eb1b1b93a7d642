"""What a worker does at a time, as plain data: one run of one method, as far as it has come, and what comes next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from elicitable.models.layout import Layout


@dataclass(frozen=True)
class Piece:
    """One job of a race: method × rate × start × seed × rows.

    Attributes:
        method: its name. ``seed`` counts from the race's own.
        layout: how its items are laid out.
        rate: of a method that is trained; None for one that is chosen.
        legs: the steps at the end of every leg of its run; those that are in the store are not trained again.
        cooldown: steps over which it then comes down to be tested; None where it does not.
        options: settings that it is built with, other than those it starts from in a race.
        rows: how many training rows there are; None for all.
        names: identities of the trials that are new, in their order. A worker compares them with its own, so that
            another model, task or version is no silent difference.
        ends: names under which the ends of those are kept, for runs that go on from there.
    """

    method: str
    seed: int
    layout: Layout
    names: tuple[str, ...]
    rate: float | None = None
    legs: tuple[int, ...] = ()
    cooldown: int | None = None
    rows: int | None = None
    options: tuple[tuple[str, Any], ...] = ()
    ends: tuple[str, ...] = ()
