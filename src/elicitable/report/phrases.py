"""Say in words what a verdict means: the answer in one sentence, what to do with it, and what it costs to deploy.

The words claim no more than a race can show. A context that failed here *may not* be able to do the task, and is
*potentially* too weak. For a trained language model nothing is proven, because the exact statements of the theory hold
per layer, given that layer's input.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from elicitable.errors import UnknownNameError
from elicitable.report import notation, standing
from elicitable.values import ArmResult, Verdict

Words = TypeVar("Words")

ANSWERS = {
    "context": "A context elicits {task} from {model}; the weights can stay as they are.",
    "out-of-reach": "Nothing that was tried gets {model} to do {task}.",
    "inconclusive": "The evidence does not settle what {model} needs for {task}.",
}

CONTEXTS_FELL_SHORT = (
    "Contexts may not be able to do this task on this model. That is evidence at this budget, not a proof: a "
    "longer context, more steps or another start could potentially still do it."
)
NO_WEIGHTS_RAN = (
    "Of what was tried on {model} for {task}, {method} is the least that does as well as any; no method that changes "
    "the weights took part, so whether anything does better was not asked."
)
LEAST_IS_OPEN = (
    "Take {method}, which is enough for sure. To know whether a less invasive context is too, do what the reasons ask "
    "for; the race resumes where it stopped."
)
NO_CONTEXT_RAN = "Changing the weights gets {model} to do {task}; no context was tried."

NEXT_STEPS = {
    "out-of-reach": (
        "Look at the learning curves: one that still rises asks for more steps, a flat one for a larger budget, "
        "more data or a larger model.",
        "Read the sample answers: they tell a wrong output format from a task that was not learned.",
    ),
    "inconclusive": (
        "Do what the reasons ask for (more seeds, more test items, more time); the race resumes where it stopped.",
        "Until then, take the least invasive method whose interval you can live with.",
    ),
}


def answer(verdict: Verdict) -> str:
    """Return the answer in one sentence.

    Raises:
        UnknownNameError: the label is neither that of the arm that is the answer, nor one of :data:`ANSWERS`.

    Example:
        >>> answer(Verdict("out-of-reach", (), (), model="toy:mixed", task="ascending", margin=0.02))
        'Nothing that was tried gets toy:mixed to do ascending.'
    """
    chosen = standing.winner(verdict)
    words = chosen.rung.answer if chosen and chosen.rung.label == verdict.label else _of_label(ANSWERS, verdict)
    if chosen and _changes_weights(chosen) and not _has_contexts(verdict):
        words = NO_CONTEXT_RAN
    if chosen and not _has_weights(verdict) and (chosen.mean or 0.0) + verdict.margin < 1:
        words = NO_WEIGHTS_RAN
    return words.format(model=verdict.model, task=verdict.task, method=chosen.method if chosen else "")


def next_steps(verdict: Verdict) -> tuple[str, ...]:
    """Say what the reader does now. Raises UnknownNameError for an unknown label."""
    chosen = standing.winner(verdict)
    if chosen is None:
        return _of_label(NEXT_STEPS, verdict)
    if verdict.label in ANSWERS:
        return (LEAST_IS_OPEN.format(method=chosen.method), *chosen.rung.advice)
    fell_short = _changes_weights(chosen) and _has_contexts(verdict)
    return (*chosen.rung.advice, CONTEXTS_FELL_SHORT) if fell_short else chosen.rung.advice


def _changes_weights(arm: ArmResult) -> bool:
    return arm.rung.group == "weights"


def _has_weights(verdict: Verdict) -> bool:
    return _took_part(verdict, "weights")


def _has_contexts(verdict: Verdict) -> bool:
    return _took_part(verdict, "context")


def _took_part(verdict: Verdict, group: str) -> bool:
    return any(arm.rung.group == group and standing.is_scored(arm) for arm in verdict.arms)


def _of_label(table: Mapping[str, Words], verdict: Verdict) -> Words:
    if verdict.label not in table:
        known = (*table, *dict.fromkeys(arm.rung.label for arm in verdict.arms))
        raise UnknownNameError("label of a verdict", verdict.label, known)
    return table[verdict.label]


def evidence(verdict: Verdict) -> str:
    """Return the scores behind the answer, in one sentence: the answer's arm, and what it is compared with."""
    best = standing.highest(verdict)
    if best is None:
        return "No arm that could be the answer ran through."
    chosen = standing.winner(verdict)
    if chosen is None:
        return f"The best arm, {best.method}, scores {notation.score(best)}."
    if _changes_weights(chosen):
        against, role = standing.highest(verdict, "context"), "the best context"
    else:
        against, role = best, "the best arm"
    if against is None or against is chosen:
        return f"{chosen.method} scores {notation.score(chosen)}{'' if against is None else ', the best of the race'}."
    return f"{chosen.method} scores {notation.score(chosen)}; {role}, {against.method}, {notation.score(against)}."


def searched(arm: ArmResult) -> str:
    """Say what was tried where an arm is chosen: candidates, passes, items, seconds, and the scores on validation."""
    effort = arm.effort
    if effort is None:
        return ""
    offered = "" if effort.offered == effort.candidates else f" of {effort.offered:,}"
    return (
        f"{effort.candidates:,}{offered} {'candidate' if effort.offered == 1 else 'candidates'} in "
        f"{notation.plural(effort.passes, 'item-pass', 'item-passes')} and {notation.duration(effort.seconds)}; the "
        f"best has {effort.best:.2f} of {notation.plural(effort.items, 'validation item')}, the median candidate "
        f"{effort.median:.2f} of those that it was tried on"
    )


def origins(arm: ArmResult) -> str:
    """Say where the candidates of a search came from, how many were scored, and the best score; the best first."""
    pairs = sorted(arm.effort.origins.items(), key=lambda pair: -pair[1][1]) if arm.effort else []
    return "; ".join(f"{name}: {int(count)}, best {best:.2f}" for name, (count, best) in pairs)
