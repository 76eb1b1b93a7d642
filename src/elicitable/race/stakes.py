"""What is at stake: which arms can still change the label, which of them are trained on, and when one is at its end.

An arm can no longer change the label where its curve does not lead up to the best (:mod:`elicitable.race.outlook`), and
where the label stands already: other arms of its rung would give the same one, and more invasive arms matter only if
they may leave the answer, or a context that is still open, behind. Such an arm is tested as it is. The strongest
context is not judged by its curve: it gets the steps that it is owed and a way down. Against the clock the arms that
are trained on are halved each time they have had equally many steps; the best context and the best of the others are
always among them.
"""

from __future__ import annotations

from collections.abc import Sequence

from elicitable.diagnosis.verdict import LAG, Decision
from elicitable.race.entry import Entry, Race
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
    next_mark,
    owed,
)
from elicitable.race.results import arm_result, decision_of
from elicitable.race.timing import affords_legs
from elicitable.values import ArmResult, Rung


def can_matter(race: Race, entry: Entry, entries: Sequence[Entry]) -> bool:
    """Say whether training or testing ``entry`` can still change the label."""
    if not entry.is_racing or (entry.is_tested and not _may_grow(race, entry, entries)):
        return False
    if is_out_of_reach(race, entry, entries) and not _speaks_for_contexts(entry, entries):
        return False
    scored = _scored(race, entries)
    if not scored:
        return True
    decision, best = _decided(race, entries), max(scored, key=lambda arm: arm.mean or 0.0)
    answer = next((one for one in decision.compared if one.arm.method == decision.answer), None)
    if answer is None or entry.method.rung < answer.arm.rung:
        return True
    if entry.method.rung == answer.arm.rung and not decision.is_open:
        return False
    highest = _highest(race, entry, entries)
    lead = highest - as_looked_at(best, best.mean or 0.0)
    below = [one for one in decision.compared if one.standing == "open" and one.arm.rung < answer.arm.rung]
    if any(one.low + lead > race.margin for one in below):
        return True  # were it the best, a context that is open would be worse
    may_lag = min(answer.high + lead, highest - as_looked_at(answer.arm, answer.arm.low or 0.0))
    return may_lag > race.margin  # the answer may be left behind


def is_out_of_reach(race: Race, entry: Entry, entries: Sequence[Entry]) -> bool:
    """Say whether where an arm's curve leads is below what another arm has already, by more than the margin."""
    others = [floor_of(other, race) for other in entries if other is not entry and other.is_racing]
    others += [as_looked_at(arm, arm.low or 0.0) for arm in _scored(race, entries) if arm.method != entry.method.name]
    return _highest(race, entry, entries) < max(others, default=0.0) - race.margin


def as_looked_at(arm: ArmResult, score: float) -> float:
    """Return a score of ``arm`` without what its rule for labels brought over their plain likelihood, as looks see it.

    Looks read a run by the plain likelihood, so a test by another rule is not what its curve can be held against.
    """
    if arm.raw_mean is None or arm.mean is None:
        return score
    return score - max(0.0, arm.mean - arm.raw_mean)


def _highest(race: Race, entry: Entry, entries: Sequence[Entry]) -> float:
    return ceiling(entry, race, [mark for other in entries for mark in marks(other)])


def _scored(race: Race, entries: Sequence[Entry]) -> list[ArmResult]:
    return [arm for arm in _tested(race, entries) if arm.mean is not None and not arm.is_control]


def _decided(race: Race, entries: Sequence[Entry]) -> Decision:
    """Return what the tests so far say."""
    return decision_of(race, _tested(race, entries))


def _tested(race: Race, entries: Sequence[Entry]) -> list[ArmResult]:
    return [arm_result(race, other) for other in entries if other.records]


def _speaks_for_contexts(entry: Entry, entries: Sequence[Entry]) -> bool:
    """Say whether an arm is the strongest trained context, and was not brought down yet.

    That no context will do is said of all of them, so it does not hang on where a short curve seems to lead: what a
    free prefix can do may show late and all at once, in the way down alone.
    """
    contexts = [one for one in entries if one.is_racing and one.method.is_context]
    if entry.is_tested or entry not in contexts:
        return False
    return entry is max(contexts, key=lambda one: (one.method.rung, _worth(marks(one)[-1])))


def _may_grow(race: Race, entry: Entry, entries: Sequence[Entry]) -> bool:
    """Say whether a tested arm holds the verdict open and longer training may still close it."""
    if entry.is_spent or entry.stopped == "plateau" or entry.line is None:
        return False
    if entry.line.steps >= owed(race) or entry.line.steps >= longest(race):
        return False
    decision = _decided(race, entries)
    return any(one.arm.method == entry.method.name and one.standing == "open" for one in decision.compared)


