"""What a race leaves open: the bounds of every arm that may still change the label, and the price of an answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from elicitable.diagnosis.tried import is_barely_tried, is_rising
from elicitable.diagnosis.verdict import best_of, is_outrun
from elicitable.race.outlook import ceiling, floor_of, longest, marks
from elicitable.race.results import arm_result, decision_of
from elicitable.race.stakes import as_looked_at, can_matter
from elicitable.race.timing import cooldown_of, spoken, step_seconds, test_seconds

if TYPE_CHECKING:
    from elicitable.diagnosis.verdict import Decision
    from elicitable.race.entry import Entry, Race
    from elicitable.values import ArmResult

GOOD_RUN = 128  # steps more that usually tell


def open_questions(race: Race, entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Return, for every arm that may still change the label, what is asked, its bounds and the seconds to an answer."""
    decision = decision_of(race, [arm_result(race, entry) for entry in entries])
    found = [_question(race, entry, entries, decision) for entry in entries if not entry.method.is_control]
    return [one for one in found if one is not None]


def _question(race: Race, entry: Entry, entries: Sequence[Entry], decision: Decision) -> dict[str, Any] | None:
    result = arm_result(race, entry)
    own = next((one for one in decision.compared if one.arm.method == entry.method.name), None)
    best = best_of(one.arm for one in decision.compared)
    has_more = entry.line is not None and entry.line.steps < longest(race)
    is_best_cut_off = own is not None and own.arm is best and not decision.answer and has_more and _may_rise(result)
    had_no_chance = best is not None and decision.is_open and is_outrun(result, best)
    is_worse = own is not None and own.standing == "worse" and not had_no_chance
    if entry.refusal or result.status in ("diverged", "failed") or is_worse:
        return None
    if own is not None and own.standing == "enough" and not is_best_cut_off:
        return None
    if own is None and result.status == "skipped" and entry.records:  # it cannot be done with this task
        return None
    if entry.is_racing and not entry.is_tested and not can_matter(race, entry, entries):
        return None
    low, high = _bounds(race, entry, entries, result, had_no_chance or _may_rise(result))
    if high is not None and best is not None and high < as_looked_at(best, best.mean or 0.0) - race.margin:
        return None
    answer = next((one.arm for one in decision.compared if one.arm.method == decision.answer), None)
    if answer is not None and not result.rung < answer.rung and (high or 0.0) <= (answer.mean or 0.0) + race.margin:
        return None
    asks = "suffice" if entry.method.is_context or result.mean is not None else "beat"
    if is_best_cut_off:
        asks = "reach"
    seconds = _seconds(race, entry)
    return {"method": entry.method.name, "asks": asks, "low": low, "high": high, "seconds": round(seconds, 1)}


def _may_rise(result: ArmResult) -> bool:
    """Say whether an arm was cut off so early, or rising so fast, that its test does not say what it can do."""
    return is_barely_tried(result) or is_rising(result)


def _bounds(
    race: Race, entry: Entry, entries: Sequence[Entry], result: ArmResult, may_rise: bool
) -> tuple[float | None, float | None]:
    """Return an arm's bounds: its interval; where it ``may_rise``, or has no test, as far as its curve may lead.

    Without a test the lower one is what its last look at the validation split says.
    """
    everyone = [mark for other in entries for mark in marks(other)]
    if result.mean is None:
        return floor_of(entry, race), ceiling(entry, race, everyone)
    if not may_rise:
        return result.low, result.high
    return result.low, max(result.high or 0.0, ceiling(entry, race, everyone))


def _seconds(race: Race, entry: Entry) -> float:
    """Return what an answer costs: a run twice as long with its way down, or another seed of one at its end."""
    if not entry.method.is_trained:
        return test_seconds(race, entry)
    done = entry.line.steps if entry.line is not None else 0
    steps = min(longest(race), max(2 * done, GOOD_RUN))
    more = steps - done or steps
    return (more + cooldown_of(race, steps)) * step_seconds(race, entry) + test_seconds(race, entry)


def said_to_be_open(
    arms: Sequence[ArmResult], questions: Sequence[dict[str, Any]], decision: Decision, has_ended: bool = False
) -> list[str]:
    """Say what is known and what is open, in a sentence; nothing where nothing is.

    ``has_ended`` where a race came to its own end: then time alone tells nothing more.
    """
    if not questions:
        return []
    known = max((arm for arm in arms if arm.mean is not None and not arm.is_control), key=_mean, default=None)
    known = next((arm for arm in arms if arm.method == decision.answer), known)
    beginning = f"So far {decision.label}: " if decision.answer else ""
    if known is not None:
        beginning += f"{known.method} reaches {known.mean:.2f} [{known.low:.2f}, {known.high:.2f}]; "
    alike: dict[str, list[str]] = {}
    for one in questions:
        alike.setdefault(one["asks"], []).append(one["method"])
    asked = ", ".join(_asked(asks, names, known) for asks, names in alike.items())
    needed = f"About {spoken(sum(one['seconds'] for one in questions))} more"
    if has_ended:
        needed = "The race came to its end; more --steps, --seeds or --test-items"
    return [f"{beginning}open: {asked}? {needed} would tell (the same --out goes on from here)."]


def _asked(asks: str, names: Sequence[str], known: ArmResult | None) -> str:
    does = f"{'do' if len(names) > 1 else 'does'} {', '.join(names)}"
    if known is None:
        return f"what {does} reach"
    if asks == "reach":
        return f"how far {does} get"
    return f"{does} suffice" if asks == "suffice" else f"{does} beat it"


def _mean(arm: ArmResult) -> float:
    return arm.mean or 0.0
