"""What a race costs on this machine, and whether the time limit pays for the next piece of it.

Before the start the bare model reads a few items. That tells what every arm needs, what the limit pays for and what
would be a fair minimum; it is said, and kept with the trials. From then on every arm's own steps and tests are its
measure. Every decision that hangs on the clock is kept under the limit that it was made for. What was trained is never
among the things that cost time: a longer limit in the same folder goes on from there.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from elicitable.diagnosis.tried import fewest_steps
from elicitable.diagnosis.verdict import OWED
from elicitable.errors import BudgetError
from elicitable.methods.base import Adaptation
from elicitable.models.speed.precision import autocast
from elicitable.race.line import WRITTEN_A_SECOND, ending_of, leg_of
from elicitable.rng import generator
from elicitable.training.batches import Reading, stream
from elicitable.training.evaluate import answer_logits, evaluate
from elicitable.training.loop import prepared

if TYPE_CHECKING:
    from elicitable.methods.base import Sized
    from elicitable.race.entry import Entry, Race
    from elicitable.race.line import Line
    from elicitable.race.trial import Trial
    from elicitable.records.trial import TrialRecord

FEWEST_STEPS = 4  # of a run that is worth starting
FAIR_STEPS = 24  # of every arm, in a race that is short but fair: more than the verdict calls barely trained
FEWEST_ITEMS = {"test": 32, "validation": 16}
FEWEST_ROWS = 4  # of a batch that is trained on
QUICKER = 0.85  # times a step, at most, for one on half of its rows to be worth it
TEST_SHARE, VALIDATION_SHARE = 0.25, 0.2  # of the limit, at most
CHOICE_SHARE = 0.05  # of the limit, for each arm that is chosen and not trained
LOOK_SHARE = 0.3  # of what is left after them, for the first look at all arms
STEP_PASSES = 3.0  # a step on a batch costs about as much as so many passes over it
BESIDE_READS = 48  # items read, about, for what else a test measures: side effects, prefix mass, a few answers
WINNER_READS = 100  # items read, about, for what a winner's folder says of it
LOOKING_READS = 200  # items read, about, for what the report says of the context or of the winner's inside
OVERDRAWN = 1.05  # times the limit: when there is no look at the winner any more
LEAST_DOWN = 0.5  # of a way down, which one arm's whole way down leaves to the others
COOLDOWN_LOOKS = 3  # at the validation split, on a way down that is not short
VALIDATIONS = 6  # looks at the validation split that an arm takes, about


def opening(race: Race, sizes: Sequence[Sized]) -> dict[str, Any]:
    """Say what all arms need here, and how many test and validation items the limit pays for.

    Raises:
        BudgetError: the limit is too short for the first steps of all arms; said before anything is run.
    """
    item, step = _item_seconds(race), STEP_PASSES * _pass_seconds(race, race.pace.batch)
    race.item_seconds_now, race.closing_reads = item, WINNER_READS + LOOKING_READS
    race.writing_seconds = _writing(race, sizes)
    trained = trained_among(sizes)
    test = race.held_out("test", race.pace.test_items)
    said = {
        "item_seconds": item,
        "closing_reads": race.closing_reads,
        "writing_seconds": race.writing_seconds,
        "test": test,
        "of": test,
        "validation": race.pace.validation_items,
        "rows": race.pace.batch,
    }
    limited = {} if race.time_limit is None else _within_the_limit(race, sizes, trained, said, step)
    price = _price(race, len(trained), len(sizes), step, item, said)
    if limited and limited["steps_paid_for"] < FAIR_STEPS:
        said["closing_reads"] = WINNER_READS
    return said | {"price": {"step_seconds": round(step, 7), **price, **limited}}


def trained_among(sizes: Iterable[Sized]) -> list[Sized]:
    """Return those that are trained and take part in the verdict."""
    return [one for one in sizes if one.method.is_trained and one.size and not one.method.is_control]


def _within_the_limit(
    race: Race, sizes: Sequence[Sized], trained: Sequence[Sized], said: dict[str, Any], step: float
) -> dict[str, Any]:
    """Cut the items and rows that are ``said`` down to what the limit pays for; what it leaves to one arm's training.

    Raises:
        BudgetError: it is too short.
    """
    item, arms, left = float(said["item_seconds"]), len(sizes), race.left() or 0.0
    fewest = min(FEWEST_ITEMS["test"], said["test"]) if race.is_test_free else said["test"]
    if race.is_test_free:
        said["test"] = min(said["test"], max(fewest, int(TEST_SHARE * left / (arms * item))))
    paid = int(VALIDATION_SHARE * left / (max(1, len(trained)) * VALIDATIONS * item))
    said["validation"] = min(race.pace.validation_items, max(FEWEST_ITEMS["validation"], paid))
    tests = arms * _reads_of_a_test(race, said["test"], said["validation"]) * item
    seconds = max(0.0, left - tests) / max(1, len(trained))
    if trained:
        said["rows"], step = _rows_of_a_step(race, step, seconds)
    need, left = len(trained) * FEWEST_STEPS * step, race.left() or 0.0
    need += item * (arms * fewest + FEWEST_ITEMS["validation"])
    if left < need:
        raise _too_short(race, (trained or sizes)[0], need, left, arms)
    return {
        "step_seconds": round(step, 7),
        "limit_seconds": race.time_limit,
        "steps_paid_for": int(seconds / step),
        "rows": said["rows"],
    }


def _rows_of_a_step(race: Race, step: float, seconds: float) -> tuple[int, float]:
    """Return how many rows the limit lets a batch have, and the seconds of a step on them.

    From as many rows an arm learns far more in many steps than in few (docs/log.md). So a batch has ever half as many,
    down to :data:`FEWEST_ROWS`, while the ``seconds`` give an arm no fair number of steps, and less is quicker.
    """
    rows = race.pace.batch
    while FAIR_STEPS * step > seconds and rows >= 2 * FEWEST_ROWS:
        half = STEP_PASSES * _pass_seconds(race, rows // 2)
        if half > QUICKER * step:
            break
        rows, step = rows // 2, half
    return rows, step


def _price(race: Race, trained: int, arms: int, step: float, item: float, said: dict[str, Any]) -> dict[str, Any]:
    """Return what was said before the start: seconds that everything needs, and a fair minimum."""
    tests = arms * _reads_of_a_test(race, said["test"], said["validation"]) * item
    whole = min(race.pace.steps, 2 * OWED) + 6 * race.pace.first_steps
    everything = trained * whole * step + (race.seeds - 1) * 2 * whole * step + tests
    fair = (trained * FAIR_STEPS * step + tests + trained * 2 * said["validation"] * item) * 1.2 + 5.0
    return {
        "everything_seconds": round(everything, 1),
        "fair_minimum_seconds": round(fair, 1),
        "arms": arms,
        "test_items": said["test"],
    }


def said_of(price: dict[str, Any]) -> str:
    """Say the price of a race in a sentence.

    >>> said_of({"everything_seconds": 5400.0, "fair_minimum_seconds": 100.0, "arms": 9, "step_seconds": 0.5})
    'Price: all 9 arms to the end take about 1 h 30 min on this machine; 1 min 40 s would be a fair minimum.'
    """
    arms = "the one arm" if price["arms"] == 1 else f"all {price['arms']} arms"
    text = (
        f"Price: {arms} to the end {'takes' if price['arms'] == 1 else 'take'} about "
        f"{spoken(price['everything_seconds'])} on this "
        f"machine; {spoken(price['fair_minimum_seconds'])} would be a fair minimum"
    )
    if "limit_seconds" not in price:
        return f"{text}."
    return (
        f"{text}. The limit of {spoken(price['limit_seconds'])} pays for about {price['steps_paid_for']:,} steps of "
        f"{price['rows']} rows an arm and {price['test_items']:,} test items."
    )


def spoken(seconds: float) -> str:
    """Write a duration as it is said, of at least a second.

    >>> spoken(0.2), spoken(59.6), spoken(100), spoken(7_230)
    ('1 s', '1 min', '1 min 40 s', '2 h 0 min')
    """
    whole = max(1, round(seconds))
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")


def _too_short(race: Race, sized: Sized, need: float, has: float, arms: int) -> BudgetError:
    spent, limit = time.monotonic() - race.started, race.time_limit or 0.0
    return BudgetError(
        f"a time limit of {limit:g} s is too short for the first steps of all arms ({arms}, {sized.method.name} among "
        f"them): on {race.model.name} they need about {max(need, 0.1):.3g} s here and have {max(0.0, has):.3g} s "
        f"(loading and reading took {spent:.0f} s). Give at least {spoken(math.ceil(limit - has + need))}, or fewer "
        "--method or --test-items."
    )


def _item_seconds(race: Race) -> float:
    """Measure the seconds that the bare model takes for an item."""
    items = race.task.held_out("validation", 16)
    reading = _reading(race)
    with torch.no_grad(), prepared(race.model, Adaptation()) as refresh:
        refresh()
        evaluate(race.model, items[:2], race.task.labels(), reading)  # what is set up at first use
        started = time.monotonic()
        evaluate(race.model, items, race.task.labels(), reading)
    return max(1e-7, (time.monotonic() - started) / len(items))


def _pass_seconds(race: Race, rows: int) -> float:
    """Measure the seconds of the bare model's pass over a batch of so many rows that is trained on."""
    drawn = stream(race.model, race.task, rows, generator(race.seed, "price"), _reading(race))
    parts = next(iter(drawn))
    with torch.no_grad(), prepared(race.model, Adaptation()) as refresh, autocast(race.model):
        refresh()
        answer_logits(race.model, parts[0])  # what is set up at first use
        started = time.monotonic()
        for part in parts:
            float(answer_logits(race.model, part).sum())  # a GPU is waited for
    return max(1e-7, time.monotonic() - started)


