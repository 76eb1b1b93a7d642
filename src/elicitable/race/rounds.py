"""How a race spends its time: a first look at every arm, then on what can still change the label, and nothing else.

    first look   every rate of every arm a few steps, the better half as many again, until one rate is left
    on           the arm with the fewest steps that can still change the label is trained on to twice its steps,
                 or, once it has come to its end, brought down and tested
    seeds        the answer's arm and the best one again over the other seeds; more where the interval holds the margin
    control      last, and only with time that nobody else needs

An arm can no longer change the label where its curve does not lead up to the best (:mod:`elicitable.race.outlook`), and
where the label stands already: more invasive arms matter only if they may be better than the best one can be. Such an
arm is tested as it is. The strongest context is not judged by its curve: it gets the steps that it is owed and a way
down. Against the clock the arms that are trained on are halved each time they have had equally many steps; the best
context and the best of the others are always among them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby

from elicitable.diagnosis.tried import LEFT
from elicitable.diagnosis.verdict import OWED, Decision
from elicitable.methods.base import Sized
from elicitable.race.choice import choose, chosen_piece, stood
from elicitable.race.entry import Entry, Race
from elicitable.race.line import advance, finish, leave, piece_of
from elicitable.race.look import first_look
from elicitable.race.outlook import (
    EARLIEST,
    PATIENCE,
    TELLING,
    Mark,
    ceiling,
    floor_of,
    is_flat,
    is_solved,
    longest,
    marks,
    owed,
)
from elicitable.race.pieces import Piece
from elicitable.race.results import arm_result, decision_of
from elicitable.race.seeds import more_seeds
from elicitable.race.threads import Threads
from elicitable.race.timing import affords_cooldown, affords_leg, affords_legs, cooldown_of, opening, said_of
from elicitable.race.workers import together
from elicitable.values import ArmResult, Rung

LAG = 8  # times its steps: what the leader of a rung may be ahead of an arm that waits


def run_rounds(race: Race, sizes: Sequence[Sized]) -> list[Entry]:
    """Run the race; after an interrupt too, its arms as far as they came."""
    entries = [Entry(sized) for sized in sorted(sizes, key=lambda sized: (sized.method.is_control, sized.method.turn))]
    with Threads.chosen(race) as threads:
        try:
            _open(race, entries)
            begun = [(nth, entry) for nth, entry in enumerate(entries) if not entry.method.is_control]
            for _, group in groupby(begun, lambda one: _is_after_choices(race, one[1])):
                _begin_all(race, list(group), entries, threads)
            _train_on(race, entries, threads)
            more_seeds(race, entries)
            _end(race, entries)
        except KeyboardInterrupt:
            race.was_interrupted = True
            race.shelf.save()
    return entries


def _open(race: Race, entries: list[Entry]) -> None:
    """Measure the speed, say the price, and against the clock cut test and validation items to what it pays for."""
    sizes = [entry.sized for entry in entries]
    named = ", ".join(size.method.identity for size in sizes)
    said = race.kept(f"price of {named} at {race.pace.test_items} test items", lambda: opening(race, sizes))
    race.item_seconds, race.price, race.closing_seconds = said["item_seconds"], said["price"], said["closing_seconds"]
    race.pace = replace(race.pace, test_items=said["test"])
    if race.time_limit is not None:  # every trial hangs on it, so it holds for longer limits too
        validation = race.kept("validation items", lambda: said["validation"], holds_for_all=True)
        race.pace = replace(race.pace, validation_items=validation)
    race.reporter.say(said_of(race.price))
    if said["test"] < said["of"]:
        race.warnings.append(
            f"the time limit pays for {said['test']} of the {said['of']} test items; more time or --test-items gives "
            "narrower intervals"
        )


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


def _train_on(race: Race, entries: Sequence[Entry], threads: Threads) -> None:
    """Train on whatever can still change the label, the arm with the fewest steps first."""
    race.cohort = {entry.method.name for entry in entries if entry.is_racing}
    while open_arms := [entry for entry in entries if can_matter(race, entry, entries)]:
        cohort = _cohort(race, open_arms, entries)
        entry = min(cohort, key=lambda one: _urgency(race, one, entries))
        race.ahead(partial(_coming, race, cohort, open_arms, entries))
        if _is_at_its_end(race, entry, open_arms, entries):
            bring_down(race, entry, entries)
        else:
            grow(race, entry, entries)
        threads.look_again()


def _is_at_its_end(race: Race, entry: Entry, open_arms: Sequence[Entry], entries: Sequence[Entry]) -> bool:
    assert entry.line is not None
    if is_ready(race, entry) or (len(open_arms) == 1 and is_done_alone(race, entry)):
        return True
    return entry.line.steps >= min(owed(race), PATIENCE) and _is_out_of_reach(race, entry, entries)


def _coming(race: Race, cohort: Sequence[Entry], open_arms: Sequence[Entry], entries: Sequence[Entry]) -> list[Piece]:
    """Return what each arm that is trained on will do at its turn, unless another arm's turn settles it before."""
    found = []
    for entry in sorted(cohort, key=lambda one: _urgency(race, one, entries)):
        assert entry.line is not None
        steps = next_mark(race, entry.line.steps)
        if _is_at_its_end(race, entry, open_arms, entries):
            found.append(piece_of(race, entry.line, cooldown=_way_down(race, entry, entries)))
        elif steps > entry.line.steps and affords_leg(race, entry, steps, entries):
            found.append(piece_of(race, entry.line, steps))
    return found


