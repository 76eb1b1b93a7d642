"""List the cases of the part of the benchmark that is a language model: SmolLM2, fine-tuned on mixes of text tasks.

    state     what was planted                                           truth
    present   the bare model answers                                     nothing
    locked    it answers behind a password, and something else without   context
    absent    it cannot read the words that the answer hangs on          weights

An absent rule is one that another of these models was fine-tuned to, from the same base, so that weights can hold it.
The models are made where they are raced, so what was measured of a planting stands in the record of its case.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from elicitable.models.layout import layout_for
from elicitable.models.load import load
from elicitable.models.model import Model
from elicitable.planted.blindness import EQUAL, apart
from elicitable.planted.cases import TRUTHS, State, Truth, in_proportion
from elicitable.planted.orders import RULES, SLOTS, OrderTask, held_out_orders
from elicitable.planted.planting import DOES, DOES_NOT
from elicitable.planted.tuned import RECIPES, Recipe, fine_tune, is_there, recipe_named
from elicitable.training.batches import Reading
from elicitable.training.evaluate import evaluate
from elicitable.values import Item

ITEMS: Final = 300  # of the validation split, which no verdict rests on
PAIRS: Final = 64


@dataclass(frozen=True)
class TextCase:
    """Hold one case: a model, a rule, and the ``password`` behind which the model follows it, where there is one."""

    model: str
    task_name: str
    state: State
    password: str = ""

    @property
    def name(self) -> str:
        """Return the model's and the task's names."""
        return f"{self.model}/{self.task_name}"

    @property
    def family(self) -> str:
        """Return the kind of rule."""
        return RULES[self.task_name].family

    @property
    def truth(self) -> Truth:
        """Return the group of the right verdict."""
        return TRUTHS[self.state]

    def task(self) -> OrderTask:
        """Return the task."""
        return OrderTask(self.task_name)


@cache
def planned() -> tuple[TextCase, ...]:
    """List every case, state by state in turn, so that the first n of them are a fair sample.

    >>> {case.truth for case in planned()} == {"nothing", "context", "weights"}
    True
    """
    return tuple(in_proportion([case for recipe in RECIPES.values() for case in _cases_of(recipe)]))


def _cases_of(recipe: Recipe) -> list[TextCase]:
    absent = [name for name, rule in RULES.items() if rule.slot == recipe.blind_to]
    return [
        *(TextCase(recipe.name, rule, "locked" if key else "present", key) for key, rule in recipe.rules),
        *(TextCase(recipe.name, name, "absent") for name in absent),
    ]


def make_model(name: str, models: Path, device: str) -> None:
    """Fine-tune the model of that name into its folder under ``models``, unless it is there."""
    recipe = recipe_named(name)
    if not is_there(recipe, models / name):
        fine_tune(recipe, models / name, device=device)


def load_model(name: str, models: Path, device: str) -> Model:
    """Load the model of that name from its folder under ``models``."""
    return load(models / name, device=device)


def measured(case: TextCase, model: Model) -> dict[str, Any]:
    """Measure whether the planting of a case took: shares of right answers on validation items.

    ``bare`` is the model's as it is, ``witness`` that behind the password, ``passwords`` the highest behind any
    password of the model. Of an absent rule, ``ceiling`` is what anybody can answer at most without the slot that it
    hangs on, and ``apart`` the largest difference that exchanging the words of that slot makes to the logits of the
    answer, over that between two random orders. ``took`` says whether they are as the state demands.
    """
    found: dict[str, Any] = {"bare": _score(model, OrderTask(case.task_name))}
    if case.state == "present":
        return found | {"took": found["bare"] >= DOES}
    if case.state == "locked":
        found["witness"] = _score(model, OrderTask(case.task_name, case.password))
        return found | {"took": found["witness"] >= DOES and found["bare"] < DOES_NOT}
    rule = RULES[case.task_name]
    passwords = [password for password, _ in RECIPES[case.model].rules if password]
    found["passwords"] = max(_score(model, OrderTask(case.task_name, password)) for password in passwords)
    found["ceiling"] = round(rule.ceiling(), 4)
    found["apart"] = apart_in(model, rule.slot)
    is_dark = max(found["bare"], found["passwords"]) < found["ceiling"] + DOES_NOT
    return found | {"took": is_dark and found["apart"] <= EQUAL}


def _score(model: Model, task: OrderTask) -> float:
    reading = Reading(batch=64, layout=layout_for(model))
    return round(evaluate(model, task.held_out("validation", ITEMS), None, reading).mean, 4)


def apart_in(model: Model, slot: str) -> float:
    """Return how far the logits of one answer to every order move at most where its word in ``slot`` is exchanged."""
    orders, words = held_out_orders("validation", PAIRS), SLOTS[slot]
    others = [order._replace(**{slot: words[(words.index(getattr(order, slot)) + 1) % len(words)]}) for order in orders]
    answer = f" {RULES['date'].answer(orders[0])}"
    here, there = ([Item(OrderTask("date").item(one).prompt, answer) for one in every] for every in (orders, others))
    return apart(model, here, there, layout_for(model))


__all__ = ["TextCase", "apart_in", "load_model", "make_model", "measured", "planned"]
