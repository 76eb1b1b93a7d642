"""Everything that a forecast looks at, as one flat table of numbers. No signal reads an item of the test split.

Each belongs to a group (``names.py`` lists them), and what a group costs in time is measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from elicitable.forecasting.answers import (
    Base,
    best_prompt,
    example_signals,
    plan_for,
    prompt_signals,
    read_base,
    vector_signals,
    with_examples,
)
from elicitable.forecasting.descriptors import model_signals, task_signals
from elicitable.forecasting.gradients import gradients_of
from elicitable.forecasting.names import ANSWERS, EXAMPLES, GRADIENTS, MODEL, PROMPTS, READ, SIGNALS, STEPS, TASK
from elicitable.forecasting.pace import Pace, pace_for
from elicitable.forecasting.reads import read_signals
from elicitable.forecasting.steps import arms, first_steps, step_signals
from elicitable.models.inject import room_in
from elicitable.models.layout import PLAIN, Layout
from elicitable.rng import generator
from elicitable.training.batches import encode

if TYPE_CHECKING:
    from elicitable.models.model import Model
    from elicitable.tasks.base import Task


@dataclass(frozen=True)
class Signals:
    """Hold every signal by name, in the order of :data:`SIGNALS`, and the seconds that each group took."""

    values: Mapping[str, float]
    seconds: Mapping[str, float] = field(default_factory=dict)


def signals_of(
    model: Model,
    task: Task,
    *,
    names: Iterable[str] = SIGNALS,
    seed: int = 0,
    layout: Layout = PLAIN,
    max_tokens: int | None = None,
) -> Signals:
    """Measure the signals of ``task`` on ``model`` that are called ``names``; the same seed gives the same numbers.

    A group of which no signal is asked for costs no time. Only training and validation items are read. The model is as
    before afterwards.

    Example:
        >>> import elicitable as el
        >>> from elicitable.tasks.catalog import task_from
        >>> found = signals_of(el.load("toy:ascending"), task_from("ascending"), names=["base_score"])
        >>> found.values["base_score"] > 0.9
        True
    """
    return _Measuring(model, task, pace_for(model), seed, layout, max_tokens).run(list(names))


class _Measuring:
    """Measure group by group, with the seconds of each."""

    def __init__(self, model: Model, task: Task, pace: Pace, seed: int, layout: Layout, max_tokens: int | None) -> None:
        self.model, self.task, self.pace, self.seed = model, task, pace, seed
        self.plan = plan_for(layout, pace.batch, max_tokens)
        self.validation = task.held_out("validation", pace.validation_items)
        self.train = task.sample(pace.train_items, generator(seed, "forecast", task.name))
        self.seconds: dict[str, float] = {}

    def run(self, names: Sequence[str]) -> Signals:
        """Return the signals called ``names``."""
        groups = [group for group, _ in SIGNALS.values()]
        wanted = [group for group in dict.fromkeys(groups) if any(SIGNALS[name][0] == group for name in names)]
        since = time.monotonic()
        base = read_base(self.model, self.task, self.validation, self.plan)
        self.seconds[ANSWERS] = time.monotonic() - since
        measure: dict[str, Callable[[Base], Mapping[str, float]]] = {
            ANSWERS: self._answers,
            PROMPTS: self._prompts,
            EXAMPLES: self._examples,
            GRADIENTS: self._gradients,
            STEPS: self._steps,
            READ: lambda _: read_signals(self.model, self.train, self.validation, self.plan),
            TASK: lambda _: task_signals(self.model, self.task, self.train, self.plan.layout),
            MODEL: lambda _: model_signals(self.model),
        }
        values: dict[str, float] = {}
        for group in wanted:
            since = time.monotonic()
            values |= measure[group](base)
            self.seconds[group] = self.seconds.get(group, 0.0) + time.monotonic() - since
        return Signals({name: float(values[name]) for name in SIGNALS if name in names}, self.seconds)

    def _answers(self, base: Base) -> Mapping[str, float]:
        return base.signals(self.model.anatomy.vocab)

    def _prompts(self, base: Base) -> Mapping[str, float]:
        pace = self.pace
        found = best_prompt(
            self.model, self.task, self.validation, pace.prompts, pace.prompt_items, self.plan, self.seed
        )
        return prompt_signals(base, found)

    def _examples(self, base: Base) -> Mapping[str, float]:
        shown, context = with_examples(self.model, self.task, self.validation, self.pace.examples, self.plan, self.seed)
        few = self.validation[: self.pace.gradient_items]
        return {**example_signals(base, shown), **vector_signals(self.model, few, context, self.plan)}

    def _gradients(self, base: Base) -> Mapping[str, float]:
        few = self.train[: self.pace.gradient_items]
        batch = encode(self.model, few, room_in(self.model, self.plan.max_tokens), self.plan.layout)
        return gradients_of(self.model, batch).signals()

    def _steps(self, base: Base) -> Mapping[str, float]:
        pace, values = self.pace, dict[str, float]()
        plan = replace(self.plan, validation_items=pace.validation_items)
        for arm, method in arms().items():
            runs = first_steps(self.model, self.task, method, pace.looks, pace.rates, plan, self.seed)
            values |= step_signals(arm, base.nats, runs, len(pace.looks))
        return values | _leads(values, len(pace.looks))


def _leads(values: Mapping[str, float], looks: int) -> dict[str, float]:
    return {
        "lead_gone": values[f"context_gone_{looks}"] - values[f"weights_gone_{looks}"],
        "lead_score": values["context_score"] - values["weights_score"],
    }
