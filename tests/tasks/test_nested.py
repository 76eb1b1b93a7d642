"""Nested rows: dotted columns, lists of right answers, and what cannot be read so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.families import reader

import elicitable as el
from elicitable.deploy.artefact import read
from elicitable.deploy.predict import Predictor
from elicitable.errors import InputError, UnknownNameError
from elicitable.race.marking import Marking
from elicitable.report.reading import print_reading
from elicitable.scores.best_of import best_of
from elicitable.scores.catalog import score_from
from elicitable.scores.scorer import floor
from elicitable.tasks.catalog import task_from
from elicitable.tasks.nested import DEEPEST, MOST, flat, laid_out
from elicitable.tasks.reading import summary_of


def squad(number: int) -> dict[str, Any]:
    texts = [f"the year {number}", f"{number}", f"{number}"]
    return {
        "id": f"q{number}",
        "context": f"Passage {number} was written in the year {number}.",
        "question": f"When was passage {number} written?",
        "answers": {"text": texts[: 1 + number % 3], "answer_start": [23, 32, 32][: 1 + number % 3]},
        "meta": {"source": {"title": f"book {number % 7}"}},
    }


ROWS = [squad(number) for number in range(90)]


def written(folder: Path, rows: list[Any], name: str = "squad.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def item_of(task: Any, number: int) -> Any:
    items = [task.item(row) for split in ("train", "validation", "test") for row in task.rows(split)]
    return next(item for item in items if f"Passage {number} " in str(item.prompt))


def test_rows_as_squad_s_are_read_as_they_come(tmp_path: Path) -> None:
    task = task_from(written(tmp_path, ROWS))
    item = item_of(task, 5)
    assert item.prompt == "Passage 5 was written in the year 5.\nWhen was passage 5 written?"
    assert item.target == " the year 5"
    assert item.accepted == ("the year 5", "5")
    assert item_of(task, 3).accepted == ("the year 3",)
    assert dict(task.reading.used) == {"question": "read", "context": "read", "answers.text": "target"}
    assert [name for name, _ in task.reading.unused] == ["id", "answers.answer_start", "meta.source.title"]
    console = Console(width=200, record=True)
    print_reading(summary_of(task), console)
    told = "a list a row, 1.7 on average, 2 at most: the first is trained on, and what is written is scored against the"
    assert told in console.export_text()


def test_a_file_a_list_a_frame_a_table_and_a_data_set_give_the_same_task(tmp_path: Path) -> None:
    import datasets
    import pandas as pd
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.Table.from_pylist(ROWS)
    parquet.write_table(table, tmp_path / "squad.parquet")
    made = [ROWS, table, pd.DataFrame(ROWS), datasets.Dataset.from_list(ROWS)]
    tasks = [task_from(one) for one in (written(tmp_path, ROWS), tmp_path / "squad.parquet", *made)]
    wanted = tasks[0]
    for task in tasks[1:]:
        assert task.fingerprint() == wanted.fingerprint()
        assert [one.accepted for one in task.held_out("test")] == [one.accepted for one in wanted.held_out("test")]


def test_columns_and_templates_name_dotted_paths(tmp_path: Path) -> None:
    path = written(tmp_path, ROWS)
    task = task_from(
        path, prompt_column="question", target_column="answers.text", template="{question} ({meta.source.title})"
    )
    assert {str(one.prompt) for one in task.held_out("test")} <= {
        f"When was passage {n} written? (book {n % 7})" for n in range(90)
    }
    shown = task_from(path, target_column="id", template="{answers.text}: {question}")
    assert "the year 4, 4: When was passage 4 written?" in {
        str(shown.item(row).prompt) for row in shown.rows("train") + shown.rows("test") + shown.rows("validation")
    }
    label = task_from(path, text_column="question", label_column="meta.source.title")
    assert label.labels() == tuple(f" book {n}" for n in range(7))
    with pytest.raises(
        InputError, match=r"has no column 'answers.txt'; it has .*answers.text, answers.answer_start, meta"
    ):
        task_from(path, target_column="answers.txt")
    with pytest.raises(UnknownNameError, match=r"'answers.txt': did you mean 'answers.text'"):
        task_from(path, target_column="id", template="{question} {answers.txt}")


def test_lists_that_are_empty_or_no_labels_are_named_by_line(tmp_path: Path) -> None:
    rows = [*ROWS, {**squad(100), "answers": {"text": [], "answer_start": []}}]
    with pytest.raises(InputError, match=r"line 91: column 'answers.text' is empty"):
        task_from(written(tmp_path, rows))
    assert sum(task_from(written(tmp_path, rows), skip_bad_rows=True).sizes.values()) == 90
    with pytest.raises(InputError, match=r"'answers.text' is a list of several values, and a label is one"):
        task_from(written(tmp_path, ROWS), text_column="question", label_column="answers.text")


def test_a_list_of_objects_is_a_list_for_each_key_and_depth_has_an_end() -> None:
    assert laid_out("a", [[{"t": "x"}, {"t": "y", "u": 1}]]) == {"a.t": [["x", "y"]], "a.u": [[None, 1]]}
    assert laid_out("a", ["x", ["y"], None]) is None
    assert laid_out("m", [[{"role": "user", "content": "x"}]]) is None
    deep: Any = "end"
    for _ in range(DEEPEST + 5):
        deep = {"k": deep}
    assert flat({"a": deep})[".".join(["a", *"k" * DEEPEST])] is None
    assert laid_out("a", [{f"key {n}": n} for n in range(MOST + 1)]) == {}


def test_objects_whose_keys_are_data_are_left_out_and_said() -> None:
    rows = [{"text": f"text {n}", "label": "yn"[n % 2], "seen": {f"user {n}": 1}} for n in range(MOST + 5)]
    task = task_from([*rows])
    assert ("seen", f"objects of more than {MOST} different keys") in task.reading.unused


def test_the_best_of_all_right_answers_is_what_squad_s_own_script_computes() -> None:
    targets = [("the year 5", "5"), ("Bath",), ("a b c", "c d")]
    answers = ["5", "in Bath", "d"]
    f1 = best_of(score_from("token-f1"))
    assert f1.statistics(targets, answers)[:, 0].tolist() == [1.0, 2 / 3, 2 / 3]
    exact = best_of(score_from("exact-match"))
    assert exact.point(targets, answers) == 1 / 3
    assert exact.is_share
    assert not exact.is_exact
    assert floor(exact, targets, offered=["Bath", "5"]).value == pytest.approx(1 / 3)
    with pytest.raises(InputError, match="several right answers each, and the score chrf"):
        best_of(score_from("chrf"))


def test_a_race_takes_any_right_answer_and_predicts_from_nested_rows(tmp_path: Path) -> None:
    """The first answer of no row is what the model writes, and the second is: the first alone would score nothing."""
    model = reader("byte-level BPE", 512)
    model = el.load(model.hf, tokenizer=model.tokenizer)
    rows = [{"doc": {"text": f"word {n}"}, "answer": {"text": ["never written", "nor this"]}} for n in range(90)]
    task = task_from(written(tmp_path, rows), prompt_column="doc.text", target_column="answer.text")
    given: dict[str, Any] = {"methods": ["zero-shot"], "seeds": 1, "test_items": 12, "stop": "\n"}
    first = el.verdict(model, task, out=tmp_path / "first", **given).arms[0]
    assert first.mean == 0
    said = {str(item.prompt): text for item, text in zip(task.held_out("test", 12), first.answers[0], strict=True)}
    mended = [{**row, "answer": {"text": ["never written", said.get(row["doc"]["text"], "?")]}} for row in rows]  # type: ignore[index, dict-item]
    both = task_from(written(tmp_path, mended), prompt_column="doc.text", target_column="answer.text")
    answer = el.verdict(model, both, out=tmp_path / "both", **given)
    texts = [bool(text) for text in said.values()]
    assert answer.arms[0].mean == sum(texts) / len(texts) > 0
    scored = el.verdict(model, both, score="token-f1", **given).arms[0]
    marking = Marking.of(model, both, "token-f1")
    assert scored.mean == pytest.approx(
        marking.scorer.point(marking.targets(both.held_out("test", 12)), scored.answers[0])
    )
    artefact = read(tmp_path / "both")
    assert artefact.record is not None
    own = Predictor(model, artefact.adaptation(model), artefact.record)
    asked = [{"doc": {"text": prompt}} for prompt in said]
    assert [one.answer for one in own(asked)] == list(answer.arms[0].answers[0])
