"""Say why a context falls short, from experiments that were measured as the arms of the race are.

What closes the gap is the cause, and the least costly remedy is asked for first:

    reading       another template, layout or rule lets contexts do it without any training
    data          no way of changing the weights does better than always giving one answer either
    optimisation  the same context, trained longer, at another rate, or from another start, is enough
    capacity      a larger context of the same kind is enough
    structure     none of these is, while weights are; where even the unbounded context, which does more than any
                  context of any length, falls short, no context will do
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from elicitable.diagnosis.causes import REMEDIES, Cause, Diagnosis, Experiment, Kind
from elicitable.diagnosis.verdict import is_near_the_floor
from elicitable.values import ArmResult

CHEAPEST_FIRST: tuple[Cause, ...] = ("reading", "optimisation", "capacity")
HALF = 0.5  # of the gap: what closes so much explains most of it
NEARLY = 0.9  # of the gap: what closes so much, beyond what chance does, explains it
STARTS = 2  # of the unbounded context, that both have to fail: from the context, and from nothing
BY_HEART = 0.9  # share of a few rows that is right after they were trained on
OF_WEIGHTS: tuple[Kind, ...] = ("weights", "frozen-patterns", "subspace")  # experiments that change the weights
ALIKE = 1.1  # times the numbers of a context, about, that its budget gives the weights


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
    was_asked_all: bool = True,
    weights: Sequence[ArmResult] = (),
    can_be_another: bool = False,
    asks_for_weights: bool = False,
) -> Diagnosis:
    """Name the cause for which ``arm`` falls short of ``best``, from what was ``found`` about it and the task.

    Args:
        arm: the context. best: the best arm. found: the experiments.
        margin: of the race. floor: what always giving one answer scores. highest: what can be scored.
        had_weights: whether a method that changes the weights ran through.
        is_open: whether the verdict itself is open: for more training, or for more test items.
        was_asked_all: whether every remedy of this context was asked for, before the time was up.
        weights: the arms that change the weights and ran through.
        can_be_another: whether the context that suffices in its place, if one does, is one that its kind can be.
        asks_for_weights: whether the verdict is that weights must change, which a context that is enough overrules.
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
    closing = [one for one in ran if closes(one, margin)]
    for remedies, is_sure in (([one for one in closing if _is_beyond_noise(one, arm)], True), (closing, False)):
        for cause in CHEAPEST_FIRST:
            own = [one for one in remedies if REMEDIES.get(one.kind) == cause]
            if own:
                remedied = _remedied(arm, best, cause, max(own, key=_worth), is_sure)
                return _overruling(remedied) if asks_for_weights and is_sure else remedied
    if best.rung.group == "nothing":
        return _worse_than_nothing(arm, best, is_open)
    another = next((one for one in ran if one.kind == "context"), None)
    if another is not None:
        return _another_context(arm, another, ran, was_asked_all, can_be_another)
    structure = _structure(arm, best, ran, margin, was_asked_all, weights)
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


def closes(one: Experiment, margin: float) -> bool:
    """Say whether an experiment is enough, or within the margin of the best arm in the mean."""
    return one.is_enough or (bool(one.behind) and one.behind[0] <= margin)


def _is_beyond_noise(one: Experiment, arm: ArmResult) -> bool:
    """Say whether it is enough for sure, or closes nearly all of the gap from where the arm itself cannot be."""
    is_apart = one.low is not None and one.low > (arm.mean or 0.0)
    return one.is_enough or ((one.closed or 0.0) >= NEARLY and is_apart)


def _worth(one: Experiment) -> float:
    return one.mean if one.mean is not None else -math.inf


def _data(arm: ArmResult, best: ArmResult, ran: Sequence[Experiment], floor: float) -> Diagnosis:
    learned = next((one for one in ran if one.kind == "by-heart" and one.mean is not None), None)
    seen = (
        f"Changing the weights does not help either: the best arm, {best.method}, scores {best.mean:.2f}, and always "
        f"giving the most common answer {floor:.2f}."
    )
    if learned is not None and (learned.mean or 0.0) < BY_HEART:
        return _not_by_heart(arm, learned, seen)
    if learned is None:
        meant = "So what is missing is not a stronger method but something in the data that tells the answer."
    else:
        meant = (
            f"The weights learn a few rows by heart ({learned.mean:.2f} of them right), and nothing of that holds for "
            "new rows: the answers do not follow from what is read, or there are too few rows to see how."
        )
    advice = "Read twenty rows and answer them yourself; where you cannot, no method will. Then look for more rows."
    return Diagnosis(arm.method, "data", learned is not None, (seen, meant), advice)


