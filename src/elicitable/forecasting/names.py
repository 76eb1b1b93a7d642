"""The names of all signals: which group each belongs to, and what it is in plain words."""

from __future__ import annotations

from collections.abc import Mapping

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
    "vector_rank": (EXAMPLES, "directions in which they do (log)"),
    "bias_share": (GRADIENTS, "gradient that a bias per head serves"),
    "bias_share_at_position": (GRADIENTS, "gradient that a bias per position serves"),
    "bias_share_best_head": (GRADIENTS, "gradient that a bias of one head serves"),
    "weight_share": (GRADIENTS, "gradient that one change of weights serves"),
    "weight_lead": (GRADIENTS, "how much more weights serve than biases"),
    "weight_rank_1": (GRADIENTS, "of a change of weights, in one direction"),
    "weight_rank_4": (GRADIENTS, "of a change of weights, in four directions"),
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
    "linear_token_score": (READ, "answer tokens read off the output state"),
    "linear_worst_score": (READ, "read off the output state at the worst step"),
    "plain_score": (READ, "answers read by one linear map for all steps"),
    "plain_token_score": (READ, "answer tokens read by one map for all steps"),
    "heads_score": (READ, "answers read off what the heads give"),
    "heads_token_score": (READ, "answer tokens read off what the heads give"),
    "heads_worst_score": (READ, "read off the heads at the worst step"),
    "prompt_tokens": (TASK, "tokens of a prompt"),
    "answer_tokens": (TASK, "tokens of an answer"),
    "labels": (TASK, "labels"),
    "answer_entropy": (TASK, "entropy of the answers' tokens, of the most"),
    "copied": (TASK, "answer tokens that stand in the prompt"),
    "rows": (TASK, "different rows among 1,024 draws"),
    "layers": (MODEL, "layers"),
    "heads": (MODEL, "heads"),
    "width": (MODEL, "width"),
    "vocabulary": (MODEL, "vocabulary"),
    "is_text": (MODEL, "whether it has a tokenizer"),
}

#: Signals that are the logarithm, to base 2, of a count; labels of one more than it.
COUNTS = ("prompt_tokens", "answer_tokens", "labels", "rows", "layers", "heads", "width", "vocabulary")


def in_figures(name: str, value: float) -> str:
    """Write the value of a signal as a person reads it: a count as a count.

    >>> in_figures("layers", 2.0), in_figures("labels", 0.0), in_figures("copied", 0.25)
    ('4', '0', '0.25')
    """
    if name not in COUNTS:
        return f"{value:.2f}"
    return f"{2.0**value - (name == 'labels'):,.4g}"


def of_groups(*groups: str) -> tuple[str, ...]:
    """Return the names of the signals of these groups.

    >>> of_groups(MODEL)
    ('layers', 'heads', 'width', 'vocabulary', 'is_text')
    """
    return tuple(name for name, (group, _) in SIGNALS.items() if group in groups)


#: What is read off the model as it is. First steps, prompts and examples cost most of the time and add nothing on the
#: planted cases (``python -m elicitable.forecasting.evaluate --ablations``). Nor does the number of rows,
#: which has no end in any of these: by it every task of a file would lie outside.
READ_OFF = tuple(name for name in of_groups(ANSWERS, GRADIENTS, READ, TASK, MODEL) if name != "rows")
