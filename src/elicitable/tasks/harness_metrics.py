"""Which of lm-evaluation-harness's metrics can be a race's score, and what they are.

A race's score is higher where answers are better, lies between 0 and 1 and is a function of sums over items. Of
choices that are ``acc``, ``acc_norm`` and ``acc_bytes``, each with the rule that decides between choices, and ``f1``
and ``mcc`` of what the plain likelihood answers. Of a continuation it is ``acc``. Of free answers it is every metric
that is averaged over documents, and ``bleu``, ``chrf`` and ``chrf++``; the value of each item comes from the harness's
own filters and functions, and the point value from its aggregation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any, Final

from elicitable.errors import InputError
from elicitable.tasks.base import TaskMetric
from elicitable.tasks.harness_source import aggregation_of, judged
from elicitable.untrusted import is_out_of_memory

RULES: Final = {"acc": "sum", "acc_norm": "per character", "acc_bytes": "per byte", "f1": "sum", "mcc": "sum"}
OVER_CHOICES: Final = {"acc": "mean", "acc_norm": "mean", "acc_bytes": "mean", "f1": "f1", "mcc": "matthews_corrcoef"}
SUMMED: Final = ("mean", "bleu", "chrf", "chrf++")


def names_of(harness: Any) -> tuple[str, ...]:
    """Return the task's metrics in its own order; of free answers also those behind each filter, "metric,filter".

    Raises:
        InputError: a metric's name is no text.
    """
    names = list(harness.aggregation())
    for name in names:
        if not isinstance(name, str):
            raise InputError(f"{harness.config.task}: a metric is named by a text, got {name!r:.80}.")
    filters = filters_of(harness) if harness.OUTPUT_TYPE == "generate_until" else ()
    return tuple(one for name in names for one in (name, *(f"{name},{key}" for key in filters)))


def filters_of(harness: Any) -> tuple[str, ...]:
    """Return the names of the task's filters, the first of which a metric reads where none is named."""
    return tuple(str(one.name) for one in harness._filters)


def refusal(harness: Any, metric: str, labels: tuple[str, ...] | None) -> str:
    """Say why ``metric`` cannot be a race's score, in words; empty where it can."""
    kind, name = harness.OUTPUT_TYPE, metric.partition(",")[0]
    aggregation = aggregation_of(harness, name)
    if not harness.higher_is_better().get(name, True):
        return "lower is better"
    if kind != "generate_until" and harness.config.process_results is not None:
        return "a function of the task's own computes it from likelihoods"
    if kind == "loglikelihood":
        return "" if (name, aggregation) == ("acc", "mean") else "it is no count of right answers"
    if kind == "multiple_choice":
        if OVER_CHOICES.get(name) != aggregation:
            return "it is not a function of which choice the likelihood answers with"
        if name == "f1" and len(labels or ()) != 2:
            return "it is for two choices that are the same for all documents"
        return "" if name != "mcc" or labels else "it is for choices that are the same for all documents"
    if aggregation not in SUMMED:
        return f"it is aggregated by {aggregation}, which is no function of sums over documents"
    return ""


def free_metric(task: str, harness: Any, name: str, document: Callable[[Any], Any]) -> TaskMetric:
    """Return a metric of free answers; ``document`` finds the document that an item's reference names.

    Its values raise :class:`InputError` where the harness cannot compute them.
    """
    own, _, key = name.partition(",")
    whole = f"{own},{key or filters_of(harness)[0]}"

    def values(references: Sequence[Any], answers: Sequence[str]) -> list[Any]:
        try:
            found = judged(harness, [document(one) for one in references], answers)
            return [one[whole] for one in found]
        except Exception as error:  # a metric is a program, which raises whatever it likes
            if is_out_of_memory(error):
                raise
            raise InputError(
                f"{task}: lm-eval's metric {whole} cannot be computed: {type(error).__name__}: {error}. "
                "Give another of its metrics, or a score of elicitable's (--score exact-match)."
            ) from error

    return TaskMetric(
        name,
        f"lm-eval's metric {whole} of what the model writes",
        values=values,
        aggregate=harness.aggregation()[own],
        aggregation=aggregation_of(harness, own),
        is_share=own == "exact_match" and harness.config.process_results is None,
        scale=_declared_scale(task, harness, own),
        code=code(),
    )


def _declared_scale(task: str, harness: Any, metric: str) -> float | None:
    """Return what the best answer gets, where the task's ``metadata`` say it: ``scale: 5``, or ``scale: {name: 5}``."""
    declared = (harness.config.metadata or {}).get("scale")
    if isinstance(declared, Mapping):
        declared = declared.get(metric)
    if declared is None:
        return None
    if isinstance(declared, bool) or not isinstance(declared, int | float) or not 0 < declared < math.inf:
        raise InputError(f"{task}: the scale of {metric} in metadata is a number above 0, got {declared!r}.")
    return float(declared)


def choice_metric(harness: Any, name: str) -> TaskMetric:
    """Return a metric of choices, or of a continuation, as a race's score."""
    rule = RULES[name] if harness.OUTPUT_TYPE == "multiple_choice" else ""
    return TaskMetric(name, _said(harness, name), rule=rule, code=code())


def code() -> str:
    """Say whose code scores: a trial's identity holds it."""
    return f"lm_eval {version('lm_eval')}"


def _said(harness: Any, name: str) -> str:
    if harness.OUTPUT_TYPE == "loglikelihood":
        return "share of documents whose continuation greedy decoding writes, as lm-eval counts it"
    said = {
        "acc": "share of documents in which the likeliest choice is right",
        "acc_norm": "share of documents in which the choice that is likeliest per character is right",
        "acc_bytes": "share of documents in which the choice that is likeliest per byte is right",
        "f1": "F1 of the second choice",
        "mcc": "Matthews' correlation of answers and targets",
    }
    return f"{said[name]}, as lm-eval counts it"
