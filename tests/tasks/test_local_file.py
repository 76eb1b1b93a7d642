"""A person's own file, from the outside."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from elicitable.errors import InputError, UnknownNameError
from elicitable.tasks.catalog import task_from
from elicitable.tasks.text import TextTask


def write_csv(path: Path, rows: Iterable[tuple[str, ...]], header: tuple[str, ...] = ("text", "label")) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def tickets(n: int, start: int = 0) -> list[tuple[str, str]]:
    return [(f"Ticket {i}: the {('app', 'bill')[i % 2]} is wrong", str(i % 2)) for i in range(start, start + n)]


def read(path: Path, **options: Any) -> TextTask:
    task = task_from(path, **options)
    assert isinstance(task, TextTask)
    return task


def test_a_csv_of_another_domain_with_other_label_names(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "tickets.csv", tickets(400))
    task = read(path, label_names={0: "software", "1": "billing"}, template="{text}\\nDepartment:")
    assert task.name == "tickets.csv"
    assert task.labels() == (" software", " billing")
    assert task.warnings == ("the test split has only 76 items: intervals will be wide",)
    item = task.held_out("test", 1)[0]
    assert item.prompt.startswith("Ticket ")
    assert item.prompt.endswith(" is wrong\nDepartment:")
    assert item.target == (" software" if "app" in item.prompt else " billing")


def test_the_same_rows_give_the_same_task_whatever_the_format(tmp_path: Path) -> None:
    first = read(write_csv(tmp_path / "t.csv", tickets(100)))
    lines = [json.dumps({"label": int(label), "text": text}) for text, label in tickets(100)]
    (tmp_path / "t.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert read(tmp_path / "t.jsonl").fingerprint() == first.fingerprint()
    assert read(tmp_path / "t.jsonl", template="{text}").fingerprint() != first.fingerprint()


def test_labels_are_sorted_by_number_then_by_name(tmp_path: Path) -> None:
    rows = [(f"text {i}", ("10", "9", "nan", "-1", "b")[i % 5]) for i in range(100)]
    assert read(write_csv(tmp_path / "t.csv", rows)).labels() == (" -1", " 9", " 10", " b", " nan")


def test_labels_of_one_name_become_one(tmp_path: Path) -> None:
    rows = [(f"text {i}", str(i % 4)) for i in range(100)]
    names = {"0": "low", "1": "low", "2": "high", "3": "high"}
    assert read(write_csv(tmp_path / "t.csv", rows), label_names=names).labels() == (" low", " high")


def test_files_of_their_own_for_validation_and_test(tmp_path: Path) -> None:
    train = write_csv(tmp_path / "train.csv", tickets(30))
    validation = write_csv(tmp_path / "val.csv", tickets(12, start=25))
    test = write_csv(tmp_path / "test.tsv", [], ("text\tlabel",))
    test.write_text("text\tlabel\n" + "\n".join("\t".join(row) for row in tickets(20, start=100)), "utf-8")
    task = read(train, validation=validation, test=test)
    assert task.sizes == {"train": 25, "validation": 12, "test": 20}
    assert any(warning.startswith("5 rows are left out because") for warning in task.warnings)


def test_prompts_and_targets(tmp_path: Path) -> None:
    rows = [(f"What is {i} + 1?", str(i + 1)) for i in range(80)]
    path = write_csv(tmp_path / "sums.csv", rows, ("question", "answer"))
    task = read(path)
    assert task.labels() is None
    item = task.held_out("test", 1)[0]
    assert item.prompt.startswith("What is ")
    assert item.target == f" {int(item.prompt.split()[2]) + 1}"
    asked = read(path, template="Q: {prompt}\nA:", separator="").held_out("test", 1)[0]
    assert (asked.prompt, asked.target) == (f"Q: {item.prompt}\nA:", item.target[1:])


def test_long_texts_stay_whole(tmp_path: Path) -> None:
    rows = [(f"mail {i} " + "word " * 5_000 * (i % 2), "ab"[i % 2]) for i in range(100)]
    task = read(write_csv(tmp_path / "t.csv", rows))
    assert max(len(item.prompt.split()) for item in task.held_out("test")) == 5_003
    with pytest.raises(UnknownNameError, match="max_words"):
        read(tmp_path / "t.csv", max_words=60)


def test_contradictions_are_a_warning(tmp_path: Path) -> None:
    rows = [(f"text {i}", "ab"[i % 2]) for i in range(100)] + [("text 0", "b"), ("text 2", "a")]
    assert (
        "texts that occur with different labels: 1 (they stay in the data)"
        in read(write_csv(tmp_path / "t.csv", rows)).warnings
    )


BAD = [
    ([(f"t {i}", "same") for i in range(60)], {}, r"t.csv: every row has the label 'same' in column 'label'"),
    (
        [(f"t {i}", str(i % 51)) for i in range(60)],
        {},
        "51 distinct values in 60 rows, too many for labels.*--label-column label.*--prompt-column text",
    ),
    ([(f"t {i}", "ab"[i % 2]) for i in range(39)], {}, "39 different texts, too few to split off validation and test"),
    ([(f"t {i % 30}", "ab"[i % 2]) for i in range(90)], {}, "30 different texts, too few"),
    ([(f"t {i}" * (i != 7), "ab"[i % 2]) for i in range(60)], {}, "t.csv, line 9: column 'text' is empty"),
    (tickets(60), {"text_column": "body"}, "t.csv has no column 'body'; it has the columns text, label"),
    (tickets(60), {"label_names": ["a"]}, "label_names must map labels to names"),
    (tickets(60), {"label_names": {"0": "x", "1": "x"}}, "the label names make all of its 2 labels one, 'x'"),
    (tickets(60), {"template": "Label:"}, r"must contain {text} exactly once"),
    (tickets(60), {"test": "nowhere.csv"}, "nowhere.csv: there is no such file"),
    (tickets(60), {"prompt_column": "text", "target_column": "label", "label_names": {"0": "x"}}, "do not apply"),
]


@pytest.mark.parametrize(("rows", "options", "message"), BAD)
def test_bad_data_are_refused_by_name(
    tmp_path: Path, rows: list[tuple[str, str]], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read(write_csv(tmp_path / "t.csv", rows), **options)


def test_a_first_row_that_is_data_is_noticed(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", tickets(60), header=("Ticket: broken", "1"))
    with pytest.raises(InputError, match="'1' is the name of the label column and also a label: the first row"):
        read(path)


def test_an_unknown_label_name_has_near_matches(tmp_path: Path) -> None:
    rows = [(f"t {i}", ("good", "bad")[i % 2]) for i in range(60)]
    with pytest.raises(UnknownNameError, match="unknown label 'god': did you mean 'good'"):
        read(write_csv(tmp_path / "t.csv", rows), label_names={"god": "fine"})


def test_a_test_file_without_the_columns_of_training(tmp_path: Path) -> None:
    train = write_csv(tmp_path / "t.csv", tickets(60))
    other = write_csv(tmp_path / "other.csv", tickets(60), header=("body", "label"))
    with pytest.raises(InputError, match=r"other.csv has no column 'text', unlike the training data"):
        read(train, test=other)
