"""What a ``with`` changes is as it was afterwards, also after an exception."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from elicitable.errors import InputError
from elicitable.models.restoring import evaluating, swapped, without_gradients


def test_a_forward_is_swapped_and_the_class_has_its_own_again() -> None:
    layer, x = nn.Linear(2, 2), torch.ones(1, 2)
    before, own = layer(x), dict(vars(layer))
    with swapped(layer, forward=lambda x: 2 * x, extra=1):
        assert torch.equal(layer(x), 2 * x)
        with pytest.raises(InputError), swapped(layer, extra=3):
            raise InputError(f"{layer.extra}")
        assert layer.extra == 1
    assert torch.equal(layer(x), before)
    assert vars(layer) == own
    assert "forward" not in vars(layer)


def test_every_part_keeps_its_own_mode_and_its_own_wish_for_a_gradient() -> None:
    both = nn.Sequential(nn.Linear(1, 1), nn.Dropout())
    both[1].eval()
    both[0].bias.requires_grad_(False)
    with evaluating(both), without_gradients(both):
        assert not any(part.training for part in both.modules())
        assert not any(weight.requires_grad for weight in both.parameters())
    assert [part.training for part in both.modules()] == [True, True, False]
    assert [weight.requires_grad for weight in both.parameters()] == [True, False]
