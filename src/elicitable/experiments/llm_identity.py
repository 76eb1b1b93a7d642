"""Test section 4 on a real language model: a prefix rescales content attention and adds a bias, layer by layer.

A^pt_ij = (1 − α_i)·A_ij        t^pt_i = Σ_{j∈prefix} A^pt_ij W_V s_j + (1 − α_i)·t_i
"""

from __future__ import annotations

from elicitable.experiments.experiment import Bound, Cell, Claim, Experiment, Figure, Measure

_TRIAL = Measure(
    "random prefix of 5 on SmolLM2",
    "smollm2",
    "identity",
    (("method", "layer-prefix"), ("size", 5), ("texts", 8)),
    ("passages",),
)

EXPERIMENT = Experiment(
    name="llm-identity",
    title="The two equations on a real language model",
    source="section 4",
    trials=(_TRIAL,),
    claims=(
        Claim(
            "content attention is only rescaled, in every layer",
            Cell(_TRIAL.name, "attention residual"),
            4.88e-4,
            Bound("at most", 1e-4),
            "",
            refuted="a context turned attention over the content, by more than rounding, within one layer",
        ),
        Claim(
            "the output is only biased, in every layer",
            Cell(_TRIAL.name, "output residual"),
            9.16e-5,
            Bound("at most", 1e-4),
            "",
            refuted="a context did more to a head's output than rescale it and add a bias",
        ),
        Claim(
            "below a prefixed layer content attention does move",
            Cell(_TRIAL.name, "drift of deeper layers"),
            None,
            Bound("at least", 0.05),
            "",
            refuted="deeper layers attended to the content as before",
        ),
    ),
    figures=(
        Figure(
            "residuals", (_TRIAL.name,), "Residuals of both equations and drift of content attention, layer by layer."
        ),
    ),
    deviations=("SmolLM2-135M in float32 in place of LLaMA-7B in fp16", "every layer and head, not layer 0 head 12"),
)
