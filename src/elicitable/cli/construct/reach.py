"""``elicitable construct reach``: what one hard and one virtual token reach in theorem 1."""

from __future__ import annotations

from dataclasses import asdict

from elicitable.cli.construct.options import BuildOptions
from elicitable.cli.construct.record import Answer
from elicitable.cli.construct.theorem import build
from elicitable.constructions import any_sequence
from elicitable.constructions.reach import reach


def answer(options: BuildOptions, length: int | None) -> Answer:
    """The record of a count, and what to print of it.

    Raises:
        InputError: the sizes cannot be built, or are too many to count.
    """
    found = reach(build(any_sequence.NAME, options, length))
    return asdict(found), [
        f"{found.construction}: V = {found.vocab}, N = {found.n_answer}, V^N = {found.possible:,} sequences",
        f"{found.hard_prompts:,} hard tokens, each run, reach {found.hard_reached:,}",
        "virtual tokens reach all of them (by the theorem; too many to run)"
        if found.virtual_reached is None
        else f"{found.possible:,} virtual tokens, each run, reach {found.virtual_reached:,}",
    ]
