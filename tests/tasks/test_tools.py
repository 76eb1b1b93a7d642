"""Conversations beside the tools that may be called: OpenAI's and TRL's rows hold both, and the template shows both."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from tests.models.test_templates import SAYS, chatting

from elicitable.deploy.asked import item_of
from elicitable.deploy.record import Form
from elicitable.errors import InputError
from elicitable.methods.examples import item_of_pair, plain_pair
from elicitable.models.layout import Layout, layout_for, written
from elicitable.models.rows import rows_of
from elicitable.race.reading import reading_warnings
from elicitable.tasks import rows
from elicitable.tasks.catalog import task_from
from elicitable.tasks.text import TextTask
from elicitable.values import Item

TEMPLATE = (  # as Llama's and Qwen's: the tools stand in front, as JSON
    "{% if tools %}<|tools|>{% for t in tools %}{{ t | tojson }}{% endfor %}<|end|>{% endif %}"
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
Row = dict[str, Any]


def tool(n: int) -> Row:
    parameters = {"type": "object", "properties": {"film": {"type": "string"}}, "required": ["film"]}
    return {"type": "function", "function": {"name": f"year_{n % 3}", "parameters": parameters}}


def row_of(n: int, system: bool = False) -> Row:
    said = [{"role": "user", "content": f"film {n}"}, {"role": "assistant", "content": "It is old."}]
    first = [{"role": "system", "content": "Be brief."}] if system else []
    return {"messages": first + said, "tools": [tool(n)]}


ROWS = [row_of(n) for n in range(200)]


def read(place: Path, given: list[Row] = ROWS) -> TextTask:
    path = place / "talks.jsonl"
    path.write_text("\n".join(map(json.dumps, given)), encoding="utf-8")
    task = task_from(path)
    assert isinstance(task, TextTask)
    return task


def asked_in(item: Item) -> int:
    return int(str(item.prompt[-1].content).split()[1])  # type: ignore[union-attr]


@pytest.mark.parametrize("system", [False, True])
def test_a_row_is_what_the_template_writes_of_turns_and_tools(tmp_path: Path, system: bool) -> None:
    """The tools were a column that is not used, and a template was never given any."""
    model, task = chatting(TEMPLATE), read(tmp_path, [row_of(n, system) for n in range(60)])
    assert task.reading is not None
    assert task.reading.unused == ()
    assert ("tools", "the tools that the conversation may call") in task.reading.used
    item = task.held_out("test", 1)[0]
    plain = row_of(asked_in(item), system)
    text = model.tokenizer.apply_chat_template(plain["messages"], tools=plain["tools"], tokenize=False)
    row = written(model, item, layout_for(model))
    assert row.text == text
    assert [row.text[first:last] for first, last in row.spans] == [f"film {asked_in(item)}"]
    assert row.spans[0][0] > row.text.index("<|user|>")  # and not the film among the tools
    whole = rows_of(model, [item], layout_for(model))[0]
    cut = rows_of(model, [item], layout_for(model), limit=len(whole) - 2)[0]
    assert "required" in model.tokenizer.decode(cut.content)


def test_every_source_of_rows_gives_the_same_task(tmp_path: Path) -> None:
    """As a text of JSON in JSON lines and CSV, in memory, and from Parquet, where every struct has every key."""
    task = read(tmp_path)
    as_text = [{name: json.dumps(value) for name, value in row.items()} for row in ROWS]
    assert (
        read(tmp_path, [{**row, "tools": json.dumps(row["tools"])} for row in ROWS]).fingerprint() == task.fingerprint()
    )
    path = tmp_path / "talks.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, ["messages", "tools"])
        table.writeheader()
        table.writerows(as_text)
    assert task_from(path).fingerprint() == task.fingerprint()
    assert task_from(ROWS).fingerprint() == task.fingerprint()
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    uneven = [{**row, "tools": [{**row["tools"][0], "strict": None}]} for row in ROWS]
    parquet.write_table(arrow.Table.from_pylist(uneven), tmp_path / "talks.parquet")
    assert task_from(tmp_path / "talks.parquet").fingerprint() == task.fingerprint()


def test_other_tools_are_other_texts(tmp_path: Path) -> None:
    rows = [{"messages": ROWS[0]["messages"], "tools": [{"name": f"tool {n}"}]} for n in range(60)]
    assert len({item.prompt for item in read(tmp_path, rows).held_out("test")}) > 5


def test_worked_examples_leave_their_tools_at_home(tmp_path: Path) -> None:
    """What may be called is what the item itself brings."""
    model, task = chatting(TEMPLATE), read(tmp_path)
    first, second = task.held_out("test", 2)
    text = written(model, first, Layout(chat=True, turns=True, examples=(second,))).text
    assert text.count("<|tools|>") == 1
    assert text.count("year_") == 1
    assert f"year_{asked_in(first) % 3}" in text
    assert item_of_pair(json.loads(json.dumps(plain_pair(first)))) == Item(first.prompt, first.target)


def test_tools_stand_in_a_transcript(tmp_path: Path) -> None:
    item = read(tmp_path).held_out("test", 1)[0]
    text = written(chatting(TEMPLATE), item, Layout(turns=True)).text
    assert text.startswith('Tools: [{"type": "function", "function": {"name": "year_')
    assert "\n\nUser: film " in text


def test_a_template_that_shows_no_tools_is_said(tmp_path: Path) -> None:
    task, blind = read(tmp_path), chatting("{% for m in messages %}" + SAYS + "{% endfor %}")
    [said] = reading_warnings(blind, task, layout_for(blind, turns=True))
    assert "test conversations bring tools, which the chat template does not show" in said
    assert reading_warnings(blind, task, layout_for(blind, "off", turns=True)) == []
    model = chatting(TEMPLATE)
    assert reading_warnings(model, task, layout_for(model, turns=True)) == []


def test_a_row_without_tools_brings_none_and_one_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    rows: list[Row] = [{**row, "tools": None} if n % 2 else row for n, row in enumerate(ROWS)]
    parts = {bool(item.prompt[0].parts) for item in read(tmp_path, rows).held_out("test")}  # type: ignore[union-attr]
    assert parts == {True, False}
    rows[3] = {**rows[3], "tools": "hammer"}
    with pytest.raises(InputError, match="line 4: column 'messages' stands beside a column 'tools' that holds no list"):
        read(tmp_path, rows)


def test_a_column_of_tools_beside_plain_texts_is_one_column(tmp_path: Path) -> None:
    rows = [{"prompt": f"film {n}", "completion": "old", "tools": [tool(n)]} for n in range(60)]
    task = read(tmp_path, rows)
    assert task.reading is not None
    assert task.reading.unused == (("tools", ""),)


def test_the_column_of_tools_is_looked_for_as_often_however_many_rows_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was looked for with every row, and 2,000 conversations took ten seconds, not half a one."""
    looked = []
    found = rows.beside_conversations
    monkeypatch.setattr(rows, "beside_conversations", lambda *given: (looked.append(1), found(*given))[1])
    counts = []
    for size in (60, 240):
        looked.clear()
        task_from([row_of(n) for n in range(size)])
        counts.append(len(looked))
    assert counts[0] == counts[1] > 0


def test_a_new_row_is_read_as_the_data_were(tmp_path: Path) -> None:
    task = read(tmp_path)
    item, form = task.held_out("test", 1)[0], Form.of(task, True)
    row = row_of(asked_in(item))
    for tools in (row["tools"], json.dumps(row["tools"])):
        asked = item_of(form, {"messages": row["messages"][:1], "tools": tools}, chatting(TEMPLATE))
        assert asked.prompt == item.prompt
    with pytest.raises(InputError, match="column 'tools' holds no list of tools"):
        item_of(form, {"messages": row["messages"][:1], "tools": "hammer"}, chatting(TEMPLATE))