def _not_by_heart(arm: ArmResult, learned: Experiment, seen: str) -> Diagnosis:
    """Explain why not even a few rows are learned: they contradict each other, or the training does not work."""
    failed = f"Not even a few rows are learned by heart ({learned.mean:.2f} of them right)"
    if learned.ceiling is not None and learned.ceiling < BY_HEART:
        meant = (
            f"{failed}, as the same text has several answers: no more than {learned.ceiling:.2f} of these rows can be "
            "right at once."
        )
        advice = "Show what tells such rows apart (--template), or give each text one answer."
        return Diagnosis(arm.method, "data", True, (seen, meant), advice)
    meant = (
        f"{failed}, though each text has one answer: the training fails, or this model is too small for the task, "
        "before anything can be said of the data."
    )
    advice = "Train the weights otherwise first, at other learning rates or for more steps; or take a larger model."
    return Diagnosis(arm.method, "optimisation", False, (seen, meant), advice)


def _still_open(arm: ArmResult, best: ArmResult, floor: float) -> Diagnosis:
    seen = (
        f"Nothing is seen yet to beat always giving the most common answer ({floor:.2f}); the best arm, {best.method}, "
        f"scores {best.mean:.2f}."
    )
    return Diagnosis(arm.method, "unknown", False, (seen, _OPEN), _SETTLE)


def _no_weights(arm: ArmResult) -> Diagnosis:
    seen = f"{arm.method} scores {arm.mean:.2f}, and nothing that ran beats always giving one answer."
    meant = "No method that changes the weights ran through, so the data cannot be told from the contexts."
    return Diagnosis(arm.method, "unknown", False, (seen, meant), "Race a method that changes the weights as well.")


_OPEN = "But the verdict itself is still open, and says what would settle it; until then nothing follows from that."
_SETTLE = "Settle the verdict first: what ran is kept."
_MEANT: dict[Cause, str] = {
    "reading": "So the model can do it, and was asked in a way that hides it: mend how the task is read before any "
    "training.",
    "optimisation": "So the context that is needed exists at this size, and the search for it stopped short of it.",
    "capacity": "So a context does it, and this one has too few virtual tokens to hold what the task needs.",
}
_LIKELY: dict[Cause, str] = {
    "reading": "So the model can do more of it than was seen: how the task is read hides it, in part at least.",
    "optimisation": "So the search stopped short of what a context of this size can do; whether one does all of it is "
    "not told.",
    "capacity": "So this one has too few virtual tokens for what the task needs; whether more do it all is not told.",
}
_ADVICE: dict[Cause, str] = {
    "reading": "Run the verdict again, read in that way.",
    "optimisation": "Train it so; the budget can stay.",
    "capacity": "Give it that many virtual tokens; every request then pays for as many keys more in each layer.",
}


def _remedied(arm: ArmResult, best: ArmResult, cause: Cause, by: Experiment, is_sure: bool = True) -> Diagnosis:
    share = (
        "the gap"
        if by.closed is None
        else f"{min(1.0, max(0.0, by.closed)):.0%} of its gap to {best.method} ({best.mean:.2f})"
    )
    closes = f"closes {share}" if is_sure else f"is the largest part of what was found to close, {share}"
    changed = f"{by.what}, it" if by.of == arm.method else by.what
    seen = f"{arm.method} scores {arm.mean:.2f}; {changed} scores {by.mean:.2f}: that {closes}."
    meant = _MEANT if is_sure else _LIKELY
    return Diagnosis(arm.method, cause, is_sure, (seen, meant[cause]), _ADVICE[cause], by)


def _overruling(found: Diagnosis) -> Diagnosis:
    """Say of a remedy that is enough what it makes of a verdict by which weights must change."""
    if found.remedy is None or not found.remedy.is_enough:
        return found
    told = "The verdict asks for weights as no context was enough the way it was raced; with this, they can stay."
    return replace(found, sentences=(*found.sentences, told))


def _worse_than_nothing(arm: ArmResult, best: ArmResult, is_open: bool) -> Diagnosis:
    """Explain a context that falls short of the model as it is, which is what an empty one leaves."""
    seen = f"{arm.method} scores {arm.mean:.2f}; {best.method}, with no context at all, scores {best.mean:.2f}."
    if is_open:
        return Diagnosis(arm.method, "unknown", False, (seen, _OPEN), _SETTLE)
    meant = (
        "An empty context would do, so a good one exists: what was searched or trained here suits the rows that it saw "
        "and not new ones."
    )
    return Diagnosis(arm.method, "optimisation", False, (seen, meant), "Use the model as it is.")


