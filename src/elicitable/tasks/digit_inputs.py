"""Draw the inputs of the synthetic tasks, and say which there are and which are held out.

An input is 10 digits from 0..7. It is handled as one 30-bit number, its *code*: digit k is
``(code >> 3k) & 7``, so digit 0 is in the lowest three bits.

* **All-equal inputs are in no task and no split** (8 of 8¹⁰): a count of 10 is outside the vocabulary of 10
  symbols that all tasks share.
* **The split is a function of the input alone**, the same for every task, process and machine: let
  h = :func:`mix64` (code); h mod 4 = 0 is held out (25 %), of which bit 2 of h chooses validation (0) or test (1).
* **A draw** is, with probability ½, uniform over the split, and otherwise uniform over those inputs of the split
  with at most 5 distinct digits (that is: drawn again until at most 5 occur).

Source: section 5 of the paper and its companion code, whose hash, unlike this one, changes with every process.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from elicitable.errors import InputError
from elicitable.rng import generator
from elicitable.tasks.base import HeldOut
from elicitable.values import Split

LENGTH: Final = 10
DIGITS: Final = 8
FEW: Final = 5  # half of the draws have at most this many distinct digits
HELD_OUT_MAX: Final = 20_000

_CODES: Final = DIGITS**LENGTH
_SHIFTS: Final = 3 * np.arange(LENGTH, dtype=np.int64)
_TRIES: Final = 16  # candidates per wanted input and round; the scarcest kind is accepted with probability 0.05
_BLOCK: Final = 1_000  # held-out inputs are made in blocks, so that the first n do not depend on n
_HELD_OUT_SEED: Final = 20_231_019

Codes = NDArray[np.int64]
Digits = NDArray[np.int64]


def _digits_present() -> NDArray[np.uint8]:
    """Return (2¹⁵,) for half an input, five digits: bit d is set where digit d occurs."""
    halves = np.arange(DIGITS**5)
    present = np.zeros(len(halves), dtype=np.uint8)
    for shift in range(0, 15, 3):
        present |= (1 << ((halves >> shift) & 7)).astype(np.uint8)
    return present


_PRESENT: Final = _digits_present()
_ONES: Final = np.array([bin(byte).count("1") for byte in range(256)], dtype=np.uint8)


def mix64(codes: Codes) -> NDArray[np.uint64]:
    """Compute the SplitMix64 output function, elementwise and modulo 2⁶⁴: a stable, well-mixed hash of an integer.

    z = x + 0x9E3779B97F4A7C15; z = (z ⊕ z≫30)·0xBF58476D1CE4E5B9; z = (z ⊕ z≫27)·0x94D049BB133111EB; z ⊕ z≫31.

    >>> [hex(h) for h in mix64(np.array([0, 1])).tolist()]
    ['0xe220a8397b1dcdaf', '0x910a2dec89025cc1']
    """
    z = codes.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def encode(digits: Digits) -> Codes:
    """Turn (…, 10) digits in 0..7 into (…) codes.

    >>> encode(np.array([1, 2, 0, 0, 0, 0, 0, 0, 0, 0])).item()
    17
    """
    return np.asarray((np.asarray(digits, dtype=np.int64) << _SHIFTS).sum(axis=-1), dtype=np.int64)


def decode(codes: Codes) -> Digits:
    """Turn (…) codes into (…, 10) digits in 0..7.

    >>> decode(np.array(17)).tolist()
    [1, 2, 0, 0, 0, 0, 0, 0, 0, 0]
    """
    return (np.asarray(codes)[..., None] >> _SHIFTS) & (DIGITS - 1)


def distinct(codes: Codes) -> NDArray[np.uint8]:
    """Count how many distinct digits each input has, in 1..8.

    >>> distinct(np.array([0, 17])).tolist()
    [1, 3]
    """
    return np.asarray(_ONES[_PRESENT[codes & 0x7FFF] | _PRESENT[codes >> 15]])


def is_in_split(codes: Codes, split: Split) -> NDArray[np.bool_]:
    """Say which inputs belong to ``split`` by their hash (all-equal inputs are not looked at here).

    >>> codes = np.arange(8)
    >>> is_in_split(codes, "train").tolist()
    [True, True, True, True, True, True, False, True]
    """
    low_bits = mix64(codes) & np.uint64(7)
    if split == "train":
        return np.asarray((low_bits & np.uint64(3)) != 0)
    return np.asarray(low_bits == (0 if split == "validation" else 4))


def draw_codes(n: int, split: Split, rng: np.random.Generator) -> Codes:
    """Return ``n`` independent inputs of ``split``, drawn as the head of this module says."""
    chosen = np.full(n, -1, dtype=np.int64)
    few_only = rng.integers(0, 2, size=n) == 1
    open_places = np.arange(n)
    while len(open_places):
        candidates = rng.integers(0, _CODES, size=(len(open_places), _TRIES))
        kinds = distinct(candidates)
        fits = (kinds > 1) & is_in_split(candidates, split)
        fits &= (kinds <= FEW) | ~few_only[open_places, None]
        first = fits.argmax(axis=1)
        rows = np.arange(len(open_places))
        found = fits[rows, first]
        chosen[open_places[found]] = candidates[rows, first][found]
        open_places = open_places[~found]
    return chosen


@cache
def _held_out_block(split: HeldOut, block: int) -> tuple[Codes, NDArray[np.float64]]:
    rng = generator(_HELD_OUT_SEED, "digits", split, block)
    codes, lots = draw_codes(_BLOCK, split, rng), rng.random(_BLOCK)
    codes.flags.writeable = lots.flags.writeable = False
    return codes, lots


def held_out_codes(split: HeldOut, n: int) -> tuple[Codes, NDArray[np.float64]]:
    """Return the first ``n`` held-out inputs of ``split``, all different, and one lot in [0, 1) for each.

    The order is fixed and shared by all tasks; the lot is there for tasks that choose a target at random.
    Raises :class:`InputError` for more than 20,000.

    >>> few, many = held_out_codes("test", 3)[0], held_out_codes("test", 2_000)[0]
    >>> few.tolist() == many[:3].tolist()
    True
    """
    if n > HELD_OUT_MAX:
        raise InputError(f"the synthetic tasks hold out at most {HELD_OUT_MAX:,} items per split, not {n:,}")
    codes, lots = np.empty(0, dtype=np.int64), np.empty(0)
    block = 0
    while len(codes) < n:
        more_codes, more_lots = _held_out_block(split, block)
        codes, lots = np.concatenate([codes, more_codes]), np.concatenate([lots, more_lots])
        first_seen = np.sort(np.unique(codes, return_index=True)[1])
        codes, lots = codes[first_seen], lots[first_seen]
        block += 1
    return codes[:n], lots[:n]