def _reading(race: Race) -> Reading:
    return Reading(max(16, race.pace.batch), race.pace.max_tokens, race.layouts[0])


def _reads_of_a_test(race: Race, test: int, validation: int) -> int:
    """Return how many items are read, about, for a test on so many: those that its rule is chosen on, too."""
    known = race.held_out("validation", validation) if race.task.labels() is not None else 0
    return test + known + BESIDE_READS


def _reads_of_this_test(race: Race) -> int:
    return _reads_of_a_test(race, race.held_out("test", race.pace.test_items), race.pace.validation_items)


def _writing(race: Race, sizes: Sequence[Sized]) -> float:
    """Return the seconds, about, that it takes to write the largest winner there may be."""
    is_whole = any(size.method.keeps_state is False and size.method.is_trained for size in sizes)
    weights = sum(weight.numel() * weight.element_size() for weight in race.model.hf.parameters())
    return weights / WRITTEN_A_SECOND if is_whole and race.store.folder is not None else 0.0


def note_test(race: Race, record: TrialRecord) -> None:
    """Take note of what a test took: the next ones, and what comes after the race, will take as long an item."""
    seconds = record.timing.test_seconds or 0.0
    race.tested.append(seconds)
    race.item_seconds_now = max(race.item_seconds, seconds / _reads_of_this_test(race))


