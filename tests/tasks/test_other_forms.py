"""Forms of files, frames and conversations that other tools write, each read as it is meant or refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from elicitable.deploy.asked import item_of
from elicitable.deploy.record import Form
from elicitable.errors import InputError
from elicitable.tasks.catalog import task_from
from elicitable.tasks.incoming import incoming
from elicitable.tasks.labels import near_equal
from elicitable.tasks.text import TextTask

ROWS = [{"text": f"te, xt {i}", "label": "ab"[i % 2]} for i in range(60)]


def saved(folder: Path, content: str, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return path


def lines(folder: Path, rows: list[dict[str, Any]]) -> Path:
    return saved(folder, "\n".join(map(json.dumps, rows)), "t.jsonl")


DIALECTS = {
    "tabs": "text\tlabel\n" + "".join(f"{row['text']}\t{row['label']}\n" for row in ROWS),
    "bars": "text|label\n" + "".join(f"{row['text']}|{row['label']}\n" for row in ROWS),
    "semicolons": "text;label\n" + "".join(f"{row['text']};{row['label']}\n" for row in ROWS),
    "blanks before quotes": "text, label\n" + "".join(f'"{row["text"]}", "{row["label"]}"\n' for row in ROWS),
    "a delimiter at the end": "text,label,\n" + "".join(f'"{row["text"]}",{row["label"]},\n' for row in ROWS),
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_tables_of_other_dialects_are_the_same_rows(dialect: str, tmp_path: Path) -> None:
    """Labels came out with their quotes around them, or the file was refused for quotes that do not close."""
    path = saved(tmp_path, DIALECTS[dialect])
    assert task_from(path).fingerprint() == task_from(lines(tmp_path, ROWS)).fingerprint()
    with incoming(str(path), wanted=["text"]) as found:
        assert [one.values["text"] for one in found.rows] == [row["text"] for row in ROWS]


def test_of_two_columns_without_a_name_each_is_looked_at(tmp_path: Path) -> None:
    """The second one was left out because the first one numbers the rows."""
    for last, is_refused in (("", False), ("a note", True)):
        rows = "".join(f'{i},"{row["text"]}",{row["label"]},{last}\n' for i, row in enumerate(ROWS))
        path = saved(tmp_path, f",text,label,\n{rows}")
        if is_refused:
            with pytest.raises(InputError, match="column 4 has no name"):
                task_from(path)
        else:
            assert task_from(path).labels() == (" a", " b")


def test_what_is_nested_without_end_is_not_read(tmp_path: Path) -> None:
    deep = "[" * 900 + "]" * 900
    rows = "".join(f'{{"text": "text {i}", "label": "{"ab"[i % 2]}", "more": {deep}}}\n' for i in range(60))
    assert task_from(saved(tmp_path, rows, "t.jsonl")).labels() == (" a", " b")


@pytest.mark.parametrize("form", ["split", "index", "by id"])
def test_one_object_of_rows_is_read(form: str, tmp_path: Path) -> None:
    import pandas as pd

    by_id = json.dumps({f"id {i}": row for i, row in enumerate(ROWS)})
    path = saved(tmp_path, by_id if form == "by id" else pd.DataFrame(ROWS).to_json(orient=form), "t.json")
    assert task_from(path).fingerprint() == task_from(lines(tmp_path, ROWS)).fingerprint()


def test_the_names_of_a_frame_s_index_are_columns() -> None:
    """A text or a group that stands in the index was dropped without a word."""
    import pandas as pd

    frame = pd.DataFrame([{**row, "user": i // 5} for i, row in enumerate(ROWS)])
    wanted = task_from(frame, group_column="user").fingerprint()
    for index in (["user"], ["text"], ["user", "text"]):
        assert task_from(frame.set_index(index), group_column="user").fingerprint() == wanted


TWINS = [
    (("yes", "y\u200bes"), True),
    (("1", "1.0"), True),
    (("1e3", "1000"), True),
    (("re-open", "re_open"), True),
    (("-1", "1"), False),
    (("+", "-"), False),
    (("C", "C++"), False),
    (("20240101", "20240102"), False),
    (("1000001", "1000001.0"), True),
    (("900719925474099", "900719925474098"), False),
    (("nan", "inf"), False),
    (("−1", "-1"), True),
    (("3–5", "3-5"), True),
    (("−1", "1"), False),
]


@pytest.mark.parametrize(("labels", "are_near"), TWINS)
def test_labels_are_nearly_equal_where_a_person_would_say_so(labels: tuple[str, str], are_near: bool) -> None:
    """-1 and 1 were said to be nearly the same, 1 and 1.0 were not."""
    assert near_equal(labels) == ([labels] if are_near else [])


def test_names_of_labels_are_names(tmp_path: Path) -> None:
    path = lines(tmp_path, ROWS)
    assert task_from(path, label_names={"a": " no ", "b": "yes"}).labels() == (" no", " yes")
    with pytest.raises(InputError, match="every label a name; 'b' has none"):
        task_from(path, label_names={"b": " "})


def test_groups_that_fill_no_split_and_rows_without_one_are_said(tmp_path: Path) -> None:
    path = lines(tmp_path, [{**row, "user": i // 5 if i % 3 else None} for i, row in enumerate(ROWS)])
    assert not any("without a value" in one for one in task_from(path).warnings)
    assert "rows without a value in column 'user', each on its own: 20" in task_from(path, group_column="user").warnings
    with pytest.raises(InputError, match=r"rows of the same 'user' stay together, and so the \w+ split is empty"):
        task_from(lines(tmp_path, [{**row, "user": "me"} for row in ROWS]), group_column="user")


def talk(i: int) -> list[dict[str, Any]]:
    return [{"role": "user", "content": f"What is {i} + 1?"}, {"role": "assistant", "content": f"{i + 1}"}]


def cell(value: Any) -> str:
    return '"' + json.dumps(value).replace('"', '""') + '"'


def test_conversations_in_a_table_are_conversations(tmp_path: Path) -> None:
    """The JSON was shown to the model as a text, and the number of the row was its answer."""
    wanted = task_from(lines(tmp_path, [{"messages": talk(i)} for i in range(60)])).fingerprint()
    whole = saved(tmp_path, "messages,id\n" + "".join(f"{cell(talk(i))},{i}\n" for i in range(60)))
    assert task_from(whole).fingerprint() == wanted
    halves = "".join(f"{cell(talk(i)[:1])},{cell(talk(i)[1:])}\n" for i in range(60))
    parts = [{"prompt": talk(i)[:1], "completion": talk(i)[1:]} for i in range(60)]
    path = saved(tmp_path, f"prompt,completion\n{halves}")
    assert task_from(path).fingerprint() == task_from(lines(tmp_path, parts)).fingerprint()


def test_conversations_that_end_with_a_question_have_their_label_or_are_said(tmp_path: Path) -> None:
    rows = [{"messages": [*talk(i), {"role": "user", "content": "Thanks!"}]} for i in range(60)]
    task = task_from(lines(tmp_path, rows))
    assert "conversations that go on behind the assistant's last message, which is left out: 60" in task.warnings
    labelled = task_from(lines(tmp_path, [{**row, "label": "ab"[i % 2]} for i, row in enumerate(rows)]))
    assert labelled.labels() == ("a", "b")
    assert labelled.held_out("test", 1)[0].prompt[-1].content == "Thanks!"  # type: ignore[union-attr]
    mixed = [{"messages": talk(i), "label": "ab"[i % 2]} for i in range(60)]
    assert task_from(lines(tmp_path, mixed)).labels() is None


def test_messages_without_a_text_are_named(tmp_path: Path) -> None:
    call = [*talk(1)[:1], {"role": "assistant", "content": None, "tool_calls": []}, *talk(1)[1:]]
    with pytest.raises(InputError, match=r"no cell of column 'messages' is a conversation.*call no tool"):
        task_from(lines(tmp_path, [{"messages": call} for _ in range(60)]))
    with pytest.raises(InputError, match="line 61: column 'messages' is missing, or holds a message without a text"):
        task_from(lines(tmp_path, [*({"messages": talk(i)} for i in range(60)), {"messages": call}]))


@pytest.mark.parametrize(("place", "write"), [(0, json.dumps), (30, json.dumps), (30, str)])
def test_a_conversation_in_csv_in_which_a_key_stands_twice_is_named(
    place: int, write: Callable[[Any], str], tmp_path: Path
) -> None:
    """JSON and Python alike take the last value, and nobody has said which one is meant."""
    cells = [write(talk(i)) for i in range(60)]
    quote = "'" if write is str else '"'
    key = f"{quote}content{quote}: "
    cells[place] = cells[place].replace(key, f"{key}{quote}Bye{quote}, {key}", 1)
    rows = "".join('"' + cell.replace('"', '""') + '"\n' for cell in ("messages", *cells))
    with pytest.raises(InputError, match=f"line {place + 2}: column 'messages' .* or with a key twice"):
        task_from(saved(tmp_path, rows))


def test_sharegpt_s_calls_and_observations_are_turns_of_the_assistant_and_of_a_tool(tmp_path: Path) -> None:
    said = [("human", "What time is it?"), ("function_call", "{}"), ("observation", "5"), ("gpt", "It is five.")]
    turns = [{"from": who, "value": text} for who, text in said]
    rows = [{"conversations": [{**turns[0], "value": f"{turns[0]['value']} {i}"}, *turns[1:]]} for i in range(60)]
    prompt = task_from(lines(tmp_path, rows)).held_out("test", 1)[0].prompt
    assert [turn.role for turn in prompt] == ["user", "assistant", "tool"]  # type: ignore[union-attr]


def test_a_column_system_beside_a_conversation_is_its_first_message(tmp_path: Path) -> None:
    """It was left out, and a template, which was said to show it, is refused for conversations."""
    rule = {"role": "system", "content": "Answer in French."}
    wanted = task_from(lines(tmp_path, [{"messages": [rule, *talk(i)]} for i in range(60)]))
    beside = [{"conversations": talk(i), "system": rule["content"], "id": i} for i in range(60)]
    own = [{**row, "conversations": [rule, *row["conversations"]], "system": "Be rude."} for row in beside]
    halves = [{"prompt": talk(i)[:1], "completion": talk(i)[1:], "System": rule["content"]} for i in range(60)]
    for rows in (beside, own, halves):
        task = task_from(lines(tmp_path, rows))
        assert task.fingerprint() == wanted.fingerprint()
        assert (rows[0].keys() - {"id"}) <= dict(task.reading.used).keys()  # type: ignore[attr-defined]
        assert isinstance(task, TextTask)
        asked = [item_of(Form.of(task, True), row, cast("Any", None)).prompt for row in rows]
        assert set(asked) >= {item.prompt for item in task.held_out("test")}
    assert "a column that is not used: id" in task_from(lines(tmp_path, beside)).warnings  # type: ignore[attr-defined]
    some = [{**row, "system": None if i % 2 else row["system"]} for i, row in enumerate(beside)]
    firsts = {item.prompt[0].role for item in task_from(lines(tmp_path, some)).held_out("test")}  # type: ignore
    assert firsts == {"system", "user"}
    with pytest.raises(InputError, match="'conversations' stands beside a column 'system' that holds half a surrogate"):
        task_from(lines(tmp_path, [{**row, "system": "\ud800"} for row in beside]))


@pytest.mark.parametrize("places", ["0123", "1234", "ABCD", "abcd"])
def test_answers_that_are_places_among_choices_are_written_only_where_that_is_asked_for(
    places: str, tmp_path: Path
) -> None:
    """MMLU's rows were read as a question and the number 2, of which nothing says what it stands for."""
    choices = [[f"{i + k} apples" for k in range(4)] for i in range(60)]
    rows = [{"question": f"How many, {i}?", "choices": choices[i], "answer": places[i % 4]} for i in range(60)]
    path = lines(tmp_path, rows)
    assert task_from(path).labels() == ()
    named = task_from(path, prompt_column="question", target_column="answer")
    assert any("'answer' holds places among 'choices'" in note for note in named.warnings)  # type: ignore[attr-defined]
    shown = task_from(path, template="{question}\\n{choices}\\nAnswer:", label_column="answer")
    assert not any("places among" in note for note in shown.warnings)  # type: ignore[attr-defined]
    assert shown.labels() == tuple(f" {place}" for place in places)
    texts = [{**row, "answer": row["choices"][i % 4]} for i, row in enumerate(rows)]
    assert not any("places" in note for note in task_from(lines(tmp_path, texts)).warnings)  # type: ignore[attr-defined]
