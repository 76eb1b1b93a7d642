"""How a race spends its time: a first look at every arm, then on what can still change the label, and nothing else.

    first look   every rate of every arm a few steps, the better half as many again, until one rate is left
    on           the arm with the fewest steps that can still change the label has its turn: at the first one it takes
                 as many steps from each of its other starts and goes on from the best, then it is trained on to twice
                 its steps or, once it has come to its end, brought down and tested
    left over    against the clock, the best context and the best other arm that had a few steps alone are trained on
    seeds        the answer's arm and the best one again over the other seeds; more where the interval holds the margin;
                 where they undo what the first had settled, arms that it had left are trained on after all
    control      last, and only with time that nobody else needs, or by workers with nothing else to do

Which arms those are is said in :mod:`elicitable.race.stakes`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import partial

from elicitable.diagnosis.tried import LEFT, is_barely_trained
from elicitable.diagnosis.verdict import OWED
from elicitable.methods.base import Sized
from elicitable.race.beginning import begin
from elicitable.race.choice import choose, chosen_contexts, chosen_piece, stood
from elicitable.race.entry import Entry, Race
from elicitable.race.line import Line, advance, finish, further_end, leave, note_end, piece_of
from elicitable.race.look import first_look, other_starts
from elicitable.race.outlook import is_solved, next_mark
from elicitable.race.pieces import Piece
from elicitable.race.results import arm_result, decision_of
from elicitable.race.seeds import more_seeds, seeds_behind, seeds_coming
from elicitable.race.stakes import (
    can_matter,
    cohort_of,
    is_at_its_end,
    is_out_of_reach,
    is_ready,
    urgency,
    what_cut_off,
    why_it_ended,
)
from elicitable.race.threads import Threads
from elicitable.race.timing import (
    affords_cooldown,
    affords_leg,
    affords_look,
    cooldown_of,
    note_test,
)
from elicitable.race.workers import together

SPARE = "a control is measured only with time that no other arm needs"


def run_rounds(race: Race, sizes: Sequence[Sized], threads: Threads) -> list[Entry]:
    """Run the race; after an interrupt too, its arms as far as they came."""
    entries = [Entry(sized) for sized in sorted(sizes, key=lambda sized: (sized.method.is_control, sized.method.turn))]
    try:
        begin(race, [entry.sized for entry in entries])
        is_free = race.workers is not None and race.time_limit is None
        begun = [(nth, entry) for nth, entry in enumerate(entries) if is_free or not entry.method.is_control]
        for _, group in itertools.groupby(begun, lambda one: _is_after_choices(race, one[1])):
            _begin_all(race, list(group), entries, threads)
        _train_on(race, entries, threads)
        _train_on_what_was_hardly_trained(race, entries, threads)
        ends = partial(_ends_coming, race, entries)
        more_seeds(race, entries, ends)
        if any(can_matter(race, entry, entries) for entry in entries):  # other seeds opened what the first had settled
            _train_on(race, entries, threads)
            more_seeds(race, entries, ends)
        _end(race, entries)
    except KeyboardInterrupt:
        race.was_interrupted = True
        race.shelf.save()
    return entries


def _is_after_choices(race: Race, entry: Entry) -> bool:
    """Say whether the first look at an arm hangs on what others chose."""
    return entry.method.is_trained and (len(race.layouts) > 1 or entry.method.stands_on is not None)


def _begin_all(race: Race, group: Sequence[tuple[int, Entry]], entries: Sequence[Entry], threads: Threads) -> None:
    """Have the first look at neighbours in the order of turns, none of which hangs on another.

    Where there are several layouts, arms that are chosen tell in which of them those that are trained read: then
    neighbours are all of one kind, and those that are chosen are heard in their order.
    """
    looks = [(_look if one.method.is_trained else _choice)(race, one, nth, entries) for nth, one in group]
    if len(race.layouts) == 1 or group[0][1].method.is_trained:
        together(race, looks, threads.look_again)
        return
    race.ahead(lambda: [chosen_piece(race, entry.method) for _, entry in group])
    for look in looks:
        together(race, [look], threads.look_again)


def _choice(race: Race, entry: Entry, nth: int, entries: Sequence[Entry]) -> Iterator[list[Piece]]:
    """Have the only look at an arm that is chosen: the choice among its candidates, and its test."""
    if race.workers is not None:
        yield [chosen_piece(race, entry.method)]
    choose(race, entry, nth, len(entries))
    race.reporter.end(arm_result(race, entry))


def _look(race: Race, entry: Entry, nth: int, entries: Sequence[Entry]) -> Iterator[list[Piece]]:
    """Have the first look at an arm that is trained: the first steps at its rates."""
    method = entry.method
    if entry.sized.size == 0:
        entry.refusal = (
            f"a budget of {race.budget:,} is too small; size 1 trains {method.numbers(race.model, 1):,} numbers"
        )
    elif stood(race, entry, entries):
        yield from first_look(race, entry, nth, entries)
    if entry.line is None:
        race.reporter.end(arm_result(race, entry))


def _is_to_begin(race: Race, entry: Entry) -> bool:
    """Say whether an arm has its first turn to come, and did not solve the task before it."""
    return not (entry.is_begun or is_solved(entry, race))


def _try_other_starts(race: Race, entry: Entry, entries: Sequence[Entry], threads: Threads) -> None:
    """Let an arm try its other starts at its first turn; one that nobody trains on has no use for them."""
    assert entry.line is not None
    assert entry.line.latest is not None
    entry.is_begun = True
    chosen = chosen_contexts(race, entries, entry.line.latest)
    starts = other_starts(race, entry, chosen, entries.index(entry), entries)
    together(race, [starts], threads.look_again)


def _train_on(race: Race, entries: Sequence[Entry], threads: Threads) -> None:
    """Train on whatever can still change the label, the arm with the fewest steps first."""
    race.cohort = {entry.method.name for entry in entries if entry.is_racing}
    while open_arms := [entry for entry in entries if can_matter(race, entry, entries)]:
        cohort = cohort_of(race, open_arms, entries)
        entry = min(cohort, key=lambda one: urgency(race, one, entries))
        if _is_to_begin(race, entry):
            _try_other_starts(race, entry, entries, threads)
            continue
        race.ahead(partial(_coming, race, cohort, open_arms, entries))
        if is_at_its_end(race, entry, open_arms, entries):
            bring_down(race, entry, entries)
        else:
            grow(race, entry, entries)
        threads.look_again()


def _coming(race: Race, cohort: Sequence[Entry], open_arms: Sequence[Entry], entries: Sequence[Entry]) -> list[Piece]:
    """Return what each arm that is trained on will do at its turn, unless another arm's turn settles it before.

    Behind those whose turns are next come other seeds, the longest first, and then arms that wait.
    """
    turns: dict[tuple[bool, bool], list[Piece]] = {}
    seeds = list[Piece]()
    for entry in sorted(cohort, key=lambda one: urgency(race, one, entries)):
        if _is_to_begin(race, entry):  # nobody knows from which start it will go on
            continue
        assert entry.line is not None
        due = turns.setdefault(urgency(race, entry, entries)[:2], [])
        steps = next_mark(race, entry.line.steps)
        if is_at_its_end(race, entry, open_arms, entries):
            cooldown = _way_down(race, entry, entries)
            due.append(piece_of(race, entry.line, cooldown=cooldown))
            if not is_out_of_reach(race, entry, entries):
                seeds += seeds_behind(race, entry, cooldown)
        elif steps > entry.line.steps and affords_leg(race, entry, steps, entries):
            due.append(piece_of(race, entry.line, steps))
    now, *later = [*turns.values()] or [[]]
    if race.time_limit is None:
        now += [*seeds, *seeds_coming(race, entries)]
    return [*now, *itertools.chain.from_iterable(later)]


def _train_on_what_was_hardly_trained(race: Race, entries: Sequence[Entry], threads: Threads) -> None:
    """Against the clock: while it lasts, train on the best context and the best other arm that had a few steps alone.

    An arm is spent where a leg was not to be paid beside what others were owed; those are tested now. Each of the two
    comes down once, when the clock pays for no further leg: every test is another look at the test items.
    """
    if race.time_limit is None:
        return
    hardly = [entry for entry in entries if entry.is_tested and entry.line and entry.line.is_fine]
    hardly = [entry for entry in hardly if not entry.method.is_control and is_barely_trained(arm_result(race, entry))]
    hardly.sort(key=lambda entry: arm_result(race, entry).mean or 0.0, reverse=True)
    best = [next((one for one in hardly if one.method.is_context is kind), None) for kind in (True, False)]
    growing = [entry for entry in best if entry is not None]
    for entry in growing:
        entry.is_spent = False
    while growing:
        entry = min(growing, key=lambda one: one.line.steps if one.line else 0)
        grow(race, entry, entries, is_again=True)
        growing = [one for one in growing if not (one.is_spent or is_ready(race, one))]
        threads.look_again()
    for entry in filter(None, best):
        if not entry.is_tested:
            bring_down(race, entry, entries)


def grow(race: Race, entry: Entry, entries: Sequence[Entry], is_again: bool = False) -> None:
    """Train an arm on to the next mark of its line; where the limit does not pay for that, it is spent.

    What was refused beside others ``is_again`` asked for when they have ended.
    """
    line = entry.line
    assert line is not None
    steps = next_mark(race, line.steps)
    if steps == line.steps or not affords_leg(race, entry, steps, entries, is_again):
        entry.is_spent = True
        return
    race.reporter.begin(entry.method.name, f"on to {steps} steps at {line.rate:g}", _done(entries), len(entries))
    record = advance(race, line, steps)
    entry.seconds += record.timing.seconds
    if not record.is_ok:  # it goes no further; what it was before is tested
        line.legs.pop()
        entry.is_spent = True


def bring_down(race: Race, entry: Entry, entries: Sequence[Entry], cooldown: int | None = None) -> None:
    """Bring an arm's run down and test it: by as many steps as the limit pays for, unless they are given."""
    line = entry.line
    assert line is not None
    if cooldown is None:
        cooldown, entry.stopped = _way_down(race, entry, entries), why_it_ended(race, entry)
        note_end(race, line, cooldown)
    race.reporter.begin(entry.method.name, f"coming down from {line.steps} steps", _done(entries), len(entries))
    race.looks += bool(entry.records)  # its items have been looked at before
    entry.trial, record = finish(race, line, cooldown)
    entry.seconds += record.timing.seconds
    entry.records, entry.tested_at = [record], line.steps
    note_test(race, record)
    race.reporter.end(arm_result(race, entry))


