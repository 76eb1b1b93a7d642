"""Nested rows: dotted columns, lists of right answers, and what cannot be read so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
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
from elicitable.tasks import arrow
from elicitable.tasks.catalog import task_from
from elicitable.tasks.incoming import incoming
from elicitable.tasks.nested import DEEPEST, MOST, flat, laid_out
from elicitable.tasks.reading import summary_of
from elicitable.tasks.tables import table_of_columns


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
    assert laid_out("a", [{f"key {n}": n} for n in range(MOST + 1)]) == f"objects of more than {MOST} different keys"
    assert laid_out("a", [[{"t": "x"}, None]]) == {"a.t": [["x", None]]}
    assert laid_out("a", [[{"from": "Bath", "to": "York"}]]) == {"a.from": [["Bath"]], "a.to": [["York"]]}


def test_objects_whose_keys_are_data_are_left_out_and_said() -> None:
    rows = [{"text": f"text {n}", "label": "yn"[n % 2], "seen": {f"user {n}": 1}} for n in range(MOST + 5)]
    task = task_from([*rows])
    assert ("seen", f"objects of more than {MOST} different keys") in task.reading.unused


def test_objects_without_keys_are_left_out_for_that_reason() -> None:
    rows = [{"text": f"text {n}", "label": "yn"[n % 2], "meta": {}, "more": [{}]} for n in range(60)]
    task = task_from([*rows])
    assert dict(task.reading.unused) == {"meta": "objects without keys", "more": "objects without keys"}


def test_a_column_of_a_dotted_name_comes_before_the_key_of_an_object(tmp_path: Path) -> None:
    rows = [{"m": {"a": "within", "b": f"b {n}"}, "m.a": f"text {n}", "label": "yn"[n % 2]} for n in range(60)]
    for made in (rows, written(tmp_path, rows)):
        task = task_from(made, text_column="m.a")
        assert {str(item.prompt)[:5] for item in task.held_out("test")} == {"text "}
        assert ("m", "of its keys one that is the column 'm.a' too") in task.reading.unused
        assert "m.b" in dict(task.reading.unused)


def test_what_can_be_read_of_an_object_is_read_and_the_rest_is_named(tmp_path: Path) -> None:
    """One picture in an object hid all the texts beside it."""
    import datasets
    import pyarrow as pa
    from pyarrow import feather, parquet

    rows = [
        {
            "doc": {"text": f"text {n}", "pixels": b"x" * n, "deep": {"by": f"me {n}", "sound": b"y"}},
            "says": [{"word": f"w{k}", "raw": b"z"} for k in range(n % 3)] if n % 7 else None,
            "label": "yn"[n % 2],
        }
        for n in range(60)
    ]
    bare = [
        {
            "doc": {"text": row["doc"]["text"], "deep": {"by": row["doc"]["deep"]["by"]}},
            "says": row["says"] and [{"word": one["word"]} for one in row["says"]],
            "label": row["label"],
        }
        for row in rows
    ]
    table = pa.Table.from_pylist(rows)
    parquet.write_table(table, tmp_path / "t.parquet", row_group_size=25)
    feather.write_feather(table, tmp_path / "t.arrow")
    data = datasets.Dataset.from_list(rows)
    given = {"text_column": "doc.text", "template": "{says.word}: {doc.text} by {doc.deep.by}\n"}
    wanted = task_from(written(tmp_path, bare), **given)
    for made in (tmp_path / "t.parquet", tmp_path / "t.arrow", table, table.slice(0), data, data.select(range(60))):
        task = task_from(made, **given)
        assert task.fingerprint() == wanted.fingerprint()
        left = {name: why for name, why in task.reading.unused if "binary" in why}
        assert set(left) == {"doc.pixels", "doc.deep.sound", "says.raw"}
    part = task_from(table.slice(5), **given)
    assert sum(part.sizes.values()) == 55
    assert {str(item.prompt) for item in part.held_out("test")} <= {
        f"{', '.join(one['word'] for one in row['says'] or ())}: {row['doc']['text']} by {row['doc']['deep']['by']}"
        for row in rows
    }
    with incoming(str(tmp_path / "t.parquet")) as found:
        assert [one.values for one in found.rows] == bare


def test_a_file_of_pictures_counts_what_is_read_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    random = np.random.default_rng(0)
    rows = [{"doc": {"text": f"text {n}", "pixels": random.bytes(50_000)}, "label": "yn"[n % 2]} for n in range(60)]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    task = task_from(tmp_path / "t.parquet", text_column="doc.text")
    monkeypatch.setattr(arrow, "ROWS", 7)
    assert task_from(tmp_path / "t.parquet", text_column="doc.text").fingerprint() == task.fingerprint()
    read = arrow.read_arrow(tmp_path / "t.parquet", ".parquet", 100_000)
    assert read.columns == ("doc.text", "label")


def test_a_frame_as_parquet_gives_it_reads_as_the_same_lines(tmp_path: Path) -> None:
    """What pandas makes of lists are arrays: of texts, of objects, of messages, of arrays."""
    import pandas as pd
    import pyarrow as pa
    from pyarrow import parquet

    talks = [
        {"messages": [{"role": "user", "content": f"say {n}"}, {"role": "assistant", "content": f"{n}"}], "id": n}
        for n in range(60)
    ]
    parts = [{"type": "text", "text": "Hello"}, {"type": "text", "text": " you"}]
    mixed = [{"messages": [{"role": "user", "content": parts}, *talk["messages"]]} for talk in talks]  # type: ignore[misc]
    lists = [
        {"question": f"who {n}", "answers": [{"text": f"a {n}"}, {"text": "b"}], "tags": ["x", "y"]} for n in range(60)
    ]
    for place, rows in enumerate((talks, lists, ROWS)):
        parquet.write_table(pa.Table.from_pylist(rows), tmp_path / f"{place}.parquet")
        frame = pd.read_parquet(tmp_path / f"{place}.parquet")
        assert task_from(frame).fingerprint() == task_from(written(tmp_path, rows)).fingerprint()
    deep = pd.DataFrame({"messages": [np.array([{**m} for m in row["messages"]], dtype=object) for row in mixed]})
    assert task_from(deep).fingerprint() == task_from(written(tmp_path, mixed)).fingerprint()
    gaps = pd.DataFrame({"question": ["who"], "answers": [np.array([{"text": "a"}], dtype=object)]})
    gaps = pd.concat(
        [gaps, *[pd.DataFrame({"question": [f"q {n}"], "answers": [v]}) for n, v in enumerate((None, np.nan, pd.NA))]]
    )
    table = table_of_columns("x", [(name, gaps[name].tolist()) for name in gaps], tuple("abcd"))
    assert table.columns == ("question", "answers.text")
    assert table.cells("answers.text") == [("a",), None, None, None]


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


def test_a_column_called_answers_holds_answers_that_are_written() -> None:
    """As in WebQuestions; beside two columns they could not be told, and where few came again they were labels."""
    answers = [["yes", "Yes."], ["no"]]
    rows = [{"url": f"a/{n}", "question": f"is {n} even?", "answers": answers[n % 2]} for n in range(60)]
    task = task_from(rows)
    assert task.labels() is None
    [item] = task.held_out("test", 1)
    assert item.accepted in (("yes", "Yes."), ("no",))
    two = task_from([{name: row[name] for name in ("question", "answers")} for row in rows])
    assert two.held_out("test") == task.held_out("test")