def urgency(race: Race, entry: Entry, entries: Sequence[Entry]) -> tuple[bool, bool, bool, int]:
    """Sort arms that may answer less invasively before those that may only be better, then the ready, then by steps.

    Once an arm has solved the task, so that it is known what the others are owed, whatever is no context waits until
    contexts fall short.
    """
    decision = _decided(race, entries)
    rung = next((one.arm.rung for one in decision.compared if one.arm.method == decision.answer), None)
    is_above, ready = rung is not None and entry.method.rung >= rung, is_ready(race, entry)
    return is_above, not ready and _waits(race, entry), not ready, entry.line.steps if entry.line else 0


def _waits(race: Race, entry: Entry) -> bool:
    """Say whether an arm that is trained on waits for contexts, since another one has solved the task."""
    return race.quickest is not None and not entry.method.is_context


def is_at_its_end(race: Race, entry: Entry, open_arms: Sequence[Entry], entries: Sequence[Entry]) -> bool:
    """Say whether an arm comes down now: it is ready, has nobody to wait for, or had all that one out of reach gets."""
    assert entry.line is not None
    if is_ready(race, entry) or (len(open_arms) == 1 and is_done_alone(race, entry)):
        return True
    return entry.line.steps >= min(owed(race), PATIENCE) and is_out_of_reach(race, entry, entries)


def is_ready(race: Race, entry: Entry) -> bool:
    """Say whether an arm has come to its end: solved, flat, out of steps or time. A tested one is trained on."""
    assert entry.line is not None
    if entry.is_tested:
        return False
    if is_solved(entry, race):
        race.quickest = min(entry.line.steps, race.quickest or entry.line.steps)
    return entry.is_spent or is_solved(entry, race) or is_flat(entry, race) or entry.line.steps >= owed(race)


def is_done_alone(race: Race, entry: Entry) -> bool:
    """Say whether the last arm that matters has come so far that twice its steps brought less than the margin."""
    own = marks(entry)
    if entry.is_tested or len(own) < 3 or own[-1].steps < min(EARLIEST, longest(race)):
        return False
    if not race.marking.is_as_looked_at:
        return False
    return TELLING < own[-1].score < own[-2].score + race.margin


def why_it_ended(race: Race, entry: Entry) -> str:
    assert entry.line is not None
    if is_solved(entry, race):
        return "solved"
    if is_flat(entry, race):
        return "plateau"
    return what_cut_off(race, entry)


def what_cut_off(race: Race, entry: Entry) -> str:
    """Say whether "time" or "steps" ended an arm that is neither solved nor flat; no more steps may be asked for."""
    assert entry.line is not None
    is_clock = entry.is_spent and race.time_limit is not None and entry.line.steps < longest(race)
    return "time" if is_clock else "steps"


def cohort_of(race: Race, open_arms: Sequence[Entry], entries: Sequence[Entry]) -> list[Entry]:
    """Return the arms that are trained on: all of them; against the clock ever fewer, while any of them can be."""
    if race.time_limit is None:
        return _leaders(open_arms)
    cohort = [entry for entry in open_arms if entry.method.name in race.cohort]
    ready = [entry for entry in cohort if is_ready(race, entry)]
    growing = [entry for entry in cohort if not entry.is_tested and entry not in ready]
    if not growing:
        race.cohort, race.compared_at = race.cohort | {entry.method.name for entry in open_arms}, 0
        return cohort or list(open_arms)
    going = [entry for entry in growing if not _waits(race, entry)] or growing
    reached = min(marks(entry)[-1].steps for entry in going)
    if (
        len(going) > 2
        and reached > race.compared_at
        and (reached >= race.pace.first_steps or not affords_legs(race, _coming(race, going), entries))
    ):
        race.compared_at = reached  # one that had a longer first look does not keep the others from being compared
        race.cohort -= {entry.method.name for entry in going} - _better(race, going, entries, reached)
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


def _better(race: Race, growing: Sequence[Entry], entries: Sequence[Entry], steps: int) -> set[str]:
    """Name the better half by validation after ``steps``, the best context and the best of the others among them.

    Where the limit does not pay for the next steps of all of those, it is these two alone.
    """
    after = {entry.method.name: [one for one in marks(entry) if one.steps <= steps] for entry in growing}
    ranked = sorted(growing, key=lambda entry: _worth((after[entry.method.name] or marks(entry))[-1]), reverse=True)
    half, two = ranked[: (len(ranked) + 1) // 2], []
    for is_context in (True, False):
        two += [entry for entry in ranked if entry.method.is_context is is_context][:1]
    kept = [*half, *(entry for entry in two if entry not in half)]
    return {entry.method.name for entry in (kept if affords_legs(race, _coming(race, kept), entries) else two)}


def _coming(race: Race, growing: Sequence[Entry]) -> list[tuple[Entry, int]]:
    return [(one, next_mark(race, one.line.steps)) for one in growing if one.line is not None]


def _worth(mark: Mark) -> tuple[float, float]:
    return mark.score, -mark.nats