def _way_down(race: Race, entry: Entry, entries: Sequence[Entry]) -> int:
    """Return the steps of the way down that the limit pays for."""
    assert entry.line is not None
    cooldown = cooldown_of(race, entry.line.steps)
    while cooldown and not affords_cooldown(race, entry, entry.line, cooldown, entries):
        cooldown //= 2
    return cooldown


def _end(race: Race, entries: Sequence[Entry]) -> None:
    """Test what was left as it is, then the control; forget what no longer race would need."""
    coming = partial(_ends_coming, race, entries)
    race.ahead(coming)
    taken = [_test_as_it_is(race, entry, entries) for entry in _left(entries)]
    if any(taken):
        more_seeds(race, entries, coming)  # another race's run may be the answer
    for nth, entry in enumerate(entries):
        if entry.method.is_control:
            _control(race, entry, nth, entries)
    decision = decision_of(race, [arm_result(race, entry) for entry in entries])
    if decision.answer and not decision.is_open:
        for entry in entries:
            if entry.line is not None and not entry.method.keeps_state:
                leave(race, entry.line)
    race.shelf.save()


def _left(entries: Sequence[Entry]) -> list[Entry]:
    """Return the arms that are tested as they are."""
    return [entry for entry in entries if entry.is_racing and not entry.is_tested]