def is_too_late_to_look(race: Race) -> bool:
    """Say whether looking at the winner would take the race beyond its limit by more than a twentieth."""
    spent = time.monotonic() - race.started
    return spent + LOOKING_READS * race.item_seconds_now > OVERDRAWN * (race.time_limit or math.inf)


def step_seconds(race: Race, entry: Entry) -> float:
    """Return the seconds of one of the arm's steps: its own, or what the bare model's passes say."""
    own = entry.line.step_seconds() if entry.line is not None else None
    return own or float(race.price["step_seconds"])


def test_seconds(race: Race, entry: Entry) -> float:
    """Return the seconds of the arm's test: the longest of its own, the latest of another arm, and the bare model's.

    The latest one tells how busy the machine is now.
    """
    known = [record.timing.test_seconds or 0.0 for record in entry.records]
    return max([race.item_seconds * _reads_of_this_test(race), *race.tested[-1:], *known])


def cooldown_of(race: Race, steps: int) -> int:
    """Return the steps of the way down from ``steps``: half as many again."""
    return min(max(race.pace.finish if race.time_limit is None else 1, steps // 2), max(0, race.pace.steps - steps))


def is_there(race: Race, trial: Trial) -> bool:
    """Say whether the trial is in the store, so that it costs nothing."""
    known = race.store.get(trial.spec(race.model, race.task))
    return known is not None and known.get("status") != "failed"


def affords_leg(race: Race, entry: Entry, steps: int, entries: Sequence[Entry], is_again: bool = False) -> bool:
    """Say whether the limit pays for training to ``steps``, the way down, the test, and what others are owed.

    What was refused beside others ``is_again`` asked for when they have ended.
    """
    line = entry.line
    assert line is not None
    trial = leg_of(race, line, steps)
    step = step_seconds(race, entry)
    cost = (steps - line.steps + cooldown_of(race, steps)) * step + test_seconds(race, entry)
    return _affords(race, trial, cost, entries, entry, is_again=is_again)


def affords_cooldown(race: Race, entry: Entry, line: Line, cooldown: int, entries: Sequence[Entry]) -> bool:
    """Say whether the limit pays for the way down and the test beside the tests of the others."""
    trial = ending_of(race, line, cooldown)
    looks = COOLDOWN_LOOKS if trial.plan.evaluate_every <= cooldown else min(1, cooldown)
    looking = looks * race.pace.validation_items * race.item_seconds
    cost = cooldown * step_seconds(race, entry) + looking + test_seconds(race, entry)
    return _affords(race, trial, cost, entries, entry, share=LEAST_DOWN)


def affords_seed(
    race: Race, entry: Entry, steps: int, cooldown: int, seed: int, entries: Sequence[Entry], taken: int = 0
) -> bool:
    """Say whether the limit pays for one more seed of an arm up to ``steps`` steps, of which it has ``taken`` some."""
    cost = (steps - taken + cooldown) * step_seconds(race, entry) + test_seconds(race, entry)
    return _pays(race, f"time for seed {seed} of {entry.method.identity} at {steps}", cost, entries, entry)


def affords_choice(race: Race, entry: Entry, seed: int, entries: Sequence[Entry]) -> bool:
    """Say whether the limit pays for choosing once more, by another seed, and for the test: as long as the first."""
    cost = max((record.timing.seconds for record in entry.records), default=0.0)
    return _pays(race, f"time for seed {seed} of {entry.method.identity}", cost, entries, entry)


def affords_look(race: Race, entry: Entry, entries: Sequence[Entry]) -> bool:
    """Say whether the limit pays for the first steps of an arm, and a look at the validation split after them."""
    cost = FEWEST_STEPS * step_seconds(race, entry) + race.pace.look_items * race.item_seconds
    return _pays(race, f"time for a first look at {entry.method.identity}", cost, entries, entry)


def affords_starts(race: Race, entry: Entry, steps: int, entries: Sequence[Entry]) -> bool:
    """Say whether the limit pays for so many steps from an arm's other starts, beside what all arms are owed."""
    what = f"time for {steps} steps from other starts of {entry.method.identity}"
    return _pays(race, what, steps * step_seconds(race, entry), entries, None)


def affords_legs(race: Race, growing: Sequence[tuple[Entry, int]], entries: Sequence[Entry]) -> bool:
    """Say whether the limit pays for training each of some arms to its next mark, beside what all arms are owed."""
    cost = sum((steps - one.line.steps) * step_seconds(race, one) for one, steps in growing if one.line is not None)
    named = ", ".join(f"{one.method.identity} at {steps}" for one, steps in growing)
    return _pays(race, f"time for {named}", cost, entries, None)


def _pays(race: Race, what: str, cost: float, entries: Sequence[Entry], but: Entry | None, share: float = 1.0) -> bool:
    """Say whether the limit pays for ``cost`` seconds beside what arms are owed; kept as the decision ``what``."""
    if race.time_limit is None:
        return True
    return bool(race.kept(what, lambda: cost + owed_seconds(race, entries, but, share) <= (race.left() or 0.0)))


def _affords(
    race: Race,
    trial: Trial,
    cost: float,
    entries: Sequence[Entry],
    but: Entry,
    share: float = 1.0,
    is_again: bool = False,
) -> bool:
    """Say whether the limit pays for a trial; one that is there already costs nothing."""
    if race.time_limit is None or is_there(race, trial):
        return True
    method, plan = trial.method.identity, trial.plan
    what = f"time for {method} at {plan.learning_rate:g}, {plan.steps} steps, cooldown {plan.cooldown:.4f}"
    what += ", again" if is_again else ""
    return _pays(race, what, cost, entries, but, share)


def owed_seconds(race: Race, entries: Sequence[Entry], but: Entry | None, share: float = 1.0) -> float:
    """Return the seconds that the other arms still need to end where they stand: ``share`` of a way down, and a test.

    That goes for arms that are no longer trained on, too, but for those that were left within the first steps: without
    its way down a run is worth far less than it could be. Controls are owed nothing. Workers share what there is to do.
    """
    others = [entry for entry in entries if entry is not but and entry.is_racing and not entry.is_tested]
    tests = sum(test_seconds(race, entry) for entry in others)
    growing = [one for one in others if _comes_down(race, one)]
    ways = sum(_owed_way(race, one.line.steps) * step_seconds(race, one) for one in growing if one.line is not None)
    return (tests + share * ways) / race.hands


def _comes_down(race: Race, entry: Entry) -> bool:
    """Say whether an arm is brought down before its test: not one that others were trained on in place of."""
    has_come_far = entry.line is not None and entry.line.steps >= race.pace.first_steps
    return has_come_far or not race.cohort or entry.method.name in race.cohort


def _owed_way(race: Race, steps: int) -> int:
    """Return the steps of the way down that an arm is owed.

    Within the first round they are those that make it more than barely trained: what is left of the limit tells more
    where the arms are trained on that may answer.
    """
    whole = cooldown_of(race, steps)
    return whole if steps > race.pace.first_steps else min(whole, max(1, fewest_steps(race.share_of_batch) - steps))
