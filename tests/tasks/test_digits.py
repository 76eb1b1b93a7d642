"""The synthetic tasks against plain Python, item by item."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elicitable.errors import InputError, UnknownNameError
from elicitable.tasks.digit_inputs import DIGITS, LENGTH, encode, is_in_split
from elicitable.tasks.digit_rules import MIXED, RULES
from elicitable.tasks.digits import VOCAB_SIZE, DigitTask

ORACLES: dict[str, Callable[[list[int]], list[int]]] = {
    "ascending": lambda digits: sorted(digits),
    "descending": lambda digits: sorted(digits, reverse=True),
    "add-1": lambda digits: [digit + 1 for digit in digits],
    "add-2": lambda digits: [digit + 2 for digit in digits],
    "ascending-add-1": lambda digits: [digit + 1 for digit in sorted(digits)],
    "double-histogram": lambda digits: [digits.count(digit) for digit in digits],
}
NAMES = [*RULES, "mixed"]
digit_lists = st.lists(st.integers(0, DIGITS - 1), min_size=LENGTH, max_size=LENGTH)


def test_there_is_an_oracle_for_every_rule() -> None:
    assert set(ORACLES) == set(RULES)


@pytest.mark.parametrize("name", RULES)
@given(st.lists(digit_lists, min_size=1, max_size=5))
def test_rules_are_what_their_names_say(name: str, batch: list[list[int]]) -> None:
    assert RULES[name](np.array(batch)).tolist() == [ORACLES[name](digits) for digits in batch]


@pytest.mark.parametrize("name", NAMES)
def test_training_never_shows_a_held_out_input_and_stays_in_the_vocabulary(name: str) -> None:
    prompts, targets = DigitTask(name).arrays(20_000, np.random.default_rng(11))
    assert prompts.dtype == targets.dtype == np.int64
    assert prompts.shape == targets.shape == (20_000, LENGTH)
    assert is_in_split(encode(prompts), "train").all()
    assert prompts.min() == 0
    assert prompts.max() == DIGITS - 1
    assert targets.min() >= 0
    assert targets.max() < VOCAB_SIZE == DigitTask.vocab_size
    assert targets.flags["C_CONTIGUOUS"]  # torch.from_numpy refuses negative strides


@pytest.mark.parametrize("name", NAMES)
def test_held_out_items_are_of_their_split_and_shared_by_all_tasks(name: str) -> None:
    task = DigitTask(name)
    for split, size in (("validation", 500), ("test", 1_000)):
        items = task.held_out(split)
        assert len(items) == size
        assert items == task.held_out(split) == DigitTask(name).held_out(split, 2_000)[:size]
        assert is_in_split(encode(np.array([item.prompt for item in items])), split).all()
        assert [item.prompt for item in items] == [item.prompt for item in DigitTask("ascending").held_out(split)]
        assert all(type(symbol) is int for symbol in items[0].prompt + items[0].target)


def test_mixed_answers_by_one_of_four_tasks_drawn_uniformly() -> None:
    def answered_by(prompt: list[int], target: list[int]) -> list[str]:
        return [name for name in MIXED if ORACLES[name](prompt) == target]

    task = DigitTask("mixed")
    for prompts, targets in (
        task.arrays(8_000, np.random.default_rng(2)),
        task.held_out_arrays("test", 8_000),
    ):
        found = [answered_by(*pair) for pair in zip(prompts.tolist(), targets.tolist(), strict=True)]
        assert min(map(len, found)) >= 1
        shares = Counter(names[0] for names in found)
        # standard deviation of a count: √(8000·¼·¾) = 39; sorted inputs that fit two rules are far below one
        assert all(abs(shares[name] - 2_000) < 4 * 39 for name in MIXED)


def test_sample_wraps_arrays_and_depends_on_the_generator_only() -> None:
    task = DigitTask("ascending-add-1")
    prompts, targets = task.arrays(30, np.random.default_rng(4))
    items = task.sample(30, np.random.default_rng(4))
    assert [item.prompt for item in items] == [tuple(row) for row in prompts.tolist()]
    assert [item.target for item in items] == [tuple(row) for row in targets.tolist()]
    stream = np.random.default_rng(4)
    assert task.sample(30, stream) != task.sample(30, stream)


def test_fingerprints_tell_the_tasks_apart_and_stay() -> None:
    prints = {name: DigitTask(name).fingerprint() for name in NAMES}
    assert len(set(prints.values())) == len(NAMES)
    assert prints == {name: DigitTask(name).fingerprint() for name in reversed(NAMES)}


def test_the_fingerprint_sees_the_rule_and_not_only_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    before = DigitTask("add-1").fingerprint()
    monkeypatch.setitem(RULES, "add-1", RULES["add-2"])
    assert DigitTask("add-1").fingerprint() != before


def test_bad_names_counts_and_splits_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'descending'"):
        DigitTask("decending")
    task = DigitTask("add-1")
    for bad in (0, -1, True, 2.0, "3"):
        with pytest.raises(InputError, match="whole number, at least 1"):
            task.sample(bad, np.random.default_rng(0))  # type: ignore[arg-type]
        with pytest.raises(InputError, match="whole number, at least 1"):
            task.held_out("test", bad)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'validation' or 'test', not 'train'"):
        task.held_out("train")  # type: ignore[arg-type]


@pytest.mark.slow  # not for its length: a clock belongs where a busy machine stops nobody
@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_64_costs_less_than_a_third_of_a_millisecond(name: str) -> None:
    """The best of many, so that a busy machine does not matter; measured: 0.07 to 0.12 ms."""
    task, rng = DigitTask(name), np.random.default_rng(0)
    best = 1.0
    for _ in range(200):
        start = time.perf_counter()
        task.arrays(64, rng)
        best = min(best, time.perf_counter() - start)
    assert best < 0.3e-3
