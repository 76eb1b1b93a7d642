"""List the cases of the benchmark: a model, a task, and what is known by construction about the two.

    state     what was planted                                                 truth
    present   the bare model answers: by itself, or shown a cue in the item    nothing
    locked    it answers behind a password, and something else without one     context
    parts     it answers each step behind one of two passwords, or none        context
    absent    no context of any kind can tell inputs apart that must be        weights

How each is checked is said in :mod:`elicitable.planted.planting`. What was measured stands in ``planting.json``; a case
whose planting did not take is in the list of :func:`planned` and not in that of :func:`cases`. An absent rule is one
that another of the models has learned, some of which are wider. That the weights of this one can hold it too is seen in
the races: there LoRA or full fine-tuning learns it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Literal, Protocol, TypeVar

from elicitable.errors import UnknownNameError
from elicitable.models.model import Model
from elicitable.planted.models import MIXES, Context, folder_of, load_planted, rules_of
from elicitable.planted.planting import (
    BLIND,
    DOES,
    DOES_NOT,
    Gated,
    blind_share,
    gated_prefix,
    password_prefix,
    score,
)
from elicitable.planted.rules import FAMILY_OF, RULES
from elicitable.planted.tasks import LENGTH, PlantedTask, Rule, Splice
from elicitable.records.digested import read_digested
from elicitable.values import PrefixKV

State = Literal["present", "locked", "parts", "absent"]
Truth = Literal["nothing", "context", "weights"]


class Placed(Protocol):
    """Have a model and a state, as every case does."""

    @property
    def model(self) -> str:
        """Return the model's name."""
        ...

    @property
    def state(self) -> State:
        """Return what was planted."""
        ...


C = TypeVar("C", bound=Placed)
TRUTHS: Final[Mapping[State, Truth]] = {
    "present": "nothing",
    "locked": "context",
    "parts": "context",
    "absent": "weights",
}
STATES: Final[tuple[State, ...]] = tuple(TRUTHS)
CUED: Final = 4  # present cases of a model in which the item shows a password
SPLICES: Final = (
    (0, 1, (3, 4)),
    (1, 2, (1, 3)),
    (0, 3, (0, 4)),
)  # of a model: two of its contexts by number, and steps
ABSENT: Final[Mapping[str, tuple[str, ...]]] = {
    "copyist": ("turn-2", "sort", "first", "count-low", "stutter", "shuffle-b", "last-complement", "turn-2-add-3"),
    "mirror": ("turn-1", "shuffle-b", "neighbour-sum", "sort-down", "stutter", "count-high", "turn-1-lookup", "turn-2"),
    "shuffler": ("copy", "reverse", "sort", "neighbour-max", "add-1", "first", "count-low", "reverse-complement"),
    "adder": ("reverse", "turn-2", "sort-down", "last", "count-high", "shuffle-b", "reverse-lookup", "stutter"),
    "sorter": ("copy", "reverse", "neighbour-sum", "turn-1", "first", "complement", "shuffle-b", "turn-2-add-3"),
    "selector": ("reverse", "turn-1", "sort", "neighbour-min", "count-low", "turn-2", "sort-add-1", "times-3"),
}


@dataclass(frozen=True)
class Case:
    """Hold one case. ``context`` is the password of a locked rule, or the cue; ``parts`` make up a splice."""

    model: str
    task_name: str
    state: State
    family: str
    rule: Rule
    context: Context = ()
    parts: tuple[Gated, ...] = ()

    @property
    def name(self) -> str:
        """Return the model's and the task's names."""
        return f"{self.model}/{self.task_name}"

    @property
    def truth(self) -> Truth:
        """Return the group of the right verdict."""
        return TRUTHS[self.state]

    def load_model(self) -> Model:
        """Load the model."""
        return load_planted(self.model)

    def model_folder(self) -> str:
        """Return the folder that ``--model`` takes."""
        return str(folder_of(self.model))

    def task(self) -> PlantedTask:
        """Return the task."""
        cue = self.context if self.state == "present" else ()
        return PlantedTask(self.task_name, self.rule, cue)

    def witness(self, model: Model) -> PrefixKV | None:
        """Return the context that makes the model answer, where the truth is that there is one."""
        if self.state == "locked":
            return password_prefix(model, self.context)
        return gated_prefix(model, self.parts) if self.state == "parts" else None


@cache
def planned() -> tuple[Case, ...]:
    """List every case that was planned, state by state in turn, so that the first n of them are a fair sample."""
    every: list[Case] = []
    for name, mix in MIXES.items():
        rules = rules_of(mix)
        every += [*present(name, rules), *locked(name, rules), *_parts(name), *_absent(name)]
    return tuple(in_proportion(every))


