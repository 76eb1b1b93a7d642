"""Rows may be given in any form that tables have in memory, and files come back as they came."""

from __future__ import annotations

import json
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from tests.deploy.conftest import save_letters, text_of, write_rows

import elicitable as el
from elicitable.cli.predict import _reading
from elicitable.deploy.asked import item_of
from elicitable.deploy.record import Form
from elicitable.errors import InputError
from elicitable.tasks.catalog import task_from
from elicitable.tasks.incoming import incoming
from elicitable.tasks.memory import rows_of_data
from elicitable.values import Message

Call = Callable[..., tuple[int, str, str]]
ROWS = [{"id": n, "text": f"say {letter} now"} for n, letter in enumerate("abcde")]


FRAMES: dict[str, Callable[[list[dict[str, Any]]], Any]] = {
    "pandas": pd.DataFrame,
    "pandas, by the text": lambda rows: pd.DataFrame(rows).set_index("text"),
    "arrow": pa.Table.from_pylist,
    "datasets": lambda rows: __import__("datasets").Dataset.from_list(rows),
}


@pytest.fixture(scope="session")
def zero_shot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bare model, kept as what answers with one of two labels."""
    place = tmp_path_factory.mktemp("given")
    rows = [{"text": text_of(n), "label": ("yes", "no way")[n % 3 == 0]} for n in range(60)]
    data = write_rows(place / "rows.csv", rows)
    model = str(save_letters(place / "model"))
    el.verdict(model, data, methods=["zero-shot"], seeds=1, template="{text}:", out=place / "run")
    return place / "run"


@pytest.mark.parametrize("form", FRAMES)
def test_the_rows_of_a_frame_are_answered_and_not_its_columns(zero_shot: Path, form: str) -> None:
    found = el.predictor(zero_shot)
    expected = [one.answer for one in found(ROWS)]
    assert [one.answer for one in found(FRAMES[form](ROWS))] == expected
    assert list(found(FRAMES["pandas"](ROWS)[:0])) == []


@pytest.mark.parametrize(
    "row",
    [
        pd.DataFrame(ROWS).iloc[1],
        namedtuple("Row", ROWS[1])(**ROWS[1]),
        next(iter(pd.DataFrame(ROWS[1:2]).itertuples())),
    ],
    ids=["a series", "a named tuple", "a row of itertuples"],
)
def test_a_row_of_a_frame_is_read_by_its_columns(zero_shot: Path, row: Any) -> None:
    found = el.predictor(zero_shot)
    assert found.one(row) == found.one(ROWS[1])


@pytest.mark.parametrize(("delimiter", "suffix"), [(";", "csv"), ("\t", "csv"), ("|", "csv"), (";", "tsv")])
def test_a_table_comes_back_with_its_own_delimiter(
    zero_shot: Path, call: Call, tmp_path: Path, delimiter: str, suffix: str
) -> None:
    given, out = tmp_path / f"rows.{suffix}", tmp_path / f"answers.{suffix}"
    given.write_text(f"id{delimiter}text\n" + "".join(f"{row['id']}{delimiter}{row['text']}\n" for row in ROWS))
    call("predict", str(zero_shot), "-i", str(given), "--out", str(out))
    head, *lines = out.read_text().splitlines()
    assert head == delimiter.join(["id", "text", "prediction", "probability", "error"])
    assert [line.split(delimiter)[:2] for line in lines] == [[str(row["id"]), row["text"]] for row in ROWS]
    call("predict", str(zero_shot), "-i", str(given), "--format", "csv", "--out", str(out))
    assert out.read_text().startswith(f"id{delimiter}" if suffix == "csv" else "id,")


def test_a_conversation_in_a_column_of_another_name_does_not_show_its_answer(tmp_path: Path, zero_shot: Path) -> None:
    talks = [
        [{"role": "user", "content": f"say {n}"}, {"role": "assistant", "content": f"it is {n}"}] for n in range(60)
    ]
    (tmp_path / "talk.jsonl").write_text("\n".join(json.dumps({"messages": talk}) for talk in talks))
    answerer = el.predictor(zero_shot)
    record = replace(answerer.record, rule=None, form=Form.of(task_from(tmp_path / "talk.jsonl"), True))
    item = item_of(_reading(record, "dialog").form, {"dialog": talks[1]}, answerer.model)
    assert item.prompt == (Message("user", "say 1"),)


def test_two_columns_of_one_name_are_no_form(zero_shot: Path) -> None:
    record = el.predictor(zero_shot).record
    two = replace(record, form=replace(record.form, columns=("text", "title"), literals=("", "", ""), slots=(0, 1)))
    with pytest.raises(InputError, match="'title' is read as itself already"):
        _reading(two, "title")


def test_a_column_that_no_row_has_is_said(tmp_path: Path, call: Call) -> None:
    """Rows of JSON may lack what is shown beside the main column; where all do, its name may be another one."""
    rows = [{"title": f"no {n}", "body": text_of(n), "label": ("yes", "no way")[n % 3 == 0]} for n in range(60)]
    data, model = write_rows(tmp_path / "rows.csv", rows), str(save_letters(tmp_path / "model"))
    el.verdict(model, data, methods=["zero-shot"], seeds=1, out=tmp_path / "run")
    given = tmp_path / "given.jsonl"
    for name, is_said in (("title", False), ("Title", True)):
        given.write_text("".join(json.dumps({name: "no a", "body": row["text"]}) + "\n" for row in ROWS))
        code, _, err = call("predict", str(tmp_path / "run"), "-i", str(given))
        assert (code, err.partition("\n")[0]) == (0, "5 of 5 rows answered.")
        assert ("No row has 'title', which the race showed beside the text; read as empty." in err) == is_said


def test_classes_of_a_column_that_is_shown_are_read_by_their_names(tmp_path: Path) -> None:
    """``datasets`` keeps numbers and their names apart; the texts of rows to be answered are those of training."""
    datasets = pytest.importorskip("datasets")
    kind = datasets.ClassLabel(names=["book", "film"])
    features = {"text": datasets.Value("string"), "kind": kind, "label": datasets.ClassLabel(names=["no", "yes"])}
    rows = [{"text": f"say {n}", "kind": n % 2, "label": n % 3 % 2} for n in range(60)]
    data = datasets.Dataset.from_list(rows, features=datasets.Features(features))
    data.to_parquet(tmp_path / "rows.parquet")
    task = task_from(tmp_path / "rows.parquet", template="{kind}: {text}", label_column="label")
    form = Form.of(task, True)
    expected = {item.prompt for split in ("validation", "test") for item in task.held_out(split)}  # type: ignore[arg-type]
    with incoming(str(tmp_path / "rows.parquet")) as given:
        read = {item_of(form, row.values, None).prompt for row in given.rows}  # type: ignore[arg-type]
    in_memory = {item_of(form, row, None).prompt for row in rows_of_data(data)}  # type: ignore[arg-type]
    assert expected <= read == in_memory
