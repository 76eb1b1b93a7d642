"""Theorem 2: one virtual token makes a transformer realise any map from one user token to one answer.

For any V there is a transformer with embedding size V, context 2, one attention layer of two heads and a
three-layer ReLU MLP that answers X with m(X), for any of the V^V maps m, when conditioned on the single virtual
token s = (m(0)/V, …, m(V − 1)/V). (Paper: section 3, theorem 2, proof in appendix A.)
"""

from __future__ import annotations

import numpy as np
import torch

from elicitable.constructions.blocks import attend_to_position, attend_to_self, relu_decode
from elicitable.constructions.construction import Construction, Numbers, Symbols
from elicitable.constructions.precision import check_vocab
from elicitable.constructions.subspaces import Subspaces
from elicitable.constructions.transformer import INVERSE_TEMPERATURE, LayerBlocks, Transformer

NAME = "theorem-2"


def build(
    vocab: int,
    *,
    dtype: torch.dtype = torch.float64,
    inverse_temperature: float = INVERSE_TEMPERATURE,
    unchecked: bool = False,
) -> Construction:
    """The transformer of theorem 2. Raises InputError for a vocabulary that ``dtype`` cannot carry.

    >>> construction = build(vocab=4)
    >>> swap = construction.virtual_token({0: 3, 1: 2, 2: 1, 3: 0})
    >>> [construction.generate(swap, (x,)) for x in range(4)]
    [(3,), (2,), (1,), (0,)]
    """
    check_vocab(vocab, dtype, unchecked=unchecked)

    # x_i = [embedding, e(i)]; a user token is embedded as its one-hot.
    stream = Subspaces((("embedding", vocab), ("position", 2)))
    # One head attends to itself and returns onehot(X); the other attends to position 1 and returns s.
    attention = (
        attend_to_self(stream, value=stream.read("embedding")),
        attend_to_position(stream, 1, value=stream.read("embedding")),
    )
    # s + onehot(X): ReLU(· − 1) leaves m(X)/V, and the MLP names the symbol.
    readout = relu_decode(np.eye(vocab), vocab)

    return Construction(
        name=NAME,
        vocab=vocab,
        n_input=1,
        n_answer=1,
        n_virtual=1,
        inverse_temperature=inverse_temperature,
        temperature_bound=temperature_bound(),
        model=Transformer(stream, np.eye(vocab), [LayerBlocks(attention)], readout, inverse_temperature, dtype),
        to_virtual=lambda tables: tables.transpose(0, 2, 1) / vocab,
        from_virtual=lambda tokens: _from_virtual(tokens, vocab),
    )


def _from_virtual(tokens: Numbers, vocab: int) -> Symbols:
    """m(X) = round(s_X·V): (batch, 1, V) to (batch, V, 1)."""
    return np.rint(tokens * vocab).astype(np.int64).transpose(0, 2, 1)


def temperature_bound() -> float:
    """T* = 0: this construction needs no temperature at all.

    With two positions each head gives 1 − δ to one and δ to the other, and the heads mean opposite ones:
    (1 − δ)·onehot(X) + δ·s + (1 − δ)·s + δ·onehot(X) = s + onehot(X) for every δ. Uniform attention will do.
    """
    return 0.0
