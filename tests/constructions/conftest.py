"""One table of constructions for every suite, and the forward pass written anew in numpy.

A test that takes ``case`` runs on every construction; ``oracle`` recomputes logits from the weights alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from elicitable.constructions import any_map, any_sequence, longer_answers, packed_inputs, tabled_inputs
from elicitable.constructions.construction import Construction
from elicitable.constructions.transformer import AttentionHead, Shape

Numbers = NDArray[np.float64]


class Case(NamedTuple):
    name: str
    build: Callable[..., Construction]
    shape: Shape
    target_shape: tuple[int, ...]
    n_virtual: int


def _theorem_1() -> Case:
    vocab, length = 4, 3
    # d_e = N; heads: W_Q, W_K (N × 2N) and W_Q, W_K (1 × 2N), W_V (N × 2N) each; MLP N → N → 1 → V; V embeddings
    attention = 2 * length * 2 * length + 2 * 2 * length + 2 * length * 2 * length
    mlp = length * length + length + length + 1 + 2 * vocab
    shape = Shape(vocab, 3, 3, 6, 1, (2,), (3,), ((length, 1, vocab),), attention + mlp + vocab * length)
    return Case("theorem-1", lambda **kw: any_sequence.build(vocab, length, **kw), shape, (3,), 1)


def _theorem_2() -> Case:
    vocab, stream = 3, 3 + 2
    attention = 2 * 2 * stream + 2 * 1 * stream + 2 * vocab * stream
    mlp = vocab * vocab + vocab + vocab + 1 + 2 * vocab
    shape = Shape(vocab, 2, 3, stream, 1, (2,), (3,), ((3, 1, 3),), attention + mlp + vocab * vocab)
    return Case("theorem-2", lambda **kw: any_map.build(vocab, **kw), shape, (3,), 1)


def _longer_answers() -> Case:
    vocab, answer = 3, 2
    stream = vocab + 2 * answer
    attention = 2 * 1 * stream + 2 * 2 * answer * stream + 2 * vocab * stream
    mlp = vocab * vocab + vocab + vocab + 1 + 2 * vocab
    shape = Shape(vocab, 4, 3, stream, 1, (2,), (3,), ((3, 1, 3),), attention + mlp + vocab * vocab)
    return Case("longer-answers", lambda **kw: longer_answers.build(vocab, answer, **kw), shape, (3, 2), 2)


def _packed() -> Case:
    vocab, n_input, inner = 2, 3, 4
    # embedding, position, table, X_2, X_3, packed, digits
    stream = vocab + (1 + n_input) + vocab + 2 * vocab + 1 + inner
    attention = (n_input + 1) * (1 + 1 + stream) * stream
    pick = stream * vocab + vocab + vocab * stream + stream
    digit = (vocab - 1) * (stream + 1) + (vocab - 1) * vocab + stream * (vocab - 1) + stream
    readout = inner * stream + inner + inner + 1 + 2 * vocab
    widths = ((vocab, stream), *[(vocab - 1, vocab - 1, stream)] * inner, (inner, 1, vocab))
    parameters = attention + pick + inner * digit + readout + vocab * vocab
    shape = Shape(vocab, 4, 2, stream, 1, (4,), (2, *[3] * inner, 3), widths, parameters)
    return Case("packed-inputs", lambda **kw: packed_inputs.build(vocab, n_input, **kw), shape, (2, 2, 2), 1)


def _tabled() -> Case:
    vocab, n_input, tables = 2, 3, 4
    context = tables + n_input
    stream = vocab + context + 2 * vocab
    first = 2 * (1 + 1 + stream) * stream
    second = (1 + 1 + vocab) * stream + (2 * vocab + 2 * vocab + vocab) * stream
    mlp = vocab * vocab + vocab + vocab + 1 + 2 * vocab
    shape = Shape(vocab, context, 2, stream, 2, (2, 2), (3,), ((2, 1, 2),), first + second + mlp + vocab * vocab)
    return Case("tabled-inputs", lambda **kw: tabled_inputs.build(vocab, n_input, **kw), shape, (2, 2, 2), 4)


CASES = (_theorem_1(), _theorem_2(), _longer_answers(), _packed(), _tabled())


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", CASES, ids=[case.name for case in CASES])


@pytest.fixture
def oracle() -> Callable[[Construction, Numbers], Numbers]:
    """Plain softmax attention and ReLU, position by position."""
    return oracle_logits


def softmax(scores: Numbers) -> Numbers:
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()


def mlp(weights: dict[str, Numbers], prefix: str, x: Numbers) -> Numbers:
    """weight·x + bias, with ReLU between consecutive maps; nn.Sequential numbers them 0, 2, 4, …"""
    places = sorted({int(name[len(prefix) :].split(".")[0]) for name in weights if name.startswith(prefix)})
    for n, place in enumerate(places):
        if n:
            x = np.maximum(x, 0.0)
        x = weights[f"{prefix}{place}.weight"] @ x + weights[f"{prefix}{place}.bias"]
    return x


def oracle_logits(construction: Construction, embeddings: Numbers) -> Numbers:
    """Logits (position, vocab) of one prompt of embeddings (position, d_e), position by position."""
    model = construction.model
    weights = {name: value.double().numpy() for name, value in model.state_dict().items()}
    stream = np.zeros((len(embeddings), model.stream.size))
    stream[:, : embeddings.shape[1]] = embeddings
    for i in range(len(embeddings)):
        stream[i, embeddings.shape[1] + i] = 1.0
    for number, layer in enumerate(model.layers):
        at = f"layers.{number}."
        if len(layer.heads):
            mixed = np.stack(
                [attention(weights, at, len(layer.heads), construction, stream, i) for i in range(len(stream))]
            )
            stream = stream + mixed if layer.residual else mixed
        if layer.mlp is not None:
            added = np.stack([mlp(weights, at + "mlp.", x) for x in stream])
            stream = stream + added if layer.residual else added
    return np.stack([mlp(weights, "readout.", x) for x in stream])


def attention(
    weights: dict[str, Numbers], at: str, heads: int, construction: Construction, stream: Numbers, i: int
) -> Numbers:
    """Σ_heads Σ_{j ≤ i} A_ij W_V x_j."""
    total: Numbers = np.zeros(())
    for h in range(heads):
        parts = [weights[f"{at}heads.{h}.{part}.weight"] for part in ("query", "key", "value")]
        total = total + one_head(parts, construction.inverse_temperature, stream, i)
    return total


def one_head(parts: Sequence[Numbers], inverse_temperature: float, stream: Numbers, i: int) -> Numbers:
    """Σ_{j ≤ i} A_ij W_V x_j."""
    query, key, value = parts
    scores = np.array([(query @ stream[i]) @ (key @ stream[j]) for j in range(i + 1)])
    picked = softmax(inverse_temperature * scores)
    return np.asarray(sum(picked[j] * (value @ stream[j]) for j in range(i + 1)))


@pytest.fixture
def head_oracle() -> Callable[[AttentionHead, Numbers], Numbers]:
    """One head's output at the last position of a stream (position, dimension), from its weights."""

    def last(head: AttentionHead, stream: Numbers) -> Numbers:
        parts = [part.weight.double().numpy() for part in (head.query, head.key, head.value)]
        return one_head(parts, head.inverse_temperature, stream, len(stream) - 1)

    return last
