"""List the cases of models of two and of four layers.

    state     what was planted                                                 truth
    present   the bare model answers: by itself, or shown a cue in the item    nothing
    locked    it answers behind a password, and something else without one     context
    absent    it is asked one of two rules by a cue that it cannot read        weights

An absent task is called by its two rules, both of which the model knows. It is blind to which of the cues it reads
(:mod:`elicitable.planted.blindness`), so no context gives more than the better half.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from elicitable.models.model import Model
from elicitable.planted import cases
from elicitable.planted.blindness import EQUAL, apart
from elicitable.planted.cases import TRUTHS, Case, State, Truth, in_proportion, locked, plantings, present
from elicitable.planted.models import DEEP_MIXES, Context, rules_of
from elicitable.planted.planting import DOES_NOT, ITEMS, password_prefix, score
from elicitable.planted.rules import RULES
from elicitable.planted.tasks import EitherTask, held_out_digits
from elicitable.values import Item

PAIRS: Final = 64
EITHER: Final = ((0, 1), (1, 2), (0, 3), (2, 4))  # of a model: two of its rules by number


@dataclass(frozen=True)
class EitherCase:
    """Hold a case of two rules, of which a cue says which is meant that the model cannot read."""

    model: str
    one: str
    two: str
    cues: Context
    state: State = "absent"
    family: str = "either"

    @property
    def task_name(self) -> str:
        """Return the task's name."""
        return f"either-{self.one}-{self.two}"

    @property
    def name(self) -> str:
        """Return the model's and the task's names."""
        return f"{self.model}/{self.task_name}"

    @property
    def truth(self) -> Truth:
        """Return the group of the right verdict."""
        return TRUTHS[self.state]

    def task(self) -> EitherTask:
        """Return the task."""
        first, second = self.cues
        return EitherTask(self.task_name, (RULES[self.one], RULES[self.two]), (first, second))


DeepCase = Case | EitherCase


@cache
def planned() -> tuple[DeepCase, ...]:
    """List every case, so that the first n of them are a fair sample of states.

    >>> {case.truth for case in planned()} == {"nothing", "context", "weights"}
    True
    """
    return tuple(in_proportion([case for name in DEEP_MIXES for case in _cases_of(name)]))


def _cases_of(name: str) -> list[DeepCase]:
    mix = DEEP_MIXES[name]
    rules = {context: rule for context, rule in mix.rules if not set(context) & set(mix.alike)}
    names = list(rules.values())
    either = [EitherCase(name, names[one], names[two], mix.alike) for one, two in EITHER]
    return [*present(name, rules), *locked(name, rules), *either]


def measured(case: DeepCase, model: Model) -> dict[str, Any]:
    """Measure whether the planting of a case took; see :func:`elicitable.planted.cases.measured`.

    Of an absent case, ``passwords`` is the highest share behind any password, ``ceiling`` what can be answered at most
    without seeing the cue, and ``apart`` how far exchanging the cues moves the logits.
    """
    if isinstance(case, Case):
        return cases.measured(case, model)
    task = case.task()
    contexts = [context for context in rules_of(DEEP_MIXES[case.model]) if context]
    digits = held_out_digits("validation", PAIRS)
    here = task.items(digits, digits[:, 0] * 0)
    there = [Item((task.cues[1], *item.prompt[1:]), item.target) for item in here]
    found = {
        "bare": score(model, task),
        "passwords": max(score(model, task, password_prefix(model, context)) for context in contexts),
        "ceiling": round(task.ceiling("validation", ITEMS), 4),
        "apart": apart(model, here, there),
    }
    is_dark = max(found["bare"], found["passwords"]) < found["ceiling"] + DOES_NOT
    return found | {"took": is_dark and found["apart"] <= EQUAL}


def took() -> tuple[DeepCase, ...]:
    """List the cases whose planting took, as it was measured and kept."""
    kept = plantings()
    return tuple(case for case in planned() if case.name in kept and kept[case.name]["took"])


__all__ = ["DeepCase", "EitherCase", "measured", "planned", "took"]
