"""Rows that bring choices of their own, in the forms of public exams, from the file to a new row's prediction."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from tests.families import reader

import elicitable as el
from elicitable.errors import InputError
from elicitable.tasks.catalog import task_from
from elicitable.tasks.memory import memory_task
from elicitable.tasks.options import TaskOptions
from elicitable.tasks.text import TextTask
from elicitable.values import Item

COUNT = 80


def task_of(rows: list[dict[str, Any]], **options: Any) -> TextTask:
    return memory_task(rows, TaskOptions(**options))


def choices_of(row: int) -> list[str]:
    return [f"{row + nth} apples" for nth in range(4)]


def right(row: int) -> int:
    return row * 7 % 4


def lists(places: str) -> list[dict[str, Any]]:
    return [{"question": f"How many, {i}?", "choices": choices_of(i), "answer": places[right(i)]} for i in range(COUNT)]


def apart(names: str, answer: str, places: str) -> list[dict[str, Any]]:
    columns = names.split()
    return [
        {"question": f"How many, {i}?", **dict(zip(columns, choices_of(i), strict=True)), answer: places[right(i)]}
        for i in range(COUNT)
    ]


def keyed() -> list[dict[str, Any]]:
    """As ARC's: most rows call their choices by letters and some by numbers."""
    keys = ["1234" if i % 9 == 0 else "ABCD" for i in range(COUNT)]
    return [
        {
            "question": f"How many, {i}?",
            "choices": {"text": choices_of(i), "label": list(keys[i])},
            "answerKey": keys[i][right(i)],
        }
        for i in range(COUNT)
    ]


FORMS: dict[str, list[dict[str, Any]]] = {
    "from 0": lists("0123"),
    "from 1": lists("1234"),
    "letters": lists("ABCD"),
    "small letters": lists("abcd"),
    "numbers": [{**row, "answer": int(row["answer"])} for row in lists("0123")],
    "texts": [{**row, "answer": row["choices"][right(i)]} for i, row in enumerate(lists("0123"))],
    "options": [{"query": r["question"], "options": r["choices"], "gold": r["answer"]} for r in lists("0123")],
    "a column each": apart("A B C D", "answer", "ABCD"),
    "MedMCQA": apart("opa opb opc opd", "cop", "0123"),
    "from option1": apart("option1 option2 option3 option4", "answer", "1234"),
    "SWAG": apart("ending0 ending1 ending2 ending3", "label", "0123"),
    "keys": keyed(),
    "as Python writes lists": [{**row, "choices": str(row["choices"])} for row in lists("ABCD")],
}


def held(task: Any) -> list[Item]:
    items: list[Item] = [*task.held_out("validation"), *task.held_out("test")]
    return items


def is_right(item: Item) -> bool:
    row = int("".join(filter(str.isdigit, str(item.prompt))))
    assert item.choices == tuple(f" {one}" for one in choices_of(row))
    return item.target == item.choices[right(row)]


@pytest.mark.parametrize("form", FORMS)
def test_the_right_choice_is_found_however_it_is_given(form: str) -> None:
    task = task_of(FORMS[form])
    assert task.labels() == ()
    assert task.kind == "classification"
    assert len(held(task)) > 15
    assert all(map(is_right, held(task)))
    end = "" if form == "SWAG" else "\nAnswer:"  # an ending goes on where the text ends
    assert {str(item.prompt).partition("?")[2] for item in held(task)} == {end}
    assert not any("not used" in note for note in task.warnings if "choices.label" not in note)


