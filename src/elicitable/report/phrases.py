"""What a verdict says in words: the answer in one sentence, what to do with it, what it costs to deploy.

The words keep to what a race can show. A context that failed here *may not* be able to do the task, and is
*potentially* too weak; for a trained language model nothing is proven, since the exact statements of the theory
hold per layer, given that layer's input.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from elicitable.errors import UnknownNameError
from elicitable.report import notation, standing
from elicitable.values import ArmResult, Verdict

Words = TypeVar("Words")

ANSWERS = {
    "already-there": "{model} already does {task}; nothing has to be added.",
    "prompt": "A plain prompt elicits {task} from {model}; nothing has to be trained.",
    "examples": "A few worked examples elicit {task} from {model}; nothing has to be trained.",
    "soft-prompt": "A trained soft prompt elicits {task} from {model}; the weights can stay as they are.",
    "prefix": "A trained prefix elicits {task} from {model}; the weights can stay as they are.",
    "weights": "No context that was tried elicits {task} from {model}; changing the weights does.",
    "out-of-reach": "Nothing that was tried gets {model} to do {task}.",
    "inconclusive": "The evidence does not settle what {model} needs for {task}.",
}

CONTEXTS_FELL_SHORT = (
    "Contexts may not be able to do this task on this model. That is evidence at this budget, not a proof: a "
    "longer context, more steps or another start could potentially still do it."
)
NO_CONTEXT_RAN = "Changing the weights gets {model} to do {task}; no context was tried."

NEXT_STEPS = {
    "already-there": (
        "Use the model as it is.",
        "To look for a smaller gain than the margin, race again with more test items and a narrower margin.",
    ),
    "prompt": (
        "Put the prompt before every request. It works with every model server and can be read and edited.",
        "Keep the winning text with its score: a new model version deserves a new race.",
    ),
    "examples": (
        "Put the examples before every request. They work with every model server.",
        "They cost their length in every request; a server that caches prompts pays for them once.",
    ),
    "soft-prompt": (
        "Keep the base model and load the soft prompt per task; one model can serve many of them.",
        "Check first that your server accepts input embeddings: many do not.",
    ),
    "prefix": (
        "Keep the base model and load the prefix per task; one batch can even mix tasks.",
        "Check first that your server can load a prefix: few can, and a prefix cannot be merged into the weights. "
        "If yours cannot, take the cheapest weight method of the race.",
    ),
    "weights": (
        "Train the weights. LoRA can be merged afterwards and then costs nothing at inference.",
        CONTEXTS_FELL_SHORT,
        "Look at the side effects before shipping: changed weights also change what the model does elsewhere.",
    ),
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

DEPLOYMENT = {
    "zero-shot": "Nothing to deploy: the model as it is, on any server.",
    "prompt": "Any server. It is text; its keys are paid in every request unless the server caches them.",
    "examples": "Any server. They are text; their keys are paid in every request unless the server caches them.",
    "soft-prompt": "Needs a server that accepts input embeddings. Cannot be merged into the weights.",
    "layer-prefix": "Few servers can load a prefix, and it cannot be merged into the weights.",
    "kv-prefix": "Few servers can load a prefix, and it cannot be merged into the weights.",
    "value-bias": "A control: it shows what a constant shift of the values alone can do.",
    "lora": "Can be merged into the weights, then costs nothing at inference; many servers also load it per request.",
    "full": "Any server, with a whole copy of the model for every task.",
}


def answer(verdict: Verdict) -> str:
    """The answer in one sentence.

    Raises:
        UnknownNameError: the label is none of :data:`ANSWERS`.

    Example:
        >>> answer(Verdict("already-there", (), (), model="toy:mixed", task="ascending", margin=0.02))
        'toy:mixed already does ascending; nothing has to be added.'
    """
    words = _of_label(ANSWERS, verdict)
    if verdict.label == "weights" and not _has_contexts(verdict):
        words = NO_CONTEXT_RAN
    return words.format(model=verdict.model, task=verdict.task)


def next_steps(verdict: Verdict) -> tuple[str, ...]:
    """What the reader does now. Raises UnknownNameError for an unknown label."""
    steps = _of_label(NEXT_STEPS, verdict)
    return tuple(step for step in steps if step is not CONTEXTS_FELL_SHORT or _has_contexts(verdict))


def _has_contexts(verdict: Verdict) -> bool:
    return any(group is standing.CONTEXT for group, _ in standing.grouped(verdict))


def _of_label(table: Mapping[str, Words], verdict: Verdict) -> Words:
    if verdict.label not in table:
        raise UnknownNameError("label of a verdict", verdict.label, table)
    return table[verdict.label]


def evidence(verdict: Verdict) -> str:
    """The scores behind the answer, in one sentence: the answer's arm, and what it is compared with."""
    best = standing.highest(verdict)
    if best is None:
        return "No arm of the race ran through."
    chosen = standing.winner(verdict)
    if chosen is None:
        return f"The best arm, {best.method}, scores {notation.score(best)}."
    if verdict.label == "weights":
        against, role = standing.highest(verdict, standing.CONTEXT), "the best context"
    else:
        against, role = best, "the best arm"
    if against is None or against is chosen:
        return f"{chosen.method} scores {notation.score(chosen)}{'' if against is None else ', the best of the race'}."
    return f"{chosen.method} scores {notation.score(chosen)}; {role}, {against.method}, {notation.score(against)}."


def deployment(arm: ArmResult) -> str:
    """What running this method in production takes."""
    return DEPLOYMENT.get(arm.method, "See the method's own documentation.")


def trouble(arm: ArmResult) -> str:
    """What went wrong in an arm, or nothing: ``diverged: the loss became NaN at step 40``."""
    if arm.status == "ok":
        return arm.reason
    return f"{arm.status}: {arm.reason or 'no reason was recorded'}"