def _as_left(race: Race, line: Line) -> tuple[Line, int]:
    """Return the run that an arm which was left is tested by, and its way down: its own, or one that is there already.

    Another race in this folder may have taken it further.
    """
    return further_end(race, line) or (line, 0)


def _test_as_it_is(race: Race, entry: Entry, entries: Sequence[Entry]) -> bool:
    """Test an arm that was left, or as another race in this folder has taken it, and say whether that is so."""
    own = entry.line
    assert own is not None
    entry.line, cooldown = _as_left(race, own)
    if entry.line is own:
        entry.stopped = what_cut_off(race, entry) if entry.is_spent else LEFT
    else:
        entry.sized, entry.seconds = entry.line.sized, entry.seconds + entry.line.seconds_beside(own)
        entry.stopped = why_it_ended(race, entry) if is_ready(race, entry) else LEFT
    bring_down(race, entry, entries, cooldown)
    return entry.line is not own


def _ends_coming(race: Race, entries: Sequence[Entry]) -> list[Piece]:
    """Return what is still to do at the end of a race, if nothing changes it."""
    left = [_as_left(race, entry.line) for entry in _left(entries) if entry.line is not None]
    tests = [piece_of(race, line, cooldown=cooldown) for line, cooldown in left]
    return [*tests, *_rest_of_controls(race, entries)]


def _control(race: Race, entry: Entry, nth: int, entries: Sequence[Entry]) -> None:
    """Give a control as many steps as the quickest solver had, or as the longest run; its first look comes before.

    It has no vote, so it gets at most what every arm is owed, and nothing where no time is left.
    """
    if not entry.swept:
        if not affords_look(race, entry, entries):
            entry.refusal = SPARE
            race.reporter.end(arm_result(race, entry))
            return
        together(race, [_look(race, entry, nth, entries)])
    if entry.line is None or not entry.line.is_fine:
        return
    steps = _steps_of_control(race, entry, entries)
    while entry.line.steps < steps and not entry.is_spent:
        grow(race, entry, entries)
    if affords_cooldown(race, entry, entry.line, 0, entries):
        bring_down(race, entry, entries)
    else:
        entry.line, entry.refusal = None, SPARE


def _steps_of_control(race: Race, entry: Entry, entries: Sequence[Entry]) -> int:
    most = race.quickest or max((one.line.steps for one in entries if one.line and one is not entry), default=0)
    return min(most, OWED)


def _rest_of_controls(race: Race, entries: Sequence[Entry]) -> list[Piece]:
    """Return what each control that has had its first look has still to do, if nothing changes how far it goes."""
    found = []
    for entry in entries:
        if entry.method.is_control and entry.line is not None and entry.line.is_fine and race.time_limit is None:
            marks = [entry.line.steps]
            while marks[-1] < _steps_of_control(race, entry, entries) and next_mark(race, marks[-1]) > marks[-1]:
                marks.append(next_mark(race, marks[-1]))
            found.append(piece_of(race, entry.line, *marks[1:], cooldown=cooldown_of(race, marks[-1])))
    return found


def _done(entries: Sequence[Entry]) -> int:
    return sum(entry.is_tested or bool(entry.refusal) for entry in entries)
