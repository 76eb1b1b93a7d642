"""The share of attention that a context takes, as a trial measures it at its end."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from tests.families import reader

import elicitable as el
from elicitable.methods.catalog import method_named
from elicitable.models.model import Model
from elicitable.race.trial import prefix_mass
from elicitable.training.batches import TOKENS_A_ROW, Reading, encode
from elicitable.values import Item


def texts(*lengths: int) -> list[Item]:
    rng = np.random.default_rng(0)
    words = ("fine", "film", "warm", "dull", "slow", "flat")
    return [Item(" ".join(rng.choice(words, length)), " fine") for length in lengths]


def read(model: Model, context: Any, items: list[Item], reading: Reading) -> tuple[Any, list[tuple[int, int]]]:
    """What is measured, and the (rows, tokens) of every pass that it took."""
    passes: list[tuple[int, int]] = []
    heard = model.hf.register_forward_pre_hook(
        lambda module, args, given: passes.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    with heard:
        return prefix_mass(model, context, items, reading), passes


@pytest.mark.parametrize("name", ["prompt", "kv-prefix"])
def test_it_is_read_in_bounded_batches_and_is_the_mean_over_all_of_them(name: str) -> None:
    """All texts were read in one pass, and each of them a second time for numbers that nobody reads."""
    plain = deepcopy(reader("byte-level BPE", 1024))
    model = Model(plain.hf.double().eval(), tokenizer=plain.tokenizer, name="tiny")
    ids = model.ids("Say what it is.").flatten().tolist()
    context = el.context("prompt", model, token_ids=ids) if name == "prompt" else el.context(name, model, length=3)
    items, reading = texts(5, 300, 7, 290, 9, 8), Reading(batch=2)
    prefix_mass(model, context, items[:1], reading)  # a model's own trials at first use
    found, passes = read(model, context, items, reading)
    passes = [shape for shape in passes if shape != (1, len(ids))]  # without those of the prompt itself
    assert all(rows == 1 or rows * tokens <= reading.batch * TOKENS_A_ROW for rows, tokens in passes)
    assert sum(rows for rows, _ in passes) == len(items)
    batch = encode(model, items, layout=reading.layout, held=reading.held)
    assert batch.attention_mask is not None
    kept = batch.attention_mask.bool()
    with torch.no_grad(), el.watch(model, context) as scope:
        model.hf(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
    wanted = [[float(head[kept].mean()) for head in layer] for layer in scope.prefix_mass]
    assert np.abs(np.array(found) - np.array(wanted)).max() < 1e-6


def test_it_is_none_without_a_context() -> None:
    model = reader("byte-level BPE")
    assert prefix_mass(model, method_named("lora").build(model, 1, seed=0), texts(3), Reading()) == ()
