"""The schedule: warm-up, a constant phase that ends by itself, a cosine down to zero."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elicitable.training.loop import Plan
from elicitable.training.phase import Phase
from elicitable.values import CurvePoint


def rates(plan: Plan, seconds_a_step: float = 0.0, score: float = 0.0) -> tuple[list[float], Phase]:
    """The learning rate of every step of a run whose validation score is always ``score``."""
    phase, used = Phase(plan), []
    while not phase.is_over:
        used.append(phase.rate())
        phase.advance(seconds_a_step * len(used))
        if len(used) % plan.evaluate_every == 0 or phase.is_over:
            phase.observe(CurvePoint(phase.step, 1.0, score))
        assert len(used) <= plan.steps
    return used, phase


def test_steps_bound_the_constant_phase_and_the_cosine_together() -> None:
    used, phase = rates(Plan(learning_rate=0.5, steps=100, warmup=10, patience_steps=10**6))
    assert len(used) == 100
    assert phase.reason == "steps"
    assert used[:10] == pytest.approx([0.05 * (i + 1) for i in range(10)])
    assert used[10:81] == [0.5] * 71
    assert used[80:] == pytest.approx([0.25 * (1 + math.cos(math.pi * i / 20)) for i in range(20)])
    assert phase.share() == 1.0


def test_time_bounds_it_too() -> None:
    used, phase = rates(Plan(learning_rate=1.0, steps=10_000, warmup=1, seconds=10.0), seconds_a_step=0.1)
    assert phase.reason == "time"
    assert len(used) in (99, 100, 101)
    assert used[79] == 1.0 > used[-1] > 0.0
    assert used[-1] < 0.02


def test_a_plateau_ends_the_constant_phase() -> None:
    plan = Plan(learning_rate=1.0, steps=10_000, warmup=1, evaluate_every=10, patience_steps=50)
    used, phase = rates(plan)
    assert phase.reason == "plateau"
    assert used.count(1.0) <= 62  # seen at step 10, nothing new for 50 steps
    assert len(used) == 60 + 12


def test_what_improves_goes_on() -> None:
    plan = Plan(learning_rate=1.0, steps=400, warmup=1, evaluate_every=10, patience_steps=50)
    phase = Phase(plan)
    while not phase.is_over:
        phase.advance(0.0)
        if phase.step % 10 == 0:
            phase.observe(CurvePoint(phase.step, 1.0, 0.02 * phase.step / 10))
    assert phase.reason == "steps"
    assert phase.step == 400


def test_solved_ends_it() -> None:
    used, phase = rates(Plan(learning_rate=1.0, steps=10_000, warmup=1, evaluate_every=10), score=1.0)
    assert phase.reason == "solved"
    assert len(used) <= 20


def test_without_cooldown_the_rate_stays() -> None:
    used, _ = rates(Plan(learning_rate=1.0, steps=40, warmup=1, cooldown=0.0, evaluate_every=40))
    assert used == [1.0] * 40


@settings(max_examples=150, deadline=None)
@given(
    steps=st.integers(1, 300),
    warmup=st.integers(0, 100),
    cooldown=st.floats(0, 0.9),
    every=st.integers(1, 100),
    patience=st.integers(1, 200),
    seconds=st.none() | st.floats(0.01, 50),
    score=st.floats(0, 1),
)
def test_every_run_ends_and_no_rate_passes_its_peak_or_jumps(
    steps: int, warmup: int, cooldown: float, every: int, patience: int, seconds: float | None, score: float
) -> None:
    plan = Plan(
        learning_rate=1.0,
        steps=steps,
        warmup=warmup,
        cooldown=cooldown,
        evaluate_every=every,
        patience_steps=patience,
        seconds=seconds,
    )
    used, phase = rates(plan, seconds_a_step=0.1, score=score)
    assert 1 <= len(used) <= steps
    assert phase.reason in ("steps", "time", "plateau", "solved")
    assert all(0.0 <= rate <= 1.0 for rate in used)
    climbs = [later - rate for rate, later in itertools.pairwise(used)]
    assert max(climbs, default=0.0) <= 1.0 / max(1, warmup) + 1e-12  # it never climbs faster than the warm-up
