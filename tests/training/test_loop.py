"""The loop on a task small enough to learn in a second: what is trained, what is kept, what stops it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from elicitable.methods.base import Adaptation
from elicitable.methods.catalog import METHODS, method_named
from elicitable.models.model import Model
from elicitable.models.speed import precision
from elicitable.training import loop
from elicitable.training.batches import Reading
from elicitable.training.evaluate import answer_logits, evaluate, token_losses
from elicitable.training.loop import Plan, prepared, train
from elicitable.values import CurvePoint, Item, Score

Build = Callable[..., Model]
TRAINED = [method.name for method in METHODS if method.schedule is not None]


class Successor:
    """Answer d + 1 mod 8, twice."""

    name = "successor"

    def labels(self) -> None:
        return None

    def _item(self, digit: int) -> Item:
        return Item((int(digit),), ((int(digit) + 1) % 8,) * 2)

    def sample(self, n: int, rng: np.random.Generator) -> list[Item]:
        return [self._item(digit) for digit in rng.integers(0, 8, n)]

    def held_out(self, split: str, n: int | None = None) -> list[Item]:
        return [self._item(digit) for digit in range(8)][:n]

    def fingerprint(self) -> str:
        return "successor"


PLAN = Plan(learning_rate=0.03, steps=60, batch=16, warmup=5, evaluate_every=20, validation_items=8, patience_steps=500)


def build(model: Model, method: str, seed: int = 0) -> Adaptation:
    return method_named(method).build(model, 3, seed)


def numbers(adaptation: Adaptation) -> list[torch.Tensor]:
    return [p.detach().clone() for p in adaptation.parameters()]


@pytest.mark.parametrize("method", TRAINED)
def test_every_method_learns_and_leaves_the_base_alone(digits_model: Build, method: str) -> None:
    model = digits_model(8)
    before = copy.deepcopy(model.hf.state_dict())
    adaptation = build(model, method)
    plain = evaluate(model, Successor().held_out("validation", 8), None, Reading(batch=16))
    fit = train(model, adaptation, Successor(), PLAN, seed=0)
    losses = [p.loss_nats for p in fit.curve]
    assert fit.best is not None
    assert fit.best.loss_nats < plain.loss_nats
    if adaptation.budget().numbers_trained > 16:  # one vector moves less than two batches differ
        assert losses[-1] < 0.9 * losses[0]
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.hf.state_dict().values(), strict=True))
    assert all(p.requires_grad and p.grad is None for p in model.hf.parameters())
    with torch.no_grad(), prepared(model, adaptation) as refresh:  # the best state is the one that is loaded
        refresh()
        score = evaluate(model, Successor().held_out("validation", 8), None, Reading(batch=16))
    assert score.correct == fit.best.correct
    assert score.loss_nats == pytest.approx(fit.best.loss_nats, abs=1e-12)


@pytest.mark.parametrize(("select_by", "best"), [("score", 1), ("loss", 2)])
def test_the_best_state_by_validation_is_the_one_that_is_left(
    digits_model: Build, monkeypatch: pytest.MonkeyPatch, select_by: Any, best: int
) -> None:
    model = digits_model(8)
    adaptation = build(model, "kv-prefix")
    scores = [Score((0, 0), 3.0), Score((1, 0), 2.0), Score((0, 0), 1.0), Score((1, 0), 2.5)]
    states: list[list[torch.Tensor]] = []

    def scored(*given: Any) -> Score:
        states.append(numbers(adaptation))
        return scores[len(states) - 1]

    monkeypatch.setattr(loop, "evaluate", scored)
    fit = train(model, adaptation, Successor(), replace(PLAN, steps=8, evaluate_every=2, select_by=select_by), 0)
    assert len(states) == 4
    assert fit.best == scores[best]
    left = numbers(adaptation)
    equal = [all(torch.equal(a, b) for a, b in zip(left, state, strict=True)) for state in states]
    assert equal == [nth == best for nth in range(4)]


def test_enough_training_solves_it_and_says_so(digits_model: Build) -> None:
    model = digits_model(8)
    plan = Plan(learning_rate=0.01, steps=3000, batch=16, warmup=5, evaluate_every=20, validation_items=8)
    fit = train(model, build(model, "full"), Successor(), plan, seed=0)
    assert fit.stopped == "solved"
    assert fit.best is not None
    assert fit.best.mean == 1.0
    assert fit.steps < 3000


@pytest.mark.parametrize("method", ["kv-prefix", "lora", "full"])
def test_the_same_seed_trains_the_same_bytes_and_another_other_ones(digits_model: Build, method: str) -> None:
    model, plan = digits_model(8), replace(PLAN, steps=12, evaluate_every=4)
    adaptations = [build(model, method) for _ in range(3)]
    curves = [
        train(model, adaptation, Successor(), plan, seed).curve
        for adaptation, seed in zip(adaptations, (1, 1, 2), strict=True)
    ]
    one, again, other = map(numbers, adaptations)
    assert curves[0] == curves[1] != curves[2]
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_training_inside_a_context_leaves_the_context_alone(digits_model: Build) -> None:
    model = digits_model(8)
    outer, inner = build(model, "soft-prompt", seed=1), build(model, "kv-prefix")
    before, start = numbers(outer), numbers(inner)
    train(model, inner, Successor(), replace(PLAN, steps=12, evaluate_every=4), 0, inside=[outer])
    assert all(torch.equal(a, b) for a, b in zip(before, numbers(outer), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(start, numbers(inner), strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("method", TRAINED)
def test_every_dtype_trains_at_least_in_float32(digits_model: Build, method: str, dtype: torch.dtype) -> None:
    model = digits_model(8, dtype)
    adaptation = build(model, method)
    start = numbers(adaptation)
    assert {p.dtype for p in adaptation.parameters()} == {torch.promote_types(dtype, torch.float32)}
    fit = train(model, adaptation, Successor(), Plan(learning_rate=0.01, steps=5, batch=8, validation_items=8), 0)
    assert fit.stopped == "steps", fit
    assert fit.steps == 5
    assert any(not torch.equal(a, b) for a, b in zip(start, numbers(adaptation), strict=True))
    assert model.dtype == dtype
    assert all(np.isfinite(p.loss_nats) for p in fit.curve)


@pytest.mark.parametrize("method", TRAINED)
def test_a_loss_that_is_no_number_stops_the_run(
    digits_model: Build, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = digits_model(8)
    adaptation, calls = build(model, method), []

    def poisoned(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return token_losses(logits, targets) * (float("nan") if len(calls) == 4 else 1.0)

    monkeypatch.setattr(loop, "token_losses", poisoned)
    fit = train(model, adaptation, Successor(), PLAN, seed=0)
    assert (fit.stopped, fit.steps) == ("diverged", 4)
    assert all(p.isfinite().all() for p in numbers(adaptation))  # the poisoned step was not taken


def test_a_rate_that_is_far_too_high_diverges(digits_model: Build) -> None:
    model = digits_model(8, torch.float32)
    plan = Plan(learning_rate=1e30, steps=50, batch=8, warmup=1, evaluate_every=100, validation_items=8)
    fit = train(model, build(model, "kv-prefix"), Successor(), plan, seed=0)
    assert fit.stopped == "diverged"
    assert not fit.is_usable


def test_an_interrupt_leaves_the_model_as_it_came(digits_model: Build) -> None:
    model = digits_model(8)
    before = copy.deepcopy(model.hf.state_dict())
    names = [name for name, _ in model.hf.named_modules()]

    def stop(point: CurvePoint, share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(model, build(model, "lora"), Successor(), PLAN, seed=0, progress=stop)
    assert [name for name, _ in model.hf.named_modules()] == names
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.hf.state_dict().values(), strict=True))
    assert model.hf.config._attn_implementation == "sdpa"
    assert all(p.requires_grad for p in model.hf.parameters())


def test_progress_tells_steps_loss_validation_and_how_much_is_done(digits_model: Build) -> None:
    told: list[tuple[CurvePoint, float]] = []
    model = digits_model(8)
    train(model, build(model, "kv-prefix"), Successor(), PLAN, 0, progress=lambda *what: told.append(what))
    scored = [(point, share) for point, share in told if point.validation is not None]
    assert [point.step for point, _ in scored] == [20, 40, 60]
    assert [share for _, share in scored] == pytest.approx([1 / 3, 2 / 3, 1.0])


# --- bfloat16 -------------------------------------------------------------------------------------------------------


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that multiplies bfloat16 fast, whatever this one does."""
    monkeypatch.setattr(precision, "has_fast_bfloat16", lambda device: True)


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("method", TRAINED)
def test_weights_cast_once_give_what_plain_autocast_gives_bit_for_bit(
    digits_model: Build, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from contextlib import nullcontext

    model = digits_model(8, torch.float32)
    (one,) = next(loop.stream(model, Successor(), 4, np.random.default_rng(0), Reading()))
    seen: dict[str, tuple[torch.Tensor, list[torch.Tensor]]] = {}
    casts: dict[str, set[Any]] = {}
    for way in ("cast once", "plain"):
        if way == "plain":
            monkeypatch.setattr(loop, "frozen_casts", lambda model: nullcontext())
        adaptation: Any = build(model, method)
        with prepared(model, adaptation) as refresh:
            casts[way] = {p.dtype for p in model.hf.parameters()}
            refresh()
            with precision.autocast(model):
                logits = answer_logits(model, one)
            token_losses(logits, one.targets).sum().backward()
        seen[way] = (logits.detach(), [p.grad for p in adaptation.parameters()])
    assert (torch.bfloat16 in casts["cast once"]) == (method != "full")  # it was on: full has nothing frozen
    assert casts["plain"] == {torch.float32}
    assert torch.equal(seen["cast once"][0], seen["plain"][0])
    assert all(torch.equal(a, b) for a, b in zip(seen["cast once"][1], seen["plain"][1], strict=True))
    assert {p.dtype for p in model.hf.parameters()} == {torch.float32}


@pytest.mark.usefixtures("fast")
def test_autocast_is_for_float32_models_only(digits_model: Build) -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        with precision.autocast(digits_model(8, dtype)):
            assert torch.is_autocast_enabled("cpu") == (dtype == torch.float32)


@pytest.mark.parametrize(
    ("before", "after", "kept"),
    [
        ((1, 1, 1, 0), (1, 1, 1, 0, 0, 0, 0, 0), True),  # as good where both were looked at; the rest is harder
        ((1, 1, 1, 0), (1, 1, 1, 1, 0, 0, 0, 0), True),
        ((1, 1, 1, 0), (1, 1, 0, 0, 1, 1, 1, 1), False),  # worse there; the rest is easier
        ((1, 1, 1, 0, 1, 1, 1, 1), (1, 1, 1, 0), True),
        ((1, 1, 1, 0), (1, 1, 1, 0), False),  # the same items: of equals the lower loss
    ],
)
def test_states_are_compared_on_the_items_that_both_were_looked_at_with(
    before: tuple[int, ...], after: tuple[int, ...], kept: bool
) -> None:
    best, score = Score(before, 0.5), Score(after, 0.6)
    assert loop._is_better(score, best, Plan(0.1, 8)) is kept
