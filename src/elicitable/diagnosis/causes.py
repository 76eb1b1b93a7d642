"""Say why a context falls short, from experiments that were measured as the arms of the race are.

Each experiment changes one thing about a context, or about how the task is read, and is compared in pairs with the best
arm. What closes the gap is the cause, and the least costly remedy is asked for first:

    reading       another template, layout or rule lets contexts do it without any training
    data          no way of changing the weights does better than always giving one answer either
    optimisation  the same context, trained longer, at another rate, or from another start, is enough
    capacity      a larger context of the same kind is enough
    structure     none of these is, while weights at the same budget are; where even the unbounded context, which does
                  more than any context of any length, falls short, no context will do
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from elicitable.diagnosis.sizes import SizeCurve
from elicitable.diagnosis.verdict import Comparison, is_near_the_floor
from elicitable.values import ArmResult

Cause = Literal["reading", "data", "optimisation", "capacity", "structure", "unknown"]
Kind = Literal[
    "reading",
    "by-heart",
    "context",
    "rate",
    "longer",
    "start",
    "size",
    "unbounded",
    "frozen-patterns",
    "weights",
    "subspace",
]
REMEDIES: dict[Kind, Cause] = {
    "reading": "reading",
    "rate": "optimisation",
    "longer": "optimisation",
    "start": "optimisation",
    "size": "capacity",
}
CHEAPEST_FIRST: tuple[Cause, ...] = ("reading", "optimisation", "capacity")
HALF = 0.5  # of the gap: what closes so much explains most of it
STARTS = 2  # of the unbounded context, that both have to fail: from the context, and from nothing
BY_HEART = 0.9  # share of a few rows that is right after they were trained on


@dataclass(frozen=True, slots=True)
class Experiment:
    """Hold what one change led to.

    ``of`` is the context that it is about; it is empty where it is about the task. ``behind`` is the mean of (best −
    this) with its limits, in pairs over test items; it is empty where the experiment was scored on other items
    (``by-heart``), and where it did not run: then ``reason`` says why. ``setting`` is what a person gives to get the
    same; ``closed`` is the share of the context's gap that it closes; ``stopped`` is why its training ended ("solved",
    "plateau", "steps").
    """

    of: str
    kind: Kind
    what: str
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    behind: tuple[float, ...] = ()
    is_enough: bool = False
    is_worse: bool = False
    closed: float | None = None
    numbers_trained: int = 0
    steps: int = 0
    seconds: float = 0.0
    setting: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    stopped: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Hold why one context falls short: the cause, how sure, what is seen, what it means, and what to do next.

    ``remedy`` is the experiment that closes the gap, where one does.
    """

    of: str
    cause: Cause
    is_sure: bool
    sentences: tuple[str, ...]
    advice: str
    remedy: Experiment | None = None


@dataclass(frozen=True, slots=True)
class Why:
    """Hold the causes of a verdict and everything that they rest on."""

    best: str
    best_mean: float
    diagnoses: tuple[Diagnosis, ...]
    experiments: tuple[Experiment, ...]
    curves: tuple[SizeCurve, ...] = ()
    seconds: float = 0.0


def experiment_of(of: str, kind: Kind, what: str, compared: Comparison, gap: float, **more: object) -> Experiment:
    """Return the experiment whose arm was compared with the best; ``gap`` is that of the context it is about."""
    arm = compared.arm
    return Experiment(
        of=of,
        kind=kind,
        what=what,
        mean=arm.mean,
        low=arm.low,
        high=arm.high,
        behind=(compared.mean, compared.low, compared.high),
        is_enough=compared.standing == "enough",
        is_worse=compared.low > 0 and compared.standing != "enough",
        closed=(gap - compared.mean) / gap if gap > 0 else None,
        numbers_trained=arm.budget.numbers_trained,
        steps=arm.steps,
        seconds=arm.seconds,
        stopped=arm.stopped,
        **more,  # type: ignore[arg-type]
    )


