"""The benchmark that holds a race against an exhaustive one: nothing is left out of the latter."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

import elicitable as el
from elicitable.race import look, rounds, seeds, stakes

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def allocator(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the benchmark as a module, imported from where it lies beside what it imports."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("allocator")


def test_an_exhaustive_race_trains_every_rate_and_every_seed(
    allocator: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(allocator, "SWEPT", 32)
    before = look.better_half, rounds.can_matter, rounds.cohort_of, stakes.owed, seeds._rivals
    trained: list[tuple[str, float, int]] = []
    advance = look.advance

    def noting(race: Any, line: Any, steps: int) -> Any:
        trained.append((line.sized.method.name, line.rate, steps))
        return advance(race, line, steps)

    monkeypatch.setattr(look, "advance", noting)
    asked: dict[str, Any] = {"methods": ["zero-shot", "kv-prefix", "full"], "steps": 32, "seeds": 2, "test_items": 32}
    with allocator.exhaustive():
        answer = el.verdict("toy:ascending", "descending", out=tmp_path / "race", **asked)
    assert (look.better_half, rounds.can_matter, rounds.cohort_of, stakes.owed, seeds._rivals) == before
    for arm in answer.arms[1:]:
        rates = {rate for name, rate, _ in trained if name == arm.method}
        assert len(rates) >= 3
        longest = {rate: max(n for name, r, n in trained if (name, r) == (arm.method, rate)) for rate in rates}
        assert len(set(longest.values())) == 1  # no rate was left after fewer steps than others
        assert arm.seeds >= 2