def _another_context(
    arm: ArmResult, another: Experiment, ran: Sequence[Experiment], was_asked_all: bool, can_be_another: bool
) -> Diagnosis:
    """Explain a context that falls short where another one, ``another``, does not."""
    if arm.learning_rate is None:
        none = f"of the {arm.effort.candidates} candidates that were tried, none" if arm.effort else "nothing tried"
        seen = f"{arm.method} scores {arm.mean:.2f}: {none} opens what {another.what} ({another.mean:.2f}) opens."
        meant = (
            "A context comes that far with the weights as they are, so what is missing is a text that says it, not a "
            "training."
        )
        advice = (
            f"Use {another.what}, or let the search go on (--search-passes), or give a text of your own (--prompt)."
        )
        return Diagnosis(arm.method, "optimisation", False, (seen, meant), advice, another)
    tried = [one for one in ran if one.of == arm.method and one.kind in REMEDIES]
    if not tried or not was_asked_all:
        seen = f"{arm.method} scores {arm.mean:.2f}; {another.what} scores {another.mean:.2f}."
        asked = "not asked to the end" if tried else "not asked"
        meant = f"Both are contexts, so the weights as they are come that far; why this kind does not was {asked}."
        return Diagnosis(arm.method, "unknown", False, (seen, meant), f"Use {another.what}.", another)
    top = max(tried, key=_worth)
    seen = (
        f"{arm.method} scores {arm.mean:.2f} and stays behind whatever was changed about it (at most {top.mean:.2f}: "
        f"{top.what}); {another.what} scores {another.mean:.2f}."
    )
    if can_be_another:
        meant = (
            "That is a context which this kind, with as many keys, can be: so one of its kind does it, and the search "
            "for it stopped short of it."
        )
        return Diagnosis(arm.method, "optimisation", False, (seen, meant), f"Use {another.what}.", another)
    meant = "Both are contexts; what this kind can put into the deeper layers is not enough here, or too hard to find."
    return Diagnosis(arm.method, "structure", False, (seen, meant), f"Use {another.what}.", another)


def is_open_to_contexts(unbounded: Experiment, arm: ArmResult, best: ArmResult, margin: float) -> bool:
    """Say whether the unbounded context rules nothing out: it is enough, or half-way there and not at its end."""
    if unbounded.mean is None:
        return False
    share = (unbounded.mean - (arm.mean or 0.0)) / max((best.mean or 0.0) - (arm.mean or 0.0), 1e-9)
    return closes(unbounded, margin) or (share >= HALF and unbounded.stopped != "plateau")


def _structure(
    arm: ArmResult,
    best: ArmResult,
    ran: Sequence[Experiment],
    margin: float,
    was_asked_all: bool,
    weights: Sequence[ArmResult],
) -> Diagnosis:
    tries = [one for one in ran if one.kind == "unbounded" and one.mean is not None]
    unbounded = max(tries, key=_worth, default=None)
    tried = [one for one in ran if one.of == arm.method and one.kind in REMEDIES]
    sentences = [_nothing_helped(arm, best, tried)]
    if unbounded is not None and is_open_to_contexts(unbounded, arm, best, margin):
        open_end = " when the time was up" if unbounded.stopped == "time" else " and still gets better"
        rises = "" if closes(unbounded, margin) else open_end
        sentences.append(
            f"The unbounded context scores {unbounded.mean:.2f}{rises}, so nothing in the form of a context rules the "
            "task out; none that was trained here comes near it."
        )
        nearest = max(tried, key=_worth, default=None)
        advice = "A context that is larger, or trained longer, may do it; the weights do it now."
        return Diagnosis(arm.method, _grows(arm, tried, margin), False, tuple(sentences), advice, nearest)
    if unbounded is not None and _has_told(unbounded, arm, margin):
        meant, is_sure = _no_context(unbounded, tries)
        return _needs_weights(arm, best, ran, [*sentences, meant], weights, margin, is_sure)
    if best.rung.group in ("weights", "other") and (tried or unbounded is not None) and was_asked_all:
        return _needs_weights(arm, best, ran, sentences, weights, margin, is_sure=False)
    sentences.append("The experiments that ran do not tell more.")
    return Diagnosis(arm.method, "unknown", False, tuple(sentences), "Give more time: what ran is kept.")


