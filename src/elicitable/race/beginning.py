"""What a race fixes before it starts: its price, and against the clock how much it reads.

Every trial hangs on how many items and rows are read, so a longer race in the same folder keeps to what a shorter one
has fixed, and finds its trials again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from elicitable.methods.base import Sized
from elicitable.race.entry import Race
from elicitable.race.timing import opening, said_of, trained_among

ANEW = 16  # times the limit of a shorter race in the same folder: so much longer a race looks at more, and begins anew


def begin(race: Race, sizes: Sequence[Sized]) -> None:
    """Measure the speed, say the price, and against the clock cut test and validation items to what it pays for."""
    named = ", ".join(size.method.identity for size in sizes)
    said = race.kept(f"price of {named}, and rows, at {race.pace.test_items} test items", lambda: opening(race, sizes))
    race.item_seconds = race.item_seconds_now = said["item_seconds"]
    race.price, race.closing_reads, race.writing_seconds = said["price"], said["closing_reads"], said["writing_seconds"]
    race.pace = replace(race.pace, test_items=said["test"])
    if race.time_limit is not None:
        _look_at(race, _as_before(race, "validation items", said["validation"]), said["validation"])
        if trained_among(sizes):
            _train_in_batches_of(race, _as_before(race, "rows of a batch", said["rows"]), said["rows"])
    race.reporter.say(said_of(race.price))
    if race.time_limit is None:
        race.reporter.expect(race.price["fair_minimum_seconds"], race.price["everything_seconds"])
    if said["test"] < said["of"]:
        race.warnings.append(
            f"the time limit pays for {said['test']} of the {said['of']} test items; more time or --test-items gives "
            "narrower intervals"
        )


def _as_before(race: Race, what: str, paid: int) -> int:
    """Return how many of ``what`` a race takes whose limit pays for ``paid``.

    Every trial hangs on it, so what a race in the same folder decided holds for other limits too, up to one that is
    :data:`ANEW` times as long: that one begins anew, and what it decides holds for those beyond it.
    """
    limit, name = race.time_limit or 0.0, f"{what} within a limit"
    found, decided_at = race.kept(name, lambda: [paid, limit], holds_for_all=True)
    while limit >= ANEW * decided_at:
        name = f"{what} within {ANEW} times {decided_at:g} s"
        found, decided_at = race.kept(name, lambda: [paid, limit], holds_for_all=True)
    return int(found)


def _train_in_batches_of(race: Race, rows: int, paid: int) -> None:
    """Let the arms train on so many ``rows`` a step, and say where more time takes more of them."""
    usual, price = race.pace.batch, race.price
    race.pace = replace(race.pace, batch=rows)
    race.price = price | {
        "step_seconds": price["step_seconds"] * rows / paid,
        "steps_paid_for": price["steps_paid_for"] * paid // rows,
        "rows": rows,
    }
    race.share_of_batch = rows / usual
    if rows != paid and rows < usual:
        race.warnings.append(
            f"a step reads {rows} rows where {usual} are usual, as in another race in this folder; the time limit pays "
            f"for {paid}, which another --out takes"
        )
    elif rows < usual:
        race.warnings.append(
            f"a step reads {rows} rows where {usual} are usual, as the time limit pays for few of those; {ANEW} times "
            "the time, or more time in another --out, takes more of them"
        )


def _look_at(race: Race, items: int, paid: int) -> None:
    """Let the race look at so many validation ``items``, and say where more time looks at more of them."""
    of = len(race.task.held_out("validation", race.pace.validation_items))
    race.pace = replace(race.pace, validation_items=items)
    if items < of and items != paid:
        race.warnings.append(
            f"{items} of the {of} validation items are looked at, as in another race in this folder; the time limit "
            f"pays for {min(paid, of)}, which another --out takes"
        )
    elif items < of:
        race.warnings.append(
            f"the time limit pays for {items} of the {of} validation items; {ANEW} times the time, or more time in "
            "another --out, looks at more of them"
        )