def explain(
    arm: ArmResult,
    best: ArmResult,
    found: Sequence[Experiment],
    *,
    margin: float,
    floor: float,
    had_weights: bool = True,
    is_open: bool = False,
    highest: float = 1.0,
) -> Diagnosis:
    """Name the cause for which ``arm`` falls short of ``best``, from what was ``found`` about it and the task.

    ``floor`` is what always giving one answer scores, ``highest`` what can be scored; ``had_weights`` says whether a
    method that changes the weights ran through, ``is_open`` whether the verdict itself is open: for more training, or
    for more test items.
    """
    gap = (best.mean or 0.0) - (arm.mean or 0.0)
    ran = [_seen_from(one, gap) for one in found if one.of in ("", arm.method) and not one.reason]
    if is_near_the_floor(best, floor, highest, margin):
        better = [one for one in ran if one.kind == "reading" and one.behind and one.behind[2] < -margin]
        if better:
            return _remedied(arm, best, "reading", max(better, key=_worth))
        if not had_weights:
            return _no_weights(arm)
        return _still_open(arm, best, floor) if is_open else _data(arm, best, ran, floor)
    for cause in CHEAPEST_FIRST:
        remedies = [one for one in ran if REMEDIES.get(one.kind) == cause]
        closing = [one for one in remedies if _closes(one, margin)]
        if closing:
            return _remedied(arm, best, cause, max(closing, key=_worth))
    if best.rung.group == "nothing":
        return _worse_than_nothing(arm, best)
    another = next((one for one in ran if one.kind == "context"), None)
    if another is not None:
        return _another_context(arm, another, ran)
    structure = _structure(arm, best, ran, margin)
    if structure.cause == "structure" and structure.is_sure:
        return structure
    for cause in CHEAPEST_FIRST:
        partly = [one for one in ran if REMEDIES.get(one.kind) == cause and (one.closed or 0.0) >= HALF]
        if partly:
            return _remedied(arm, best, cause, max(partly, key=_worth), is_sure=False)
    return structure


def _seen_from(one: Experiment, gap: float) -> Experiment:
    """Return an experiment with the share of a context's ``gap`` that it closes, if it is about no other one's."""
    if one.of or not one.behind or gap <= 0:
        return one
    return replace(one, closed=(gap - one.behind[0]) / gap)


def _closes(one: Experiment, margin: float) -> bool:
    return one.is_enough or (bool(one.behind) and one.behind[0] <= margin)


def _worth(one: Experiment) -> float:
    return one.mean if one.mean is not None else -math.inf


def _data(arm: ArmResult, best: ArmResult, ran: Sequence[Experiment], floor: float) -> Diagnosis:
    learned = next((one for one in ran if one.kind == "by-heart" and one.mean is not None), None)
    seen = (
        f"Changing the weights does not help either: the best arm, {best.method}, scores {best.mean:.2f}, and always "
        f"giving the most common answer {floor:.2f}."
    )
    if learned is None or learned.mean is None:
        meant = "So what is missing is not a stronger method but something in the data that tells the answer."
    elif learned.mean >= BY_HEART:
        meant = (
            f"It learns a few rows by heart ({learned.mean:.2f} of them right), and nothing of that holds for new "
            "rows: the answers do not follow from what is read, or there are too few rows to see how."
        )
    else:
        meant = (
            f"Not even a few rows are learned by heart ({learned.mean:.2f} of them right), so the same text has "
            "several answers, or this model is too small for the task."
        )
    advice = "Read twenty rows and answer them yourself; where you cannot, no method will. Then look for more rows."
    return Diagnosis(arm.method, "data", learned is not None and learned.mean is not None, (seen, meant), advice)


def _still_open(arm: ArmResult, best: ArmResult, floor: float) -> Diagnosis:
    seen = (
        f"Nothing is seen yet to beat always giving the most common answer ({floor:.2f}); the best arm, {best.method}, "
        f"scores {best.mean:.2f}."
    )
    meant = "But the verdict itself is still open, and says what would settle it; until then nothing follows from that."
    return Diagnosis(arm.method, "unknown", False, (seen, meant), "Settle the verdict first: what ran is kept.")


def _no_weights(arm: ArmResult) -> Diagnosis:
    seen = f"{arm.method} scores {arm.mean:.2f}, and nothing that ran beats always giving one answer."
    meant = "No method that changes the weights ran through, so the data cannot be told from the contexts."
    return Diagnosis(arm.method, "unknown", False, (seen, meant), "Race a method that changes the weights as well.")


