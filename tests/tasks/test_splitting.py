"""Splits of texts: a property of the text alone."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elicitable.tasks.splitting import SHARES, SPLITS, split_of, split_pairs

pairs_of_texts = st.lists(st.tuples(st.text(max_size=4), st.sampled_from("ab")), max_size=40)


def test_shares_are_as_stated() -> None:
    n = 50_000
    found = [split_of(f"text {i}") for i in range(n)]
    for split in SPLITS:  # 4 standard deviations of a share are below 0.009
        assert found.count(split) / n == pytest.approx(SHARES[split], abs=0.009)


def test_the_split_of_a_text_is_pinned() -> None:
    """Changing the hash would move items between the splits of everybody's data."""
    assert [split_of(word) for word in ("a", "b", "c", "d", "é")] == PINNED


PINNED = ["train", "test", "test", "validation", "test"]


@given(pairs_of_texts)
def test_splits_are_disjoint_complete_and_independent_of_row_order(rows: list[tuple[str, str]]) -> None:
    splits, removed = split_pairs({"train": rows})
    assert removed == 0
    assert sorted(pair for pairs in splits.values() for pair in pairs) == sorted(rows)
    texts = [{text for text, _ in splits[split]} for split in SPLITS]
    assert not texts[0] & texts[1]
    assert not texts[0] & texts[2]
    assert not texts[1] & texts[2]
    shuffled = random.Random(0).sample(rows, len(rows))
    again, _ = split_pairs({"train": shuffled})
    assert again["test"] == splits["test"]
    assert again["validation"] == splits["validation"]


@given(pairs_of_texts, pairs_of_texts, pairs_of_texts)
def test_given_splits_win_over_train_and_nothing_leaks(
    train: list[tuple[str, str]], validation: list[tuple[str, str]], test: list[tuple[str, str]]
) -> None:
    splits, removed = split_pairs({"train": train, "validation": validation, "test": test})
    assert sorted(splits["test"]) == sorted(test)
    held = {text for text, _ in test}
    assert sorted(splits["validation"]) == sorted(pair for pair in validation if pair[0] not in held)
    held |= {text for text, _ in validation}
    assert splits["train"] == [pair for pair in train if pair[0] not in held]
    assert removed == len(train) + len(validation) + len(test) - sum(map(len, splits.values()))


def test_only_what_is_missing_is_split_off() -> None:
    rows = [(f"text {i}", "a") for i in range(1_000)]
    own = [("mine", "a")]
    splits, _ = split_pairs({"train": rows, "test": own})
    assert splits["test"] == own
    whole, _ = split_pairs({"train": rows})
    assert splits["validation"] == whole["validation"]
    assert set(splits["train"]) == set(whole["train"]) | set(whole["test"])
