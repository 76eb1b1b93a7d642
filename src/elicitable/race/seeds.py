"""The other seeds: of the arm that the verdict speaks of and of the best one, and more where the margin is in doubt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from elicitable.diagnosis.tried import is_barely_trained, is_rising
from elicitable.diagnosis.verdict import Decision, best_of
from elicitable.race.choice import choose, chosen_piece
from elicitable.race.entry import Entry, Race
from elicitable.race.line import Line, advance, finish, leave, name_of_end, piece_of
from elicitable.race.outlook import is_solved, longest
from elicitable.race.pieces import Piece
from elicitable.race.results import arm_result, decision_of
from elicitable.race.timing import affords_choice, affords_seed
from elicitable.records.trial import TrialRecord

PATIENCE = 4  # times the steps in which the first seed solved the task: what another may need
NEAR = 0.9  # of the validation items: a seed that has as many is tested as it is, where the first one has SOLVED
RESTARTS = 2  # of an arm: other seeds in the place of those that do not get there
EXTRA = 3  # seeds at most, beyond those asked for, where the interval holds the margin


def more_seeds(race: Race, entries: Sequence[Entry], beside: Callable[[], list[Piece]]) -> None:
    """Run the seeds that were asked for, then more of each rival until the label is settled: one, then two.

    Every look at what they tell widens the intervals of the next one, so later looks come after more new seeds. Workers
    with nothing else to do begin what is ``beside``.
    """
    aimed, more = race.seeds, 1
    while True:
        decision = decision_of(race, [arm_result(race, entry) for entry in entries])
        rivals = [entry for entry in _rivals(race, decision, entries) if len(entry.records) < race.seeds + EXTRA]
        lagging = [entry for entry in rivals if len(entry.records) < aimed]
        is_another_look = not lagging
        if is_another_look:
            if not _is_in_doubt(decision, race.margin) or len(rivals) < 2:
                return
            fewest = min(len(entry.records) for entry in rivals)
            aimed, more = min(fewest + more, race.seeds + EXTRA), 2 * more
            lagging = [entry for entry in rivals if len(entry.records) < aimed]
        most = race.seeds + (EXTRA if _is_in_doubt(decision, race.margin) else 0)
        coming = partial(_begun, race, rivals, lagging, most, entries)
        race.ahead(lambda coming=coming: [*coming(), *beside()])  # type: ignore[misc]
        before = sum(len(entry.records) for entry in lagging)
        ran = [_one_more(race, entry, entries) for entry in lagging]
        race.looks += is_another_look and sum(len(entry.records) for entry in lagging) > before
        if not all(ran):
            return


def seeds_coming(race: Race, entries: Sequence[Entry]) -> list[Piece]:
    """Return the seeds that were asked for of the arms which they would be run for, if nothing were to change."""
    decision = decision_of(race, [arm_result(race, entry) for entry in entries if entry.records])
    rivals = _rivals(race, decision, entries)
    lagging = [entry for entry in rivals if len(entry.records) < race.seeds]
    return _coming(race, rivals, lagging, race.seeds)


def seeds_behind(race: Race, entry: Entry, cooldown: int) -> list[Piece]:
    """Return the seeds that are asked for of an arm whose first one is about to come down."""
    assert entry.line is not None
    numbers = range(1, race.seeds) if entry.method.is_seeded else ()
    return [_piece(race, entry, seed, entry.line.steps, cooldown) for seed in numbers]


def _piece(race: Race, entry: Entry, seed: int, steps: int, cooldown: int) -> Piece:
    assert entry.line is not None
    return piece_of(race, Line(entry.sized, entry.line.rate, seed), steps, cooldown=cooldown)


def _rivals(race: Race, decision: Decision, entries: Sequence[Entry]) -> list[Entry]:
    """Return the arm that the verdict speaks of or hangs on, and the best one, where another seed can change them.

    Of the best one none can where the answer is within the margin of all there is.
    """
    best = best_of(one.arm for one in decision.compared)
    undecided = [one.arm.method for one in decision.compared if one.standing == "open"]
    names = {decision.about, *([] if decision.answer else undecided)}
    if best is not None and not _is_as_good_as_any(race, decision):
        names.add(best.method)
    return [entry for entry in entries if entry.method.name in names and entry.method.is_seeded and entry.records]


def _is_as_good_as_any(race: Race, decision: Decision) -> bool:
    lowest = [one.arm.low or 0.0 for one in decision.compared if one.arm.method == decision.answer]
    return not decision.is_open and any(race.marking.scorer.highest - low <= race.margin for low in lowest)


def _is_in_doubt(decision: Decision, margin: float) -> bool:
    """Say whether the verdict is open because an interval holds the margin, which more seeds can settle.

    Of an arm that still rose they can say that it is good enough, and not that it is worse.
    """
    if not decision.is_open:
        return False
    opened = [one for one in decision.compared if one.standing == "open"]
    return any(one.mean < margin or not is_rising(one.arm) for one in opened)


def _coming(race: Race, rivals: Sequence[Entry], lagging: Sequence[Entry], most: int) -> list[Piece]:
    """Return the next seed of each arm that lags, and then those of its rivals up to ``most``, which may be run."""
    due = [(len(entry.records) + entry.stuck, entry) for entry in lagging]
    later = [(seed + entry.stuck, entry) for entry in rivals for seed in range(len(entry.records), most)]
    found = []
    for seed, entry in [*due, *sorted((one for one in later if one not in due), key=lambda one: one[0])]:
        if entry.line is None:
            found.append(chosen_piece(race, entry.method, seed))
        elif entry.trial is not None:
            found.append(_piece(race, entry, seed, entry.tested_at, entry.trial.plan.steps - entry.tested_at))
    return found


def _begun(
    race: Race, rivals: Sequence[Entry], lagging: Sequence[Entry], most: int, entries: Sequence[Entry]
) -> list[Piece]:
    """Return what workers may begin: against the clock the next seeds that can be run at once and are paid for."""
    if race.time_limit is None:
        return _coming(race, rivals, lagging, most)
    paid = [entry for entry in lagging[: race.hands] if _is_paid(race, entry, entries)]
    return _coming(race, [], paid, 0)


def _is_paid(race: Race, entry: Entry, entries: Sequence[Entry]) -> bool:
    """Say whether the limit pays for the next seed of an arm; not for one of a few steps, which tells nothing."""
    seed = len(entry.records) + entry.stuck
    if entry.line is None:
        return affords_choice(race, entry, seed, entries)
    assert entry.trial is not None
    if entry.stopped == "time" and is_barely_trained(arm_result(race, entry)):
        return False
    steps = entry.tested_at
    return affords_seed(race, entry, steps, entry.trial.plan.steps - steps, seed, entries)


def _one_more(race: Race, entry: Entry, entries: Sequence[Entry]) -> bool:
    """Run the next seed of an arm as its first one; False where the limit does not pay for it.

    One that is not even near on validation, where the first one solved the task, is left, and another takes its place.
    """
    if not _is_paid(race, entry, entries):
        return False
    seed = len(entry.records) + entry.stuck
    if entry.line is None:
        choose(race, entry, len(entries) - 1, len(entries), seed)
        return True
    assert entry.trial is not None
    cooldown = entry.trial.plan.steps - entry.tested_at
    race.reporter.begin(entry.method.name, f"seed {seed + 1}", len(entries) - 1, len(entries))
    line = Line(entry.sized, entry.line.rate, seed)
    record = _trained(race, entry, line, cooldown, entries)
    if _is_stuck(race, entry, record) and line.steps >= _most(race, entry) and entry.stuck < RESTARTS:
        line.downs.append(name_of_end(race, line, cooldown, entry.tested_at))  # a worker may have begun it
        entry.stuck += 1
        leave(race, line)
        return True
    if record.is_ok:
        _, record = finish(race, line, cooldown)
        entry.seconds += record.timing.seconds
    if not entry.method.keeps_state:
        leave(race, line)
    entry.records.append(record)
    race.reporter.end(arm_result(race, entry))
    return True


def _trained(race: Race, entry: Entry, line: Line, cooldown: int, entries: Sequence[Entry]) -> TrialRecord:
    """Take as many steps as the first seed, and more where that one solved the task and this one is not near yet.

    What is compared are arms that were trained until they solve the task, not one lucky number of steps.
    """
    record = advance(race, line, entry.tested_at)
    entry.seconds += record.timing.seconds
    most = _most(race, entry)
    while _is_stuck(race, entry, record) and line.steps < most:
        steps = min(2 * line.steps, most)
        if not affords_seed(race, entry, steps, cooldown, line.seed, entries, taken=line.steps):
            break
        record = advance(race, line, steps)
        entry.seconds += record.timing.seconds
    return record


def _most(race: Race, entry: Entry) -> int:
    """Return the steps after which a seed that has not solved the task is left; the clock alone leaves none."""
    return min(PATIENCE * entry.tested_at, longest(race))


def _is_stuck(race: Race, entry: Entry, record: TrialRecord) -> bool:
    """Say whether a seed is not even near on validation, although the first one of the arm solved the task."""
    return record.is_ok and is_solved(entry, race) and (record.validation or 0.0) < NEAR