_MEANT: dict[Cause, str] = {
    "reading": "So the model can do it, and was asked in a way that hides it: mend how the task is read before any "
    "training.",
    "optimisation": "So the context that is needed exists at this size, and the search for it stopped short of it.",
    "capacity": "So a context does it, and this one has too few virtual tokens to hold what the task needs.",
}
_ADVICE: dict[Cause, str] = {
    "reading": "Run the verdict again, read in that way.",
    "optimisation": "Train it so; the budget can stay.",
    "capacity": "Give it that many virtual tokens; every request then pays for as many keys more in each layer.",
}


def _remedied(arm: ArmResult, best: ArmResult, cause: Cause, by: Experiment, is_sure: bool = True) -> Diagnosis:
    share = "the gap" if by.closed is None else f"{min(1.0, max(0.0, by.closed)):.0%} of its gap to {best.method}"
    closes = f"closes {share}" if is_sure else f"is the largest part of what was found to close, {share}"
    changed = f"{by.what}, it" if by.of == arm.method else by.what
    seen = f"{arm.method} scores {arm.mean:.2f}; {changed} scores {by.mean:.2f}: that {closes}."
    return Diagnosis(arm.method, cause, is_sure, (seen, _MEANT[cause]), _ADVICE[cause], by)


def _worse_than_nothing(arm: ArmResult, best: ArmResult) -> Diagnosis:
    """Explain a context that falls short of the model as it is, which is what an empty one leaves."""
    seen = f"{arm.method} scores {arm.mean:.2f}; {best.method}, with no context at all, scores {best.mean:.2f}."
    meant = (
        "An empty context would do, so a good one exists: what was searched or trained here suits the rows that it saw "
        "and not new ones."
    )
    return Diagnosis(arm.method, "optimisation", False, (seen, meant), "Use the model as it is.")


def _another_context(arm: ArmResult, another: Experiment, ran: Sequence[Experiment]) -> Diagnosis:
    """Explain a context that falls short where another one, ``another``, does not."""
    if arm.learning_rate is None:
        none = f"of the {arm.effort.candidates} candidates that were tried, none" if arm.effort else "nothing tried"
        seen = f"{arm.method} scores {arm.mean:.2f}: {none} opens what {another.what} ({another.mean:.2f}) opens."
        meant = (
            "The skill is there and a context reaches it, so what is missing is a text that says it, not a training."
        )
        advice = (
            f"Use {another.what}, or let the search go on (--search-passes), or give a text of your own (--prompt)."
        )
        return Diagnosis(arm.method, "optimisation", False, (seen, meant), advice, another)
    tried = [one for one in ran if one.of == arm.method and one.kind in REMEDIES]
    if not tried:
        seen = f"{arm.method} scores {arm.mean:.2f}; {another.what} scores {another.mean:.2f}."
        meant = "Both are contexts, so the skill is there; why this kind does not reach it was not asked."
        return Diagnosis(arm.method, "unknown", False, (seen, meant), f"Use {another.what}.", another)
    top = max(tried, key=_worth)
    seen = (
        f"{arm.method} scores {arm.mean:.2f} and stays behind whatever was changed about it (at most {top.mean:.2f}: "
        f"{top.what}); {another.what} scores {another.mean:.2f}."
    )
    meant = "Both are contexts; what this kind can put into the deeper layers is not enough here, or too hard to find."
    return Diagnosis(arm.method, "structure", False, (seen, meant), f"Use {another.what}.", another)


def is_open_to_contexts(unbounded: Experiment, arm: ArmResult, best: ArmResult, margin: float) -> bool:
    """Say whether the unbounded context rules nothing out: it is enough, or half-way there and still gets better."""
    if unbounded.mean is None:
        return False
    share = (unbounded.mean - (arm.mean or 0.0)) / max((best.mean or 0.0) - (arm.mean or 0.0), 1e-9)
    return _closes(unbounded, margin) or (share >= HALF and unbounded.stopped != "plateau")


