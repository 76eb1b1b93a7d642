"""Gradient checkpointing inside a training: layers are run again on the way back, and no number differs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from elicitable.cli.options import ModelOptions
from elicitable.errors import UnsupportedModelError
from elicitable.methods.catalog import method_named
from elicitable.models.architectures import tiny_model
from elicitable.models.load import load
from elicitable.models.model import Model
from elicitable.models.speed.checkpointing import is_checkpointed, switch_on
from elicitable.models.speed.precision import autocast
from elicitable.models.toys import build_toy
from elicitable.models.whereabouts import whereabouts
from elicitable.testing import trace
from elicitable.training.loop import Plan, prepared, train
from elicitable.values import Item

from .conftest import SPEC
from .steps import batch_of, one_step

STEPS = 3
PLAN = Plan(learning_rate=0.03, steps=STEPS, batch=4, warmup=1, evaluate_every=2, validation_items=4)
METHODS = ("kv-prefix", "soft-prompt", "layer-prefix", "lora", "full")
ARCHITECTURES = ("llama", "gpt2", "opt", "biogpt", "dbrx", "gemma3_text")


class Turned:
    """Answer with the prompt, the other way round."""

    name = "turned"

    def labels(self) -> None:
        return None

    def sample(self, n: int, rng: np.random.Generator) -> list[Item]:
        return [Item(tuple(row), tuple(row[::-1])) for row in rng.integers(3, 9, (n, 4)).tolist()]

    def held_out(self, split: str, n: int | None = None) -> list[Item]:
        return self.sample(4, np.random.default_rng(7))[:n]

    def fingerprint(self) -> str:
        return "turned"


def trained(model: Model, method: str) -> list[Tensor]:
    adaptation = method_named(method).build(model, 2, 0)
    train(model, adaptation, Turned(), PLAN, seed=0)
    return [number.detach().clone() for number in adaptation.parameters()]


@contextmanager
def counted(model: Model) -> Iterator[list[int]]:
    """The layers whose attention runs while a gradient is computed."""
    again: list[int] = []

    def note(layer: int) -> Callable[..., None]:
        return lambda *given: again.append(layer) if torch._C._current_graph_task_id() != -1 else None

    hooks = [
        attention.register_forward_pre_hook(note(layer)) for layer, attention in enumerate(model.anatomy.attentions)
    ]
    yield again
    for hook in hooks:
        hook.remove()


def tiny(name: str, dtype: torch.dtype = torch.float32) -> Model:
    hf = tiny_model(name, dtype=dtype)
    for layer in hf.modules():  # a layer may drop by a number of its own, as OPT's does
        for own in ("dropout", "activation_dropout", "resid_pdrop"):
            if isinstance(getattr(layer, own, None), float):
                setattr(layer, own, 0.5)
    return Model(hf, name=name)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_layers_are_run_again_and_what_is_trained_is_the_same_bit_for_bit(name: str, method: str) -> None:
    model = tiny(name)
    with counted(model) as again:
        plain = trained(model, method)
    assert not again
    switch_on(model.hf, model.name)
    with counted(model) as again:
        checkpointed = trained(model, method)
    assert again == [0] * STEPS  # of two layers; the last one is where the way back begins
    assert all(map(torch.equal, plain, checkpointed))


@pytest.mark.parametrize("method", ["kv-prefix", "soft-prompt", "lora"])
def test_a_toy_of_frozen_blocks_has_the_same_gradients(toy: Model, fast: bool, method: str) -> None:
    batch = batch_of(4, 9, 3, padded=True)
    with counted(toy) as again:
        plain = one_step(toy, method, batch)
    assert not again
    switch_on(toy.hf, toy.name)
    with counted(toy) as again:
        found = one_step(toy, method, batch)
    assert again == [1, 0]
    assert len(plain) == len(found)
    assert all(map(torch.equal, plain, found))


@pytest.mark.parametrize(
    ("how", "layers"),
    [
        ({"activation_checkpointing_kwargs": {"use_reentrant": True}}, [1, 0]),
        ({"activation_checkpointing_kwargs": {"use_reentrant": False, "preserve_rng_state": False}}, [1, 0]),
        ({"every_n_layers": 2}, [0]),
    ],
)
def test_it_may_be_switched_on_in_any_way(toy: Model, how: dict[str, Any], layers: list[int]) -> None:
    batch = batch_of(4, 9, 3)
    plain = one_step(toy, "kv-prefix", batch)
    toy.hf.activation_checkpointing_enable(**how)
    with counted(toy) as again:
        found = one_step(toy, "kv-prefix", batch)
    assert again == layers
    assert all(map(torch.equal, plain, found))


@pytest.mark.parametrize("is_training", [True, False])
def test_the_model_is_left_as_it_came(is_training: bool) -> None:
    model = Model(build_toy(SPEC, seed=0).hf, name="toy")
    switch_on(model.hf, model.name)
    model.hf.train(is_training)
    before = trace(model)
    adaptation = method_named("kv-prefix").build(model, 2, 0)
    with prepared(model, adaptation):
        assert not any(module.training for module in model.hf.modules())
    assert trace(model) == before
    with pytest.raises(KeyError), prepared(model, adaptation):
        raise KeyError
    assert trace(model) == before
    assert all(map(is_checkpointed, model.anatomy.blocks))


def test_a_model_that_has_none_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="mine cannot be trained with gradient checkpointing"):
        switch_on(tiny_model("ctrl"), "mine")


def test_nothing_is_run_again_where_no_gradient_is_asked_for(toy: Model) -> None:
    switch_on(toy.hf, toy.name)
    adaptation = method_named("kv-prefix").build(toy, 2, 0)
    entered: list[int] = []
    with torch.no_grad(), prepared(toy, adaptation) as refresh, autocast(toy):
        refresh()
        toy.anatomy.attentions[0].register_forward_pre_hook(lambda *given: entered.append(1))
        toy(input_ids=torch.tensor([[1, 2, 3]]))
    assert entered == [1]


def test_it_is_asked_for_by_an_option_and_workers_have_it_too(tmp_path: Path) -> None:
    model = ModelOptions("toy:ascending", gradient_checkpointing=True).load()
    assert ModelOptions("toy:ascending", gradient_checkpointing=True).typed()[-1] == "--gradient-checkpointing"
    assert all(map(is_checkpointed, model.anatomy.blocks))
    with whereabouts(model, tmp_path) as place:
        assert all(map(is_checkpointed, place.load().anatomy.blocks))
    plain = load("toy:ascending")
    assert not any(map(is_checkpointed, plain.anatomy.blocks))
    assert plain.identity == model.identity
    assert all(map(is_checkpointed, load(plain, gradient_checkpointing=True).anatomy.blocks))


def test_it_is_switched_on_by_the_older_name_too(toy: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers 5.20 to 5.22 know it by that name alone."""
    kwargs: list[Any] = []

    def older(hf: Any, gradient_checkpointing_kwargs: Any = None, every_n_layers: int = 1) -> None:
        kwargs.append(gradient_checkpointing_kwargs)
        hf._set_gradient_checkpointing(enable=True)

    monkeypatch.delattr(PreTrainedModel, "activation_checkpointing_enable")
    monkeypatch.setattr(PreTrainedModel, "gradient_checkpointing_enable", older)
    switch_on(toy.hf, toy.name)
    assert kwargs == [{"use_reentrant": False}]
    assert all(map(is_checkpointed, toy.anatomy.blocks))
