"""The blocks the proofs are made of, as plain weight matrices.

Attention heads are chosen by what their score T·(W_Q x_i)ᵀ(W_K x_j) rewards; as the inverse temperature T
grows, the softmax picks the one position with the largest score. MLPs are lists of affine maps with a
ReLU between consecutive ones. (Paper: section 2 for the architecture, appendix A for the blocks. The paper
divides the scores by √k; here that factor is part of T.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from elicitable.constructions.subspaces import Matrix, Subspaces


@dataclass(frozen=True, eq=False)
class Head:
    """One attention head: query and key (d_head × stream), value (output × stream)."""

    name: str
    query: Matrix
    key: Matrix
    value: Matrix


@dataclass(frozen=True, eq=False)
class Affine:
    """x ↦ weight·x + bias, weight (outputs × inputs)."""

    weight: Matrix
    bias: Matrix


def attend_to_self(stream: Subspaces, value: Matrix) -> Head:
    """Score T·e(i)ᵀe(j) = T·[i = j]: every position picks itself."""
    position = stream.read("position")
    return Head("attend-to-self", position, position, value)


def attend_to_position(stream: Subspaces, position: int, value: Matrix) -> Head:
    """Score T·(1ᵀe(i))·e(j)[position] = T·[j = position], positions counted from 1."""
    read = stream.read("position")
    everywhere = read.sum(axis=0, keepdims=True)
    return Head(f"attend-to-{position}", everywhere, read[position - 1 : position], value)


def look_back(stream: Subspaces, steps: int, value: Matrix) -> Head:
    """Score T·(S e(i))ᵀe(j) = T·[j = i − steps], S the shift e(i) ↦ e(i − steps).

    Positions 1..steps have nowhere to look back to: all their scores are 0 and their attention is
    uniform. No construction reads those positions.
    """
    read = stream.read("position")
    return Head(f"look-back-{steps}", np.eye(len(read), k=steps) @ read, read, value)


def table_lookup(stream: Subspaces, digits: Sequence[str], vocab: int, value: Matrix) -> Head:
    """Score T·Σ_k [digit k of the address = digit k of j − 1]: picks the position at an address.

    The address is held as one-hot base-``vocab`` digits in the subspaces ``digits``, most significant
    first. Position j carries its own address, the digits of j − 1, for j ≤ vocab^len(digits); later
    positions have key 0. The right position scores T·len(digits), any other at least T less.
    """
    query = np.concatenate([stream.read(name) for name in digits])
    address = np.zeros((len(digits) * vocab, stream.size))
    position = stream.slice("position").start
    for j in range(vocab ** len(digits)):
        for k in range(len(digits)):
            digit = j // vocab ** (len(digits) - 1 - k) % vocab
            address[k * vocab + digit, position + j] = 1.0
    return Head("table-lookup", query, address, value)


def logit_rows(vocab: int) -> Affine:
    """logits_j = (2j/V − 1)·z + ¼ − (j/V)² = (z − ½)² − (z − j/V)², largest at the j nearest to z·V.

    The gap between the right j and its neighbours is 1/V² − 2|z − j/V|/V. The part (z − ½)² is the
    same for every j: it keeps the logits between −1 and ¼, where floating point is finest.
    """
    # Fractions: each weight is the correctly rounded value, also for V where j/V is inexact
    slope = [float(Fraction(2 * j, vocab) - 1) for j in range(vocab)]
    offset = [float(Fraction(1, 4) - Fraction(j, vocab) ** 2) for j in range(vocab)]
    return Affine(np.array(slope)[:, None], np.array(offset))


def relu_decode(select: Matrix, vocab: int, hot: int = 1) -> list[Affine]:
    """The three-layer MLP that reads the marked entry of a table and names the symbol.

    1. ReLU(select·x − hot): ``hot`` ones mark an entry; what is not marked by all of them, and is
       below 1 itself, goes to 0.   2. the sum of what is left, the scalar z.   3. :func:`logit_rows`.
    ``select`` (entries × stream) adds the table and its marks.
    """
    entries = len(select)
    return [
        Affine(select, np.full(entries, -float(hot))),
        Affine(np.ones((1, entries)), np.zeros(1)),
        logit_rows(vocab),
    ]


def unpack_table(stream: Subspaces) -> list[Affine]:
    """packed = Σ_c ReLU(table_c − 1): the entry of "table" that carries a mark, into "packed"."""
    table = stream.read("table")
    return [
        Affine(table, -np.ones(len(table))),
        Affine(stream.write("packed") @ np.ones((1, len(table))), np.zeros(stream.size)),
    ]


def unpack_digit(stream: Subspaces, vocab: int, place: int, digits: int, bits: int) -> list[Affine]:
    """One base-V digit off a packed integer, as a three-layer ReLU MLP to be added to the stream.

    "packed" holds D·2^−bits with 0 ≤ D < V^(place+1). With P = V^place the digit is
    d = Σ_{k=1}^{V−1} [D ≥ kP], and for integers

        [D ≥ kP] = 1 − ReLU(1 − ReLU(2(D − kP) + 3/2)),

    with room of ¼ on either side for an error in D. Writes d/V to its coordinate of "digits" (most
    significant first) and −d·P·2^−bits to "packed": the remainder stays.
    """
    power, unit = vocab**place, 2.0**-bits
    steps = np.arange(1, vocab, dtype=np.float64)
    first = Affine(
        np.full((vocab - 1, 1), 2.0 / unit) @ stream.read("packed"),
        np.array([float(Fraction(3, 2) - 2 * int(k) * power) for k in steps]),
    )
    second = Affine(-np.eye(vocab - 1), np.ones(vocab - 1))
    write = np.zeros(stream.size)
    write[stream.slice("digits").start + digits - 1 - place] = 1.0 / vocab
    write[stream.slice("packed").start] = -float(power) * unit
    ones = np.ones((1, vocab - 1))
    return [first, second, Affine(-write[:, None] @ ones, write * (vocab - 1))]
