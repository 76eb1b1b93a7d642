"""Templates, cutting and tasks of texts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from elicitable.errors import InputError
from elicitable.tasks.splitting import SPLITS, Row, Splits
from elicitable.tasks.template import Template
from elicitable.tasks.text import TextTask


def make(n: int = 10, **options: Any) -> TextTask:
    splits: Splits = {
        "train": [Row((f"train {i}",), "ab"[i % 2]) for i in range(n)],
        "validation": [Row((f"validation {i}",), "a") for i in range(700)],
        "test": [Row((f"test {i}",), "b") for i in range(1_200)],
    }
    options.setdefault("classes", ("a", "b"))
    return TextTask("demo", splits, options.pop("template", Template(("<", ">"))), **options)


def test_labels_carry_the_separator() -> None:
    assert make().labels() == (" a", " b")
    assert make(template=Template(("", ""), separator="\n")).labels() == ("\na", "\nb")
    assert make(classes=None).labels() is None


def test_defaults_and_sizes_of_the_held_out_splits() -> None:
    task = make()
    assert task.sizes == {"train": 10, "validation": 700, "test": 1_200}
    assert len(task.held_out("validation")) == 500
    assert len(task.held_out("test")) == 1_000
    assert len(task.held_out("test", 1_100)) == 1_100
    assert len(task.held_out("test", 10_000)) == 1_200  # all there are


def test_one_call_gives_every_item_before_any_comes_again() -> None:
    task = make(10)
    items = task.sample(25, np.random.default_rng(0))
    prompts = [item.prompt for item in items]
    assert len(set(prompts[:10])) == len(set(prompts[10:20])) == 10
    assert len(items) == 25
    assert prompts[:10] != prompts[10:20]


def test_warnings_name_small_test_splits_and_labels_that_training_never_shows() -> None:
    splits = {"train": [Row(("x",), "a")], "validation": [Row(("y",), "a")], "test": [Row(("z",), "c")]}
    task = TextTask("demo", splits, Template(("", "")), classes=("a", "c"), warnings=["first"])
    assert task.warnings == (
        "first",
        "the test split has only 1 items: intervals will be wide",
        "label 'c' occurs in the test split but never in train",
    )


def test_an_empty_split_is_refused() -> None:
    splits = {"train": [Row(("x",), "a")], "validation": [], "test": [Row(("z",), "c")]}
    with pytest.raises(InputError, match="demo: the validation split is empty"):
        TextTask("demo", splits, Template(("", "")))


def test_the_fingerprint_sees_rows_labels_and_template() -> None:
    prints = {
        make().fingerprint(),
        make(11).fingerprint(),
        make(classes=("b", "a")).fingerprint(),
        make(classes=None).fingerprint(),
        make(template=Template(("<", ">"), separator="")).fingerprint(),
        make(template=Template(("", "<>"))).fingerprint(),
    }
    assert len(prints) == 6
    assert make().fingerprint() in prints


def test_a_label_that_begins_another_ends_with_a_line_break() -> None:
    """Summed over its tokens, " very" can never be less likely than " very happy": without an end it always wins."""
    splits = {split: [Row(("a",), "very"), Row(("b",), "very happy")] for split in SPLITS}
    task = TextTask("t", splits, Template(("", "?")), classes=("very", "very happy"))
    assert task.labels() == (" very\n", " very happy\n")
    assert [item.target for item in task.held_out("test")] == [" very\n", " very happy\n"]
    assert {item.target for item in task.sample(2, np.random.default_rng(0))} == set(task.labels() or ())
    apart = TextTask("t", splits, Template(("", "?")), classes=("unhappy", "happy"))
    assert apart.labels() == (" unhappy", " happy")
    written = TextTask("t", splits, Template(("", "?")))
    assert written.held_out("test")[0].target == " very"


@pytest.mark.parametrize("separator", ["\n", "", " => "])
def test_another_template_asks_for_the_same_answers(separator: str) -> None:
    """The separator was forgotten, so labels were others than those that the task's own are looked for among."""
    task = make(template=Template.parse("{text}?", "classification", separator))
    other = task.with_template("Text: {text}\nLabel:")
    assert other.labels() == task.labels() == (f"{separator}a", f"{separator}b")
    assert [item.target for item in other.held_out("test", 3)] == [item.target for item in task.held_out("test", 3)]
    assert other.held_out("test", 1)[0].prompt == "Text: test 0\nLabel:"
