"""Test section 3: single virtual tokens reach completions that no single hard token does."""

from __future__ import annotations

from elicitable.experiments.experiment import Bound, Cell, Claim, Experiment, Figure, Measure

_TRIAL = Measure(
    "tokens against virtual tokens on SmolLM2",
    "smollm2",
    "token reach",
    (("hard_tokens", 1_000), ("virtual_tokens", 32)),
)

EXPERIMENT = Experiment(
    name="token-reach",
    title="Hard tokens against virtual tokens",
    source="section 3, appendix A",
    trials=(_TRIAL,),
    claims=(
        Claim(
            "hard tokens collide: distinct completions per token",
            Cell(_TRIAL.name, "distinct per hard token"),
            100 * 24_426 / 32_000,
            Bound("at most", 95.0),
        ),
        Claim(
            "virtual tokens hardly do",
            Cell(_TRIAL.name, "distinct per virtual token"),
            100 * 46_812 / 48_218,
            Bound("at least", 90.0),
        ),
    ),
    figures=(Figure("bars", (_TRIAL.name,), "Distinct completions of ten tokens, in percent of the tokens tried."),),
    deviations=(
        "SmolLM2-135M in place of LLaMA-7B",
        "1,000 hard tokens of 49,152 and 32 virtual ones a seed, in place of 32,000 and 48,218",
        "fewer tokens collide less: hard tokens would have fewer distinct completions each if more were tried",
    ),
)
