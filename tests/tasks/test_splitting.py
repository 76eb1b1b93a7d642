"""Splits of texts: a property of the text alone."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elicitable.tasks.splitting import SHARES, SPLITS, Row, Splits, split_of, split_rows, units_of
from elicitable.values import Split

rows_of_texts = st.lists(
    st.builds(Row, st.tuples(st.text(max_size=4)), st.sampled_from("ab"), st.sampled_from(["", "g", "h"])), max_size=40
)


def known(row: Row) -> tuple[str, str, str]:
    return row.text, row.answer, row.group


def test_shares_are_as_stated() -> None:
    n = 50_000
    found = [split_of(f"text {i}") for i in range(n)]
    for split in SPLITS:  # 4 standard deviations of a share are below 0.009
        assert found.count(split) / n == pytest.approx(SHARES[split], abs=0.009)


def test_the_split_of_a_text_is_pinned() -> None:
    """Changing the hash would move items between the splits of everybody's data."""
    assert [split_of(word) for word in ("a", "b", "c", "d", "é")] == PINNED


PINNED = ["train", "test", "test", "validation", "test"]


@given(rows_of_texts, st.booleans())
def test_splits_are_disjoint_complete_and_independent_of_row_order(rows: list[Row], is_stratified: bool) -> None:
    splits, removed = split_rows({"train": rows}, is_stratified)
    assert removed == 0
    assert sorted(known(row) for some in splits.values() for row in some) == sorted(map(known, rows))
    units = units_of(rows)
    for texts in ([{row.text for row in splits[split]} for split in SPLITS],):
        assert not texts[0] & texts[1]
        assert not texts[0] & texts[2]
        assert not texts[1] & texts[2]
    kept = [{units[row.text] for row in splits[split]} for split in SPLITS]
    assert sum(map(len, kept)) == len(set().union(*kept))
    again, _ = split_rows({"train": random.Random(0).sample(rows, len(rows))}, is_stratified)
    assert list(map(known, again["test"])) == list(map(known, splits["test"])) or _differ_in_group(splits, again)
    assert {row.text for row in again["train"]} == {row.text for row in splits["train"]}


def _differ_in_group(splits: Splits, again: Splits) -> bool:
    """Rows of the same text and answer stand in the order they came in."""
    return [(row.text, row.answer) for row in again["test"]] == [(row.text, row.answer) for row in splits["test"]]


@given(rows_of_texts, rows_of_texts, rows_of_texts, st.booleans())
def test_given_splits_win_over_train_and_nothing_leaks(
    train: list[Row], validation: list[Row], test: list[Row], is_stratified: bool
) -> None:
    splits, removed = split_rows({"train": train, "validation": validation, "test": test}, is_stratified)
    assert sorted(map(known, splits["test"])) == sorted(map(known, test))
    units = units_of([*train, *validation, *test])
    held = {units[row.text] for row in test}
    assert sorted(map(known, splits["validation"])) == sorted(known(r) for r in validation if units[r.text] not in held)
    held |= {units[row.text] for row in validation}
    assert splits["train"] == [row for row in train if units[row.text] not in held]
    assert removed == len(train) + len(validation) + len(test) - sum(map(len, splits.values()))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 10, 30, 100, 1_000])
def test_every_label_keeps_its_share_within_a_twentieth(size: int) -> None:
    rows = [Row((f"text {i} {label}",), label) for label in "abc" for i in range(size)]
    splits, _ = split_rows({"train": rows}, is_stratified=True)
    for label in "abc":
        counts = {split: sum(row.answer == label for row in splits[split]) for split in SPLITS}
        assert counts["train"] >= 1
        for split in ("validation", "test"):
            exact = SHARES[split] * size
            slack = int(exact / 20 + 1e-9)
            assert int(exact + 1e-9) - slack - (size < 3) <= counts[split] <= math.ceil(exact - 1e-9) + slack


def test_the_hash_alone_would_miss_a_rare_label() -> None:
    """Of 2,000 labels of ten rows each, the hash alone leaves one in nine without a test row; strata leave none."""
    rows = [Row((f"{i} of {label}",), str(label)) for label in range(2_000) for i in range(10)]
    missed = [2_000 - len({r.answer for r in split_rows({"train": rows}, on)[0]["test"]}) for on in (False, True)]
    assert 160 < missed[0] < 270  # 0.8 ** 10 of 2,000 is 215, and 4 standard deviations are 55
    assert missed[1] == 0


def test_rows_of_another_label_move_nothing_and_rows_of_its_own_only_the_border() -> None:
    old = [Row((f"text {i}",), "ab"[i % 2]) for i in range(400)]
    others = [Row((f"new {i}",), "c") for i in range(50)]
    own = [Row((f"more {i}",), "a") for i in range(40)]

    def homes(rows: list[Row]) -> dict[str, Split]:
        return {row.text: split for split, some in split_rows({"train": rows}, True)[0].items() for row in some}

    before, beside, after = homes(old), homes(old + others), homes(old + own)
    assert before == {text: home for text, home in beside.items() if text in before}
    moved = [row for row in old if before[row.text] != after[row.text]]
    assert len(moved) <= 10
    assert {row.answer for row in moved} <= {"a"}


def test_groups_that_share_a_text_go_together_and_a_unit_is_never_torn() -> None:
    rows = [Row((f"question {i}",), "ab"[i % 2], f"passage {i // 7}") for i in range(700)]
    rows.append(Row(("question 0",), "a", "passage 50"))
    splits, _ = split_rows({"train": rows}, True)
    places = {row.group: split for split in SPLITS for row in splits[split]}
    assert all(places[row.group] == split for split in SPLITS for row in splits[split])
    assert places["passage 0"] == places["passage 50"]
    assert 0.1 < len(splits["test"]) / len(rows) < 0.3


def test_only_what_is_missing_is_split_off() -> None:
    rows = [Row((f"text {i}",), "a") for i in range(1_000)]
    own = [Row(("mine",), "a")]
    splits, _ = split_rows({"train": rows, "test": own})
    assert splits["test"] == own
    whole, _ = split_rows({"train": rows})
    assert splits["validation"] == whole["validation"]
    assert set(splits["train"]) == set(whole["train"]) | set(whole["test"])
