"""What tells a person's own code and settings apart, and what does not."""

from __future__ import annotations

import math
import operator
import re
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import cache, lru_cache, partial, wraps
from typing import Any

import numpy as np
import pytest
import torch

from elicitable.methods.kv_prefix import KVPrefix
from elicitable.own_digest import digest_of, settings_of


class WithRate(KVPrefix):
    """A method with settings."""

    name = "mine"

    def __init__(self, rate: Any, words: tuple[str, ...] = ()) -> None:
        self.rate = rate
        self.words = words
        self.seen: list[int] = []
        self._cache = 0


def test_a_method_with_other_settings_is_another() -> None:
    settings: list[tuple[Any, ...]] = [(0.1,), (0.5,), ("0.5",), (None,), (0.1, ("a",)), ({"a": [1]},), ({"a": [2]},)]
    assert len({WithRate(*given).identity for given in settings}) == len(settings)
    assert WithRate({"b": 1, "a": 2}).identity == WithRate({"a": 2, "b": 1}).identity
    one, same = WithRate(0.1), WithRate(0.1)
    one._cache = 7
    assert one.identity == same.identity
    one.rate = object()  # what is no plain data says nothing
    assert one.identity == WithRate(object()).identity


@dataclass
class Near:
    """A part of settings that holds others."""

    k: int = 1
    words: list[str] = field(default_factory=list)


class Side(Enum):
    """Two names."""

    LEFT = 1
    RIGHT = 2


@pytest.mark.parametrize(
    "empty", [[], (), {}, set(), Near(), None, object(), math.sqrt], ids=lambda one: type(one).__name__
)
def test_what_stands_beside_a_setting_does_not_hide_it(empty: Any) -> None:
    """An empty list within a dictionary made all that is in it count for nothing."""
    assert WithRate({"k": 1, "near": empty}).identity != WithRate({"k": 2, "near": empty}).identity
    assert WithRate([1, [empty]]).identity != WithRate([2, [empty]]).identity
    assert WithRate({"k": 1, "near": empty}).identity == WithRate({"near": empty, "k": 1}).identity


PAIRS: dict[str, tuple[Any, Any]] = {
    "empty": ([], ()),
    "dataclass": (Near(1), Near(2)),
    "enum": (Side.LEFT, Side.RIGHT),
    "numpy number": (np.int64(3), np.int64(4)),
    "array": (np.zeros(2_000), np.arange(2_000)),
    "fraction": (Fraction(1, 3), Fraction(2, 3)),
    "decimal": (Decimal("0.1"), Decimal("0.2")),
    "pattern": (re.compile("a" * 300), re.compile("a" * 300 + "b")),
    "dtype": (torch.float16, torch.bfloat16),
    "range": (range(3), range(4)),
    "function": (lambda: 1, lambda: 2),
    "class": (KVPrefix, Near),
}


@pytest.mark.parametrize("name", PAIRS)
def test_settings_of_any_kind_tell(name: str) -> None:
    one, other = PAIRS[name]
    assert WithRate(one).identity == WithRate(one).identity
    assert WithRate(one).identity != WithRate(other).identity


class Closed:
    """Something that cannot be copied, and says so in its own way."""

    __slots__ = ()

    def __reduce_ex__(self, form: Any) -> Any:
        raise RuntimeError("closed")


def test_what_does_not_tell_what_it_is_made_of_is_told_by_its_class() -> None:
    assert WithRate(Closed()).identity == WithRate(Closed()).identity != WithRate(object()).identity


def test_a_setting_that_holds_itself_ends() -> None:
    around: list[Any] = [1]
    around.append(around)
    assert WithRate(around).identity != WithRate([1]).identity


def test_a_function_counts_with_what_it_closes_over() -> None:
    def made(share: float) -> Any:
        def score(answers: Any, targets: Any, floor: float = share / 2) -> float:
            return share + floor

        return score

    assert digest_of(made(0.5)) == digest_of(made(0.5))
    assert digest_of(made(0.5)) != digest_of(made(0.25))


def same(target: str, answer: str, least: float = 1.0) -> float:
    """Score by whether two texts are one."""
    return float(target == answer) * least


def inside(target: str, answer: str) -> float:
    """Score by whether one text holds the other."""
    return float(target in answer)


class Score:
    """Scores with a setting."""

    def __init__(self, least: float) -> None:
        self.least = least

    def strict(self, target: str, answer: str) -> float:
        """Score by equality."""
        return float(target == answer) * self.least

    def lenient(self, target: str, answer: str) -> float:
        """Score by what is in it."""
        return float(target in answer) * self.least

    @classmethod
    def of_all(cls, target: str, answer: str) -> float:
        """Score by the class alone."""
        return 0.5


def told(function: Any) -> Any:
    """Return a function that calls another."""

    @wraps(function)
    def called(*args: Any) -> float:
        return float(function(*args))

    return called


def halved(function: Any) -> Any:
    """Return a function that calls another, for half as much."""

    @wraps(function)
    def called(*args: Any) -> float:
        return float(function(*args)) / 2

    return called


def tagged(tag: str) -> Any:
    """Return a function with an attribute."""

    def score(target: str, answer: str) -> str:
        return tag.__class__.__name__

    score.tag = tag  # type: ignore[attr-defined]
    return score


SCORES: dict[str, tuple[Any, Any]] = {
    "partial, its function": (partial(same), partial(inside)),
    "partial, its arguments": (partial(same, least=0.5), partial(same, least=0.25)),
    "partial of a partial": (partial(partial(same, "a"), "b"), partial(partial(same, "c"), "b")),
    "bound, the method": (Score(1).strict, Score(1).lenient),
    "bound, the object": (Score(1).strict, Score(0.5).strict),
    "bound, the class": (Score.of_all, Score(1).strict),
    "cached": (cache(same), cache(inside)),
    "cached with a size": (lru_cache(maxsize=3)(partial(same, least=0.5)), lru_cache(maxsize=3)(partial(same))),
    "wrapped, what": (told(same), told(inside)),
    "wrapped, by what": (told(same), halved(same)),
    "built in": (operator.eq, operator.contains),
    "built in, of a type": (str.startswith, str.endswith),
    "built in, of an object": ("a".startswith, "b".startswith),
    "of numpy": (np.equal, np.not_equal),
    "classes": (Score, Near),
    "lambdas in a line": (lambda a, b: a == b, lambda a, b: a in b),
    "attributes": (tagged("a"), tagged("b")),
    "patterns": (partial(re.compile("a").fullmatch), partial(re.compile("b").fullmatch)),
}


@pytest.mark.parametrize("name", SCORES)
def test_whatever_is_called_is_told_by_what_it_wraps_or_is_bound_to(name: str) -> None:
    """Scores of one kind looked alike: partials, bound methods, cached functions."""
    one, other = SCORES[name]
    again = one if not isinstance(one, partial) else partial(one.func, *one.args, **one.keywords)
    assert digest_of(one, settings_of(one)) == digest_of(again, settings_of(again))
    assert digest_of(one, settings_of(one)) != digest_of(other, settings_of(other))
