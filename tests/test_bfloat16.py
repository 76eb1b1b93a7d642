"""Whole paths on a processor that is quicker in bfloat16: any other computes the same products, slowly."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

import elicitable as el
from elicitable.methods.catalog import method_named
from elicitable.models.architectures import tiny_model
from elicitable.models.layout import layout_for
from elicitable.models.model import Model
from elicitable.models.speed import processor
from elicitable.models.speed.precision import product_type, undisturbed
from elicitable.tasks.catalog import task_from
from elicitable.testing import check_method
from elicitable.training.loop import Plan, train


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Model:
    """Return a toy in float32, as everyone loads it, whose products are lowered."""
    monkeypatch.setattr(processor, "kind", lambda device=None: "amx")
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


@pytest.mark.parametrize("name", ["soft-prompt", "lora", "full"])
def test_a_step_computes_with_the_weights_of_the_step_before_it_inside_another_autocast_too(
    model: Model, name: str
) -> None:
    """Every race computes inside one, and trained weights by the casts of those that they had at its beginning."""
    method, task = method_named(name), task_from("descending")
    plan = Plan(3e-3, steps=6, batch=8, evaluate_every=3, validation_items=8, warmup=1)

    def curve() -> list[tuple[float, float | None]]:
        adaptation = method.made(model, 1, seed=0)
        return [(point.loss_nats, point.validation) for point in train(model, adaptation, task, plan, 0).curve]

    plain = curve()
    for around in (undisturbed(), torch.autocast("cpu", torch.bfloat16), torch.autocast("cpu", enabled=False)):
        with around:
            assert curve() == plain


def test_a_race_trains_weights_as_they_are_trained_alone(model: Model) -> None:
    [raced] = el.verdict(model, "descending", methods=["full"], steps=24, test_items=16, seeds=1).arms
    rate, looks = raced.learning_rate, {one["steps"]: one["loss_nats"] for one in raced.sweep}
    assert rate is not None
    plan = Plan(rate, max(looks), 16, 2, evaluate_every=10**9, validation_items=128, weight_decay=0.1)
    layout = layout_for(model)
    alone = method_named("full").made(model, 1, seed=0)
    found = train(model, alone, task_from("descending"), replace(plan, layout=layout, cooldown=0.0), 0)
    assert found.latest is not None
    looked = next(one["loss_nats"] for one in raced.sweep if one["learning_rate"] == rate)
    assert looked == round(found.latest.loss_nats, 5)  # as records keep it


def test_a_model_that_does_not_run_in_bfloat16_is_computed_in_its_own_type(model: Model) -> None:
    """Dbrx adds what its experts say to a float32 sum, which takes nothing else: no arm ran on such a processor."""
    dbrx = Model(tiny_model("dbrx").float())
    assert model.runs_in_bfloat16
    assert product_type(model) == torch.bfloat16
    assert not dbrx.runs_in_bfloat16
    assert product_type(dbrx) == torch.float32
    adaptation = method_named("kv-prefix").made(dbrx, 1, seed=0)
    plan = Plan(1e-3, steps=2, batch=2, evaluate_every=2, validation_items=2, warmup=1)
    assert train(dbrx, adaptation, task_from("descending"), plan, 0).steps == 2


def test_whether_products_may_be_lowered_is_asked_without_a_warning_of_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where id 0 is the padding, every command began with transformers' advice to pass a mask."""
    hf, masks = tiny_model("gpt2", dtype=torch.float32), list[object]()
    monkeypatch.setattr(hf.transformer, "warn_if_padding_and_no_attention_mask", lambda ids, mask: masks.append(mask))
    assert Model(hf, name="gpt2").runs_in_bfloat16
    assert masks
    assert all(mask is not None for mask in masks)
