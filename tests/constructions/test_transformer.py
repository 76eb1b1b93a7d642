"""The modules are transformers: the forward pass again in numpy, and the sizes the theorems state."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from elicitable.constructions import continuous_function, verify
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
    prompt = _own_prompt(construction, construction.random_targets(1, generator(1, "oracle"))[0])
    # every number in this pass is of order one, and so is the tolerance's unit
    assert _gap(construction, prompt, oracle(construction, prompt.numpy())) <= 1e-12


def test_the_oracle_notices_any_changed_matrix(case, oracle) -> None:
    """Each matrix and bias decides something: with another one in its place, the two forward passes part."""
    construction = case.build(inverse_temperature=8.0)
    prompts = [_own_prompt(construction, table) for table in construction.random_targets(16, generator(3, "oracle"))]
    wanted = [oracle(construction, prompt.numpy()) for prompt in prompts]
    matrices = dict(construction.model.named_parameters())
    embedding = matrices.pop("embedding.weight")  # of hard tokens: no part of a pass from embeddings on
    assert embedding.shape == (construction.vocab, prompts[0].shape[1])
    for name, matrix in matrices.items():
        kept, parted = matrix.clone(), 0.0
        # two changes, as ReLUs that only ask "≥ k?" shrug many off
        for changed in (-kept, -4 - 2 * kept):
            with torch.no_grad():
                matrix.copy_(changed)
            parted = max(parted, *(_gap(construction, *pair) for pair in zip(prompts, wanted, strict=True)))
        with torch.no_grad():
            matrix.copy_(kept)
        assert parted > 1e-9, name
    assert max(_gap(construction, *pair) for pair in zip(prompts, wanted, strict=True)) <= 1e-12


def _own_prompt(construction, table) -> torch.Tensor:
    """Virtual tokens of a target, its last user input and all but the last answer symbol: what the proof is about."""
    return verify.prompts(construction, table[None], np.array([construction.n_inputs - 1]))[0][0]


def _gap(construction, prompt: torch.Tensor, wanted: np.ndarray) -> float:
    return float(np.abs(construction.model(prompt[None])[0].numpy() - wanted).max())


def test_the_readout_can_be_asked_for_the_last_positions_only(case) -> None:
    construction = case.build(inverse_temperature=1.0)
    shape = construction.model.shape()
    prompt = torch.from_numpy(generator(4, "last").normal(size=(2, shape.context, shape.embedding)))
    whole = construction.model(prompt)
    for last in (1, shape.context):
        # 1e-12 and relative 1e-9: the same sums over fewer rows may be added in another order
        torch.testing.assert_close(construction.model(prompt, last=last), whole[:, -last:], rtol=1e-9, atol=1e-12)


def test_the_smoothing_head_is_softmax_attention(head_oracle) -> None:
    """The continuous function's head, recomputed from its weights: 1e-12, as every number here is of order one."""
    for length in (2, 9, 32):
        head = continuous_function.build(length)
        vectors = continuous_function.prefix(np.cos, length)
        tokens = continuous_function.content_token(np.linspace(0, 1, 7), (0.0, 1.0))
        given = continuous_function.respond(head, vectors, tokens)
        wanted = [head_oracle(head, np.concatenate([vectors, token[None]]))[0] for token in tokens]
        assert np.abs(given - wanted).max() <= 1e-12
        assert {name: tuple(w.shape) for name, w in head.named_parameters()} == {
            "query.weight": (3, 4),
            "key.weight": (3, 4),
            "value.weight": (1, 4),
        }


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
