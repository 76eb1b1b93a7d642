"""Longer inputs paid in precision: one virtual token realises any map from n_X user tokens to one answer.

Coordinate X_1 of the virtual token holds the whole inner map m(X_1, ·): its M = V^(n_X−1) values are the base-V digits
of one integer D < V^M, and s_{X_1} = D·2^−b with 2^b ≥ V^M. The first layer picks that number by X_1; then M more
MLPs take one digit off each (depth grows with n_X), and the readout picks the digit that X_2 … X_{n_X} point at.
The mark adds 1 to s, so b bits must fit behind the binary point: b ≤ 52 in float64. (Paper: section 3, appendix A,
where n_X = 2; the unpacking by a ReLU network for general n_X is worked out here.)
"""

from __future__ import annotations

import math

import numpy as np
import torch

from elicitable.constructions.blocks import (
    Head,
    attend_to_position,
    relu_decode,
    unpack_digit,
    unpack_table,
)
from elicitable.constructions.construction import Construction, Numbers, Symbols, has_too_many_inputs
from elicitable.constructions.construction import base_digits as digits_of
from elicitable.constructions.precision import DTYPES, check_vocab, dtype_name, fraction_bits
from elicitable.constructions.subspaces import Matrix, Subspaces
from elicitable.constructions.transformer import INVERSE_TEMPERATURE, LayerBlocks, Transformer
from elicitable.errors import InputError

NAME = "packed-inputs"


def packed_bits(vocab: int, n_input: int) -> int:
    """b = ⌈V^(n_X−1)·log2 V⌉, the bits of one packed inner map.

    >>> packed_bits(10, 2), packed_bits(13, 2), packed_bits(4, 3), packed_bits(5, 3)
    (34, 49, 32, 59)
    """
    return int((vocab ** (vocab ** (n_input - 1)) - 1).bit_length())


def largest_vocab(n_input: int, dtype: torch.dtype) -> int:
    """The largest V whose packed inner maps fit behind the binary point of ``dtype``; 1 if none does.

    >>> [largest_vocab(n_input, torch.float64) for n_input in range(2, 8)]
    [13, 4, 3, 2, 2, 1]
    """
    vocab = 1
    while packed_bits(vocab + 1, n_input) <= fraction_bits(dtype):
        vocab += 1
    return vocab


def build(
    vocab: int,
    n_input: int,
    *,
    dtype: torch.dtype = torch.float64,
    inverse_temperature: float = INVERSE_TEMPERATURE,
    unchecked: bool = False,
) -> Construction:
    """Embedding size V, context 1 + n_X, one attention layer of n_X + 1 heads, V^(n_X−1) + 2 MLPs.

    Raises InputError for sizes that ``dtype`` cannot carry, unless ``unchecked``.

    >>> construction = build(vocab=3, n_input=2)
    >>> add = construction.virtual_token([[(a + b) % 3 for b in range(3)] for a in range(3)])
    >>> construction.generate(add, (2, 2))
    (1,)
    """
    _check_sizes(vocab, n_input, dtype, unchecked)
    inner = vocab ** (n_input - 1)
    bits = packed_bits(vocab, n_input)
    stream = _stream(vocab, n_input, inner)

    # The layer that picks: table = s + onehot(X_1), and X_2 … X_{n_X} are brought to where they are needed.
    pick = LayerBlocks(_gather(stream, n_input), tuple(unpack_table(stream)), residual=True)
    # packed = D·2^−b is the inner map of X_1. One MLP per digit, most significant first.
    unpack = [
        LayerBlocks((), tuple(unpack_digit(stream, vocab, place, inner, bits)), residual=True)
        for place in reversed(range(inner))
    ]
    # digits + marks of X_2 … X_{n_X}: n_X − 1 marks meet only at the digit asked for.
    readout = relu_decode(_select(stream, vocab, n_input), vocab, hot=n_input - 1)

    return Construction(
        name=NAME,
        vocab=vocab,
        n_input=n_input,
        n_answer=1,
        n_virtual=1,
        inverse_temperature=inverse_temperature,
        temperature_bound=temperature_bound(vocab, n_input),
        model=Transformer(stream, np.eye(vocab), [pick, *unpack], readout, inverse_temperature, dtype),
        to_virtual=lambda tables: _to_virtual(tables, vocab, inner, bits),
        from_virtual=lambda tokens: _from_virtual(tokens, vocab, inner, bits),
    )


