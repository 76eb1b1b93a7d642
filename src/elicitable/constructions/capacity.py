"""How far each construction goes in each floating-point type, found by running it.

Three things can end a construction: the logits of neighbouring symbols, 1/V² apart, round together (*margin*); a packed
inner map needs more bits than fit behind the binary point (*packing*); or it needs more weights or virtual tokens than
a table is willing to hold (*size*). The softmax leak does not end it, it asks for a temperature: the one needed is
found by bisection and stands beside the computed bound.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from elicitable.constructions import (
    any_map,
    any_sequence,
    longer_answers,
    packed_inputs,
    precision,
    tabled_inputs,
)
from elicitable.constructions.construction import Construction, Symbols
from elicitable.constructions.precision import DTYPES, dtype_name, fraction_bits
from elicitable.constructions.verify import Verification, holds, verify_targets
from elicitable.errors import InputError
from elicitable.rng import generator

#: Where the table stops although arithmetic would go on: vocabulary of theorem 1, of theorem 2 (V × V weights), of
#: longer answers, and virtual tokens of tabled inputs.
MOST_VOCAB = {any_sequence.NAME: 4096, any_map.NAME: 1024, longer_answers.NAME: 128}
MOST_TABLES = 25

#: Lengths the table is made at: symbols of theorem 1, its longest sequence, symbols of a longer answer.
LENGTH, LONG_LENGTH, ANSWER_LENGTH = 8, 128, 8

#: Steps in which the inverse temperature comes down, and to which the first failure is then placed.
COARSE_STEP, TEMPERATURE_STEP = 0.25, 1e-3

#: User inputs that each temperature is tried on: all, but for theorem 2 at its largest.
TEMPERATURE_INPUTS = 192


@dataclass(frozen=True)
class CapacityRow:
    """The largest exact size of one construction in one type, and what stops it there.

    ``vocab`` is the largest V that was run and found exact; ``arithmetic_vocab`` the largest that the type carries
    (larger where the table stops for size; None where V was given). ``failures_above`` counts wrong symbols at
    V + 1, built all the same (None where it was not run). ``temperature_needed`` is the inverse temperature below
    which targets start to fail, ``temperature_bound`` the computed one above which none can.
    ``smallest_margin`` is the smallest lead of a right logit, ``ideal_margin`` 1/V².
    """

    construction: str
    dtype: str
    vocab: int
    n_input: int
    n_answer: int
    n_virtual: int
    limited_by: str
    arithmetic_vocab: int | None
    failures_above: int | None
    temperature_needed: float
    temperature_bound: float
    smallest_margin: float
    ideal_margin: float
    bits_needed: int | None
    bits_carried: int
    checked: int
    decisions: int
    failures: int
    parameters: int
    seconds: float


@dataclass(frozen=True)
class _Case:
    """One row to be made: how to build it at V, how far to go, and what stops it there."""

    build: Callable[[int], Construction]
    vocab: int
    limited_by: str
    arithmetic_vocab: int | None = None
    bits_needed: int | None = None


def capacity(dtypes: Sequence[str] = tuple(DTYPES), *, seed: int = 0) -> tuple[CapacityRow, ...]:
    """The table: every construction at its largest size in every type.

    >>> [(row.construction, row.vocab) for row in capacity(["bfloat16"])][:2]
    [('theorem-1', 19), ('theorem-1', 10)]
    """
    return tuple(_row(case, dtype, seed) for dtype in map(precision.dtype_named, dtypes) for case in _cases(dtype))


def _cases(dtype: torch.dtype) -> Iterator[_Case]:
    """The rows of one type, in the order of the theory."""
    margin = precision.largest_vocab(dtype)
    yield _by_margin(
        any_sequence.NAME,
        lambda vocab: any_sequence.build(vocab, LENGTH, dtype=dtype, unchecked=True),
        margin,
    )
    yield _Case(
        lambda vocab: any_sequence.build(vocab, LONG_LENGTH, dtype=dtype),
        10,
        f"nothing met: T = 128 outweighs e^128 positions; the table stops at N = {LONG_LENGTH}",
    )
    yield _by_margin(any_map.NAME, lambda vocab: any_map.build(vocab, dtype=dtype, unchecked=True), margin)
    yield _by_margin(
        longer_answers.NAME,
        lambda vocab: longer_answers.build(vocab, ANSWER_LENGTH, dtype=dtype, unchecked=True),
        margin,
    )
    yield from _packed_cases(dtype)
    yield _tabled_case(dtype, 3, margin)


def _by_margin(name: str, build: Callable[[int], Construction], margin: int) -> _Case:
    """A construction that ends where neighbouring logits meet, or at the table's own limit."""
    most = MOST_VOCAB[name]
    if margin <= most:
        reason = f"margin: logits 1/V² apart tie at V = {margin + 1}"
    else:
        reason = f"size: the table stops at V = {most}; the margin lasts to about {margin:,}"
    return _Case(build, min(margin, most), reason, margin)


def _packed_cases(dtype: torch.dtype) -> Iterator[_Case]:
    """n_X = 2, 3, … as long as two symbols fit."""
    name, carried, n_input = dtype_name(dtype), fraction_bits(dtype), 2
    while (vocab := packed_inputs.largest_vocab(n_input, dtype)) >= 2:
        above = packed_inputs.packed_bits(vocab + 1, n_input)
        yield _Case(
            # bound now: the generator moves on before the row is made
            lambda v, n=n_input: packed_inputs.build(v, n, dtype=dtype, unchecked=True),  # type: ignore[misc]
            vocab,
            f"packing: V = {vocab + 1} needs {above} bits, {name} carries {carried}",
            vocab,
            packed_inputs.packed_bits(vocab, n_input),
        )
        n_input += 1


