"""Whole paths on a processor that is quicker in bfloat16: any other computes the same products, slowly."""

from __future__ import annotations

import math

import pytest

import elicitable as el
from elicitable.methods.catalog import method_named
from elicitable.models.model import Model
from elicitable.models.speed import processor
from elicitable.testing import check_method


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Model:
    """Return a toy in float32, as everyone loads it, whose products are lowered."""
    monkeypatch.setattr(processor, "kind", lambda: "amx")
    return el.load("toy:ascending", device="cpu")


def test_a_race_is_priced_run_and_explained(model: Model) -> None:
    arms = ["zero-shot", "prompt", "examples", "kv-prefix", "full"]
    answer = el.verdict(
        model, "descending", methods=arms, steps=4, test_items=32, seeds=1, search_passes=32, time_limit=30, why=True
    )
    assert {arm.status for arm in answer.arms} == {"ok"}


def test_an_adaptation_is_tuned_and_a_context_compiled(model: Model) -> None:
    tuned = el.tune(model, "descending", method="kv-prefix", steps=2, test_items=16)
    assert 0 <= tuned.record["mean"] <= 1
    context = el.context("prompt", model, token_ids=[7, 0])
    texts = [[3, 1, 2, 5], [5, 6, 0, 1], [1, 1, 4, 2], [2, 7, 6, 3]]
    made = el.compile_context(model, context, texts, rank=4, steps=2)
    assert math.isfinite(made.record["compiled"]["kl_nats"])


@pytest.mark.parametrize("name", ["kv-prefix", "soft-prompt", "prompt", "steering", "lora", "full"])
def test_a_method_of_ones_own_can_be_checked_in_the_type_that_everyone_loads(model: Model, name: str) -> None:
    given = {"token_ids": [7, 0]} if name == "prompt" else {}
    assert len(check_method(method_named(name), model, **given)) > 5
