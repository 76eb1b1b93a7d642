"""Conversations in which tools are called: read as they come, and shown as the chat template shows them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.models.test_templates import SAYS, chatting

from elicitable.deploy.asked import item_of
from elicitable.deploy.record import Form, Shown
from elicitable.errors import InputError
from elicitable.methods.examples import item_of_pair, plain_pair
from elicitable.models.layout import Layout, layout_for, written
from elicitable.models.rows import rows_of
from elicitable.models.templates import plain_turn
from elicitable.race.reading import reading_warnings
from elicitable.records.schema import from_plain, to_plain
from elicitable.tasks.catalog import task_from
from elicitable.tasks.messages import message_of
from elicitable.tasks.text import TextTask
from elicitable.values import Item

TEMPLATE = (  # arguments are objects to a template, as they are to those of Llama, Qwen and Mistral
    "{% for m in messages %}<|{{ m.role }}|>{% if m.tool_call_id %}({{ m.tool_call_id }}){% endif %}{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<call>{{ c.function.name }}{{ c.function.arguments | tojson }}</call>{% endfor %}"
    "<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def call_of(n: int, arguments: Any) -> dict[str, Any]:
    return {"id": f"c{n}", "type": "function", "function": {"name": "year", "arguments": arguments}}


def talk(n: int, said: Any = None, answer: str = "It is old.") -> list[dict[str, Any]]:
    """As OpenAI's data have it: who calls says nothing, and the arguments are a text."""
    return [
        {"role": "user", "content": f"film {n}"},
        {"role": "assistant", "content": said, "tool_calls": [call_of(n, json.dumps({"film": n, "at": "x"}))]},
        {"role": "tool", "tool_call_id": f"c{n}", "content": "film"},
        {"role": "assistant", "content": answer},
    ]


def task_of(place: Path, rows: list[list[dict[str, Any]]]) -> TextTask:
    path = place / "talks.jsonl"
    path.write_text("\n".join(json.dumps({"messages": row}) for row in rows), encoding="utf-8")
    task = task_from(path)
    assert isinstance(task, TextTask)
    return task


@pytest.mark.parametrize("said", [None, "", "Let me look."])
def test_a_row_is_what_the_template_writes(tmp_path: Path, said: str | None) -> None:
    """A turn that calls a tool has no text, and every such conversation was refused; with one the call was left out."""
    model, task = chatting(TEMPLATE), task_of(tmp_path, [talk(n, said) for n in range(60)])
    assert task.reading is not None
    assert task.reading.unused == ()
    item = task.held_out("test", 1)[0]
    number = int(str(item.prompt[0].content).split()[1])  # type: ignore[union-attr]
    plain = talk(number, said or "")
    plain[1]["tool_calls"] = [call_of(number, {"film": number, "at": "x"})]  # keys in the order of the data
    text = model.tokenizer.apply_chat_template(plain, tokenize=False)
    row = written(model, item, layout_for(model))
    assert row.text == text
    assert f'<call>year{{"film": {number}, "at": "x"}}</call>' in text
    spans = [row.text[first:last] for first, last in row.spans]
    assert spans == [f"film {number}", said or "", "film"]
    assert row.spans[2][0] == text.index("film<|end|><|assistant|>")  # and not the film within the call
    cut = rows_of(model, [item], layout_for(model), limit=len(rows_of(model, [item], layout_for(model))[0]) - 2)[0]
    assert "</call>" in model.tokenizer.decode(cut.content)


def test_a_call_is_no_answer_to_be_written(tmp_path: Path) -> None:
    for said in (None, "Let me look."):
        with pytest.raises(InputError, match="line 1: column 'messages' ends with a call of a tool, and what is asked"):
            task_of(tmp_path, [talk(n, said)[:2] for n in range(60)])


