"""Verdicts as a race would leave them: the numbers are made up, their shapes and oddities are real."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from elicitable.diagnosis.margins import stretches
from elicitable.diagnosis.verdict import Evidence, Gap
from elicitable.methods.catalog import method_named
from elicitable.values import ArmResult, Budget, CurvePoint, Verdict

LAYERS, HEADS = 4, 4
METHODS: dict[str, dict[str, Any]] = {
    "zero-shot": {"mean": 0.02, "numbers": 0, "keys": 0},
    "prompt": {"mean": 0.06, "numbers": 0, "keys": 6, "setting": {"token_ids": [9, 4, 4, 1, 0, 7]}},
    "examples": {"mean": 0.01, "numbers": 0, "keys": 80, "setting": {"k": 4}},
    "soft-prompt": {"mean": 0.41, "numbers": 12_288, "keys": 48, "rates": (0.01, 0.03, 0.1, 0.3)},
    "layer-prefix": {"mean": 0.83, "numbers": 12_288, "keys": 12, "rates": (0.01, 0.03, 0.1, 0.3)},
    "kv-prefix": {"mean": 0.98, "numbers": 12_288, "keys": 6, "rates": (0.01, 0.03, 0.1, 0.3)},
    "value-bias": {"mean": 0.12, "numbers": 1_024, "keys": 0, "rates": (0.001, 0.01, 0.1)},
    "lora": {"mean": 0.99, "numbers": 12_288, "keys": 0, "rates": (1e-4, 1e-3, 1e-2)},
    "full": {"mean": 0.995, "numbers": 3_159_552, "keys": 0, "rates": (1e-4, 5e-4, 1e-3)},
}
ANSWER_OF = {
    "already-there": "zero-shot",
    "prompt": "prompt",
    "prefix": "kv-prefix",
    "context": "kv-prefix",
    "weights": "lora",
}
CONTEXTS = ("prompt", "examples", "soft-prompt", "layer-prefix", "kv-prefix")
SIDE_EFFECTS = {"soft-prompt": 0.21, "layer-prefix": 0.87, "kv-prefix": 1.785, "lora": 0.05, "full": 0.644}


def arm(method: str, seeds: int = 3, items: int = 1000, mean: float | None = None, **changes: Any) -> ArmResult:
    """One arm that ran through, with curves, sweep, masses and samples, the same on every call."""
    about = METHODS[method]
    rng = np.random.default_rng(sum(map(ord, method)))
    rates = about.get("rates", ())
    mean = about["mean"] if mean is None else mean
    correct = tuple(tuple(int(hit) for hit in rng.random(items) < mean) for _ in range(seeds))
    mean = float(np.mean(correct))
    spread = 1.96 * math.sqrt(max(mean * (1 - mean), 1e-4) / items)
    gap = METHODS["full"]["mean"] - about["mean"]
    recipe = method_named(method)
    result = ArmResult(
        method=method,
        rung=recipe.rung,
        deployment=recipe.deployment,
        setting=about.get("setting", {"length": about["keys"], "init": "random"} if rates else {}),
        budget=Budget(about["numbers"], 4 * about["numbers"], about["keys"]),
        status="ok",
        mean=mean,
        low=max(mean - spread, 0.0),
        high=min(mean + spread, 1.0),
        items=items,
        seeds=seeds,
        behind=() if method == "value-bias" else (gap, gap - 0.004, gap + 0.004) if gap else (0.0, 0.0, 0.0),
        learning_rate=rates[-2] if rates else None,
        steps=750 if rates else 0,
        seconds=61.5 if rates else 2.25,
        side_effect_nats=SIDE_EFFECTS.get(method),
        correct=correct,
        curves=tuple(curve(mean, seed, rng) for seed in range(seeds)) if rates else (),
        sweep=tuple(tried(rate, rates[-2], mean, rng) for rate in rates),
        prefix_mass=masses(method, rng) if method in CONTEXTS else (),
        samples=tuple(
            {"prompt": prompt, "target": target, "answer": target if rng.random() < mean else prompt}
            for prompt, target in (
                ("3 1 4 1 5 2 6 5 3 5", "2 2 3 4 4 5 6 6 6 7"),
                ("0 7 2 6 1 1 4 0 3 3", "1 1 2 2 3 4 4 5 7 0"),
            )
        ),
    )
    return dataclasses.replace(result, **changes)


def curve(mean: float, seed: int, rng: np.random.Generator) -> tuple[CurvePoint, ...]:
    """A learning curve that rises to ``mean``; validation is measured at every fifth point."""
    points = []
    for i, step in enumerate(range(0, 751, 25)):
        share = 1 / (1 + math.exp(-(step - 250 - 60 * seed) / 60))
        loss = float(2.2 - (2.2 + math.log(max(mean, 0.12))) * share + 0.05 * rng.random())
        validation = float(np.clip(mean * share + 0.01 * rng.normal(), 0, 1)) if i % 5 == 0 else None
        points.append(CurvePoint(step, max(loss, 0.01), validation))
    return tuple(points)


def tried(rate: float, chosen: float, mean: float, rng: np.random.Generator) -> dict[str, Any]:
    """One entry of a sweep; the largest rate of a wide sweep diverged."""
    distance = abs(math.log10(rate / chosen))
    return {
        "learning_rate": rate,
        "steps": 250,
        "validation": float(mean * math.exp(-1.2 * distance) * (0.9 + 0.1 * rng.random())),
        "loss_nats": 0.2 + distance,
    }


def masses(
    method: str, rng: np.random.Generator, layers: int = LAYERS, heads: int = HEADS
) -> tuple[tuple[float, ...], ...]:
    """(layer, head) shares of attention on the context."""
    level = 0.15 + 0.12 * CONTEXTS.index(method)
    return tuple(tuple(float(x) for x in np.clip(rng.normal(level, 0.12, heads), 0, 1)) for _ in range(layers))


def verdict(**changes: Any) -> Verdict:
    """The race of nine arms on toy:mixed and sort-then-add-1: a prefix is enough."""
    result = Verdict(
        label="prefix",
        answer=ANSWER_OF.get(changes.get("label", "prefix"), ""),
        reasons=(),
        arms=tuple(arm(method) for method in METHODS),
        model="toy:mixed",
        task="ascending-add-1",
        margin=0.02,
        provenance={
            "command": "elicitable verdict --model toy:mixed --task ascending-add-1 --budget 12288 --seeds 3",
            "versions": {"elicitable": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"},
            "seed": 0,
            "model_hash": "sha256:" + "3f" * 32,
            "data_hash": "sha256:" + "a1" * 32,
            "budget": 12_288,
            "warnings": ["prompt was searched up to 6 tokens only; a longer one was not tried."],
        },
    )
    made = decided(dataclasses.replace(result, **changes))
    return made if "reasons" in changes else dataclasses.replace(made, reasons=evidence(made).decide(0.02).reasons)


def decided(base: Verdict) -> Verdict:
    """``base`` with what the differences between its arms decide at every margin."""
    return dataclasses.replace(base, margins=stretches(evidence(base)))


def evidence(base: Verdict) -> Evidence:
    """What the differences between the arms of ``base`` are evidence of."""
    judged = [arm for arm in base.arms if arm.status == "ok" and arm.behind]
    best = next((arm for arm in judged if arm.behind == (0.0, 0.0, 0.0)), None)
    controls = tuple(Gap(arm, 0.8, 0.78, 0.82) for arm in base.arms if arm.is_control)
    return Evidence(base.arms, tuple(Gap(arm, *arm.behind) for arm in judged), best, None, 0.1, controls=controls)


def with_arm(base: Verdict, method: str, **changes: Any) -> Verdict:
    """``base`` with one arm changed."""
    arms = tuple(dataclasses.replace(a, **changes) if a.method == method else a for a in base.arms)
    return decided(dataclasses.replace(base, arms=arms))


def without_score(status: str, reason: str) -> dict[str, Any]:
    """The fields of an arm that did not run through."""
    return {
        "status": status,
        "reason": reason,
        "mean": None,
        "low": None,
        "high": None,
        "items": 0,
        "seeds": 0,
        "correct": (),
        "samples": (),
        "prefix_mass": (),
    }


def with_failures() -> Verdict:
    """One arm failed, one diverged (its loss is NaN from step 50), one was skipped."""
    result = with_arm(
        verdict(), "full", **without_score("failed", "RuntimeError: out of memory\n  at step 3"), curves=()
    )
    broken = (CurvePoint(0, 2.2, 0.0), CurvePoint(25, 2.0, None), CurvePoint(50, math.nan, None))
    result = with_arm(
        result, "layer-prefix", **without_score("diverged", "the loss became NaN at step 50"), curves=(broken,)
    )
    result = with_arm(
        result, "examples", **without_score("skipped", "the examples do not fit in 32 positions"), curves=(), sweep=()
    )
    result = with_arm(result, "lora", behind=(0.0, 0.0, 0.0))  # the best of those that ran through
    return dataclasses.replace(result, reasons=evidence(result).decide(result.margin).reasons)


def inconclusive() -> Verdict:
    """One seed and few items: wide intervals, no answer."""
    arms = tuple(arm(method, seeds=1, items=40) for method in METHODS)
    arms = tuple(dataclasses.replace(a, behind=wider(a.behind)) for a in arms)
    reasons = (
        "The interval of kv-prefix against full spans the margin; 2 more seeds or 400 test items would settle it.",
    )
    return verdict(label="inconclusive", reasons=reasons, arms=arms)


def wider(behind: tuple[float, ...]) -> tuple[float, ...]:
    """A difference that a few items leave open."""
    return (behind[0], behind[1] - 0.06, behind[2] + 0.06) if any(behind) else behind


def out_of_reach() -> Verdict:
    """Every arm is near zero."""
    arms = tuple(dataclasses.replace(a, mean=0.004, low=0.0, high=0.01, correct=((0,) * 1000,)) for a in verdict().arms)
    return verdict(label="out-of-reach", reasons=("No arm reaches 0.05.",), arms=arms, task="double-histogram")


def reviews() -> Verdict:
    """Classification of texts on a 30-layer model, with long and odd texts."""
    rng = np.random.default_rng(5)
    sample = {
        "prompt": "Review: A ‘quiet’ film — 3 hours & a <b>slow</b> start — that stays with you. 映画 🎬\nSentiment:",
        "target": " positive",
        "answer": " positive",
    }
    means = dict(zip(METHODS, (0.58, 0.71, 0.74, 0.80, 0.85, 0.86, 0.70, 0.86, 0.87), strict=True))
    arms = []
    for method in METHODS:
        base = arm(method, seeds=2, items=500, mean=means[method])
        arms.append(
            dataclasses.replace(
                base,
                prefix_mass=masses(method, rng, 30, 9) if base.prefix_mass else (),
                samples=(sample, sample | {"prompt": "Bad.", "target": " negative", "answer": " negative"}),
                budget=dataclasses.replace(base.budget, numbers_trained=134_515_008)
                if method == "full"
                else base.budget,
            )
        )
    return verdict(arms=tuple(arms), model="smollm2", task="movie-reviews", label="prefix")


def hostile() -> Verdict:
    """Texts from files that try to be markup, escapes or rich tags."""
    attack = "<script>alert('x')</script>"
    result = with_arm(
        verdict(reasons=(f"because {attack} [red]rich[/red] \x1b[31m",), task=f"my {attack}", model="模型 <img src=x>"),
        "kv-prefix",
        setting={"text": attack, "token_ids": list(range(5000)), "size": 10**15},
        samples=({"prompt": attack, "target": "</pre>" + attack, "answer": "&amp; \x00 \ud800"},),
    )
    result = with_arm(result, "lora", **without_score("failed", f"ValueError: {attack}"))
    return dataclasses.replace(
        result, provenance={"command": f"elicitable {attack}", "warnings": attack, attack: attack}
    )


def empty() -> Verdict:
    """A race that ran nothing."""
    return verdict(label="inconclusive", reasons=(), arms=(), provenance={})


ALL = {
    "nine arms": verdict,
    "with failures": with_failures,
    "inconclusive": inconclusive,
    "out of reach": out_of_reach,
    "reviews": reviews,
    "hostile": hostile,
    "empty": empty,
}
