"""The first look at an arm that is trained: a few steps at each of its learning rates, of which the best goes on."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from elicitable.methods.started import said_of_start
from elicitable.race.entry import Entry, Race
from elicitable.race.line import Line, advance, leave, piece_of
from elicitable.race.outlook import TELLING, longest, next_mark
from elicitable.race.pieces import Piece
from elicitable.race.ranking import best_first, look_at
from elicitable.race.timing import (
    FEWEST_STEPS,
    LOOK_SHARE,
    affords_starts,
    owed_seconds,
    step_seconds,
    test_seconds,
    trained_among,
)
from elicitable.records.trial import TrialRecord

if TYPE_CHECKING:
    from elicitable.methods.base import Adaptation


def first_look(race: Race, entry: Entry, nth: int, entries: Sequence[Entry]) -> Iterator[list[Piece]]:
    """Train a few steps at every rate, then the better half on to twice the steps, until one rate is left.

    A best rate at the edge of the range is compared with those beyond it. Against the clock it begins with one rate of
    the middle, whose first steps tell what the others would take. Before every round it yields what it is about to ask
    for, so that workers can run that, and looks at other arms beside it.
    """
    assert entry.method.schedule is not None
    rates, steps = list(entry.method.schedule.learning_rates), min(race.pace.first_steps, longest(race))
    lines = {rate: Line(entry.sized, rate, 0) for rate in rates}
    if entry.method.is_control:  # it only shows what it can do
        rates = rates[len(rates) // 2 - 1 : len(rates) // 2 + 1]
    spare = math.inf
    if race.time_limit is not None:
        rates, steps, spare = yield from _within_the_limit(race, entry, lines, nth, entries)
    racing = [lines[rate] for rate in rates]
    while True:
        yield [piece_of(race, line, *_marks(race, line, steps)) for line in racing if _goes(line, steps)]
        for line in racing:
            _go(race, entry, line, steps, nth, len(entries))
        racing = better_half(race, racing)
        if len(racing) <= 1:
            break
        steps = min(2 * steps, longest(race))
    fine = racing or ranked(race, lines.values())
    entry.line = fine[0] if fine else None  # where all that were left are lost, the best of those that were dropped
    entry.last = None if fine else next(line.latest for line in lines.values() if line.legs)
    if entry.line is not None and not entry.method.is_control:
        entry.spare = yield from _rates_beyond(race, entry, lines, spare, nth, entries)


def _rates_beyond(
    race: Race, entry: Entry, lines: dict[float, Line], spare: float, nth: int, entries: Sequence[Entry]
) -> Generator[list[Piece], None, float]:
    """Where the best rate is the lowest or the highest that was tried, take as many steps at the next one beyond it.

    That goes on while it is better and ``spare`` steps pay for it, up to :data:`~elicitable.methods.base.WIDEST` rates.
    It returns the steps that are left.
    """
    own, schedule = entry.line, entry.method.schedule
    assert own is not None
    assert schedule is not None
    tried = [rate for rate, line in lines.items() if line.legs]
    while spare >= own.steps and (rate := schedule.wider(tried, own.rate)) is not None:
        spare -= own.steps
        line = lines[rate] = Line(entry.sized, rate, 0)
        tried.append(rate)
        yield [piece_of(race, line, own.steps)]
        _go(race, entry, line, own.steps, nth, len(entries))
        if not is_better_beyond(race, line, own):
            leave(race, line)
            break
        leave(race, own)
        own = entry.line = line
    return spare


def other_starts(
    race: Race, entry: Entry, chosen: Sequence[Adaptation], nth: int, entries: Sequence[Entry]
) -> Iterator[list[Piece]]:
    """Train as many steps from each of the other starts as from an arm's own, and go on with the best.

    Those at what was ``chosen`` come last, and only as many as the arm's spare steps pay for.
    """
    own = entry.line
    assert own is not None
    first, steps, paid = min(race.pace.first_steps, own.steps), 0, list[list[Line]]()
    for lines in _started(race, entry, own, chosen):
        steps += own.steps + (len(lines) - 1) * first
        if steps <= entry.spare and affords_starts(race, entry, steps, entries):
            paid.append(lines)
    yield from _on(race, entry, [line for lines in paid for line in lines if len(lines) > 1], first, nth, entries)
    others = [line for lines in paid for line in (better_half(race, lines) if len(lines) > 1 else lines)]
    yield from _on(race, entry, others, own.steps, nth, entries)
    best = ranked(race, [own, *others])[0]
    for line in (own, *others):
        if line is not best:
            leave(race, line)
    entry.line, entry.sized = best, best.sized


def _started(race: Race, entry: Entry, own: Line, chosen: Sequence[Adaptation]) -> Iterator[list[Line]]:
    """Yield the lines of each other start, at the best rate of the arm's ``own``.

    One at what was ``chosen`` begins at the next lower rate of the range too, which real text may want (docs/log.md).
    """
    method, model = entry.method, race.model
    rates = method.schedule.learning_rates if method.schedule else ()
    lower = [rate for rate in rates if rate < own.rate][-1:]
    at_chosen = [method.start_at(model, entry.sized.size, one) for one in chosen]
    starts = [(options, [own.rate]) for options in method.starts(model)]
    for options, tried in [*starts, *((options, [own.rate, *lower]) for options in at_chosen if options)]:
        sized = method.begun(model, entry.sized, options)
        if sized.size:
            yield [Line(sized, rate, 0) for rate in tried]


def _on(
    race: Race, entry: Entry, lines: Sequence[Line], steps: int, nth: int, entries: Sequence[Entry]
) -> Iterator[list[Piece]]:
    """Take lines of other starts on to so many steps."""
    going = [line for line in lines if line.steps < steps]
    yield [piece_of(race, line, steps) for line in going]
    for line in going:
        what = f"first look from another start ({said_of_start(line.sized.options)}), at rate {line.rate:g}"
        race.reporter.begin(entry.method.name, what, nth, len(entries))
        entry.seconds += advance(race, line, steps).timing.seconds


def _within_the_limit(
    race: Race, entry: Entry, lines: dict[float, Line], nth: int, entries: Sequence[Entry]
) -> Generator[list[Piece], None, tuple[list[float], int, float]]:
    """Choose which rates the arm's part of the limit pays for, how many steps, and the steps that it pays for beside.

    Those go to rates beyond the range and to other starts.

    Measuring is training already.
    """
    first = race.pace.first_steps
    outwards = sorted(lines, key=lambda rate: abs(list(lines).index(rate) - len(lines) / 2))
    middle = entry.line = lines[outwards[0]]
    fewest = min(FEWEST_STEPS, first, longest(race))
    yield [piece_of(race, middle, fewest)]
    _go(race, entry, middle, fewest, nth, len(entries))
    paid = race.kept(f"steps of the first look at {entry.method.identity}", lambda: _paid(race, entry, nth, entries))
    count = next((count for count in (4, 2) if paid >= first * (count + count // 2)), 1)
    steps = first if paid >= first else min(FEWEST_STEPS, first)
    return outwards[:count], min(steps, longest(race)), max(0, paid - first * (count + count // 2))


def _paid(race: Race, entry: Entry, nth: int, entries: Sequence[Entry]) -> int:
    """Return the steps that an even part of the time for first looks pays for; workers look at all arms at a time.

    What the looks before it have left is not the last one's: it goes to the arms that are trained on.
    """
    others = entries[nth:] if race.workers is None else entries
    coming = trained_among(one.sized for one in others)
    tests = owed_seconds(race, entries, entry) + len(coming) * test_seconds(race, entry) / race.hands
    hands = min(race.hands, len(coming) * len(entry.method.schedule.learning_rates) if entry.method.schedule else 1)
    part = LOOK_SHARE * max(0.0, (race.left() or 0.0) - tests) / max(1, len(coming)) * hands
    race.look_seconds = min(race.look_seconds, part)
    return int(race.look_seconds / step_seconds(race, entry))


def _go(race: Race, entry: Entry, line: Line, steps: int, nth: int, arms: int) -> None:
    if not _goes(line, steps):
        return
    race.reporter.begin(entry.method.name, f"first look at rate {line.rate:g}", nth, arms)
    for mark in _marks(race, line, steps):
        record = advance(race, line, mark)
        entry.seconds += record.timing.seconds
        if not record.is_ok:
            break
    if entry.line is None and line.is_fine:  # what an interrupted first look has to show
        entry.line = line
    entry.swept[line.rate] = {"learning_rate": line.rate, **_of_look(record)}


def _goes(line: Line, steps: int) -> bool:
    """Say whether a line has not come so far, and can."""
    return line.steps < steps and (not line.legs or line.is_fine)


def _marks(race: Race, line: Line, steps: int) -> list[int]:
    """Return where a line stops on its way to so many steps: at those alone from the beginning, else at its marks."""
    found = [line.steps or steps]
    while found[-1] < steps:
        found.append(min(next_mark(race, found[-1]), steps))
    return found[bool(line.steps) :]


def _of_look(record: TrialRecord) -> dict[str, Any]:
    return {
        "status": record.status,
        "steps": record.steps,
        "validation": record.validation,
        "loss_nats": record.validation_loss_nats,
    }


def better_half(race: Race, lines: Sequence[Line]) -> list[Line]:
    """Return the better half of the lines that are fine, the best first, and at least one; leave the others of them."""
    fine = ranked(race, lines)
    kept = max(1, len(fine) // 2)
    for line in fine[kept:]:
        leave(race, line)
    return fine[:kept]


def ranked(race: Race, lines: Iterable[Line]) -> list[Line]:
    """Return the lines that are fine, the best first: of one method, on the validation items of a leg."""
    fine = [line for line in lines if line.is_fine]
    looks = {nth: look_at(line.latest) for nth, line in enumerate(fine) if line.latest is not None}
    return [fine[nth] for nth in best_first(looks, race.items_looked_at())]


def is_better(race: Race, line: Line, than: Line) -> bool:
    """Say whether ``line`` is fine, and better than another one, or that is not fine."""
    return line.is_fine and ranked(race, [than, line])[0] is line


def is_better_beyond(race: Race, line: Line, than: Line) -> bool:
    """Say whether ``line``, whose rate is beyond those tried up to now, is better than the best of them.

    A method that changes the model can lower its loss by unlearning it: at rates that are far too high answers soon
    have the right frequencies and nothing to do with the content. So there a higher rate has to show it in its score.
    """
    may_unlearn = line.rate > than.rate and not line.sized.method.is_context
    return is_better(race, line, than) and (not may_unlearn or _scores_more(race, line, than))


def _scores_more(race: Race, line: Line, than: Line) -> bool:
    """Say whether ``line`` has more validation items right than another one, by more than one standard error."""
    score, other = (one.latest.validation or 0.0 if one.latest is not None else 0.0 for one in (line, than))
    return score >= TELLING and score - math.sqrt(score * (1 - score) / race.items_looked_at()) > other
