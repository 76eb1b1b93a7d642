"""``elicitable construct reach``: what one hard and one virtual token reach in theorem 1."""

from __future__ import annotations

from dataclasses import asdict

from elicitable.cli.construct.options import BuildOptions
from elicitable.cli.construct.record import Answer
from elicitable.cli.construct.theorem import build
from elicitable.cli.output import counted
from elicitable.constructions import any_sequence
from elicitable.constructions.reach import reach

READ = 18  # digits of a number that is written out


def answer(options: BuildOptions, length: int | None, is_quiet: bool) -> Answer:
    """The record of a count, and what to print of it.

    Raises:
        InputError: the sizes cannot be built, or are too many to count.
    """
    built = build(any_sequence.NAME, options, length)
    with counted("running every token", is_quiet) as told:
        found = reach(built, told)
    return asdict(found), [
        f"{found.construction}: V = {found.vocab}, N = {found.n_answer}, V^N = {_counted(found.possible)} sequences",
        f"{found.hard_prompts:,} hard tokens, each run, reach {found.hard_reached:,}",
        "virtual tokens reach all of them (by the theorem; too many to run)"
        if found.virtual_reached is None
        else f"{found.possible:,} virtual tokens, each run, reach {found.virtual_reached:,}",
    ]


def _counted(number: int) -> str:
    """Write a number out, or its power of ten where nobody reads it.

    >>> _counted(46_656), _counted(300**100)
    ('46,656', 'about 10^247')
    """
    digits = len(str(number))
    return f"{number:,}" if digits <= READ else f"about 10^{digits - 1}"
