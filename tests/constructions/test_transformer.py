"""The modules are transformers: the forward pass again in numpy, and the sizes the theorems state."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from elicitable.constructions import any_sequence
from elicitable.constructions.subspaces import Subspaces
from elicitable.errors import InputError
from elicitable.rng import generator


@pytest.mark.parametrize("inverse_temperature", [0.0, 3.0, 128.0])
def test_forward_pass_is_softmax_attention_and_relu(case, oracle, inverse_temperature: float) -> None:
    construction = case.build(inverse_temperature=inverse_temperature)
    shape = construction.model.shape()
    # any embeddings at all, not only those the proof is about
    prompt = generator(0, "oracle").normal(size=(shape.context, shape.embedding))
    logits = construction.model(torch.from_numpy(prompt)[None])[0].numpy()
    wanted = oracle(construction, prompt)
    # 1e-12 of the largest number in the pass: sums of tens of float64 terms in another order
    scale = max(1.0, np.abs(wanted).max())
    assert np.abs(logits - wanted).max() <= 1e-12 * scale


def test_forward_pass_on_its_own_virtual_tokens(case, oracle) -> None:
    construction = case.build()
    table = construction.random_targets(1, generator(1, "oracle"))[0]
    inputs = construction.inputs()[-1]
    hard = construction.model.embed(torch.from_numpy(inputs))
    prompt = torch.cat([construction.virtual_token(table), hard])
    logits = construction.model(prompt[None])[0].numpy()
    # every number in this pass is of order one, and so is the tolerance's unit
    assert np.abs(logits - oracle(construction, prompt.numpy())).max() <= 1e-12


def test_the_oracle_notices_a_changed_weight(oracle) -> None:
    construction = any_sequence.build(4, 3)
    prompt = construction.virtual_token([3, 1, 2]).numpy()
    wanted = oracle(construction, prompt)
    with torch.no_grad():
        construction.model.readout[0].weight[0, 0] += 1e-9
    changed = construction.model(torch.from_numpy(prompt)[None])[0].numpy()
    assert np.abs(changed - wanted).max() > 1e-12


def test_sizes_are_those_the_theorem_states(case) -> None:
    construction = case.build()
    assert construction.model.shape() == case.shape
    assert construction.target_shape == case.target_shape
    assert construction.n_virtual == case.n_virtual
    assert construction.name == case.name


def test_attention_is_causal(case) -> None:
    construction = case.build(inverse_temperature=1.0)
    shape = construction.model.shape()
    prompt = torch.from_numpy(generator(2, "causal").normal(size=(1, shape.context, shape.embedding)))
    whole = construction.model(prompt)
    for stop in range(1, shape.context):
        # 1e-12: the same sums over fewer columns may be added in another order
        torch.testing.assert_close(construction.model(prompt[:, :stop]), whole[:, :stop], rtol=1e-9, atol=1e-12)


def test_same_arguments_give_the_same_bytes(case) -> None:
    first, second = case.build().model.state_dict(), case.build().model.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_subspace_that_is_not_there_is_named() -> None:
    with pytest.raises(InputError, match=r"no subspace 'tabel'.*it has: embedding, position"):
        Subspaces((("embedding", 2), ("position", 2))).read("tabel")
