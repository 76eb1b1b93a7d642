"""Longer answers: n_Y virtual tokens make a transformer realise any map from one user token to n_Y symbols.

Virtual token t is the table of the t-th answer symbol, s_t = (m_t(0)/V, …, m_t(V − 1)/V). The prompt is
s_1 … s_{n_Y}, X, Y_1, Y_2, …: the position that writes Y_t is n_Y + t, so the table it needs always stands exactly
n_Y positions back. (Paper: section 3, proof in appendix A.)
"""

from __future__ import annotations

import math

import numpy as np
import torch

from elicitable.constructions.blocks import attend_to_position, look_back, relu_decode
from elicitable.constructions.construction import Construction, Numbers, Symbols
from elicitable.constructions.precision import check_vocab
from elicitable.constructions.subspaces import Subspaces
from elicitable.constructions.transformer import INVERSE_TEMPERATURE, LayerBlocks, Transformer
from elicitable.errors import InputError

NAME = "longer-answers"


def build(
    vocab: int,
    n_answer: int,
    *,
    dtype: torch.dtype = torch.float64,
    inverse_temperature: float = INVERSE_TEMPERATURE,
    unchecked: bool = False,
) -> Construction:
    """Embedding size V, context 2·n_Y, one attention layer of two heads, a three-layer ReLU MLP.

    Raises InputError for a vocabulary that ``dtype`` cannot carry.

    >>> construction = build(vocab=3, n_answer=2)
    >>> tokens = construction.virtual_token({0: (2, 1), 1: (0, 0), 2: (1, 2)})
    >>> construction.generate(tokens, (0,)), construction.generate(tokens, (2,))
    ((2, 1), (1, 2))
    """
    if n_answer < 1:
        raise InputError(f"an answer has at least 1 symbol, got {n_answer}.")
    check_vocab(vocab, dtype, unchecked=unchecked)

    stream = Subspaces((("embedding", vocab), ("position", 2 * n_answer)))
    # One head finds the user token and returns onehot(X); the other looks n_Y back and returns s_t.
    attention = (
        attend_to_position(stream, n_answer + 1, value=stream.read("embedding")),
        look_back(stream, n_answer, value=stream.read("embedding")),
    )
    # s_t + onehot(X): the MLP of theorem 2 names m_t(X).
    readout = relu_decode(np.eye(vocab), vocab)

    return Construction(
        name=NAME,
        vocab=vocab,
        n_input=1,
        n_answer=n_answer,
        n_virtual=n_answer,
        inverse_temperature=inverse_temperature,
        temperature_bound=temperature_bound(vocab, n_answer),
        model=Transformer(stream, np.eye(vocab), [LayerBlocks(attention)], readout, inverse_temperature, dtype),
        to_virtual=lambda tables: tables.transpose(0, 2, 1) / vocab,
        from_virtual=lambda tokens: _from_virtual(tokens, vocab),
    )


def _from_virtual(tokens: Numbers, vocab: int) -> Symbols:
    """m_t(X) = round(s_{t,X}·V): (batch, n_Y, V) to (batch, V, n_Y)."""
    return np.rint(tokens * vocab).astype(np.int64).transpose(0, 2, 1)


def temperature_bound(vocab: int, n_answer: int) -> float:
    """T* = ln((2n_Y − 2)(4V − 2) − (2n_Y − 1)): exact above it, and below it some map comes out wrong.

    At position p = n_Y + t each head puts δ = 1/(e^T + p − 1) on each position it does not mean, so with the
    column sum S = Σ_{j ≤ p} x_j,X of all embeddings z = s_{t,X} + δ(2S − p(1 + s_{t,X})). Since S ≥ 1 + s_{t,X},
    the worst case is t = n_Y, s_{t,X} = (V − 1)/V and nothing else in column X:
    (2n_Y − 2)(2 − 1/V)/(e^T + 2n_Y − 1) < 1/(2V). 0 where uniform attention is enough (n_Y = 1).
    """
    worst = (2 * n_answer - 2) * (4 * vocab - 2) - (2 * n_answer - 1)
    return math.log(max(1.0, worst))
