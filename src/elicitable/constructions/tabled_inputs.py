"""Longer inputs paid in length: V^(n_X−1) virtual tokens realise any map from n_X user tokens to one answer.

One virtual token per value of X_1 … X_{n_X−1}, in counting order, each a table over the last token as in theorem 2.
The first layer brings X_1 … X_{n_X−1} to the last position; the second compares them, digit by digit, with the
address of each virtual token. Nothing is packed, so the precision needed is that of theorem 2. (Paper: section 3,
appendix A, for what is realised; this way to pay for it is worked out here.)
"""

from __future__ import annotations

import math

import numpy as np
import torch

from elicitable.constructions.blocks import attend_to_position, relu_decode, table_lookup
from elicitable.constructions.construction import MOST_INPUTS, Construction, Numbers, Symbols, has_too_many_inputs
from elicitable.constructions.precision import check_vocab
from elicitable.constructions.subspaces import Subspaces
from elicitable.constructions.transformer import INVERSE_TEMPERATURE, LayerBlocks, Transformer
from elicitable.errors import InputError

NAME = "tabled-inputs"

#: More virtual tokens than this are refused: attention is quadratic in them.
MOST_VIRTUAL = 4096


def build(
    vocab: int,
    n_input: int,
    *,
    dtype: torch.dtype = torch.float64,
    inverse_temperature: float = INVERSE_TEMPERATURE,
    unchecked: bool = False,
) -> Construction:
    """Embedding size V, context V^(n_X−1) + n_X, attention layers of n_X − 1 and 2 heads, one MLP.

    Raises InputError for sizes that memory or ``dtype`` cannot carry.

    >>> construction = build(vocab=3, n_input=2)
    >>> add = construction.virtual_token([[(a + b) % 3 for b in range(3)] for a in range(3)])
    >>> tuple(add.shape), construction.generate(add, (2, 2))
    ((3, 3), (1,))
    """
    _check_sizes(vocab, n_input, dtype, unchecked)
    tables = vocab ** (n_input - 1)
    context = tables + n_input
    leading = [f"X_{k}" for k in range(1, n_input)]
    stream = Subspaces((("embedding", vocab), ("position", context), *((name, vocab) for name in leading)))

    # X_k stands at position V^(n_X−1) + k: bring all but the last to every position.
    gather = LayerBlocks(
        tuple(
            attend_to_position(stream, tables + k, stream.write(name) @ stream.read("embedding"))
            for k, name in enumerate(leading, start=1)
        ),
        residual=True,
    )
    # One head finds the table addressed by X_1 … X_{n_X−1} and returns it, the other returns the last token's one-hot.
    look_up = LayerBlocks(
        (
            attend_to_position(stream, context, value=stream.read("embedding")),
            table_lookup(stream, leading, vocab, value=stream.read("embedding")),
        )
    )
    # s + onehot(X_{n_X}): the MLP of theorem 2.
    readout = relu_decode(np.eye(vocab), vocab)

    return Construction(
        name=NAME,
        vocab=vocab,
        n_input=n_input,
        n_answer=1,
        n_virtual=tables,
        inverse_temperature=inverse_temperature,
        temperature_bound=temperature_bound(vocab, n_input),
        model=Transformer(stream, np.eye(vocab), [gather, look_up], readout, inverse_temperature, dtype),
        to_virtual=lambda targets: targets.reshape(-1, tables, vocab) / vocab,
        from_virtual=lambda tokens: _from_virtual(tokens, vocab),
    )


def _check_sizes(vocab: int, n_input: int, dtype: torch.dtype, unchecked: bool) -> None:
    """Raises InputError for sizes that cannot be built, or (unless ``unchecked``) not be exact."""
    if n_input < 2:
        raise InputError(f"tabled inputs have n_X ≥ 2 tokens, got {n_input}; use theorem 2 for one.")
    check_vocab(vocab, dtype, unchecked=unchecked)
    if has_too_many_inputs(vocab, n_input) or vocab ** (n_input - 1) > MOST_VIRTUAL:
        raise InputError(
            f"V = {vocab}, n_X = {n_input} needs V^(n_X−1) = {vocab}^{n_input - 1} virtual tokens, and {MOST_VIRTUAL} "
            f"tokens and {MOST_INPUTS:,} inputs are the most allowed here; use a smaller V or n_X."
        )


def _from_virtual(tokens: Numbers, vocab: int) -> Symbols:
    """m(X) = round(s·V): (batch, V^(n_X−1), V) to (batch, V^n_X, 1)."""
    return np.rint(tokens * vocab).astype(np.int64).reshape(len(tokens), -1, 1)


def leak(inverse_temperature: float, vocab: int, n_input: int) -> float:
    """An upper bound on |z − s|, from both layers.

    With P positions a head that means one of them misplaces ε = (P − 1)/(e^T + P − 1). After the first layer each
    coordinate of a one-hot is off by at most ε, so the lookup's score drops by at least T' = T(1 − 2ε) for each digit
    in which an address is wrong, and by (n_X − 1)T' at the n_X positions without one. Relative to the right table the
    others get r = (1 + (V − 1)e^−T')^(n_X−1) − 1 + n_X·e^−(n_X−1)T', so the lookup misplaces r/(1 + r).
    """
    others = int(vocab ** (n_input - 1)) + n_input - 1
    first = others / (math.exp(inverse_temperature) + others)
    weight = math.exp(-inverse_temperature * max(0.0, 1 - 2 * first))
    wrong = (1 + (vocab - 1) * weight) ** (n_input - 1) - 1 + n_input * weight ** (n_input - 1)
    return first + wrong / (1 + wrong)


def temperature_bound(vocab: int, n_input: int) -> float:
    """The smallest T with leak(T) < 1/(2V), by bisection (sufficient; to 1e-6)."""
    low, high = 0.0, 700.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (low, middle) if leak(middle, vocab, n_input) < 0.5 / vocab else (middle, high)
    return high
