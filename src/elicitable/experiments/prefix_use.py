"""Test appendix B: trained prefixes put nearly all their mass on one or two positions per layer, whatever the input."""

from __future__ import annotations

from elicitable.experiments.experiment import Adapt, Bound, Cell, Claim, Experiment, Figure, Training

_TRIAL = Adapt(
    "kv-prefix of 10 for movie reviews",
    "smollm2",
    "movie-reviews",
    "kv-prefix",
    10,
    (3e-2,),
    Training(steps=80, batch=16, warmup=8, evaluate_every=40, validation_items=64, patience_steps=80, max_tokens=96),
    ("movie-reviews",),
    options=(("init", "vocabulary"),),
    measures=("prefix use",),
    test_items=200,
)

EXPERIMENT = Experiment(
    name="prefix-use",
    title="Which positions of a trained prefix are used",
    source="appendix B",
    trials=(_TRIAL,),
    claims=(
        Claim(
            "the prefix works at all",
            Cell(_TRIAL.name, "movie-reviews"),
            None,
            Bound("at least", 65.0),
            refuted="the prefix did little more than guess",
        ),
        Claim(
            "two positions take most of a layer's mass",
            Cell(_TRIAL.name, "share of the two largest"),
            None,
            Bound("at least", 50.0),
            refuted="most of the mass were spread over the other positions",
        ),
        Claim(
            "nearly whatever the input: layer 0",
            Cell(_TRIAL.name, "spread in layer 0"),
            0.016,
            Bound("at most", 0.1),
            "",
            refuted="a position's share hung on the input, by a tenth of the mass and more",
        ),
        Claim(
            "nearly whatever the input: all layers",
            Cell(_TRIAL.name, "spread"),
            0.174,
            Bound("at most", 0.2),
            "",
            refuted="a position's share hung on the input, by a fifth of the mass and more",
        ),
    ),
    figures=(
        Figure(
            "position shares",
            (_TRIAL.name,),
            "Share of the prefix's mass per position, layer by layer; one panel a trained prefix.",
        ),
    ),
    deviations=(
        "SmolLM2-135M on movie reviews in place of GPT-2 on Emotion; one trained prefix a seed, so ten with the preset "
        "`paper` in place of 20",
        "the source's 0.174 is its layer 2; ours is the mean over layers",
    ),
)
