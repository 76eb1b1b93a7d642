"""A task with more to choose by: what is set apart, what is still drawn, and what groups they are of."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from elicitable.rng import generator
from elicitable.tasks.base import Task, groups_of
from elicitable.tasks.catalog import task_from
from elicitable.tasks.wider import Wider, whole, wider


def file_of(folder: Path, rows: int, labels: tuple[str, ...] = ("good", "bad", "odd"), rare: int = 0) -> Path:
    """``rows`` texts whose labels take turns, and ``rare`` more of the label "rare"."""
    lines = [f"text number {nth} says so,{labels[nth % len(labels)]}" for nth in range(rows)]
    lines += [f"seldom is number {nth},rare" for nth in range(rare)]
    path = folder / "own.csv"
    path.write_text("text,label\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_file_of_few_rows_is_chosen_by_training_rows_that_are_not_drawn_any_more(tmp_path: Path) -> None:
    task = task_from(file_of(tmp_path, 300))
    found = wider(task, 128)
    own, held = task.held_out("validation", 128), found.held_out("validation", 128)
    assert len(own) < 40
    assert len(held) == 128
    assert held[: len(own)] == own
    train = {item.prompt for item in task.sample(1_000, generator(0))}
    apart = {item.prompt for item in held[len(own) :]}
    assert len(apart) == 128 - len(own)
    assert apart <= train
    drawn = found.sample(1_000, generator(1))
    assert len(drawn) == 1_000
    assert {item.prompt for item in drawn} == train - apart


def test_what_is_set_apart_is_always_the_same_and_no_test_row(tmp_path: Path) -> None:
    path = file_of(tmp_path, 300)
    one, other = (wider(task_from(path), 128) for _ in range(2))
    assert one.held_out("validation") == other.held_out("validation")
    assert one.held_out("test", 10) == task_from(path).held_out("test", 10)
    assert not {item.prompt for item in one.held_out("validation")} & {item.prompt for item in one.held_out("test")}


@pytest.mark.parametrize("rows", [30, 60, 90])
def test_half_of_the_rows_of_every_label_are_left_to_be_shown(tmp_path: Path, rows: int) -> None:
    task = task_from(file_of(tmp_path, rows, rare=10))
    found = wider(task, 512)
    before = Counter(item.target for item in {i.prompt: i for i in task.sample(2_000, generator(0))}.values())
    after = Counter(item.target for item in {i.prompt: i for i in found.sample(2_000, generator(0))}.values())
    assert all(after[label] >= before[label] / 2 > 0 for label in before)
    assert len(found.held_out("validation")) == len(task.held_out("validation")) + sum((before - after).values())


def test_free_answers_have_no_labels_to_be_even_over(tmp_path: Path) -> None:
    path = tmp_path / "free.csv"
    path.write_text("input,output\n" + "\n".join(f"number {nth},the {nth}th answer" for nth in range(200)) + "\n")
    found = wider(task_from(path), 64)
    assert len(found.held_out("validation", 64)) == 64
    assert len({item.target for item in found.sample(200, generator(0))}) < 160


def test_a_task_with_enough_validation_items_is_left_as_it_is(tmp_path: Path) -> None:
    digits, few = task_from("ascending"), task_from(file_of(tmp_path, 300))
    assert wider(digits, 256) is digits
    assert wider(few, 20) is few
    assert whole(digits) is digits
    assert whole(wider(few, 128)) is few


def test_rows_that_are_set_apart_are_groups_of_their_own_beside_those_of_the_task(tmp_path: Path) -> None:
    path = tmp_path / "grouped.csv"
    lines = [f"text number {nth},{('good', 'bad')[nth % 2]},{nth // 4}" for nth in range(240)]
    path.write_text("text,label,who\n" + "\n".join(lines) + "\n", encoding="utf-8")
    task = task_from(path, group_column="who")
    found = wider(task, 100)
    own = groups_of(task, "validation", 100)
    assert len(set(own)) < len(own)
    assert groups_of(found, "validation", 100)[: len(own)] == own
    behind = groups_of(found, "validation", 100)[len(own) :]
    assert len(set(behind) - set(own)) == len(behind) > 0
    assert groups_of(found, "test", 5) == groups_of(task, "test", 5)


def test_it_is_a_task_with_all_that_its_own_task_has(tmp_path: Path) -> None:
    task = task_from(file_of(tmp_path, 300))
    found = wider(task, 128)
    assert isinstance(found, Wider)
    assert isinstance(found, Task)
    assert (found.name, found.labels(), found.fingerprint()) == (task.name, task.labels(), task.fingerprint())
    assert found.reading == task.reading
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        found.nothing_of_the_kind  # noqa: B018