def _check_sizes(vocab: int, n_input: int, dtype: torch.dtype, unchecked: bool) -> None:
    """Raises InputError for sizes that cannot be built, or (unless ``unchecked``) not be exact."""
    if n_input < 2:
        raise InputError(f"packed inputs have n_X ≥ 2 tokens, got {n_input}; use theorem 2 for one.")
    check_vocab(vocab, dtype, unchecked=unchecked)
    if has_too_many_inputs(vocab, n_input) or packed_bits(vocab, n_input) > 62:
        raise InputError(
            f"V = {vocab}, n_X = {n_input} packs more than 62 bits into one number, which no dtype "
            "here comes near; use a smaller V or n_X, or pay in length (tabled-inputs)."
        )
    bits, carried = packed_bits(vocab, n_input), fraction_bits(dtype)
    if bits > carried and not unchecked:
        finer = [n for n, t in DTYPES.items() if fraction_bits(t) >= bits]
        raise InputError(
            f"V = {vocab}, n_X = {n_input} packs {bits} bits into one number, but "
            f"{dtype_name(dtype)} carries {carried} behind the binary point; use V ≤ "
            f"{largest_vocab(n_input, dtype)}, {'dtype ' + finer[-1] + ', ' if finer else ''}"
            "or pay in length (tabled-inputs)."
        )


def _stream(vocab: int, n_input: int, inner: int) -> Subspaces:
    """Embedding and position, then the workspace the layers write to."""
    tokens = [(f"X_{k}", vocab) for k in range(2, n_input + 1)]
    return Subspaces(
        (
            ("embedding", vocab),
            ("position", 1 + n_input),
            ("table", vocab),
            *tokens,
            ("packed", 1),
            ("digits", inner),
        )
    )


def _gather(stream: Subspaces, n_input: int) -> tuple[Head, ...]:
    """s and onehot(X_1) into "table", onehot(X_k) into "X_k"; X_k stands at position k + 1."""
    homes = ["table", "table", *(f"X_{k}" for k in range(2, n_input + 1))]
    return tuple(
        attend_to_position(stream, position, stream.write(home) @ stream.read("embedding"))
        for position, home in enumerate(homes, start=1)
    )


def _select(stream: Subspaces, vocab: int, n_input: int) -> Matrix:
    """Row r: digit r plus, for k = 2 … n_X, coordinate (digit k of r) of "X_k"."""
    select = stream.read("digits")
    addresses = digits_of(np.arange(len(select)), vocab, n_input - 1)
    for k in range(n_input - 1):
        select = select + np.eye(vocab)[addresses[:, k]] @ stream.read(f"X_{k + 2}")
    return select


def _to_virtual(tables: Symbols, vocab: int, inner: int, bits: int) -> Numbers:
    """s_{X_1} = 2^−b·Σ_r m(X_1, r)·V^(M−1−r): (batch, V^n_X, 1) to (batch, 1, V)."""
    powers = vocab ** np.arange(inner - 1, -1, -1, dtype=np.int64)
    packed: Numbers = (tables.reshape(-1, 1, vocab, inner) @ powers).astype(np.float64)
    return packed * 2.0**-bits


def _from_virtual(tokens: Numbers, vocab: int, inner: int, bits: int) -> Symbols:
    """The digits of round(s·2^b); an entry outside [0, V^M) gives −1, which is no symbol."""
    packed = np.rint(tokens[:, 0] * 2.0**bits)
    valid = np.all((packed >= 0) & (packed < float(vocab**inner)), axis=-1)
    numbers = np.where(valid[:, None], packed, 0).astype(np.int64)
    tables = digits_of(numbers, vocab, inner).reshape(len(tokens), vocab * inner, 1)
    return np.where(valid[:, None, None], tables, -1)


def temperature_bound(vocab: int, n_input: int) -> float:
    """T* = ln(4(n_X − 1)(2^b + V^M) − n_X): above it no digit can change, and little below it one does.

    As with longer answers, coordinate X_1 of "table" is off by δ(2S − p(1 + s)) with p = n_X + 1, δ = 1/(e^T + n_X)
    and S = 1 + s + (how often X_1 comes again). So s loses at most (n_X − 1)(1 + s)δ, where s < V^M·2^−b, and what it
    can gain, with what other coordinates near 1 let through, is less. Each digit tolerates ¼·2^−b.
    """
    bits, maps = packed_bits(vocab, n_input), float(vocab**vocab ** (n_input - 1))
    return math.log(4 * (n_input - 1) * (2.0**bits + maps) - n_input)
