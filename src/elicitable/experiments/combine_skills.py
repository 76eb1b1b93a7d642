"""Test section 5, "combine skills": a prefix puts pretrained skills together, and does not learn one unlike them."""

from __future__ import annotations

from elicitable.experiments.bases import DEVIATIONS, MIXED
from elicitable.experiments.experiment import DIGIT_TASKS, Adapt, Bound, Cell, Claim, Experiment, Figure, Training

_PRETRAINED = {"ascending": 5.9, "descending": 27.8, "add-1": 39.7, "add-2": 22.8}
_SKILLS = {"ascending": 99.69, "descending": 99.59, "add-1": 100.0, "add-2": 99.97}
_NEW = ("ascending-add-1", "double-histogram")
_SKILL_TRAINING = Training(steps=1_500, batch=16)
_NEW_TRAINING = {
    "ascending-add-1": Training(steps=4_000, batch=16, patience_steps=1_000),
    "double-histogram": Training(steps=2_000, batch=16, patience_steps=700),
}
_SWEEP = (1e-1, 3e-1)  # on the new tasks; the skills are elicited at 0.1
_LATER = {("layer-prefix", "ascending-add-1"): 3e-1}  # the best of the sweep at seed 0, by validation; else it is 0.1


def _prefix(method: str, task: str) -> Adapt:
    is_new = task in _NEW
    return Adapt(
        f"{method} of 10 for {task}",
        MIXED.name,
        task,
        method,
        10,
        _SWEEP if is_new else (1e-1,),
        _NEW_TRAINING[task] if is_new else _SKILL_TRAINING,
        DIGIT_TASKS if is_new else (task,),
        options=(("init", "random"),),
        later_rates=(_LATER.get((method, task), 1e-1),),
    )


def _of(method: str, task: str) -> Cell:
    return Cell(f"{method} of 10 for {task}", task)


EXPERIMENT = Experiment(
    name="combine-skills",
    title="Skills combined: sort then add 1, and a task unlike any",
    source="section 5.3",
    trials=(MIXED, *(_prefix(method, task) for method in ("layer-prefix", "kv-prefix") for task in DIGIT_TASKS)),
    claims=(
        *(
            Claim(
                f"pretrained: no more than a share of {task}",
                Cell(MIXED.name, task),
                figure,
                Bound("at most", 50.0),
                refuted="one skill came without being asked for, more often than not",
            )
            for task, figure in _PRETRAINED.items()
        ),
        Claim(
            "pretrained: no sort-then-add-1",
            Cell(MIXED.name, "ascending-add-1"),
            0.0,
            Bound("at most", 1.0),
            refuted="pretraining had taught the combination already",
        ),
        Claim(
            "pretrained: no double histogram",
            Cell(MIXED.name, "double-histogram"),
            0.0,
            Bound("at most", 1.0),
            refuted="pretraining had taught the new task already",
        ),
        *(
            Claim(
                f"layer-prefix elicits {task}",
                _of("layer-prefix", task),
                figure,
                Bound("at least", 90.0),
                refuted="ten virtual tokens left the skill undone in a tenth of the inputs",
            )
            for task, figure in _SKILLS.items()
        ),
        Claim(
            "layer-prefix combines skills",
            _of("layer-prefix", "ascending-add-1"),
            71.59,
            Bound("at least", 50.0),
            beside=_of("kv-prefix", "ascending-add-1"),
            refuted="a prefix failed to combine two skills more often than not",
        ),
        Claim(
            "but not double histogram",
            _of("layer-prefix", "double-histogram"),
            0.62,
            Bound("at most", 5.0),
            refuted="a prefix taught a task that is no combination of skills",
        ),
        *(
            Claim(
                f"kv-prefix elicits {task}",
                _of("kv-prefix", task),
                figure,
                Bound("at least", 90.0),
                refuted="ten virtual tokens left the skill undone in a tenth of the inputs",
            )
            for task, figure in _SKILLS.items()
        ),
        Claim(
            "kv-prefix combines skills",
            _of("kv-prefix", "ascending-add-1"),
            71.59,
            Bound("at least", 50.0),
            refuted="a prefix failed to combine two skills more often than not",
        ),
        Claim(
            "but not double histogram",
            _of("kv-prefix", "double-histogram"),
            0.62,
            Bound("at most", 5.0),
            refuted="a prefix taught a task that is no combination of skills",
        ),
    ),
    figures=(
        Figure(
            "learning curves",
            tuple(f"{method} of 10 for {task}" for method in ("layer-prefix", "kv-prefix") for task in _NEW),
            "Validation score on the two new tasks, for the paper's prefix and for free keys and values.",
        ),
    ),
    deviations=(
        *DEVIATIONS,
        "4,000 steps of 16 (double histogram: 2,000) in place of 500,000 of 64",
        "0.1 and 0.3 on the new tasks, swept at seed 0, whose better rate the other seeds keep, in place of 5e-5",
    ),
    companion_seconds=40_000 * 0.305 + (4 * 20_000 + 2 * 500_000) * 0.282,
)