def _structure(arm: ArmResult, best: ArmResult, ran: Sequence[Experiment], margin: float) -> Diagnosis:
    tries = [one for one in ran if one.kind == "unbounded" and one.mean is not None]
    unbounded = max(tries, key=_worth, default=None)
    tried = [one for one in ran if one.of == arm.method and one.kind in REMEDIES]
    sentences = [_nothing_helped(arm, best, tried)]
    if unbounded is not None and is_open_to_contexts(unbounded, arm, best, margin):
        rises = "" if _closes(unbounded, margin) else " and still gets better"
        sentences.append(
            f"The unbounded context scores {unbounded.mean:.2f}{rises}, so nothing in the form of a context rules the "
            "task out; none that was trained here comes near it."
        )
        nearest = max(tried, key=_worth, default=None)
        advice = "A context that is larger, or trained longer, may do it; the weights do it now."
        return Diagnosis(arm.method, _grows(arm, tried, margin), False, tuple(sentences), advice, nearest)
    was_trained = unbounded is not None and _worth(unbounded) >= (arm.mean or 0.0) - margin
    if unbounded is not None and was_trained and unbounded.is_worse and unbounded.behind[1] > margin:
        has_ended = all(one.stopped == "plateau" for one in tries)
        has_come_to_its_end = has_ended and len(tries) >= STARTS
        told = (
            f"Even the unbounded context, which may do more than any context of any length, scores {unbounded.mean:.2f}"
        )
        if has_come_to_its_end:
            sentences.append(f"{told}: the task needs something that no context can give this model.")
        else:
            open_end = "from one of two starts" if has_ended else "and still gets better"
            sentences.append(f"{told} after {unbounded.steps:,} steps, {open_end}: most likely no context will do.")
        return _needs_weights(arm, best, ran, sentences, is_sure=has_come_to_its_end)
    if best.rung.group in ("weights", "other") and (tried or unbounded is not None):
        return _needs_weights(arm, best, ran, sentences, is_sure=False)
    sentences.append("The experiments that ran do not tell more.")
    return Diagnosis(arm.method, "unknown", False, tuple(sentences), "Give more time: what ran is kept.")


def _grows(arm: ArmResult, tried: Sequence[Experiment], margin: float) -> Cause:
    """Call it capacity where a larger context is better than the same one, else optimisation."""
    sizes = [one.mean for one in tried if one.kind == "size" and one.mean is not None]
    others = [one.mean for one in tried if one.kind != "size" and one.mean is not None]
    return "capacity" if sizes and max(sizes) > max([arm.mean or 0.0, *others]) + margin else "optimisation"


def _nothing_helped(arm: ArmResult, best: ArmResult, tried: Sequence[Experiment]) -> str:
    if not tried:
        return f"{arm.method} scores {arm.mean:.2f}, {best.method} {best.mean:.2f}."
    top = max(tried, key=_worth)
    return (
        f"{arm.method} scores {arm.mean:.2f}; whatever was changed about it, it stays below {best.method}'s "
        f"{best.mean:.2f} (at most {top.mean:.2f}: {top.what})."
    )


def _needs_weights(
    arm: ArmResult, best: ArmResult, ran: Sequence[Experiment], sentences: list[str], is_sure: bool
) -> Diagnosis:
    sentences.append(_which_weights(ran))
    changes = "Change the weights" if best.rung.group == "weights" else "All weights can stay"
    advice = f"{changes}: {best.method} does it."
    return Diagnosis(arm.method, "structure", is_sure, tuple(one for one in sentences if one), advice)


def _which_weights(ran: Sequence[Experiment]) -> str:
    """Say which weights the task needs, and whether it needs new patterns of attention."""
    parts = []
    frozen = [one for one in ran if one.kind == "frozen-patterns" and one.mean is not None]
    whole = next((one for one in frozen if not one.setting), None)
    if whole is not None and whole.mean is not None:
        needs = "needs no new patterns" if whole.is_enough else "needs new patterns"
        halves = [one.what for one in frozen if one.setting and one.is_enough] if not whole.is_enough else []
        where = f" ({' or '.join(halves)} are enough)" if halves else ""
        parts.append(f"With attention as it is, training all else gives {whole.mean:.2f}: it {needs}{where}.")
    enough = [one.what for one in ran if one.kind == "weights" and one.is_enough]
    if enough:
        parts.append(f"Training {' alone, or '.join(enough)} alone is enough.")
    return " ".join(parts)