def can_matter(race: Race, entry: Entry, entries: Sequence[Entry]) -> bool:
    """Say whether training or testing ``entry`` can still change the label."""
    if not entry.is_racing or (entry.is_tested and not _may_grow(race, entry, entries)):
        return False
    if _is_out_of_reach(race, entry, entries) and not _speaks_for_contexts(entry, entries):
        return False
    scored = _scored(race, entries)
    if not scored:
        return True
    decision, best = _decided(race, entries), max(scored, key=lambda arm: arm.mean or 0.0)
    answer = next((one for one in decision.compared if one.arm.method == decision.answer), None)
    if answer is None or entry.method.rung < answer.arm.rung:
        return True
    return answer.high + _highest(race, entry, entries) - (best.mean or 0.0) > race.margin  # it may be left behind


def _is_out_of_reach(race: Race, entry: Entry, entries: Sequence[Entry]) -> bool:
    """Say whether where an arm's curve leads is below what another arm has already, by more than the margin."""
    others = [floor_of(other, race) for other in entries if other is not entry and other.is_racing]
    others += [arm.low or 0.0 for arm in _scored(race, entries) if arm.method != entry.method.name]
    return _highest(race, entry, entries) < max(others, default=0.0) - race.margin


def _highest(race: Race, entry: Entry, entries: Sequence[Entry]) -> float:
    return ceiling(entry, race, [mark for other in entries for mark in marks(other)])


def _scored(race: Race, entries: Sequence[Entry]) -> list[ArmResult]:
    results = [arm_result(race, other) for other in entries if other.records]
    return [arm for arm in results if arm.mean is not None and not arm.is_control]


def _decided(race: Race, entries: Sequence[Entry]) -> Decision:
    """Return what the tests so far say."""
    return decision_of(race, [arm_result(race, other) for other in entries if other.records])


def _speaks_for_contexts(entry: Entry, entries: Sequence[Entry]) -> bool:
    """Say whether an arm is the strongest trained context, and was not brought down yet.

    That no context will do is said of all of them, so it does not hang on where a short curve seems to lead: what a
    free prefix can do may show late and all at once, in the way down alone.
    """
    contexts = [one for one in entries if one.is_racing and one.method.is_context]
    if entry.is_tested or entry not in contexts:
        return False
    return entry is max(contexts, key=lambda one: (one.method.rung, _worth(marks(one)[-1])))


def _urgency(race: Race, entry: Entry, entries: Sequence[Entry]) -> tuple[bool, bool, int]:
    """Sort arms that may answer less invasively before those that may only be better, then the ready, then by steps."""
    decision = _decided(race, entries)
    rung = next((one.arm.rung for one in decision.compared if one.arm.method == decision.answer), None)
    is_above = rung is not None and entry.method.rung >= rung
    return is_above, not is_ready(race, entry), entry.line.steps if entry.line else 0


