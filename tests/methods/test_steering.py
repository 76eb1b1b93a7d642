"""A steering vector against the residual stream itself, and rates beyond a range."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import elicitable as el
from elicitable.errors import InputError
from elicitable.methods.base import WIDEST, Schedule
from elicitable.methods.steering import Steering
from elicitable.models.model import Model

from .conftest import fresh_model


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_it_adds_the_vector_behind_its_layer_and_nowhere_else(name: str) -> None:
    model = fresh_model(name)
    steering = Steering().build(model, layer=0)
    plain = streams(model)
    with torch.no_grad():
        steering.vector.copy_(torch.linspace(-1, 1, model.anatomy.d_model, dtype=torch.float64))
    with el.use(model, steering):
        steered = streams(model)
    assert torch.equal(steered[0], plain[0])
    assert (steered[1] - plain[1] - steering.vector).abs().max() < 1e-14  # one addition in float64, of numbers below 4


@torch.no_grad()
def streams(model: Model) -> list[torch.Tensor]:
    """What every layer receives."""
    seen: list[torch.Tensor] = []

    def keep(module: Any, args: Any, kwargs: Any) -> None:
        seen.append((args[0] if args else kwargs["hidden_states"]).clone())

    hooks = [block.register_forward_pre_hook(keep, with_kwargs=True) for block in model.anatomy.blocks]
    model(input_ids=torch.tensor([[12, 40, 5, 6]]))
    for hook in hooks:
        hook.remove()
    return seen


def test_a_layer_that_is_not_there_is_refused() -> None:
    model = fresh_model("gpt2")
    for layer in (-1, model.anatomy.depth, True, 0.5):
        with pytest.raises(InputError, match="layer must be a whole number from 0"):
            Steering().build(model, layer=layer)


def test_a_range_goes_on_beyond_either_edge_and_ends() -> None:
    schedule = Schedule((1e-2, 1e-1, 3e-1))
    tried = list(schedule.learning_rates)
    assert schedule.wider(tried, 1e-1) is None
    assert schedule.wider([0.1], 0.1) is None
    for further in (0.9, 2.7, 8.1):
        assert schedule.wider(tried, max(tried)) == pytest.approx(further)
        tried.append(schedule.wider(tried, max(tried)) or 0.0)
    assert len(tried) == 3 + WIDEST
    assert schedule.wider(tried, max(tried)) is None
    assert schedule.wider(tried, min(tried)) == pytest.approx(1e-3)
