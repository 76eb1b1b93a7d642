"""Theorem 1: one virtual token makes a transformer emit any sequence.

For any V and N there is a transformer with embedding size N, one attention layer of two heads and a three-layer
ReLU MLP that emits any Y ∈ {0..V−1}^N when conditioned on the single virtual token s = (Y_1/V, …, Y_N/V). A
single hard token can reach at most V of these V^N sequences. (Paper: section 3, theorem 1, proof in appendix A.)
"""

from __future__ import annotations

import math

import numpy as np
import torch

from elicitable.constructions.blocks import attend_to_position, attend_to_self, relu_decode
from elicitable.constructions.construction import Construction, Numbers, Symbols
from elicitable.constructions.precision import check_vocab
from elicitable.constructions.subspaces import Subspaces
from elicitable.constructions.transformer import INVERSE_TEMPERATURE, LayerBlocks, Transformer
from elicitable.errors import InputError

NAME = "theorem-1"


def build(
    vocab: int,
    length: int,
    *,
    dtype: torch.dtype = torch.float64,
    inverse_temperature: float = INVERSE_TEMPERATURE,
    unchecked: bool = False,
) -> Construction:
    """The transformer of theorem 1.

    ``unchecked`` builds sizes that ``dtype`` cannot carry, to see them fail. Raises InputError for those
    sizes otherwise.

    >>> construction = build(vocab=10, length=4)
    >>> construction.generate(construction.virtual_token([3, 1, 4, 1]))
    (3, 1, 4, 1)
    """
    if length < 1:
        raise InputError(f"a sequence has at least 1 symbol, got length {length}.")
    check_vocab(vocab, dtype, unchecked=unchecked)

    # x_i = [embedding, e(i)]
    stream = Subspaces((("embedding", length), ("position", length)))
    # One head attends to itself and returns e(i); the other attends to position 1 and returns s.
    attention = (
        attend_to_self(stream, value=stream.read("position")),
        attend_to_position(stream, 1, value=stream.read("embedding")),
    )
    # h = s + e(i): ReLU(h − 1) leaves s_i, its sum is z, and the largest logit is the j nearest to zV.
    readout = relu_decode(np.eye(length), vocab)
    # The embedding of hard tokens is free: hard token v asks for v, v, v, …, so that V of them reach V.
    embedding = np.tile(np.arange(vocab)[:, None] / vocab, (1, length))

    return Construction(
        name=NAME,
        vocab=vocab,
        n_input=0,
        n_answer=length,
        n_virtual=1,
        inverse_temperature=inverse_temperature,
        temperature_bound=temperature_bound(vocab, length),
        model=Transformer(stream, embedding, [LayerBlocks(attention)], readout, inverse_temperature, dtype),
        to_virtual=lambda tables: _to_virtual(tables, vocab),
        from_virtual=lambda tokens: _from_virtual(tokens, vocab),
    )


def _to_virtual(tables: Symbols, vocab: int) -> Numbers:
    """s = (Y_1/V, …, Y_N/V): (batch, 1, N) to (batch, 1, N)."""
    return tables / vocab


def _from_virtual(tokens: Numbers, vocab: int) -> Symbols:
    """Y_i = round(s_i·V)."""
    return np.rint(tokens * vocab).astype(np.int64)


def temperature_bound(vocab: int, length: int) -> float:
    """T* = ln((N − 1)(4V − 3)): exact above it, and below it (0, …, 0, V − 1) comes out wrong.

    At position i each head puts δ = 1/(e^T + i − 1) on each of the i − 1 positions it does not mean, so
    z = s_i − (i − 1)δ(1 + s_i) + δ·Σ_{1<j≤i} x_j,i with the embeddings x ∈ [0, 1) of the symbols so far. The
    answer is right while |z − s_i| < 1/(2V). The worst case is i = N, s_N = (V − 1)/V, x = 0:
    (N − 1)(2 − 1/V)/(e^T + N − 1) < 1/(2V). 0 where uniform attention is enough (N = 1).
    """
    return max(0.0, math.log(max(1.0, (length - 1) * (4 * vocab - 3))))
