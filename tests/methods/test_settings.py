"""A method is called the same before and after it was asked for something."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import pytest

import elicitable as el
from elicitable.methods import rungs
from elicitable.methods.base import Adaptation, Method
from elicitable.methods.catalog import method_named
from elicitable.methods.kv_prefix import KVPrefix


class Noting(KVPrefix):
    """A prefix that notes down what it does."""

    name = "noting"

    def __init__(self, rate: float = 0.1) -> None:
        self.rate = rate
        self.calls = 0
        self.sizes: list[int] = []

    def numbers(self, model: Any, size: int) -> int:
        """Count, and note it."""
        self.asked_for = size
        return super().numbers(model, size)

    def build(self, model: Any, size: int, seed: int, **options: Any) -> Adaptation:
        """Build, and note it; raises for a size below 1."""
        self.calls += 1
        self.sizes.append(size)
        self.latest = {"size": size}
        if size < 1:
            raise ValueError("too small")
        return super().build(model, size, seed, **options)


class Choosing(Method):
    """A method that is chosen, and notes down what it offers."""

    name = summary = "choosing"
    rung = rungs.PROMPT

    def __init__(self) -> None:
        self.offered = 0

    def build(self, model: Any, size: int, seed: int, **options: Any) -> Adaptation:
        """Nothing is changed."""
        self.built = True
        return Adaptation()

    def candidates(self, model: Any, task: Any, seed: int, **options: Any) -> Iterator[Adaptation]:
        """Offer two."""
        for _ in range(2):
            self.offered += 1
            yield self.build(model, 0, 0)


def test_what_a_method_leaves_on_itself_is_no_setting() -> None:
    model, method = el.load("toy:ascending"), Noting()
    before = method.identity
    method.numbers(model, 1)
    for size in (1, 2):
        method.build(model, size, 0)
        assert method.identity == before == Noting().identity
    with pytest.raises(ValueError, match="too small"):
        method.build(model, 0, 0)
    assert (method.calls, method.sizes, method.latest) == (3, [1, 2, 0], {"size": 0})
    again = pickle.loads(pickle.dumps(method))
    assert again.identity == copy.copy(method).identity == before


def test_a_setting_that_is_given_later_counts() -> None:
    model, method = el.load("toy:ascending"), Noting()
    method.build(model, 1, 0)
    method.rate = 0.5
    assert method.identity == Noting(0.5).identity != Noting().identity
    method.build(model, 1, 0)
    assert method.identity == Noting(0.5).identity
    method.calls = 7  # not what it noted itself
    assert method.identity != Noting(0.5).identity


@pytest.mark.parametrize("taken", [1, 2, 3])
def test_candidates_leave_no_setting_either(taken: int) -> None:
    model, method = el.load("toy:ascending"), Choosing()
    before = method.identity
    for _, _ in zip(range(taken), method.candidates(model, None, 0), strict=False):
        pass
    assert method.offered
    assert method.identity == before


def test_a_race_finds_again_what_a_method_that_notes_was_kept_under(tmp_path: Any) -> None:
    given: dict[str, Any] = {"budget": 400, "seeds": 1, "steps": 4, "test_items": 20, "out": tmp_path}
    kept, method = [], Noting()
    for one in (Noting(), method, method):
        el.verdict("toy:ascending", "ascending", methods=["zero-shot", one], **given)
        kept.append({path.name for path in (tmp_path / "trials").iterdir()})
    assert kept[0] == kept[1] == kept[2]
    assert method_named("kv-prefix").identity == "kv-prefix"
