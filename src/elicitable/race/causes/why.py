"""Find out why each context of a race falls short of its best arm."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from elicitable.diagnosis.causes import REMEDIES, Diagnosis, Experiment, Kind, Why
from elicitable.diagnosis.explaining import closes, explain
from elicitable.diagnosis.verdict import is_near_the_floor
from elicitable.methods.catalog import PROBES
from elicitable.methods.unbounded import UnboundedContext
from elicitable.race.causes.capacity import TIMES, curves, in_subspaces, larger
from elicitable.race.causes.data import by_heart
from elicitable.race.causes.optimisation import longer, other_rates, other_starts, rate_of
from elicitable.race.causes.reading import judged_kindly, read_otherwise
from elicitable.race.causes.structure import any_context, halves, probed
from elicitable.race.causes.study import Study
from elicitable.race.entry import Entry, Race
from elicitable.race.results import arm_result, decision_of
from elicitable.values import ArmResult


def find_why(race: Race, entries: Sequence[Entry], seconds: float | None = None) -> Why | None:
    """Ask why contexts fall short of the best arm; None where none does.

    Of the trained contexts the one that comes nearest is asked about first. What holds for whatever a context may do
    (the unbounded context) then holds for the others too; a remedy is looked for in each.

    Args:
        race: that has run to its end. entries: its arms.
        seconds: that it takes at most; no experiment begins, or goes on, that would take longer. None runs all that
            are needed.
    """
    started = time.monotonic()
    arms = {entry.method.name: arm_result(race, entry) for entry in entries}
    judged = [arm for arm in arms.values() if arm.status == "ok" and arm.mean is not None and not arm.is_control]
    if not judged:
        race.warnings.append("--why has nothing to explain: no arm was tested")
        return None
    best = max(judged, key=lambda arm: arm.mean or 0.0)
    decision = decision_of(race, list(arms.values()))
    behind = {one.arm.method: one.mean for one in decision.compared if one.standing != "enough"}
    floor = race.marking.floor(race.test())
    study = Study.of(race, entries, best, seconds)
    is_nothing_good = is_near_the_floor(best, floor, race.marking.scorer.highest, race.margin)
    short = [
        entry
        for entry in entries
        if entry.method.is_context
        and arms[entry.method.name] in judged
        and (is_nothing_good or behind.get(entry.method.name, 0.0) > race.margin)
    ]
    if not short:
        race.warnings.append(f"--why has nothing to explain: no context of the race falls short of {best.method}")
        return None
    short.sort(key=lambda entry: -(arms[entry.method.name].mean or 0.0))
    is_open = decision.is_open
    try:
        _run(study, entries, short, floor, is_nothing_good, is_open)
    except KeyboardInterrupt:
        race.was_interrupted = study.was_interrupted = True
    answer = arms.get(decision.answer)
    asks_for_weights = not is_open and answer is not None and answer.rung.group in ("weights", "other")
    diagnoses = [_diagnosed(study, entry, entries, floor, is_open, asks_for_weights) for entry in short]
    base = min((arm.mean or 0.0 for arm in judged if arm.rung.group == "nothing"), default=floor)
    trained = [arms[entry.method.name] for entry in short if entry.method.is_trained]
    return Why(
        best=best.method,
        best_mean=best.mean or 0.0,
        diagnoses=tuple(diagnoses),
        experiments=tuple(study.found),
        curves=curves(study, trained, base),
        seconds=round(time.monotonic() - started, 1),
    )


def _run(
    study: Study,
    entries: Sequence[Entry],
    short: Sequence[Entry],
    floor: float,
    is_nothing_good: bool,
    is_open: bool,
) -> None:
    """Run the experiments, the cheapest remedies first, until what is asked about is explained."""
    chosen = sorted((entry for entry in entries if not entry.method.is_trained), key=lambda entry: entry.method.turn)
    gap = study.gap_of(arm_result(study.race, short[0]))
    read_otherwise(study, [entry for entry in chosen if not entry.refusal][:2], gap)
    judged_kindly(study, chosen, gap)
    if is_nothing_good and is_open:
        return  # what settles the verdict tells more than any experiment
    if is_nothing_good:
        weights = [entry for entry in entries if entry.method.rung.group == "weights" and entry.line is not None]
        for entry in sorted(weights, key=lambda entry: -entry.sized.numbers)[:1]:  # whoever can hold the most
            by_heart(study, entry)
        return
    trained = [entry for entry in short if entry.method.is_trained and entry.line is not None]
    is_possible = _a_context_suffices(study, entries, short)
    for nth, entry in enumerate(trained):
        if _remedied(study, entry, floor):
            _put_anywhere(study, entry, floor)
        elif nth == 0 and not is_possible:
            _ask_for_structure(study, entry)
            found = _so_far(study, entry, floor)
            if found.cause == "structure" and found.is_sure:
                return  # what no context of any length can do, the others cannot


def _so_far(study: Study, entry: Entry, floor: float) -> Diagnosis:
    arm = arm_result(study.race, entry)
    highest = study.race.marking.scorer.highest
    return explain(arm, study.best, study.found, margin=study.race.margin, floor=floor, highest=highest)


def _remedied(study: Study, entry: Entry, floor: float) -> bool:
    """Look for a remedy of one context, the one that costs a person least first; whether one was found.

    Another reading that closes the gap only as far as noise goes does not end the search.
    """
    remedies = (
        lambda: other_rates(study, entry),
        lambda: longer(study, entry),
        lambda: other_starts(study, entry, rate_of(study, entry)),
        *(lambda times=times: larger(study, entry, times, rate_of(study, entry)) for times in TIMES),
    )
    for remedy in remedies:
        remedy()
        found = _so_far(study, entry, floor)
        is_own = found.remedy is not None and found.remedy.of == entry.method.name
        if found.remedy is not None and (found.is_sure or (is_own and closes(found.remedy, study.race.margin))):
            return True
    return found.remedy is not None and closes(found.remedy, study.race.margin)


def _put_anywhere(study: Study, entry: Entry, floor: float) -> None:
    """Where more virtual tokens are enough, ask whether as many numbers do wherever they are put."""
    found = _so_far(study, entry, floor)
    if found.cause == "capacity" and found.remedy is not None and not _asked(study, "subspace"):
        (subspace,) = (probe for probe in PROBES if probe.probe == "subspace")
        in_subspaces(study, subspace, (entry.sized.numbers, found.remedy.numbers_trained))


def _asked(study: Study, kind: Kind) -> bool:
    return any(one.kind == kind for one in study.found)


def _ask_for_structure(study: Study, entry: Entry) -> None:
    """Ask whether no context can do it; then which weights do, and how many numbers do wherever they are put."""
    probes = {probe.probe: [one for one in PROBES if one.probe == probe.probe] for probe in PROBES}
    (unbounded,), (frozen,) = probes["unbounded"], probes["frozen-patterns"]
    assert isinstance(unbounded, UnboundedContext)
    if any_context(study, entry, unbounded):
        return  # so nothing about the weights is needed to say why
    whole = probed(study, frozen)
    for part in probes["weights"]:
        probed(study, part)
    if not whole.reason and not whole.is_enough:
        halves(study, frozen)
    numbers = entry.sized.numbers
    in_subspaces(study, probes["subspace"][0], (numbers, *(times * numbers for times in TIMES)))


def _a_context_suffices(study: Study, entries: Sequence[Entry], short: Sequence[Entry]) -> bool:
    """Say whether some context of the race does not fall short, be it the empty one."""
    names = {entry.method.name for entry in short}
    return study.best.rung.group == "nothing" or any(
        entry.method.is_context and entry.method.name not in names and arm_result(study.race, entry).status == "ok"
        for entry in entries
    )


def _diagnosed(
    study: Study, entry: Entry, entries: Sequence[Entry], floor: float, is_open: bool, asks_for_weights: bool = False
) -> Diagnosis:
    """Explain one context; for one that is chosen, what a context of the race does that was trained is a remedy."""
    arm, found = arm_result(study.race, entry), list(study.found)
    enough = _sufficient(study, entry, entries)
    if enough is not None:
        found.append(enough)
    ran = [arm_result(study.race, other) for other in entries if other.method.rung.group == "weights"]
    weights = [one for one in ran if one.status == "ok"]
    return explain(
        arm,
        study.best,
        found,
        margin=study.race.margin,
        floor=floor,
        highest=study.race.marking.scorer.highest,
        had_weights=bool(weights),
        is_open=is_open,
        was_asked_all=not study.was_interrupted and not _was_out_of_time(study, entry),
        weights=weights,
        can_be_another=enough is not None and _can_be(study, entry, enough, entries),
        asks_for_weights=asks_for_weights,
    )


def _can_be(study: Study, entry: Entry, another: Experiment, entries: Sequence[Entry]) -> bool:
    """Say whether the context ``another`` is one that the method of ``entry`` can be, if it has as many keys.

    A prefix can be any context that comes before it on the ladder, and a soft prompt any text: but not one that differs
    from item to item, or asks otherwise behind the item too.
    """
    names = (another.what, another.what.partition(",")[0])
    other = next((one for one in entries if one.method.name in names), None)
    if other is None or other.method.rung.depth >= entry.method.rung.depth or not entry.method.is_trained:
        return False
    if other.method.is_trained:
        return True
    chosen = other.method.from_setting(study.race.model, other.records[0].setting, study.race.layouts[0])
    return not chosen.asks_otherwise


def _was_out_of_time(study: Study, entry: Entry) -> bool:
    """Say whether a remedy of a context was not asked for, or not to its end, as the time was up."""
    own = [one for one in study.found if one.of in ("", entry.method.name) and one.kind in REMEDIES]
    return any(one.had_no_time for one in own)


def _sufficient(study: Study, entry: Entry, entries: Sequence[Entry]) -> Experiment | None:
    """Return the least invasive context of the race that does not fall short, seen from one that does.

    Where there is none, one that an experiment made enough; then one that is within the margin in the mean, by itself
    or by an experiment.
    """
    own = entry.method.name
    gap = study.gap_of(arm_result(study.race, entry))
    contexts = [other for other in entries if other.method.is_context and other is not entry]
    arms: list[ArmResult] = [
        study.best if other.method.name == study.best.method else arm_result(study.race, other) for other in contexts
    ]
    judged = sorted((one for one in arms if one.mean is not None), key=lambda one: one.rung.depth)
    compared = [study.compared(own, "context", arm.method, arm, gap) for arm in judged]
    enough = [one for one in compared if one.is_enough]
    remedies = [one for one in study.found if one.of not in ("", own) and one.kind in REMEDIES]
    said = [replace(one, of=own, kind="context", what=f"{one.of}, {one.what},", setting={}) for one in remedies]
    mended = [one for one in said if one.is_enough]
    near = [one for one in (*compared, *said) if closes(one, study.race.margin)]
    return next(iter([*enough, *mended, *near]), None)
