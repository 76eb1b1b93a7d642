"""The shares of a gradient, against every pair of items written out, each item's gradient by itself, in float64."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from elicitable.forecasting.gradients import common_share, common_share_at_position, gradients_of
from elicitable.models.model import Model
from elicitable.models.replay import seeing
from elicitable.rng import torch_generator
from elicitable.tasks.catalog import task_from
from elicitable.training.batches import encode
from elicitable.training.evaluate import answer_logits, token_losses
from elicitable.values import Item


def items(count: int = 5) -> list[Item]:
    """Items of different lengths, so that rows are padded, and answers of different lengths too."""
    found = task_from("add-1").sample(count, np.random.default_rng(0))
    return [Item(one.prompt[: 10 - nth], one.target[: 4 - nth % 2]) for nth, one in enumerate(found)]


def written_out(model: Model, item: Item, layer: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """One item by itself: what the heads give and its gradient, (token, d_model), and that of every weight."""
    batch = encode(model, [item])
    with seeing(model.hf.transformer.h[layer].attn.c_proj) as seen:
        loss = token_losses(answer_logits(model, batch), batch.targets).mean()
    weights = {name: p for name, p in model.hf.named_parameters() if p.ndim == 2}
    found = torch.autograd.grad(loss, [seen.input, *weights.values()], allow_unused=True)
    kept = {name: g for name, g in zip(weights, found[1:], strict=True) if g is not None}
    return seen.input[0].detach(), found[0][0], kept


def share_by_pairs(own: list[Tensor], at_position: bool) -> float:
    """The mean of g·g' over pairs of tokens of different items, over the mean of ‖g‖²; positions count from the end."""
    at = [(nth, len(g) - place, row) for nth, g in enumerate(own) for place, row in enumerate(g)]
    pairs: dict[int, list[float]] = {}
    for (one, place, g), (other, there, h) in product(at, at):
        if one != other and (place == there or not at_position):
            pairs.setdefault(place if at_position else 0, []).append(float(g @ h))
    counts = {place: sum(p == place for _, p, _ in at) if at_position else len(at) for place in pairs}
    common = sum(np.mean(pairs[place]) * counts[place] for place in pairs) / len(at)
    return float(common / np.mean([float(g @ g) for _, _, g in at]))


@pytest.mark.parametrize("layer", [0, 1])
def test_shares_of_heads_are_those_of_every_pair_written_out(digits_model: Callable[..., Model], layer: int) -> None:
    model = digits_model(10)
    found = gradients_of(model, encode(model, items()))
    own = [written_out(model, item, layer)[1] for item in items()]
    for head in range(2):
        part = [g[:, 8 * head : 8 * head + 8] for g in own]
        assert found.heads[layer][head].value == pytest.approx(share_by_pairs(part, False), abs=1e-12)
        assert found.heads_at_position[layer][head].value == pytest.approx(share_by_pairs(part, True), abs=1e-12)


def test_shares_of_matrices_are_those_of_each_items_own_gradient(digits_model: Callable[..., Model]) -> None:
    model = digits_model(10)
    found = gradients_of(model, encode(model, items()))
    assert set(found.matrices) == {
        f"{layer}.{name}" for layer in (0, 1) for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    }
    own = [written_out(model, item, 0)[2] for item in items()]
    for name, share in found.matrices.items():
        layer, inside = name.split(".", 1)
        each = torch.stack([one[f"transformer.h.{layer}.{inside}.weight"] for one in own])
        pairs = [float((one * other).sum()) for n, one in enumerate(each) for m, other in enumerate(each) if n != m]
        assert share.value == pytest.approx(np.mean(pairs) / float(each.square().sum() / len(each)), abs=1e-12)
        energies = torch.linalg.svdvals(each.sum(dim=0)).square()
        shares = [float(energies[:rank].sum() / energies.sum()) for rank in (1, 4)]
        assert found.directions[name] == pytest.approx(shares, abs=1e-10)


def test_a_model_is_left_as_it_was(digits_model: Callable[..., Model]) -> None:
    model = digits_model(10)
    before, wanted = model.fingerprint, [p.requires_grad for p in model.hf.parameters()]
    gradients_of(model, encode(model, items()))
    assert model.fingerprint == before
    assert [p.requires_grad for p in model.hf.parameters()] == wanted
    assert all(p.grad is None for p in model.hf.parameters())
    assert not model.hf.transformer.h[0].attn.c_proj._forward_hooks


def test_the_share_is_one_where_all_agree_none_where_nothing_does_and_less_where_they_cancel() -> None:
    mask = torch.ones(200, 3)
    alike = torch.ones(200, 3, 4)
    assert common_share(alike, mask).value == pytest.approx(1.0)
    noise = torch.randn(200, 3, 4, generator=torch_generator(0, "noise"))
    assert abs(common_share(noise, mask).value) < 0.02  # 1/200 of it would be left without the pairs of one item
    by_place = torch.eye(3)[None].expand(200, 3, 3)
    assert common_share_at_position(by_place, mask).value == pytest.approx(1.0)
    assert common_share(by_place, mask).value == pytest.approx(1 / 3)
    two = torch.tensor([[[1.0]], [[-1.0]]])
    assert common_share(two, torch.ones(2, 1)).value == pytest.approx(-1.0)
