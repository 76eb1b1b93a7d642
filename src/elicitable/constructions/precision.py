"""What a floating-point type can carry, measured on the last affine map of the constructions.

A symbol Y enters as s = Y/V, is marked by adding 1, unmarked by subtracting 1, and read by
logits_j = (2j/V − 1)z + ¼ − (j/V)². In exact arithmetic the right logit leads by 1/V². Rounding eats from
that lead; the vocabulary ends where a neighbour catches up.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor

from elicitable.constructions.blocks import logit_rows
from elicitable.errors import InputError

#: The types in which a construction can be built, finest first.
DTYPES: dict[str, torch.dtype] = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}

#: Up to this vocabulary every symbol is tried against every logit; above it, against its neighbours.
EVERY_LOGIT = 4096

#: Larger vocabularies are refused, whatever the type: each symbol has weights of its own.
MOST_VOCAB = 1 << 20

#: At most this many symbols are tried against their neighbours, evenly spaced with both ends.
NEIGHBOUR_SYMBOLS = 1 << 18


def dtype_named(name: str) -> torch.dtype:
    """The type called ``name``; raises InputError for another.

    >>> dtype_named("bfloat16")
    torch.bfloat16
    """
    if name not in DTYPES:
        raise InputError(f"unknown dtype {name!r}; choose one of {', '.join(DTYPES)}.")
    return DTYPES[name]


def dtype_name(dtype: torch.dtype) -> str:
    """The name of a type that a construction can be built in; raises InputError for another."""
    for name, known in DTYPES.items():
        if known == dtype:
            return name
    raise InputError(f"{dtype} cannot carry a construction; choose one of {', '.join(DTYPES)}.")


def fraction_bits(dtype: torch.dtype) -> int:
    """Bits behind the binary point of a number in [1, 2): 52, 23, 10 and 7.

    >>> [fraction_bits(dtype) for dtype in DTYPES.values()]
    [52, 23, 10, 7]
    """
    return round(-math.log2(torch.finfo(dtype).eps))


def read_back(symbols: Tensor, vocab: int, dtype: torch.dtype) -> Tensor:
    """z = ReLU((s + 1) − 1) for s = Y/V, every step rounded to ``dtype``."""
    entry = (symbols.double() / vocab).to(dtype)
    return ((entry + 1) - 1).relu()


def _margin_of_all(vocab: int, dtype: torch.dtype) -> float:
    """Smallest lead of the right logit over all V symbols and all V logits."""
    rows = logit_rows(vocab)
    weight, bias = (torch.from_numpy(part).to(dtype) for part in (rows.weight, rows.bias))
    z = read_back(torch.arange(vocab), vocab, dtype)
    smallest = float("inf")
    for chosen in torch.split(torch.arange(vocab), 1024):
        logits = torch.nn.functional.linear(z[chosen, None], weight, bias).double()
        right = logits.gather(1, chosen[:, None])
        logits.scatter_(1, chosen[:, None], -torch.inf)
        smallest = min(smallest, float((right[:, 0] - logits.amax(dim=1)).min()))
    return smallest


def _logit(j: Tensor, z: Tensor, vocab: int, dtype: torch.dtype) -> Tensor:
    """Row j of the readout, applied to z, entry by entry, rounded as torch's CPU kernels round it.

    The product is rounded before the bias is added, except in the 16-bit types: their kernels add in float32 and
    round once. A processor that fuses both does better by a few symbols.
    """
    weight = ((2 * j - vocab).double() / vocab).to(dtype)
    # (V/2 − j)(V/2 + j)/V²: no cancellation, so the rounding is the correct one up to one unit
    bias = ((vocab - 2 * j).double() * (vocab + 2 * j).double() / (4.0 * vocab * vocab)).to(dtype)
    wide = torch.promote_types(dtype, torch.float32)
    return (weight.to(wide) * z.to(wide) + bias.to(wide)).to(dtype).double()


def _margin_to_neighbours(vocab: int, dtype: torch.dtype) -> float:
    """Smallest lead of the right logit over j ± 1, over evenly spaced symbols."""
    count = min(vocab, NEIGHBOUR_SYMBOLS)
    symbols = torch.from_numpy(np.unique(np.linspace(0, vocab - 1, count).round().astype(np.int64)))
    z = read_back(symbols, vocab, dtype)
    right = _logit(symbols, z, vocab, dtype)
    below = right - _logit(symbols - 1, z, vocab, dtype)
    above = right - _logit(symbols + 1, z, vocab, dtype)
    # symbol 0 has no neighbour below, V − 1 none above
    return float(torch.minimum(below[1:].min(), above[:-1].min()))


@functools.cache
def largest_vocab(dtype: torch.dtype) -> int:
    """The largest V such that it and every smaller vocabulary keep all symbols apart in ``dtype``.

    Up to V = 4096 every vocabulary is tried in turn, so the answer is exact (19 in bfloat16, 42 in float16). What
    goes beyond (float64) is found by bisection with :func:`smallest_margin`, on sampled symbols: an estimate.

    >>> largest_vocab(torch.bfloat16), largest_vocab(torch.float16)
    (19, 42)
    """
    scanned = EVERY_LOGIT if fraction_bits(dtype) <= 2 * math.log2(EVERY_LOGIT) else 1
    for vocab in range(2, scanned + 1):
        # neighbours alone: they are quick to try, and any logit further off trails by at least 4/V²
        if _margin_to_neighbours(vocab, dtype) <= 0:
            return vocab - 1
    low, high = EVERY_LOGIT, 1 << 30
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if smallest_margin(middle, dtype) > 0 else (low, middle)
    return low


@functools.cache
def smallest_margin(vocab: int, dtype: torch.dtype) -> float:
    """The smallest lead of the right logit in ``dtype``; 1/V² in exact arithmetic, ≤ 0 is a failure.

    All symbols against all logits up to V = 4096; above, evenly spaced symbols (at most 2^18) against
    their two neighbours: any logit further off trails by at least 4/V².

    >>> round(smallest_margin(10, torch.float64) * 10**2, 10), round(smallest_margin(19, torch.bfloat16) * 19**2, 3)
    (1.0, 0.529)
    """
    margin = _margin_to_neighbours(vocab, dtype)
    return min(margin, _margin_of_all(vocab, dtype)) if vocab <= EVERY_LOGIT else margin


def check_vocab(vocab: int, dtype: torch.dtype, *, unchecked: bool = False) -> None:
    """Raises InputError if two symbols of a vocabulary cannot be told apart in ``dtype``, unless ``unchecked``.

    A vocabulary that cannot be built at all (fewer than 2 symbols, more than 2^20) is always refused.
    """
    if vocab < 2:
        raise InputError(f"a vocabulary needs at least 2 symbols, got {vocab}.")
    if vocab > MOST_VOCAB:
        raise InputError(f"a vocabulary has at most {MOST_VOCAB:,} symbols here, got {vocab:,}; use a smaller one.")
    if not unchecked and smallest_margin(vocab, dtype) <= 0:
        finer = [name for name in DTYPES if fraction_bits(DTYPES[name]) > fraction_bits(dtype)]
        advice = f" or a finer dtype ({', '.join(finer)})" if finer else ""
        raise InputError(
            f"vocabulary {vocab} is beyond {dtype_name(dtype)}: the logits of neighbouring symbols "
            f"are 1/V² = {1 / vocab**2:.1e} apart and rounding closes the gap; "
            f"use a smaller vocabulary{advice}."
        )
