"""Leaving out the last layer's feed-forward where nobody reads it changes no logit that is read."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from elicitable.models.architectures import ARCHITECTURES, tiny_model
from elicitable.models.model import Model
from elicitable.models.speed.read import reading_last

EXACT = [row.name for row in ARCHITECTURES if row.state == "exact"]
IDS = torch.tensor([[12, 40, 5, 6, 33, 9, 2], [8, 17, 3, 44, 20, 61, 10]])
READ = 3


@functools.cache
def model_of(name: str) -> Model:
    return Model(tiny_model(name))


def logits_of(model: Model) -> torch.Tensor:
    logits: torch.Tensor = model.hf(input_ids=IDS, use_cache=False).logits
    return logits


class Rows(nn.Module):
    """Notes how many positions a feed-forward was given."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.seen = inner, 0

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        self.seen = hidden.shape[1]
        return self.inner(hidden)


class Float32Products(TorchDispatchMode):
    """Whether a model in float64 multiplies a matrix in float32, as some routers do."""

    found = False

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default):
            self.found |= args[-1].dtype == torch.float32
        return function(*args, **(kwargs or {}))


@torch.no_grad()
@pytest.mark.parametrize("name", EXACT)
def test_the_logits_that_are_read_are_the_same_on_every_architecture(name: str) -> None:
    model = model_of(name)
    with Float32Products() as products:
        whole = logits_of(model)[:, -READ:]
    with reading_last(model, READ):
        read = logits_of(model)[:, -READ:]
    # float64; products of other shapes may round differently in the last bits, and in those of a float32 router: on
    # which models they do hangs on the processor
    torch.testing.assert_close(read, whole, rtol=0.0, atol=1e-6 if products.found else 1e-12)
    assert torch.equal(logits_of(model)[:, -READ:], whole)  # nothing stays behind


@torch.no_grad()
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_only_what_is_read_is_computed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(name)
    rows = Rows(model.anatomy.blocks[-1].mlp)
    monkeypatch.setitem(model.anatomy.blocks[-1]._modules, "mlp", rows)
    with reading_last(model, READ):
        logits_of(model)
    assert rows.seen == READ
    with reading_last(model, 100):  # more than there is
        logits_of(model)
    assert rows.seen == IDS.shape[1]


def test_the_gradient_is_the_same() -> None:
    model = model_of("gpt2")
    weight = model.anatomy.blocks[0].mlp.c_fc.weight

    def gradient() -> torch.Tensor:
        (found,) = torch.autograd.grad(logits_of(model)[:, -READ:].square().sum(), weight)
        return found

    whole = gradient()
    with reading_last(model, READ):
        torch.testing.assert_close(gradient(), whole, rtol=1e-12, atol=1e-12)


def test_a_feed_forward_that_all_layers_share_is_left_alone() -> None:
    model = model_of("gpt2")
    shared = model.anatomy.blocks[-1].mlp
    before = model.anatomy.blocks[0]._modules["mlp"]
    model.anatomy.blocks[0]._modules["mlp"] = shared
    try:
        with torch.no_grad():
            whole = logits_of(model)
            with reading_last(model, READ):
                assert torch.equal(logits_of(model), whole)
    finally:
        model.anatomy.blocks[0]._modules["mlp"] = before