def _has_told(unbounded: Experiment, arm: ArmResult, margin: float) -> bool:
    """Say whether an unbounded context that falls short was trained as far as the context, and not cut off."""
    was_trained = _worth(unbounded) >= (arm.mean or 0.0) - margin and unbounded.stopped != "time"
    return was_trained and unbounded.is_worse and unbounded.behind[1] > margin


def _no_context(unbounded: Experiment, tries: Sequence[Experiment]) -> tuple[str, bool]:
    """Say what follows where the best of the unbounded context's ``tries`` falls short, and whether that is sure."""
    every = "Even the unbounded context, which may do more than any context of any length,"
    who = every if unbounded.is_exact else "The unbounded context, here no more than a small network of each query,"
    has_ended = all(one.stopped == "plateau" for one in tries)
    if has_ended and len(tries) >= STARTS and unbounded.is_exact:
        return f"{who} scores {unbounded.mean:.2f}: the task needs something that no context can give this model.", True
    if not has_ended:
        was_cut_off = any(one.stopped == "time" for one in tries)
        open_end = "one of its starts cut off by the clock" if was_cut_off else "and still gets better"
    else:
        open_end = "from one of two starts" if len(tries) < STARTS else "and gets no better from either start"
    after = f"scores {unbounded.mean:.2f} after {unbounded.steps:,} steps"
    return f"{who} {after}, {open_end}: most likely no context will do.", False


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
    arm: ArmResult,
    best: ArmResult,
    ran: Sequence[Experiment],
    sentences: Sequence[str],
    weights: Sequence[ArmResult],
    margin: float,
    is_sure: bool,
) -> Diagnosis:
    changes = "Change the weights" if best.rung.group == "weights" else "All weights can stay"
    advice = f"{changes}: {best.method} does it{_at_what_budget(arm, best, ran, weights, margin)}."
    whole = tuple(one for one in (*sentences, _which_weights(ran)) if one)
    return Diagnosis(arm.method, "structure", is_sure, whole, advice)


def _at_what_budget(
    arm: ArmResult, best: ArmResult, ran: Sequence[Experiment], weights: Sequence[ArmResult], margin: float
) -> str:
    """Say whether weights do it with about as many numbers as ``arm`` trains, or with how many times as many."""
    own = arm.budget.numbers_trained
    if best.rung.group != "weights" or not own:
        return ""
    arms = {one.method: one for one in (*weights, best) if one.mean is not None}
    tried = [(one.budget.numbers_trained, name, _falls_short_by(one, best) <= margin) for name, one in arms.items()]
    tried += [(one.numbers_trained, one.what, one.is_enough) for one in ran if one.kind in OF_WEIGHTS]
    numbers, _, least = min((numbers, name != best.method, name) for numbers, name, does_it in tried if does_it)
    is_alike = numbers <= ALIKE * own
    times = f"{_in_figures(numbers / own)} times the numbers of the context"
    many = "no more numbers than the context" if is_alike else times
    if least != best.method:
        return f". What does it with the fewest numbers is {least}: {many}"
    if is_alike:
        return f", with {many}"
    fewer = "nothing that ran does it with fewer" if min(tried)[0] < numbers else "nothing with fewer was tried"
    return f", with {many}, and {fewer}"


def _falls_short_by(arm: ArmResult, best: ArmResult) -> float:
    return (best.mean or 0.0) - (arm.mean or 0.0)


def _in_figures(times: float) -> str:
    return f"{times:,.0f}" if times >= 10 else f"{times:.1f}"


def _which_weights(ran: Sequence[Experiment]) -> str:
    """Say which weights the task needs, and whether it needs new patterns of attention."""
    parts = []
    frozen = [one for one in ran if one.kind == "frozen-patterns" and one.mean is not None]
    whole = next((one for one in frozen if not one.setting), None)
    if whole is not None and whole.mean is not None:
        falls_short = whole.is_worse and whole.stopped not in ("steps", "time")  # and was not cut off
        told = "it needs new patterns" if falls_short else "whether it needs new patterns is not told"
        needs = "it needs no new patterns" if whole.is_enough else told
        halves = [one.what for one in frozen if one.setting and one.is_enough] if falls_short else []
        where = f" ({' or '.join(halves)} are enough)" if halves else ""
        parts.append(f"With attention as it is, training all else gives {whole.mean:.2f}: {needs}{where}.")
    enough = [one.what for one in ran if one.kind == "weights" and one.is_enough]
    if enough:
        parts.append(f"Training {' alone, or '.join(enough)} alone is enough.")
    return " ".join(parts)
