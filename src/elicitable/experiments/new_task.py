"""Test section 5, "new task": a prefix cannot teach a one-layer model an attention pattern it never learned."""

from __future__ import annotations

from elicitable.experiments.bases import ASCENDING, DEVIATIONS
from elicitable.experiments.experiment import Adapt, Bound, Cell, Claim, Experiment, Figure, Training

_SCORED = ("ascending", "descending")
_TRAINING = Training(steps=3_000, batch=32, patience_steps=1_000)


def _prefix(name: str, method: str, rates: tuple[float, ...]) -> Adapt:
    options = (("init", "random"),)
    return Adapt(
        name,
        ASCENDING.name,
        "descending",
        method,
        1,
        rates,
        _TRAINING,
        _SCORED,
        options=options,
        measures=("attention", "activations"),
    )


_FULL = Adapt(
    "full fine-tuning to descending",
    ASCENDING.name,
    "descending",
    "full",
    1,
    (3e-4, 1e-3),
    Training(steps=2_000, batch=32, weight_decay=0.1),
    _SCORED,
    measures=("attention", "activations"),
)
_LAYER = _prefix("layer-prefix of 1 for descending", "layer-prefix", (3e-2, 1e-1, 3e-1))
_KV = _prefix("kv-prefix of 1 for descending", "kv-prefix", (3e-2, 1e-1, 3e-1))

EXPERIMENT = Experiment(
    name="new-task",
    title="A new task: full fine-tuning learns it, a prefix does not",
    source="section 5.1",
    trials=(ASCENDING, _FULL, _LAYER, _KV),
    claims=(
        Claim(
            "pretraining learns ascending",
            Cell(ASCENDING.name, "ascending"),
            91.41,
            Bound("at least", 85.0),
            refuted="the base model could not do its own task",
        ),
        Claim(
            "and not descending",
            Cell(ASCENDING.name, "descending"),
            0.0,
            Bound("at most", 1.0),
            refuted="the task were not new",
        ),
        Claim(
            "full fine-tuning learns descending",
            Cell(_FULL.name, "descending"),
            84.91,
            Bound("at least", 80.0),
            refuted="no change of this model did the task",
        ),
        Claim(
            "and forgets ascending",
            Cell(_FULL.name, "ascending"),
            0.0,
            Bound("at most", 1.0),
            refuted="both tasks could be done without being told which",
        ),
        Claim(
            "a prefix does not learn descending",
            Cell(_LAYER.name, "descending"),
            0.0,
            Bound("at most", 1.0),
            refuted="a prefix taught the new task",
        ),
        Claim(
            "and loses ascending",
            Cell(_LAYER.name, "ascending"),
            0.09,
            Bound("at most", 10.0),
            refuted="a prefix that fails at the new task left the old one as it was",
        ),
        Claim(
            "nor do free keys and values",
            Cell(_KV.name, "descending"),
            None,
            Bound("at most", 1.0),
            refuted="free keys and values taught the new task",
        ),
    ),
    figures=(
        Figure(
            "attention",
            (ASCENDING.name, _LAYER.name, _KV.name, _FULL.name),
            "Attention of the only head on one input: pretrained, with a prefix (its column first), fine-tuned.",
        ),
        Figure(
            "activations",
            (_LAYER.name, _KV.name, _FULL.name),
            "Outputs of the only head on ten inputs where the answer begins, before and after, on the plane of the "
            "first prefix's bias and the direction in which the inputs differ most besides. A prefix moves every input "
            "towards one point, along its bias; fine-tuning moves them at will.",
        ),
        Figure("learning curves", (_LAYER.name, _KV.name, _FULL.name), "Validation score on descending."),
    ),
    deviations=DEVIATIONS,
    companion_seconds=1_101.0,  # run in full: pretraining 358, fine-tuning 174, prefix 567
)
