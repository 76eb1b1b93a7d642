"""Everything that a forecast looks at, as one flat table of numbers. No signal reads an item of the test split.

Each signal has a name, belongs to a group, and says in plain words what it is. Groups cost time, which is measured.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from elicitable.forecasting.answers import (
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
    model: Model, task: Task, *, seed: int = 0, layout: Layout = PLAIN, max_tokens: int | None = None
) -> Signals:
    """Measure every signal of ``task`` on ``model``; the same seed gives the same numbers.

    Only training and validation items are read. The model is as before afterwards.

    Example:
        >>> import elicitable as el
        >>> from elicitable.tasks.catalog import task_from
        >>> found = signals_of(el.load("toy:ascending"), task_from("ascending"))
        >>> found.values["base_score"] > 0.9
        True
    """
    return _Measuring(model, task, pace_for(model), seed, layout, max_tokens).run()


class _Measuring:
    """Measure group by group, with the seconds of each."""

    def __init__(self, model: Model, task: Task, pace: Pace, seed: int, layout: Layout, max_tokens: int | None) -> None:
        self.model, self.task, self.pace, self.seed = model, task, pace, seed
        self.plan = plan_for(layout, pace.batch, max_tokens)
        self.validation = task.held_out("validation", pace.validation_items)
        self.train = task.sample(pace.train_items, generator(seed, "forecast", task.name))
        self.values: dict[str, float] = {}
        self.seconds: dict[str, float] = {}
        self.since = time.monotonic()

    def run(self) -> Signals:
        """Return everything."""
        model, task, plan, pace = self.model, self.task, self.plan, self.pace
        base = read_base(model, task, self.validation, plan)
        self._note(ANSWERS, base.signals(model.anatomy.vocab))
        prompt = best_prompt(model, task, self.validation, pace.prompts, pace.prompt_items, plan, self.seed)
        self._note(PROMPTS, prompt_signals(base, prompt))
        shown, context = with_examples(model, task, self.validation, pace.examples, plan, self.seed)
        self._note(EXAMPLES, example_signals(base, shown))
        self._note(EXAMPLES, vector_signals(model, self.validation[: pace.gradient_items], context, plan))
        few = self.train[: pace.gradient_items]
        batch = encode(model, few, room_in(model, plan.max_tokens), plan.layout)
        self._note(GRADIENTS, gradients_of(model, batch).signals())
        for arm, method in arms().items():
            steps = replace(plan, validation_items=pace.validation_items)
            runs = first_steps(model, task, method, pace.looks, pace.rates, steps, self.seed)
            self._note(STEPS, step_signals(arm, base.nats, runs, len(pace.looks)))
        self._note(STEPS, _leads(self.values, len(pace.looks)))
        self._note(READ, read_signals(model, self.train, self.validation, plan))
        self._note(TASK, task_signals(model, task, self.train, plan.layout))
        self._note(MODEL, model_signals(model))
        return Signals({name: float(self.values[name]) for name in SIGNALS}, self.seconds)

    def _note(self, group: str, values: Mapping[str, float]) -> None:
        self.values |= values
        now = time.monotonic()
        self.seconds[group] = self.seconds.get(group, 0.0) + now - self.since
        self.since = now


def _leads(values: Mapping[str, float], looks: int) -> dict[str, float]:
    return {
        "lead_gone": values[f"context_gone_{looks}"] - values[f"weights_gone_{looks}"],
        "lead_score": values["context_score"] - values["weights_score"],
    }