def test_calls_stand_in_a_transcript_and_before_a_person(tmp_path: Path) -> None:
    task = task_of(tmp_path, [talk(n) for n in range(60)])
    item = task.held_out("test", 1)[0]
    text = written(chatting(TEMPLATE), item, Layout(turns=True)).text
    called, answered = text.split("\n")[1:3]
    assert '"function": {"name": "year", "arguments": {"film": ' in called
    assert answered == "Tool: film"


def test_a_template_that_shows_no_calls_is_said(tmp_path: Path) -> None:
    task = task_of(tmp_path, [talk(n) for n in range(200)])
    blind = chatting("{% for m in messages %}" + SAYS + "{% endfor %}")
    [said] = reading_warnings(blind, task, layout_for(blind, turns=True))
    count = task.sizes["test"]
    assert said.startswith(f"{count} of {count} test conversations call tools, which the chat template does not show")
    assert reading_warnings(blind, task, layout_for(blind, "off", turns=True)) == []
    model = chatting(TEMPLATE)
    assert reading_warnings(model, task, layout_for(model, turns=True)) == []


def test_other_calls_are_other_texts(tmp_path: Path) -> None:
    """Rows that differ in what is called alone are different items."""
    rows = [talk(n) for n in range(60)]
    for n, row in enumerate(rows):
        row[0]["content"] = "which year?"
        row[2]["content"] = "1999"
        row[2]["tool_call_id"] = row[1]["tool_calls"][0]["id"] = "c"
        row[1]["tool_calls"][0]["function"]["arguments"] = json.dumps({"film": n})
    assert sum(task_of(tmp_path, rows).sizes.values()) == 60
    assert len({item.prompt for item in task_of(tmp_path, rows).held_out("test")}) > 5


def test_a_turn_is_kept_whole_wherever_it_is_written_down(tmp_path: Path) -> None:
    item = task_of(tmp_path, [talk(n) for n in range(60)]).held_out("test", 1)[0]
    assert item.prompt[1].parts  # type: ignore[union-attr]
    assert tuple(message_of(json.loads(json.dumps(plain_turn(turn)))) for turn in item.prompt) == item.prompt  # type: ignore[arg-type]
    assert item_of_pair(json.loads(json.dumps(plain_pair(item)))) == Item(item.prompt, item.target)
    shown = Shown.of(item)
    assert from_plain(Shown, json.loads(json.dumps(to_plain(shown)))) == shown


def test_a_new_row_is_read_as_the_data_were(tmp_path: Path) -> None:
    task = task_of(tmp_path, [talk(n) for n in range(60)])
    item = task.held_out("test", 1)[0]
    number = int(str(item.prompt[0].content).split()[1])  # type: ignore[union-attr]
    asked = item_of(Form.of(task, True), {"messages": talk(number)[:3]}, chatting(TEMPLATE))
    assert asked.prompt == item.prompt


def test_arguments_that_only_others_have_are_no_arguments(tmp_path: Path) -> None:
    """Arrow has one set of keys for all rows, and a template wrote null for each that a call does not have."""
    datasets = pytest.importorskip("datasets")
    rows = [talk(n) for n in range(60)]
    for n, row in enumerate(rows):
        row[1]["tool_calls"][0]["function"]["arguments"] = {"film": n} if n % 2 else {"city": f"city {n}"}
    held = datasets.Dataset.from_list([{"messages": row} for row in rows])
    wanted = task_of(tmp_path, rows)
    assert task_from(held).fingerprint() == wanted.fingerprint()
    held.to_parquet(tmp_path / "talks.parquet")
    assert task_from(tmp_path / "talks.parquet").fingerprint() == wanted.fingerprint()
    told = talk(1)
    told[1]["tool_calls"][0]["function"]["arguments"] = '{"film": null}'  # which nobody but its writer put there
    kept = task_of(tmp_path, [[{**told[0], "content": f"film {n}"}, *told[1:]] for n in range(60)])
    assert '"film": null' in kept.held_out("test", 1)[0].prompt[1].parts  # type: ignore[union-attr]
