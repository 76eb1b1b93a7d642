"""Test section 3: single virtual tokens reach completions that no single hard token does."""

from __future__ import annotations

from elicitable.experiments.experiment import Bound, Cell, Claim, Experiment, Figure, Measure

_TRIAL = Measure(
    "tokens against virtual tokens on SmolLM2",
    "smollm2",
    "token reach",
    (("hard_tokens", 1_000), ("virtual_tokens", 32)),
)

# Distinct completions of ten tokens, in percent of the tokens tried, as the source counts them.
HARD, VIRTUAL = 100 * 24_426 / 32_000, 100 * 46_812 / 48_218

EXPERIMENT = Experiment(
    name="token-reach",
    title="Hard tokens against virtual tokens",
    source="section 3, appendix A",
    trials=(_TRIAL,),
    claims=(
        Claim(
            "hard tokens collide: distinct completions per token",
            Cell(_TRIAL.name, "distinct per hard token"),
            HARD,
            Bound("at most", round((HARD + VIRTUAL) / 2, 1)),
            refuted="hard tokens reached as many as virtual ones: above the middle of the source's two figures",
        ),
        Claim(
            "virtual tokens hardly do",
            Cell(_TRIAL.name, "distinct per virtual token"),
            VIRTUAL,
            Bound("at least", round((HARD + VIRTUAL) / 2, 1)),
            refuted="virtual tokens collided as hard ones do: below that middle",
        ),
        Claim(
            "and so a virtual token reaches more than a hard one",
            Cell(_TRIAL.name, "distinct per virtual token"),
            VIRTUAL - HARD,
            Bound("at least", round((VIRTUAL - HARD) / 2, 1)),
            unit="points",
            minus=Cell(_TRIAL.name, "distinct per hard token"),
            refuted="the difference were less than half of the source's",
        ),
    ),
    figures=(Figure("bars", (_TRIAL.name,), "Distinct completions of ten tokens, in percent of the tokens tried."),),
    deviations=(
        "SmolLM2-135M in place of LLaMA-7B",
        "1,000 hard tokens of 49,152 and 32 virtual ones a seed, in place of 32,000 and 48,218",
        "fewer tokens collide less: hard tokens would have fewer distinct completions each if more were tried",
    ),
)