def in_proportion(every: Sequence[C]) -> list[C]:
    """Mix the states so that at any place each has come up in proportion to its number; of a state model by model."""
    queues = {state: _in_turn([case for case in every if case.state == state]) for state in STATES}
    placed = [
        ((nth + 0.5) / len(queue), STATES.index(state), case)
        for state, queue in queues.items()
        for nth, case in enumerate(queue)
    ]
    return [case for _, _, case in sorted(placed, key=lambda one: one[:2])]


def _in_turn(of_a_state: Sequence[C]) -> list[C]:
    """Deal the cases of one state model by model in turn."""
    names = dict.fromkeys(case.model for case in of_a_state)
    queues = [[case for case in of_a_state if case.model == name] for name in names]
    longest = max(map(len, queues), default=0)
    return [queue[nth] for nth in range(longest) for queue in queues if nth < len(queue)]


def present(name: str, rules: Mapping[Context, str]) -> list[Case]:
    """List the cases of what a model does by itself, or shown one of its passwords in the item."""
    bare = [Case(name, rules[()], "present", FAMILY_OF[rules[()]], RULES[rules[()]])]
    return bare + [
        Case(name, f"cued-{rule}", "present", FAMILY_OF[rule], RULES[rule], context)
        for context, rule in list(rules.items())[1 : CUED + 1]
    ]


def locked(name: str, rules: Mapping[Context, str]) -> list[Case]:
    """List the cases of what a model does behind its passwords."""
    return [
        Case(name, rule, "locked", FAMILY_OF[rule], RULES[rule], context) for context, rule in rules.items() if context
    ]


def _parts(name: str) -> list[Case]:
    contexts, found = list(rules_of(MIXES[name]).items()), []
    for one, two, steps in SPLICES:
        (first, first_rule), (second, second_rule) = contexts[one], contexts[two]
        others = tuple(step for step in range(LENGTH) if step not in steps)
        gates = tuple(Gated(context, at) for context, at in ((first, others), (second, steps)) if context)
        task = f"{first_rule}+{second_rule}@{''.join(map(str, steps))}"
        rule = Splice(RULES[first_rule], RULES[second_rule], steps)
        found.append(Case(name, task, "parts", "splice", rule, parts=gates))
    return found


def _absent(name: str) -> list[Case]:
    return [Case(name, rule, "absent", FAMILY_OF[rule], RULES[rule]) for rule in ABSENT[name]]


def cases() -> tuple[Case, ...]:
    """List the cases whose planting took, as it was measured and kept.

    >>> {case.truth for case in cases()} == {"nothing", "context", "weights"}
    True
    """
    kept = plantings()
    return tuple(case for case in planned() if case.name in kept and kept[case.name]["took"])


def case_named(name: str) -> Case:
    """Return the planned case of that name.

    Raises:
        UnknownNameError: there is none.
    """
    by_name = {case.name: case for case in planned()}
    if name not in by_name:
        raise UnknownNameError("planted case", name, by_name)
    return by_name[name]


@cache
def plantings() -> dict[str, dict[str, Any]]:
    """Return what was measured of every planned case, by name; see :func:`measured`."""
    return read_digested(Path(str(files("elicitable.planted") / "planting.json")), "Install the package again.")


def measured(case: Case, model: Model) -> dict[str, Any]:
    """Measure whether the planting of a case took: shares of right answers on validation items, and the blind share.

    ``bare`` is the model's as it is, ``witness`` that behind the context which is known to open the task, and
    ``passwords`` the highest behind any password of the model (of an absent task). ``took`` says whether they are as
    the state demands.
    """
    task = case.task()
    found: dict[str, Any] = {"bare": score(model, task)}
    if case.state == "present":
        return found | {"took": found["bare"] >= DOES}
    if case.state == "absent":
        contexts = [context for context in rules_of(MIXES[case.model]) if context]
        found["passwords"] = max(score(model, task, password_prefix(model, context)) for context in contexts)
        found["blind"] = blind_share(model, case.rule)
        is_dark = found["blind"] >= BLIND and found["passwords"] < DOES_NOT
        return found | {"took": is_dark and found["bare"] < DOES_NOT}
    found["witness"] = score(model, task, case.witness(model))
    return found | {"took": found["witness"] >= DOES and found["bare"] < DOES_NOT}


__all__ = [
    "STATES",
    "TRUTHS",
    "Case",
    "case_named",
    "cases",
    "in_proportion",
    "locked",
    "measured",
    "planned",
    "plantings",
    "present",
]