def _may_grow(race: Race, entry: Entry, entries: Sequence[Entry]) -> bool:
    """Say whether a tested arm holds the verdict open and longer training may still close it."""
    if entry.is_spent or entry.stopped == "plateau" or entry.line is None:
        return False
    if entry.line.steps >= owed(race) or entry.line.steps >= longest(race):
        return False
    decision = _decided(race, entries)
    return any(one.arm.method == entry.method.name and one.standing == "open" for one in decision.compared)


def is_ready(race: Race, entry: Entry) -> bool:
    """Say whether an arm has come to its end: solved, flat, out of steps or time. A tested one is trained on."""
    assert entry.line is not None
    if entry.is_tested:
        return False
    if is_solved(entry):
        race.quickest = min(entry.line.steps, race.quickest or entry.line.steps)
    return entry.is_spent or is_solved(entry) or is_flat(entry, race) or entry.line.steps >= owed(race)


def is_done_alone(race: Race, entry: Entry) -> bool:
    """Say whether the last arm that matters has come so far that twice its steps brought less than the margin."""
    own = marks(entry)
    if entry.is_tested or len(own) < 3 or own[-1].steps < min(EARLIEST, longest(race)):
        return False
    return TELLING < own[-1].score < own[-2].score + race.margin


def _why(race: Race, entry: Entry) -> str:
    assert entry.line is not None
    if is_solved(entry):
        return "solved"
    if is_flat(entry, race):
        return "plateau"
    return "time" if entry.is_spent and race.time_limit is not None else "steps"


def grow(race: Race, entry: Entry, entries: Sequence[Entry]) -> None:
    """Train an arm on to the next mark of its line; where the limit does not pay for that, it is spent."""
    line = entry.line
    assert line is not None
    steps = next_mark(race, line.steps)
    if steps == line.steps or not affords_leg(race, entry, steps, entries):
        entry.is_spent = True
        return
    race.reporter.begin(entry.method.name, f"on to {steps} steps at {line.rate:g}", _done(entries), len(entries))
    record = advance(race, line, steps)
    entry.seconds += record.timing.seconds
    if not record.is_ok:  # it goes no further; what it was before is tested
        line.legs.pop()
        entry.is_spent = True


def next_mark(race: Race, steps: int) -> int:
    """Return how many steps a run has at its next look: twice as many; against the clock half of that way first.

    The marks are the same under every limit, so that a longer one finds the legs of a shorter one.
    """
    if steps < race.pace.first_steps:
        return min(race.pace.first_steps, longest(race))
    is_half_way = steps & (steps - 1) != 0
    further = steps if race.time_limit is None else steps // 3 if is_half_way else steps // 2
    return min(steps + max(1, further), longest(race))


def bring_down(race: Race, entry: Entry, entries: Sequence[Entry], is_bare: bool = False) -> None:
    """Bring an arm's run down and test it; only test it if ``is_bare``, or where no time is left for more."""
    line = entry.line
    assert line is not None
    cooldown = 0 if is_bare else _way_down(race, entry, entries)
    race.reporter.begin(entry.method.name, f"coming down from {line.steps} steps", _done(entries), len(entries))
    entry.stopped = entry.stopped if is_bare else _why(race, entry)
    race.looks += bool(entry.records)  # its items have been looked at before
    entry.trial, record = finish(race, line, cooldown)
    entry.seconds += record.timing.seconds
    entry.records, entry.tested_at = [record], line.steps
    race.tested.append(record.timing.test_seconds or 0.0)
    race.reporter.end(arm_result(race, entry))


def _way_down(race: Race, entry: Entry, entries: Sequence[Entry]) -> int:
    """Return the steps of the way down that the limit pays for."""
    assert entry.line is not None
    cooldown = cooldown_of(race, entry.line.steps)
    while cooldown and not affords_cooldown(race, entry, entry.line, cooldown, entries):
        cooldown //= 2
    return cooldown


