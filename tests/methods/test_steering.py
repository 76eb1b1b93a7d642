"""A steering vector against the residual stream itself, and rates beyond a range."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import elicitable as el
from elicitable.errors import InputError, UnknownNameError
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


@pytest.mark.parametrize(
    ("depth", "own", "others"),
    [(1, 0, []), (2, 0, [1]), (3, 1, [0, 2]), (4, 1, [3]), (12, 5, [3, 9]), (30, 14, [7, 22])],
)
def test_a_race_also_tries_a_layer_of_the_lower_half_and_one_of_the_upper(
    depth: int, own: int, others: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = fresh_model("gpt2")
    monkeypatch.setitem(vars(model), "anatomy", SimpleNamespace(depth=depth, d_model=4))
    assert Steering().build(model).layer == own
    assert [start["layer"] for start in Steering().starts(model)] == others


def test_a_person_says_behind_which_layer_it_stands(tmp_path: Path) -> None:
    given: dict[str, Any] = {"learning_rate": 0.1, "steps": 2, "test_items": 4}
    tuned = el.tune("toy:mixed", "ascending", method="steering", layer=3, out=tmp_path, **given)
    assert (tuned.record["setting"], tuned.adaptation.setting) == ({"layer": 3}, {"layer": 3})
    assert el.read(tmp_path).adaptation(el.load("toy:mixed")).setting["layer"] == 3
    with pytest.raises(InputError, match="layer must be a whole number from 0 to 3 for toy:mixed, got 4"):
        el.tune("toy:mixed", "ascending", method="steering", layer=4, **given)
    with pytest.raises(UnknownNameError, match="layer"):
        el.tune("toy:mixed", "ascending", method="soft-prompt", layer=1, **given)


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
