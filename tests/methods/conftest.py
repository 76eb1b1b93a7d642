"""Tiny float64 models of seven architectures, and one adaptation of every method that really changes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from elicitable.methods.base import Adaptation
from elicitable.methods.catalog import method_named
from elicitable.models.architectures import tiny_model
from elicitable.models.model import Model
from elicitable.rng import torch_generator
from elicitable.values import Item

SIZE = {"lora": 2, "lora-behind-examples": 2}  # everything else: 4 virtual tokens
GIVEN: dict[str, dict[str, Any]] = {
    "prompt": {"token_ids": [7, 9, 4, 11]},
    "examples": {"items": [Item((3, 5), (8,)), Item((13,), (21, 34))]},
    "lora-behind-examples": {"items": [Item((3, 5), (8,)), Item((13,), (21, 34))]},
}


def fresh_model(name: str) -> Model:
    """A float64 model that writes on until it is told to stop (no end-of-text token)."""
    hf = tiny_model(name)
    hf.generation_config.eos_token_id = None
    return Model(hf, name=name)


def make(method: str, model: Model, seed: int = 0) -> Adaptation:
    """A fresh adaptation of ``method``, as a user would build it."""
    return method_named(method).build(model, SIZE.get(method, 4), seed, **GIVEN.get(method, {}))


def trained(method: str, model: Model, seed: int = 0) -> Adaptation:
    """The same after some training: every number has moved, so that nothing is a no-op by its start at zero."""
    adaptation = make(method, model, seed)
    generator = torch_generator(seed, "moved", method)
    with torch.no_grad():
        for parameter in adaptation.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return adaptation


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Model]:
    """The tiny model of a name, built once: what every test must leave as it found it."""
    models: dict[str, Model] = {}

    def model_of(name: str) -> Model:
        if name not in models:
            models[name] = fresh_model(name)
        return models[name]

    return model_of
