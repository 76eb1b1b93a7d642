"""What every task must keep, whatever it is made of: one suite over all kinds of tasks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from elicitable.tasks.base import Task, fingerprint_of, warnings_of
from elicitable.tasks.catalog import task_from
from elicitable.values import Item


class Parity:
    """A person's own task: four methods and a name, nothing inherited."""

    name = "parity"

    def labels(self) -> tuple[str, ...]:
        return (" even", " odd")

    def sample(self, n: int, rng: np.random.Generator) -> list[Item]:
        return [self._item(3 * number) for number in rng.integers(0, 1_000, n).tolist()]

    def held_out(self, split: str, n: int | None = None) -> list[Item]:
        start = 1 if split == "validation" else 2
        return [self._item(number) for number in range(start, 3_000, 3)][: n or 100]

    def fingerprint(self) -> str:
        return fingerprint_of(["parity", "1"])

    def _item(self, number: int) -> Item:
        return Item(f"Is {number} even or odd?", self.labels()[number % 2])


def own_csv(folder: Path) -> Task:
    rows = [f"mail number {i} and more,{'spam' if i % 3 else 'ham'}" for i in range(300)]
    (folder / "mail.csv").write_text("text,label\n" + "\n".join(rows), encoding="utf-8")
    return task_from(folder / "mail.csv")


def own_jsonl(folder: Path) -> Task:
    rows = [json.dumps({"prompt": f"{i} + 1 =", "target": str(i + 1)}) for i in range(300)]
    (folder / "sums.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return task_from(folder / "sums.jsonl")


KINDS = ("ascending", "double-histogram", "mixed", "csv", "jsonl", "own class")


@pytest.fixture(params=KINDS)
def task(request: pytest.FixtureRequest, tmp_path: Path) -> Task:
    makers = {"csv": own_csv, "jsonl": own_jsonl, "own class": lambda _: task_from(Parity())}
    return makers.get(request.param, lambda _: task_from(request.param))(tmp_path)


def test_it_is_a_task(task: Task) -> None:
    assert isinstance(task, Task)
    assert task.name
    assert all(isinstance(warning, str) for warning in warnings_of(task))


def test_the_splits_share_no_prompt(task: Task) -> None:
    train = {item.prompt for item in task.sample(2_000, np.random.default_rng(0))}
    validation = {item.prompt for item in task.held_out("validation", 2_000)}
    test = {item.prompt for item in task.held_out("test", 2_000)}
    assert train
    assert validation
    assert test
    assert not train & validation
    assert not train & test
    assert not validation & test


def test_held_out_is_a_fixed_order_and_n_takes_its_beginning(task: Task) -> None:
    for split in ("validation", "test"):
        whole = task.held_out(split)
        assert whole == task.held_out(split)
        assert task.held_out(split, 5) == whole[:5]


def test_sampling_depends_on_the_generator_only_and_does_not_change_the_task(task: Task) -> None:
    before = task.fingerprint(), task.held_out("test", 20)
    first = task.sample(64, np.random.default_rng(7))
    task.sample(100, np.random.default_rng(8))
    assert len(first) == 64
    assert task.sample(64, np.random.default_rng(7)) == first
    assert task.sample(64, np.random.default_rng(8)) != first
    assert (task.fingerprint(), task.held_out("test", 20)) == before


def test_items_are_all_texts_or_all_token_ids_and_targets_are_labels(task: Task) -> None:
    labels = task.labels()
    for item in task.sample(50, np.random.default_rng(1)) + task.held_out("test", 50):
        assert type(item.prompt) is type(item.target)
        assert isinstance(item.prompt, str | tuple)
        assert item.target
        assert labels is None or item.target in labels
        if isinstance(item.prompt, str):  # so that prompt + target is running text, tokenized as such
            assert not item.prompt[-1:].isspace()
            assert item.target[0].isspace()
