"""Everything that a forecast looks at, as one flat table of numbers. No signal reads an item of the test split.

Each signal has a name, belongs to a group, and says in plain words what it is. Groups cost time, which is measured.
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

ANSWERS, PROMPTS, EXAMPLES, GRADIENTS, STEPS, READ, TASK, MODEL = (
    "answers",
    "prompts",
    "worked examples",
    "gradients",
    "first steps",
    "linear probes",
    "task",
    "model",
)
#: name: (group, what it is in plain words, of at most 44 characters)
SIGNALS: Mapping[str, tuple[str, str]] = {
    "base_score": (ANSWERS, "score as it is"),
    "base_score_calibrated": (ANSWERS, "score under the best rule between labels"),
    "base_token_score": (ANSWERS, "answer tokens right as it is"),
    "base_rank": (ANSWERS, "rank of the right token, mean of 1 / rank"),
    "base_nats": (ANSWERS, "loss as it is, of guessing's"),
    "base_nats_calibrated": (ANSWERS, "loss at the best temperature, of guessing's"),
    "prompt_gain": (PROMPTS, "loss gone behind the best short prompt"),
    "prompt_score": (PROMPTS, "score behind the best short prompt"),
    "examples_gain": (EXAMPLES, "loss gone behind worked examples"),
    "examples_score_gain": (EXAMPLES, "score gained by worked examples"),
    "examples_slope": (EXAMPLES, "loss gone per doubling of the examples"),
    "vector_share": (EXAMPLES, "how alike examples move all inputs"),
    "vector_rank": (EXAMPLES, "in how many directions (log)"),
    "bias_share": (GRADIENTS, "gradient that a bias per head serves"),
    "bias_share_at_position": (GRADIENTS, "the same, a bias per position"),
    "bias_share_best_head": (GRADIENTS, "the same, of the best head"),
    "weight_share": (GRADIENTS, "gradient that one change of weights serves"),
    "weight_lead": (GRADIENTS, "how much more weights serve than biases"),
    "weight_rank_1": (GRADIENTS, "of that change, in one direction"),
    "weight_rank_4": (GRADIENTS, "of that change, in four directions"),
    "context_gone_1": (STEPS, "loss gone, context, first look"),
    "context_gone_2": (STEPS, "loss gone, context, second look"),
    "context_gone_3": (STEPS, "loss gone, context, third look"),
    "context_late": (STEPS, "of what was left, gone last, context"),
    "context_left": (STEPS, "loss left then, context (log10)"),
    "context_score": (STEPS, "score after the first steps, context"),
    "weights_gone_1": (STEPS, "loss gone, weights, first look"),
    "weights_gone_2": (STEPS, "loss gone, weights, second look"),
    "weights_gone_3": (STEPS, "loss gone, weights, third look"),
    "weights_late": (STEPS, "of what was left, gone last, weights"),
    "weights_left": (STEPS, "loss left then, weights (log10)"),
    "weights_score": (STEPS, "score after the first steps, weights"),
    "lead_gone": (STEPS, "loss gone, context less weights, third look"),
    "lead_score": (STEPS, "score, context less weights"),
    "linear_score": (READ, "answers read off the model's output state"),
    "linear_token_score": (READ, "answer tokens read off it"),
    "linear_worst_score": (READ, "the same at the worst step"),
    "plain_score": (READ, "answers read by one linear map for all steps"),
    "plain_token_score": (READ, "answer tokens read by it"),
    "heads_score": (READ, "answers read off what the heads give"),
    "heads_token_score": (READ, "answer tokens read off it"),
    "heads_worst_score": (READ, "the same at the worst step"),
    "prompt_tokens": (TASK, "tokens of a prompt (log2)"),
    "answer_tokens": (TASK, "tokens of an answer (log2)"),
    "labels": (TASK, "labels (log2)"),
    "answer_entropy": (TASK, "entropy of the answers' tokens, of the most"),
    "copied": (TASK, "answer tokens that stand in the prompt"),
    "rows": (TASK, "different rows among 1,024 draws (log2)"),
    "layers": (MODEL, "layers (log2)"),
    "heads": (MODEL, "heads (log2)"),
    "width": (MODEL, "width (log2)"),
    "vocabulary": (MODEL, "vocabulary (log2)"),
    "is_text": (MODEL, "whether it has a tokenizer"),
}


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