def test_a_csv_file_says_the_same(tmp_path: Path) -> None:
    rows = FORMS["a column each"]
    with (tmp_path / "exam.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert task_from(tmp_path / "exam.csv").fingerprint() == task_of(rows).fingerprint()


def test_choices_are_part_of_what_the_data_are() -> None:
    other = [
        {**row, "choices": [*row["choices"][:3], "none"]} if right(i) < 3 else row
        for i, row in enumerate(FORMS["letters"])
    ]
    assert task_of(other).fingerprint() != task_of(FORMS["letters"]).fingerprint()


def test_a_template_that_shows_the_choices_asks_for_the_letter() -> None:
    shown = task_of(FORMS["letters"], template="{question}\\n{choices}\\nAnswer:", label_column="answer")
    assert shown.labels() == (" A", " B", " C", " D")
    template = "{question}\\nA. {A}\\nB. {B}\\nC. {C}\\nD. {D}\\n="
    each = task_of(FORMS["a column each"], template=template, label_column="answer")
    assert each.labels() == (" A", " B", " C", " D")


def test_named_columns_and_templates_are_taken_as_named() -> None:
    named = task_of(FORMS["letters"], text_column="question", label_column="answer")
    assert named.fingerprint() == task_of(FORMS["letters"]).fingerprint()
    other = task_of(FORMS["letters"], template="Q: {question}\\nA:")
    assert other.labels() == ()
    assert str(held(other)[0].prompt).startswith("Q: How many")
    written = task_of(FORMS["texts"], prompt_column="question", target_column="answer")
    assert written.labels() is None


def test_numbers_that_may_count_from_either_are_refused() -> None:
    rows = [{**row, "answer": str(1 + i % 2)} for i, row in enumerate(FORMS["from 0"])]
    with pytest.raises(InputError, match="none is the first or the last: they may count from 0 or from 1"):
        task_of(rows)


def test_a_bad_row_is_named_and_can_be_skipped() -> None:
    rows = [dict(row) for row in FORMS["letters"]]
    rows[3]["answer"], rows[5]["choices"] = "E", ["1 apple"]
    with pytest.raises(InputError, match=r"'E', which is none of its choices"):
        task_of(rows)
    with pytest.raises(InputError, match=r"has 1 choice, and needs two at least"):
        task_of([*rows[:3], *rows[4:]])
    assert sum(task_of(rows, skip_bad_rows=True).sizes.values()) == COUNT - 2


@pytest.mark.parametrize("written", [list, json.dumps, str], ids=["a list", "as JSON", "as Python writes it"])
@pytest.mark.parametrize("few", [["1 apple"], []], ids=["one choice", "none"])
def test_places_among_choices_that_are_not_shown_are_refused(few: list[str], written: Any) -> None:
    """Where fewer than nine in ten rows can be read as choices, the letters say nothing without them."""
    rows = [{**row, "choices": written(few if i % 5 == 0 else row["choices"])} for i, row in enumerate(lists("AAAA"))]
    for skips in (False, True):
        with pytest.raises(InputError, match="holds places among 'choices', which are not shown; show them"):
            task_of(rows, skip_bad_rows=skips)


@pytest.mark.parametrize("form", ["letters", "from 1", "as Python writes lists", "as JSON", "a column each", "SWAG"])
def test_places_among_choices_are_warned_of_where_columns_were_named(form: str) -> None:
    as_json = [{**row, "choices": json.dumps(row["choices"])} for row in lists("ABCD")]
    rows = as_json if form == "as JSON" else FORMS[form]
    answer = "label" if form == "SWAG" else "answer"
    told = task_of(rows, prompt_column="question", target_column=answer).warnings
    assert sum("which are not shown" in note for note in told) == 1
    shown = "".join(f"{{{name}}}" for name in rows[0] if name != answer)
    asked = task_of(rows, template=shown, target_column=answer).warnings
    assert not any("which are not shown" in note for note in asked)


def test_a_test_file_of_texts_behind_letters_is_refused(tmp_path: Path) -> None:
    for name, rows in (
        ("train", lists("ABCD")),
        ("test", [{**row, "question": f"Now, {row['question']}"} for row in FORMS["texts"]]),
    ):
        with (tmp_path / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows({**row, "choices": json.dumps(row["choices"])} for row in rows)
    with pytest.raises(InputError, match="which are not shown"):
        task_from(tmp_path / "train.csv", test=tmp_path / "test.csv")


def test_label_names_do_not_apply() -> None:
    with pytest.raises(InputError, match="choices of their own, so label names do not apply"):
        task_of(FORMS["letters"], label_names={"A": "first"})


def test_a_choice_that_another_begins_with_ends_with_a_line_break() -> None:
    rows = [{**row, "choices": ["5", "50", "7", "8"]} for row in FORMS["letters"]]
    assert held(task_of(rows))[0].choices == (" 5\n", " 50\n", " 7\n", " 8\n")


@pytest.mark.parametrize("form", ["letters", "a column each", "keys"])
def test_what_was_raced_answers_rows_as_they_come(form: str, tmp_path: Path) -> None:
    task = task_of(FORMS[form])
    model = reader("byte-level BPE", 256)
    answer = el.verdict(
        model,
        task,
        methods=["zero-shot", "examples"],
        seeds=1,
        test_items=10,
        out=tmp_path / "race",
    )
    assert {arm.status for arm in answer.arms} == {"ok"}
    predict = el.predictor(tmp_path / "race", model=model)
    asked = {f"{row['question']}\nAnswer:": row for row in FORMS[form]}
    items = task.held_out("test", 10)
    found = list(predict(asked[str(item.prompt)] for item in items))
    assert all(
        one.answer in {choice.strip() for choice in item.choices} for one, item in zip(found, items, strict=True)
    )
    arm = next(arm for arm in answer.arms if arm.method == predict.record.method)
    assert [one.answer for one in found] == list(arm.answers[0][:10])
    lacking = {name: value for name, value in FORMS[form][0].items() if name == "question"}
    assert "at least two different choices" in next(predict([lacking])).fault
    kept = json.loads((tmp_path / "race" / "winner" / "artefact.json").read_text(encoding="utf-8"))
    assert kept["form"]["labels"] == []
