"""The slope of a swap against the loss itself: its derivative on the way from one embedding to the other."""

from __future__ import annotations

from collections.abc import Callable

import torch

from elicitable.methods.base import Adaptation
from elicitable.methods.prompt import Prompt
from elicitable.methods.soft_prompt import SoftPromptContext
from elicitable.models.model import Model
from elicitable.training.batches import Reading, encode
from elicitable.training.evaluate import answer_logits, token_losses
from elicitable.training.loop import prepared
from elicitable.training.slopes import token_slopes
from elicitable.values import Item

ITEMS = [Item((1, 2, 3), (4, 5)), Item((6, 0), (7,)), Item((2, 2, 2), (1, 3))]
STEP = 1e-6  # a central difference in float64 is then right to 1e-9: STEP² from the third derivative, 1e-16/STEP


@torch.no_grad()
def loss_with(model: Model, context: Adaptation) -> float:
    with prepared(model, context) as refresh:
        refresh()
        batch = encode(model, ITEMS)
        losses = token_losses(answer_logits(model, batch), batch.targets)
    return float(losses.sum() / (batch.targets >= 0).sum())


def test_the_slope_is_the_derivative_towards_the_other_token(digits_model: Callable[..., Model]) -> None:
    model = digits_model(8)
    ids = Prompt().build(model, token_ids=[3, 1]).ids
    slopes = token_slopes(model, ids, ITEMS, Reading(batch=2))
    assert slopes.shape == (2, 8)
    start = model.embed(ids)[0].detach()
    for place, token in ((0, 5), (1, 0), (1, 7)):
        way = torch.zeros_like(start)
        way[place] = model.embed(model.ids([token]))[0, 0].detach() - start[place]
        up, down = (loss_with(model, SoftPromptContext(start + sign * STEP * way)) for sign in (1, -1))
        assert abs((up - down) / (2 * STEP) - float(slopes[place, token])) < 1e-7
    assert slopes[0, 3].abs() < 1e-12  # the token itself
    assert slopes[1, 1].abs() < 1e-12


def test_it_leaves_no_gradient_behind(digits_model: Callable[..., Model]) -> None:
    model = digits_model(8)
    token_slopes(model, model.ids([3, 1]), ITEMS, Reading())
    assert all(parameter.grad is None for parameter in model.hf.parameters())