def _tabled_case(dtype: torch.dtype, n_input: int, margin: int) -> _Case:
    """The largest V with V^(n_X−1) ≤ MOST_TABLES."""
    vocab = 2
    while (vocab + 1) ** (n_input - 1) <= MOST_TABLES and vocab < margin:
        vocab += 1
    return _Case(
        lambda v: tabled_inputs.build(v, n_input, dtype=dtype, unchecked=True),
        vocab,
        f"size: V^{n_input - 1} virtual tokens, the table stops at {MOST_TABLES}; the margin lasts to about {margin:,}",
        margin,
    )


def _row(case: _Case, dtype: torch.dtype, seed: int) -> CapacityRow:
    """Runs one case at its size and, where arithmetic ends there, one above."""
    began = time.perf_counter()
    construction = case.build(case.vocab)
    result = verify_targets(construction, telling_targets(construction, seed))
    at_the_end = case.arithmetic_vocab == case.vocab
    above = _above(case, seed) if at_the_end else None
    shape = construction.model.shape()
    return CapacityRow(
        construction=construction.name,
        dtype=dtype_name(dtype),
        vocab=case.vocab,
        n_input=construction.n_input,
        n_answer=construction.n_answer,
        n_virtual=construction.n_virtual,
        limited_by=case.limited_by,
        arithmetic_vocab=case.arithmetic_vocab,
        failures_above=None if above is None else above.failures,
        temperature_needed=temperature_needed(construction, seed),
        temperature_bound=construction.temperature_bound,
        smallest_margin=result.smallest_margin,
        ideal_margin=result.ideal_margin,
        bits_needed=case.bits_needed,
        bits_carried=fraction_bits(dtype),
        checked=result.checked,
        decisions=result.decisions,
        failures=result.failures,
        parameters=shape.parameters,
        seconds=time.perf_counter() - began,
    )


def _above(case: _Case, seed: int) -> Verification | None:
    """One vocabulary above the end; None for one that cannot be built in any type."""
    try:
        construction = case.build(case.vocab + 1)
    except InputError:
        return None
    return verify_targets(construction, telling_targets(construction, seed))


def extreme_targets(construction: Construction) -> Symbols:
    """Targets in which softmax leak does most harm, as tables (5, V^n_X, n_Y).

    All lowest, all highest, the highest symbol last after lowest ones, its opposite, and the two in turn.
    """
    shape, top = (construction.n_inputs, construction.n_answer), construction.vocab - 1
    low, last = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    last[:, -1] = top
    turns = np.indices(shape).sum(axis=0) % 2 * top
    return np.stack([low, low + top, last, top - last, turns])


def covering_targets(construction: Construction, count: int) -> Symbols:
    """Targets (k + row + step) mod V: over all k every symbol appears in every place.

    All V of them, or ``count`` evenly spaced ones, as tables (≤ count, V^n_X, n_Y).
    """
    rows, steps = np.indices((construction.n_inputs, construction.n_answer))
    k = np.unique(np.linspace(0, construction.vocab - 1, min(count, construction.vocab)).astype(np.int64))
    return (k[:, None, None] + rows + steps) % construction.vocab


def telling_targets(construction: Construction, seed: int) -> Symbols:
    """Extreme, covering and random targets together: about 4096 answers' worth, at least 2 random ones."""
    count = max(2, 4096 // (construction.n_inputs * construction.n_virtual))
    draws = generator(seed, "constructions", "capacity", construction.name)
    return np.concatenate(
        [
            extreme_targets(construction),
            covering_targets(construction, count),
            construction.random_targets(min(count, 64), draws),
        ]
    )


def temperature_needed(construction: Construction, seed: int = 0) -> float:
    """The inverse temperature below which extreme or random targets begin to fail, coming from above.

    On all user inputs, or on :data:`TEMPERATURE_INPUTS` evenly spaced ones, with both ends, where there are more.

    Close to the largest vocabulary, rounding makes some colder and some warmer settings pass by luck. So T comes down
    from the bound + 6 in steps of ¼ to the first failure, and bisection places it there to 1e-3. 0 where uniform
    attention will do; infinity where targets fail even at the construction's own temperature.
    """
    draws = generator(seed, "constructions", "temperature", construction.name)
    targets = np.concatenate([extreme_targets(construction), construction.random_targets(2, draws)])

    most = min(construction.n_inputs, TEMPERATURE_INPUTS)
    inputs = np.linspace(0, construction.n_inputs - 1, most).astype(np.int64)

    def passes(inverse_temperature: float) -> bool:
        return holds(construction.at(inverse_temperature), targets, inputs)

    if not passes(construction.inverse_temperature):
        return float("inf")
    high = min(construction.inverse_temperature, construction.temperature_bound + 6)
    if not passes(high):
        return construction.inverse_temperature
    while high > 0 and passes(max(0.0, high - COARSE_STEP)):
        high = max(0.0, high - COARSE_STEP)
    low = max(0.0, high - COARSE_STEP)
    while high - low > TEMPERATURE_STEP:
        middle = (low + high) / 2
        low, high = (low, middle) if passes(middle) else (middle, high)
    return high
