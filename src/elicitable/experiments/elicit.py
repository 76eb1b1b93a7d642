"""Test section 5, "elicit a pretrained task": one virtual token chooses among skills the model already has."""

from __future__ import annotations

from elicitable.experiments.bases import DEVIATIONS, MIXED_ONE_LAYER
from elicitable.experiments.experiment import Adapt, Bound, Cell, Claim, Experiment, Figure, Training

SKILLS = ("ascending", "descending", "add-1", "add-2")
_REPORTED = {"ascending": 94.09, "descending": 83.72, "add-1": 99.62, "add-2": 99.78}
_PRETRAINED = {"ascending": 31.4, "descending": 19.2, "add-1": 30.0, "add-2": 15.6}
_TRAINING = Training(steps=1_500, batch=32, patience_steps=500)
# found on validation: this toy has no norm before its attention, so a vector longer than its tokens' saturates it
_START = {"layer-prefix": ("vocabulary", (1e-2, 3e-2)), "kv-prefix": ("random", (1e-1, 3e-1))}


def _prefix(method: str, task: str) -> Adapt:
    init, rates = _START[method]
    return Adapt(
        f"{method} of 1 for {task}",
        MIXED_ONE_LAYER.name,
        task,
        method,
        1,
        rates,
        _TRAINING,
        SKILLS,
        restarts=2,
        options=(("init", init),),
    )


def _elicited(method: str) -> tuple[Claim, ...]:
    return tuple(
        Claim(
            f"{method} elicits {task}",
            Cell(f"{method} of 1 for {task}", task),
            figure,
            Bound("at least", 80.0),
            beside=None if method == "kv-prefix" else Cell(f"kv-prefix of 1 for {task}", task),
            refuted="one virtual token left the skill undone in a fifth of the inputs",
        )
        for task, figure in _REPORTED.items()
    )


def _others(method: str) -> tuple[Claim, ...]:
    """Claim that every other task scores 0 to 0.7, as the source says."""
    return tuple(
        Claim(
            f"{method} for {task} leaves no {other}",
            Cell(f"{method} of 1 for {task}", other),
            0.7,
            Bound("at most", 2.0),
            refuted="the other skills went on beside the one that was elicited",
        )
        for task in SKILLS
        for other in SKILLS
        if other != task
    )


EXPERIMENT = Experiment(
    name="elicit",
    title="Pretrained skills: one virtual token elicits each",
    source="section 5.2",
    trials=(
        MIXED_ONE_LAYER,
        *(_prefix(method, task) for method in ("layer-prefix", "kv-prefix") for task in SKILLS),
    ),
    claims=(
        *(
            Claim(
                f"pretrained: no more than a share of {task}",
                Cell(MIXED_ONE_LAYER.name, task),
                figure,
                Bound("at most", 50.0),
                refuted="one skill came without being asked for, more often than not",
            )
            for task, figure in _PRETRAINED.items()
        ),
        *_elicited("layer-prefix"),
        *_others("layer-prefix"),
        *_elicited("kv-prefix"),
    ),
    figures=(
        Figure(
            "learning curves",
            tuple(f"{method} of 1 for {task}" for method in ("layer-prefix", "kv-prefix") for task in SKILLS),
            "Validation score while one virtual token is trained for each skill.",
        ),
    ),
    deviations=(*DEVIATIONS, "rates and random starts are swept, and the best on validation counts"),
    companion_seconds=20_000 * 0.0532 + 4 * 30_000 * 0.0464,
)