def _cohort(race: Race, open_arms: Sequence[Entry], entries: Sequence[Entry]) -> list[Entry]:
    """Return the arms that are trained on: all of them; against the clock ever fewer, while any of them can be."""
    if race.time_limit is None:
        return _leaders(open_arms)
    cohort = [entry for entry in open_arms if entry.method.name in race.cohort]
    ready = [entry for entry in cohort if is_ready(race, entry)]
    growing = [entry for entry in cohort if not entry.is_tested and entry not in ready]
    if not growing:
        race.cohort |= {entry.method.name for entry in open_arms}
        return cohort or list(open_arms)
    marks_reached = {entry.line.steps for entry in growing if entry.line}
    if len(growing) > 2 and len(marks_reached) == 1 and max(marks_reached) >= race.pace.first_steps:
        race.cohort -= {entry.method.name for entry in growing} - _better(race, growing, entries)
        growing = [entry for entry in growing if entry.method.name in race.cohort]
    return [*ready, *growing]


def _leaders(open_arms: Sequence[Entry]) -> list[Entry]:
    """Return the best arm so far of every rung, and those that lag so far behind it in steps that nobody can compare.

    The others of a rung wait, and matter only if its best one does not suffice.
    """
    leaders: dict[Rung, Entry] = {}
    for entry in sorted(open_arms, key=lambda entry: _worth(marks(entry)[-1])):
        leaders[entry.method.rung] = entry
    lagging = [one for one in open_arms if LAG * marks(one)[-1].steps <= marks(leaders[one.method.rung])[-1].steps]
    return [*leaders.values(), *lagging]


def _better(race: Race, growing: Sequence[Entry], entries: Sequence[Entry]) -> set[str]:
    """Name the better half by validation, the best context and the best of the others among them.

    Where the limit does not pay for the next steps of all of those, it is these two alone.
    """
    ranked = sorted(growing, key=lambda entry: _worth(marks(entry)[-1]), reverse=True)
    half, two = ranked[: (len(ranked) + 1) // 2], []
    for is_context in (True, False):
        two += [entry for entry in ranked if entry.method.is_context is is_context][:1]
    kept = [*half, *(entry for entry in two if entry not in half)]
    coming = [(one, next_mark(race, one.line.steps)) for one in kept if one.line is not None]
    return {entry.method.name for entry in (kept if affords_legs(race, coming, entries) else two)}


def _worth(mark: Mark) -> tuple[float, float]:
    return mark.score, -mark.nats


def _end(race: Race, entries: Sequence[Entry]) -> None:
    """Test what was left as it is, then the control; forget what no longer race would need."""
    left = [entry for entry in entries if entry.is_racing and not entry.is_tested]
    race.ahead(lambda: [piece_of(race, entry.line, cooldown=0) for entry in left if entry.line is not None])
    for entry in left:
        entry.stopped = "time" if entry.is_spent else LEFT
        bring_down(race, entry, entries, is_bare=True)
    for nth, entry in enumerate(entries):
        if entry.method.is_control:
            _control(race, entry, nth, entries)
    decision = decision_of(race, [arm_result(race, entry) for entry in entries])
    if decision.answer:
        for entry in entries:
            if entry.line is not None and not entry.method.keeps_state:
                leave(race, entry.line)
    race.shelf.save()


def _control(race: Race, entry: Entry, nth: int, entries: Sequence[Entry]) -> None:
    """Give a control as many steps as the quickest solver had, or as the longest run; its first look comes before.

    It has no vote, so it gets twice what an arm is owed at most.
    """
    together(race, [_look(race, entry, nth, entries)])
    if entry.line is None or not entry.line.is_fine:
        return
    steps = race.quickest or max((one.line.steps for one in entries if one.line and one is not entry), default=0)
    steps = min(steps, 2 * OWED)
    while entry.line.steps < steps and not entry.is_spent:
        grow(race, entry, entries)
    if affords_cooldown(race, entry, entry.line, 0, entries):
        bring_down(race, entry, entries)
    else:
        entry.line, entry.refusal = None, "a control is measured only with time that no other arm needs"


def _done(entries: Sequence[Entry]) -> int:
    return sum(entry.is_tested or bool(entry.refusal) for entry in entries)
