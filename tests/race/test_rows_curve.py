"""The contenders on fewer rows: fewer are always among more, nothing is run twice, and no other row is seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.reverse import Reverse

from elicitable.models.model import Model
from elicitable.race import contest, pace, rows_curve, trial
from elicitable.race.rows_curve import FewRows, distinct_rows, numbers_of_rows
from elicitable.tasks.base import identity_of
from elicitable.values import Item

Build = Callable[..., Model]


class Halved(Reverse):
    """Half of the pairs are for training, the others for validation and test."""

    def sample(self, n: int, rng: np.random.Generator) -> list[Item]:
        items = self._items()[::2]
        return [items[i] for i in rng.integers(0, len(items), n)]

    def held_out(self, split: str, n: int | None = None) -> list[Item]:
        return self._items()[1::2][:n]


def test_fewer_rows_are_always_among_more() -> None:
    task: Any = Halved()
    rows = distinct_rows(task, 4096, seed=0)
    assert len(rows) == len({item.prompt for item in rows}) == 32
    assert rows == distinct_rows(task, 4096, seed=0)
    assert rows[:16] == distinct_rows(task, 16, seed=0) or len(distinct_rows(task, 16, seed=0)) == 16
    few = FewRows(task, rows, 16)
    drawn = few.sample(500, np.random.default_rng(0))
    assert {item.prompt for item in drawn} == {item.prompt for item in rows[:16]}
    assert few.held_out("test") == task.held_out("test")
    assert len({identity_of(FewRows(task, rows, count)) for count in (8, 16, 32)} | {identity_of(task)}) == 4


@pytest.mark.parametrize(
    ("available", "expected"), [(10, [10]), (16, [16]), (40, [16, 40]), (20, [20]), (4096, [16, 64, 256, 1024, 4096])]
)
def test_rows_are_quadrupled_up_to_all_there_are(available: int, expected: list[int]) -> None:
    assert numbers_of_rows(available) == expected


def test_the_contenders_are_trained_on_fewer_rows_once(
    digits_model: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = replace(pace.DIGITS, batch=8, validation_items=16, test_items=32, first_steps=4, finish=4, steps=24)
    monkeypatch.setattr(pace, "DIGITS", small)
    monkeypatch.setattr(trial, "_elsewhere", lambda model: Halved().held_out("validation", 4))
    trial._elsewhere_nats.cache_clear()

    def run(**more: Any) -> Any:
        chosen = ["zero-shot", "kv-prefix", "lora"]
        return contest.verdict(digits_model(8), Halved(), methods=chosen, seeds=1, budget=500, out=tmp_path, **more)

    plain = run()
    assert plain.rows is None
    before = len(list((tmp_path / "trials").iterdir()))
    found = run(rows_curve=True)
    assert found.arms == plain.arms
    assert [growth.method for growth in found.rows.growths] == ["kv-prefix", "lora"]
    assert all(set(growth.scores) == {16, 32} for growth in found.rows.growths)
    assert (found.rows.crossing.first, found.rows.crossing.second) == ("kv-prefix", "lora")
    assert len(list((tmp_path / "trials").iterdir())) == before + 4
    assert run(rows_curve=True).rows == found.rows
    late = rows_curve.grown_with_rows
    monkeypatch.setattr(contest, "grown_with_rows", lambda race, entries, seconds: late(race, entries, -1.0))
    cut = run(rows_curve=True)
    assert cut.rows is None
    assert "did not come to 16 rows for kv-prefix" in cut.provenance["warnings"][-1]


def test_a_prompt_is_searched_for_on_fewer_rows_too(
    digits_model: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its slopes are those of training rows, and a model proposes instructions for some of them."""
    small = replace(pace.DIGITS, batch=8, validation_items=16, test_items=32, first_steps=4, finish=4, steps=24)
    monkeypatch.setattr(pace, "DIGITS", small)
    chosen = ["zero-shot", "prompt", "lora"]
    found = contest.verdict(
        digits_model(8), Halved(), methods=chosen, seeds=1, budget=500, out=tmp_path, rows_curve=True
    )
    assert found.rows is not None
    assert [growth.method for growth in found.rows.growths] == ["prompt", "lora"]
    assert all(set(growth.scores) == {16, 32} for growth in found.rows.growths)
