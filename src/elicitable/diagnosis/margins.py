"""Decide at every margin at once: the decision is piecewise constant in the margin, so a short table holds all of it.

Every rule of :mod:`elicitable.diagnosis.verdict` asks of the margin whether a number reaches it. Each such question
flips once on the way from 0 to 1; where it does is found to the last bit by halving the floating-point numbers between
them. Between two flips nothing changes, so one decision at each flip is the decision at every margin.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from elicitable.diagnosis.tried import could_catch_up
from elicitable.diagnosis.verdict import (
    Decision,
    Evidence,
    has_room,
    is_above_the_floor,
    is_near_the_floor,
    may_be_far_above,
)
from elicitable.values import Stretch

SMALLEST, LARGEST = math.nextafter(0.0, 1.0), math.nextafter(1.0, 0.0)  # a margin lies between 0 and 1


def stretches(evidence: Evidence) -> tuple[Stretch, ...]:
    """Return what is decided at every margin in (0, 1), from the smallest on; neighbours that decide alike are one.

    >>> from elicitable.methods.rungs import ALREADY_THERE, WEIGHTS
    >>> from elicitable.values import ArmResult, Budget
    >>> def arm(name, rung, right):
    ...     correct = ((1,) * right + (0,) * (100 - right),)
    ...     return ArmResult(name, rung, {}, Budget(0, 0, 0), "ok", mean=right / 100, low=0.8, high=1, correct=correct)
    >>> from elicitable.diagnosis.verdict import gather
    >>> found = gather([arm("zero-shot", ALREADY_THERE, 88), arm("lora", WEIGHTS, 90)], floor=0.1, seed=0)
    >>> [(round(one.start, 3), one.label) for one in stretches(found)]
    [(0.0, 'inconclusive'), (0.07, 'already-there'), (0.7, 'out-of-reach')]
    """
    flips = {SMALLEST, *(at for question in _questions(evidence) if (at := flip(question)) is not None)}
    table: list[Stretch] = []
    for start in sorted(flips):
        one = _stretch(start, evidence.decide(start))
        if not table or replace(one, start=table[-1].start) != table[-1]:
            table.append(one)
    return tuple(table)


def flip(question: Callable[[float], bool]) -> float | None:
    """Return the smallest margin at which the answer is another than at the smallest of all; None where none is.

    ``question`` changes its answer once at most.

    >>> flip(lambda margin: margin >= 0.02)
    0.02
    """
    before = question(SMALLEST)
    if question(LARGEST) == before:
        return None
    low, high = _place(SMALLEST), _place(LARGEST)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if question(_number(middle)) == before else (low, middle)
    return _number(high)


def _questions(evidence: Evidence) -> Iterator[Callable[[float], bool]]:
    """Every question that the rules ask of the margin."""
    best = evidence.best
    if best is None:
        return
    yield partial(is_near_the_floor, best, evidence.floor, evidence.highest)
    yield partial(is_above_the_floor, best, evidence.floor, evidence.highest)
    yield partial(may_be_far_above, best, evidence.floor, evidence.highest)
    for gap in evidence.gaps:
        yield partial(_reaches, gap.low)
        yield partial(_reaches, gap.high)
        yield partial(could_catch_up, gap.arm, best)
        yield partial(has_room, gap.arm, evidence.highest)


def _reaches(number: float, margin: float) -> bool:
    return number <= margin


def _stretch(start: float, decision: Decision) -> Stretch:
    standings = {one.arm.method: one.standing for one in decision.compared}
    return Stretch(start, decision.label, decision.answer, decision.because, standings)


def _place(number: float) -> int:
    """Return where a number of at least 0 stands in the order of all floating-point numbers: its bits, as a count."""
    place: int = struct.unpack(">q", struct.pack(">d", number))[0]
    return place


def _number(place: int) -> float:
    number: float = struct.unpack(">d", struct.pack(">q", place))[0]
    return number
