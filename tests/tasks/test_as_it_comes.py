"""Data as they come: the forms and the faults of real files, each said back, warned about or refused."""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from elicitable.errors import InputError
from elicitable.tasks.base import groups_of
from elicitable.tasks.catalog import task_from
from elicitable.tasks.rows import _plain
from elicitable.tasks.text import TextTask
from elicitable.values import Item, Message

Rows = Sequence[dict[str, Any]]


def lines(path: Path, rows: Rows) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def task_of(tmp_path: Path, rows: Rows, **options: Any) -> TextTask:
    task = task_from(lines(tmp_path / "t.jsonl", rows), **options)
    assert isinstance(task, TextTask)
    return task


def prompt_of(task: TextTask, **cells: str) -> str:
    """The prompt of the row whose prompt holds all of ``cells``."""
    found = [
        str(task.item(row).prompt)
        for split in ("train", "validation", "test")
        for row in task.rows(split)  # type: ignore[arg-type]
        if set(cells.values()) <= set(map(str, row.cells))
    ]
    return found[0]


FORMS = [
    (("instruction", "input", "output"), "a 7\nb 7", "generation"),
    (("instruction", "context", "response"), "a 7\nb 7", "generation"),
    (("passage", "question", "answer"), "a 7\nb 7", "generation"),
    (("question", "passage", "answer"), "b 7\na 7", "generation"),
    (("context", "question", "target"), "a 7\nb 7", "generation"),
    (("title", "content", "label"), "a 7\nb 7\nLabel:", "classification"),
    (("Title", "Body", "Category"), "a 7\nb 7\nLabel:", "classification"),
    (("text", "headline", "class"), "b 7\na 7\nLabel:", "classification"),
    (("premise", "hypothesis", "label"), "Premise: a 7\nHypothesis: b 7\nLabel:", "classification"),
    (("sentence1", "sentence2", "label"), "a 7\nb 7\nLabel:", "classification"),
]


@pytest.mark.parametrize(("names", "prompt", "kind"), FORMS)
def test_both_columns_of_a_known_form_are_read(
    tmp_path: Path, names: tuple[str, str, str], prompt: str, kind: str
) -> None:
    """Before, the second one was dropped without a word."""
    rows = [
        {names[0]: f"a {i}", names[1]: f"b {i}", names[2]: "xy"[i % 2] if kind == "classification" else f"c {i}"}
        for i in range(60)
    ]
    task = task_of(tmp_path, rows)
    assert task.kind == kind
    assert prompt_of(task, a="a 7", b="b 7") == prompt
    assert not [warning for warning in task.warnings if "not used" in warning]


def test_alpaca_rows_without_an_input_are_the_instruction_alone(tmp_path: Path) -> None:
    rows = [{"instruction": f"do {i}", "input": f"with {i}" * (i % 2), "output": f"done {i}"} for i in range(60)]
    task = task_of(tmp_path, rows)
    assert prompt_of(task, a="do 8") == "do 8"
    assert prompt_of(task, a="do 7") == "do 7\nwith 7"
    rows[3]["instruction"] = ""
    with pytest.raises(InputError, match="line 4: column 'instruction' is empty"):
        task_of(tmp_path, rows)


def test_a_template_shows_any_columns_and_the_rest_is_said(tmp_path: Path) -> None:
    rows = [{"id": f"n{i}", "head": f"h {i}", "story": f"s {i}", "topic": "xy"[i % 2], "by": "me"} for i in range(60)]
    with pytest.raises(InputError, match="cannot tell which columns"):
        task_of(tmp_path, rows)
    task = task_of(tmp_path, rows, template="{head}\\n{story}\\nTopic:", label_column="topic")
    assert prompt_of(task, a="h 7") == "h 7\ns 7\nTopic:"
    assert "columns that are not used: id, by (a template can show them, by name: {id})" in task.warnings
    four = task_of(tmp_path, rows, template="{by} {head} {story} {id}")  # the one column left is the label
    assert four.labels() == (" x", " y")
    one = task_of(tmp_path, rows, text_column="story", label_column="topic")
    assert "columns that are not used: id, head, by (a template can show them, by name: {id})" in one.warnings


def test_the_order_of_a_template_moves_no_row(tmp_path: Path) -> None:
    rows = [{"title": f"h {i}", "content": f"s {i}", "label": "xy"[i % 2]} for i in range(200)]
    first = task_of(tmp_path, rows)
    second = task_of(tmp_path, rows, template="{content} ({title})\nLabel:")
    assert [row.text for row in first.rows("test")] == [row.text for row in second.rows("test")]
    assert first.fingerprint() != second.fingerprint()


def chat(i: int) -> list[dict[str, Any]]:
    return [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": f"What is {i} + 1?"},
        {"role": "assistant", "content": "Which base?"},
        {"role": "user", "content": [{"type": "text", "text": "Ten."}]},
        {"role": "assistant", "content": f" {i + 1}"},
    ]


def test_messages_are_read_and_the_last_answer_is_the_target(tmp_path: Path) -> None:
    task = task_of(tmp_path, [{"messages": chat(i), "id": i} for i in range(60)])
    assert task.labels() is None
    item = task.held_out("test", 1)[0]
    assert isinstance(item.prompt, tuple)
    assert all(isinstance(turn, Message) for turn in item.prompt)
    number = item.prompt[1].content.split()[2]  # type: ignore[union-attr]
    turns = (
        ("system", "Be brief."),
        ("user", f"What is {number} + 1?"),
        ("assistant", "Which base?"),
        ("user", "Ten."),
    )
    assert item == Item(tuple(Message(*turn) for turn in turns), str(int(number) + 1))
    assert "a column that is not used: id" in task.warnings
    assert task.fingerprint() == task_of(tmp_path, [{"id": i, "messages": chat(i)} for i in range(60)]).fingerprint()


PARTS = {
    "parts": ("text", "text"),
    "parts of a response": ("input_text", "output_text"),
}


@pytest.mark.parametrize(
    "form", ["prompt and completion", "text and completion", "sharegpt", "in capitals", "bare texts", *PARTS]
)
def test_other_forms_of_conversations_give_the_same_items(tmp_path: Path, form: str) -> None:
    def row(i: int) -> dict[str, Any]:
        user, answer = {"role": "user", "content": f"say {i}"}, {"role": "assistant", "content": f"{i}!"}
        if form == "sharegpt":
            return {"conversations": [{"from": "human", "value": f"say {i}"}, {"from": "gpt", "value": f"{i}!"}]}
        if form == "in capitals":  # it was said that there is no message of the assistant
            return {"Messages": [{"Role": "User", "Content": f"say {i}"}, {"Role": "ASSISTANT", "Content": f"{i}!"}]}
        if form == "bare texts":
            return {"messages": [user | {"content": ["say ", str(i)]}, answer | {"content": [f"{i}", "!"]}]}
        if form in PARTS:
            for kind, turn in zip(PARTS[form], (user, answer), strict=True):
                turn["content"] = [{"type": kind, "text": turn["content"]}]  # type: ignore[assignment]
            return {"messages": [user, answer]}
        return {"prompt": [user] if form.startswith("prompt") else f"say {i}", "completion": [answer]}

    plain = [
        {"messages": [{"role": "user", "content": f"say {i}"}, {"role": "assistant", "content": f"{i}!"}]}
        for i in range(60)
    ]
    assert task_of(tmp_path, [row(i) for i in range(60)]).held_out("test") == task_of(tmp_path, plain).held_out("test")


@pytest.mark.parametrize("is_table", [False, True])
def test_parts_of_messages_that_are_not_read_are_said(tmp_path: Path, is_table: bool) -> None:
    """What a model had thought before its answer was dropped without a word."""
    answer = {"role": "assistant", "content": "so", "reasoning_content": "hm", "tool_calls": None}
    talks = [[{"role": "user", "content": f"say {i}", "at": 3}, answer] for i in range(60)]
    if is_table:
        task: Any = task_from(write(tmp_path / "t.csv", ("messages",), [(json.dumps(talk),) for talk in talks]))
    else:
        task = task_of(tmp_path, [{"messages": talk} for talk in talks])
    parts = ("messages.at", "messages.reasoning_content")
    assert task.reading.unused == tuple((part, "a part of its messages that is not read") for part in parts)


@pytest.mark.parametrize("weight", [0, 0.0, "0"])
def test_an_answer_of_no_weight_is_not_asked_for(tmp_path: Path, weight: Any) -> None:
    """OpenAI's rows say by it which answers are not learned; the last one was, whatever its weight."""

    def turns(*weights: Any) -> list[dict[str, Any]]:
        said: list[dict[str, Any]] = []
        for nth, one in enumerate(weights):
            said += [{"role": "user", "content": f"Q{nth}"}, {"role": "assistant", "content": f"A{nth}", "weight": one}]
        return said

    ends = {(1, weight): "A0", (weight, 1): "A1", (1, weight, weight): "A0", (None, None): "A1"}
    for weights, answer in ends.items():
        rows = [{"messages": [{"role": "system", "content": f"{i}"}, *turns(*weights)]} for i in range(60)]
        task = task_of(tmp_path, rows)
        assert {row.answer for row in task.rows("train")} == {answer}
        assert not any("weight" in one for one in task.warnings)
    nothing = [{"messages": turns(weight, weight)}, *rows]
    with pytest.raises(InputError, match=r"line 1: .*has no message of the assistant"):
        task_of(tmp_path, nothing)


def test_conversations_can_be_labelled(tmp_path: Path) -> None:
    rows = [{"messages": chat(i)[:2], "topic": "xy"[i % 2]} for i in range(60)]
    task = task_of(tmp_path, rows, text_column="messages", label_column="topic")
    assert task.labels() == ("x", "y")
    assert task.held_out("test", 1)[0].target in ("x", "y")
    rows[3]["messages"] = [{"role": "user", "content": " "}]
    with pytest.raises(InputError, match="line 4: column 'messages' is empty"):
        task_of(tmp_path, rows, text_column="messages", label_column="topic")


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([{"role": "user", "content": "Hi"}], "has no message of the assistant"),
        ([{"role": "assistant", "content": "Hi"}], "begins with the assistant's only message"),
        ([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": " "}], "ends with an empty message"),
        (
            [{"role": "user", "content": None}, {"role": "assistant", "content": "x"}],
            "is missing, or holds a message without",
        ),
        ([], "is empty"),
        ([{"role": "user", "content": ""}, {"role": "assistant", "content": "x"}], "says nothing before the"),
        ([{"role": "user", "content": " \n"}, {"role": "assistant", "content": ""}], "is empty"),
    ],
)
def test_broken_conversations_are_named_by_line(tmp_path: Path, messages: list[Any], why: str) -> None:
    rows = [{"messages": chat(i)} for i in range(60)]
    rows[8] = {"messages": messages}
    with pytest.raises(InputError, match=f"t.jsonl, line 9: column 'messages' {why}"):
        task_of(tmp_path, rows)
    assert sum(task_of(tmp_path, rows, skip_bad_rows=True).sizes.values()) == 59
    with pytest.raises(InputError, match="leave out the template"):
        task_of(tmp_path, rows, template="{text}", skip_bad_rows=True)


def labelled(labels: Sequence[Any]) -> Rows:
    return [{"text": f"text {i}", "label": label} for i, label in enumerate(labels)]


WARNED = [
    (["Billing Question", "billing question", "app"] * 40, "nearly the same.*'Billing Question'.*'billing question'"),
    (["billing", "billing.", "app"] * 40, "nearly the same.*'billing' .*'billing.'"),
    (["fine_tuned", "fine tuned", "app"] * 40, "nearly the same"),
    (["\uff41pp", "app", "x"] * 40, "nearly the same"),  # a full-width letter
    (["\u0430pp", "app", "x"] * 40, r"nearly the same.*'app' .*'\\u0430pp'"),  # a Cyrillic a
    (["\u0421OST", "COST", "x"] * 40, "nearly the same"),  # a Cyrillic S
    (["\u03bfpen", "open", "x"] * 40, "nearly the same"),  # a Greek omicron
    (["\u2764\ufe0f", "\u2764", "x"] * 40, "nearly the same"),  # a heart, and one that is drawn as an emoji
    (["\u200b", "x", "y"] * 40, r"labels of characters that are not seen: '\\u200b'"),
    (["nan", "x", "y"] * 40, r"look like missing values: 'nan' \(40 rows\)"),
    (["None", "x", "y"] * 40, "look like missing values: 'None'"),
    (["null", "N/A", "y"] * 40, "look like missing values: 'N/A' .*'null'"),
    (["x", "y"] * 60 + ["z"], "labels with one row: 'z'"),
    (
        ["spam"] * 190 + ["ham"] * 10,
        r"95% of the training rows have the label 'spam': always answering it scores 0.951, the floor",
    ),
    (["x"] * 88 + ["y"] * 12, "the floor"),
]


@pytest.mark.parametrize(("labels", "warning"), WARNED)
def test_doubtful_labels_are_warned_about(tmp_path: Path, labels: list[str], warning: str) -> None:
    warnings = task_of(tmp_path, labelled(labels)).warnings
    assert any(re.search(warning, one) for one in warnings), warnings


def test_label_names_that_make_all_labels_one_are_named(tmp_path: Path) -> None:
    rows = [{"text": f"text {i}", "label": ("pos", "neg")[i % 2]} for i in range(60)]
    with pytest.raises(InputError, match="the label names make all of its 2 labels one, 'neg'"):
        task_of(tmp_path, rows, label_names={"pos": "neg"})
    with pytest.raises(InputError, match="every row has the label 'neg'"):
        task_of(tmp_path, [{**row, "label": "neg"} for row in rows])


def test_clean_labels_are_not_warned_about(tmp_path: Path) -> None:
    for labels in (["C++", "C#", "+", "-", "!"] * 100, ["yes", "no"] * 300, ["да", "нет", "не"] * 200):
        assert task_of(tmp_path, labelled(labels)).warnings == ()


@pytest.mark.parametrize("twins", [("café", "cafe\u0301"), ("a b", "a\u00a0b"), ("a b", "a  b")])
def test_labels_that_look_the_same_are_refused_and_can_be_made_one(tmp_path: Path, twins: tuple[str, str]) -> None:
    rows = labelled([*twins, "x"] * 40)
    with pytest.raises(InputError, match="look the same and are spelled with other characters"):
        task_of(tmp_path, rows)
    assert len(task_of(tmp_path, rows, label_names={twins[1]: twins[0]}).labels() or ()) == 2


@pytest.mark.parametrize(("count", "each"), [(51, 4), (80, 2), (80, 5), (1_000, 3)])
@pytest.mark.parametrize("names", [("text", "label"), ("utterance", "intent"), ("body", "kind")])
def test_many_labels_are_labels(tmp_path: Path, count: int, each: int, names: tuple[str, str]) -> None:
    """Before, more than 50 were refused, or silently read as texts to be written."""
    rows = [{names[0]: f"text {i}", names[1]: f"intent {i % count}"} for i in range(count * each)]
    task = task_of(tmp_path, rows)
    assert task.kind == "classification"
    assert len(task.labels() or ()) == count


def test_named_labels_may_be_as_many_as_a_person_likes(tmp_path: Path) -> None:
    rows = [{"text": f"text {i}", "label": f"intent {i % 1_500}"} for i in range(2_000)]
    with pytest.raises(InputError, match=r"1,500 distinct values in 2,000 rows, too many.*--label-column label"):
        task_of(tmp_path, rows)
    assert len(task_of(tmp_path, rows, label_column="label").labels() or ()) == 1_500


@pytest.mark.parametrize("label", ["two\nlines", "long " * 30])
def test_labels_that_are_no_words_are_refused_for_what_they_are(tmp_path: Path, label: str) -> None:
    """Three of them were "too many"."""
    rows = labelled([label, "app", "map"] * 30)
    with pytest.raises(InputError, match=r"holds '.*', a label of several lines or more than 100 char.*--label-column"):
        task_of(tmp_path, rows)
    assert len(task_of(tmp_path, rows, label_column="label").labels() or ()) == 3


def test_long_answers_that_come_again_are_no_labels(tmp_path: Path) -> None:
    rows = [{"english": f"text {i}", "german": f"{'wort ' * 30}{i % 20}"} for i in range(100)]
    assert task_of(tmp_path, rows).kind == "generation"


def test_few_targets_hint_at_labels(tmp_path: Path) -> None:
    rows = [{"question": f"Is {i} even?", "answer": i % 2 == 0} for i in range(60)]
    task = task_of(tmp_path, rows)
    assert "the targets have only 2 different values; --label-column answer takes them as labels" in task.warnings
    assert task_of(tmp_path, rows, label_column="answer").labels() == (" false", " true")


def test_bad_rows_are_all_named_or_all_left_out_and_listed(tmp_path: Path) -> None:
    rows = [{"text": f"text {i}", "label": None if i % 4 == 0 else "xy"[i % 2]} for i in range(120)]
    rows[5]["text"] = " "
    with pytest.raises(InputError) as caught:
        task_of(tmp_path, rows)
    message = str(caught.value)
    assert "t.jsonl, line 1: column 'label' is missing, null" in message
    assert "; line 6: column 'text' is empty; line 9: column 'label'" in message
    assert message.count("line ") == 20
    assert "; and 11 more (31 such rows)" in message
    assert "--skip-bad-rows" in message
    task = task_of(tmp_path, rows, skip_bad_rows=True)
    assert sum(task.sizes.values()) == 89
    listed = next(warning for warning in task.warnings if "left out" in warning)
    assert "31 of 120 rows are left out: line 1: column 'label'" in listed
    assert "line 73" in listed
    assert listed.endswith("; and 11 more")
    with pytest.raises(InputError, match="no row is left"):
        task_of(tmp_path, [{"text": "a", "label": None}] * 60, skip_bad_rows=True)


def write(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.mark.parametrize("name", ["", "Unnamed: 0", "__index_level_0__"])
@pytest.mark.parametrize("order", [1, -1])
def test_the_index_that_pandas_writes_is_left_out_and_said(tmp_path: Path, name: str, order: int) -> None:
    """With three columns of unusual names nothing could be told; and a text column was an index in others."""
    rows = [(i, f"text {i}", "xy"[i % 2]) for i in range(60)][::order]
    task = task_from(write(tmp_path / "t.csv", (name, "body", "stars"), rows))
    assert task.labels() == (" x", " y")
    assert task.reading.unused == ((name, "it only numbers the rows"),)


def test_a_column_without_a_name_that_is_no_index_is_not_left_out(tmp_path: Path) -> None:
    rows = [(i % 7, f"text {i}", "xy"[i % 2]) for i in range(60)]
    with pytest.raises(InputError, match="column 1 has no name in the first row"):
        task_from(write(tmp_path / "t.csv", ("", "text", "label"), rows))
    task = task_from(write(tmp_path / "t.csv", ("Unnamed: 0", "text", "label"), rows))
    assert any("not used: Unnamed: 0" in warning for warning in task.warnings)  # type: ignore[attr-defined]


def test_rows_of_the_same_text_are_one_group(tmp_path: Path) -> None:
    """100 texts three times gave a test split of 51 items of which 17 are different, and an interval for 51."""
    rows = [{"text": f"text {i % 100}", "label": "xy"[i % 2]} for i in range(300)]
    task = task_of(tmp_path, rows)
    groups = task.groups("test")
    items = task.held_out("test")
    assert len(groups) == len(items) == 3 * len(set(groups))
    assert set(Counter(groups).values()) == {3}
    assert all(
        (a.prompt == b.prompt) == (g == h)
        for a, g in zip(items, groups, strict=True)
        for b, h in zip(items, groups, strict=True)
    )
    assert task.groups("test", 10) == groups[:10] == groups_of(task, "test", 10)
    assert any(f"only {len(items)} items, of which {len(set(groups))} are different" in one for one in task.warnings)
    assert "300 rows hold 100 different texts; rows of the same text count as one in the intervals" in task.warnings


def test_rows_of_a_group_are_in_one_split_and_one_group(tmp_path: Path) -> None:
    rows = [{"passage": f"{'long ' * 10}{i // 5}", "question": f"why {i}?", "answer": f"so {i}"} for i in range(400)]
    hint = "column 'passage' has 80 values in 400 rows, so train and test share some of them; --group-column passage"
    assert any(warning.startswith(hint) for warning in task_of(tmp_path, rows).warnings)
    task = task_of(tmp_path, rows, group_column="passage")
    assert not any(warning.startswith("column 'passage' has") for warning in task.warnings)
    found = {split: {row.group for row in task.rows(split)} for split in ("train", "validation", "test")}  # type: ignore[arg-type]
    assert not found["train"] & (found["validation"] | found["test"])
    assert not found["validation"] & found["test"]
    assert set(Counter(task.groups("test")).values()) == {5}
    with pytest.raises(InputError, match="has no column 'page'"):
        task_of(tmp_path, rows, group_column="page")


def test_rows_whose_group_is_empty_are_no_group(tmp_path: Path) -> None:
    """Two thirds of the rows were one group, and the validation split of 300 had 208."""
    rows = [{"text": f"text {i}", "label": "xy"[i % 2], "author": "" if i % 3 else f"a{i}"} for i in range(300)]
    task = task_of(tmp_path, rows, group_column="author")
    assert task.sizes["train"] > 190
    assert "rows without a value in column 'author', each on its own: 200" in task.warnings
    assert not any("are one group" in one for one in task.warnings)


@pytest.mark.parametrize("name", ["NA", "nan", "None", "null", "?", "missing"])
def test_a_group_whose_name_looks_like_nothing_stays_in_one_split_and_is_said(tmp_path: Path, name: str) -> None:
    """Of the regions EU, AS, SA and NA the last one's rows stood in train and test."""
    regions = (name, *(f"R{nth}" for nth in range(19)))
    rows = [{"text": f"text {i}", "label": "xy"[i // 20 % 2], "region": regions[i % 20]} for i in range(400)]
    task = task_of(tmp_path, rows, group_column="region")
    splits = [split for split in ("train", "validation", "test") for row in task.rows(split) if row.group == name]  # type: ignore[arg-type]
    assert len(splits) == 20
    assert len(set(splits)) == 1
    assert any(f"look like missing values: {name!r} (20 rows); the rows of each are" in one for one in task.warnings)


def test_a_group_of_a_large_part_of_the_rows_is_said(tmp_path: Path) -> None:
    rows = [{"text": f"text {i}", "label": "xy"[i % 2], "author": "me" if i % 5 < 2 else f"a{i}"} for i in range(300)]
    said = "120 of 300 rows are one group by column 'author' ('me') and stand in one split, so the splits are uneven: "
    warnings = task_of(tmp_path, rows, group_column="author").warnings
    assert [one for one in warnings if one.startswith(said)]


def test_groups_of_a_task_without_groups_are_its_equal_prompts() -> None:
    class Twice:
        name = "twice"

        def labels(self) -> None:
            return None

        def held_out(self, split: str, n: int | None = None) -> list[Item]:
            return [Item("a", "1"), Item("b", "2"), Item("a", "3")][:n]

        def sample(self, n: int, rng: Any) -> list[Item]:
            return self.held_out("test")

        def fingerprint(self) -> str:
            return ""

    assert groups_of(Twice(), "test") == (0, 1, 0)


def test_splits_are_stratified(tmp_path: Path) -> None:
    rows = labelled([("rare" if i % 20 == 0 else "common") for i in range(400)])
    task = task_of(tmp_path, rows)
    counts = {split: Counter(row.answer for row in task.rows(split)) for split in ("validation", "test")}  # type: ignore[arg-type]
    assert counts["test"]["rare"] == 4  # a fifth of 20
    assert counts["validation"]["rare"] == 2
    assert counts["test"]["common"] == pytest.approx(76, abs=3)


def test_texts_of_train_in_another_case_are_counted(tmp_path: Path) -> None:
    rows = [*labelled(["x", "y"] * 50), *({"text": f"TEXT  {i}!", "label": "xy"[i % 2]} for i in range(100))]
    assert any(
        "in train too but for case, white space, punctuation or how" in one for one in task_of(tmp_path, rows).warnings
    )
    assert not any("but for case" in one for one in task_of(tmp_path, labelled(["x", "y"] * 50)).warnings)


@pytest.mark.parametrize("twin", ["cafe\u0301 {}", "ca\u200bf\u00e9 {}", "\uff43af\u00e9 {}"])
def test_texts_of_train_in_other_characters_are_counted(tmp_path: Path, twin: str) -> None:
    """The same text stood in train and in test, composed in another way."""
    texts = [form.format(i) for i in range(100) for form in ("caf\u00e9 {}", twin)]
    warnings = task_of(tmp_path, [{"text": text, "label": "xy"[i % 2]} for i, text in enumerate(texts)]).warnings
    assert any("in train too but for case, white space, punctuation or how characters" in one for one in warnings)


@pytest.mark.parametrize("signs", ["+-", "*/", "%-", "<>", "=+", "^*"])
def test_other_signs_between_numbers_are_other_texts(tmp_path: Path, signs: str) -> None:
    """All of 288 different sums and differences: 35 texts of the test split were said to be in train too."""
    rows = [
        {"prompt": f"{a} {sign} {b} =", "target": f"{a}{sign}{b}"}
        for a in range(12)
        for b in range(12)
        for sign in signs
    ]
    assert not any("are in train too" in one for one in task_of(tmp_path, rows).warnings)


@pytest.mark.parametrize(
    ("one", "other", "is_twin"),
    [
        ("good \U0001f600", "good \U0001f621", False),
        ("C++ or not", "C# or not", False),
        ("it is -3", "it is 3", False),
        ("x - y", "x * y", False),
        ("3-4", "3\N{MINUS SIGN}4", True),
        ("a well-known film", "A well known film!", True),
        ("covid-19", "Covid 19", True),
        ("\u201cfine\u201d, he said", '"fine" he said.', True),
    ],
)
def test_texts_are_alike_but_for_punctuation_and_not_for_signs(one: str, other: str, is_twin: bool) -> None:
    assert (_plain(one) == _plain(other)) is is_twin


def test_texts_of_other_vowel_signs_are_other_texts(tmp_path: Path) -> None:
    signs = "\u093e\u093f\u0940\u0941\u0942\u0947\u0948\u094b\u094c"
    texts = [f"\u0915{a}\u0924{b}" for a in signs for b in signs]
    warnings = task_of(tmp_path, [{"text": text, "label": "xy"[i % 2]} for i, text in enumerate(texts)]).warnings
    assert not any("but for case" in one for one in warnings)


def test_white_space_that_the_separator_replaces_is_said(tmp_path: Path) -> None:
    """Code was joined by a blank, its line break and its indentation gone without a word."""
    rows = [{"prompt": f"def f{i}(x):\n", "completion": f"    return x + {i}\n"} for i in range(60)]
    rows += [{"prompt": f"def g{i}(x):", "completion": f" return x + {i}"} for i in range(20)]
    said = "60 of 80 rows have white space where prompt and target join, which is replaced by the separator ' '; "
    assert f"{said}--separator '\\n    ' writes what most of them have" in task_of(tmp_path, rows).warnings
    chosen = task_of(tmp_path, rows, separator="\\n    ")
    assert chosen.held_out("test", 1)[0].target.startswith("\n    return")
    assert not any("join" in one for one in chosen.warnings)
    shown = task_of(tmp_path, rows, template="{prompt}\\n#")  # behind which the prompt's own end is no join
    assert any(one.startswith(said) and one.endswith("'    ' writes what most of them have") for one in shown.warnings)


def test_texts_and_targets_of_nothing_are_counted(tmp_path: Path) -> None:
    rows = [{"prompt": f"say {i}" if i else "NaN", "target": "nan" if i % 4 else f"it {i}"} for i in range(60)]
    warnings = task_of(tmp_path, rows).warnings
    assert "targets that look like missing values: 'nan' (45 rows); they are taken as targets" in warnings
    assert "texts that look like missing values: 'NaN' (1 rows); they are taken as texts" in warnings


def test_targets_that_contradict_each_other_are_counted(tmp_path: Path) -> None:
    rows = [{"prompt": f"p {i % 50}", "target": f"t {i}"} for i in range(100)]
    assert "texts that occur with different targets: 50 (they stay in the data)" in task_of(tmp_path, rows).warnings


def test_a_long_field_is_read_and_the_limit_of_the_process_stays(tmp_path: Path) -> None:
    rows = [("word " * 30_000 if i == 7 else f"text {i}", "ab"[i % 2]) for i in range(80)]
    before = csv.field_size_limit()
    task = task_from(write(tmp_path / "t.csv", ("text", "label"), rows))
    assert sum(task.sizes.values()) == 80  # type: ignore[attr-defined]
    assert csv.field_size_limit() == before == 131_072


def test_a_frame_and_a_data_set_in_memory_are_the_file(tmp_path: Path) -> None:
    import datasets
    import pandas
    import pyarrow

    rows = [{"text": f"text {i}", "label": ("b", "a")[i % 2]} for i in range(100)]
    expected = task_of(tmp_path, rows).fingerprint()
    columns = {"text": [row["text"] for row in rows], "label": [row["label"] for row in rows]}
    for data in (
        pandas.DataFrame(rows),
        pandas.DataFrame(rows).astype({"label": "category"}).sample(frac=1, random_state=0).sort_index(),
        datasets.Dataset.from_list(rows),
        datasets.DatasetDict({"train": datasets.Dataset.from_list(rows)}),
        pyarrow.Table.from_pylist(rows),
        rows,
        columns,
        {"train": rows},
    ):
        task = task_from(data)
        assert (task.name, task.fingerprint()) == ("data", expected)


def test_data_in_memory_take_the_options_and_splits_of_their_own() -> None:
    import pandas

    frame = pandas.DataFrame({"body": [f"text {i}" for i in range(60)], "stars": [1, 5] * 30, "Unnamed: 0": range(60)})
    frame.loc[3, "stars"] = None
    with pytest.raises(InputError, match="data, row 3: column 'stars' is missing"):
        task_from(frame)
    task = task_from(frame, text_column="body", label_column="stars", skip_bad_rows=True, test=frame.tail(10))
    assert task.labels() == (" 1", " 5")
    assert task.sizes["test"] == 10  # type: ignore[attr-defined]
    assert task_from({"train": frame.head(50), "dev": frame.tail(10)}, skip_bad_rows=True).sizes["validation"] == 10  # type: ignore[attr-defined]


@pytest.mark.parametrize("data", [3, object(), [], [1, 2], {}, {"a": 1}, ["text"]])
def test_what_is_no_data_is_no_task(data: Any) -> None:
    with pytest.raises(InputError, match="is no task"):
        task_from(data)


def test_pandas_things_that_are_no_frame_and_streams_are_refused() -> None:
    import datasets
    import pandas

    with pytest.raises(InputError, match="Series is no table"):
        task_from(pandas.Series([1]))
    with pytest.raises(InputError, match="data has no rows"):
        task_from(pandas.DataFrame({"text": [], "label": []}))
    with pytest.raises(InputError, match="two columns have the name 'a'"):
        task_from(pandas.DataFrame([[1, 2]], columns=["a", "a"]))
    stream = datasets.Dataset.from_list([{"text": "a", "label": "b"}]).to_iterable_dataset()
    with pytest.raises(InputError, match="is a stream without an end"):
        task_from(stream)


def test_gzip_in_the_name_is_enough(tmp_path: Path) -> None:
    rows = "".join(f"text {i},{'xy'[i % 2]}\n" for i in range(60))
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(f"text,label\n{rows}".encode()))
    assert task_from(str(tmp_path / "t.csv.gz")).labels() == (" x", " y")
    with pytest.raises(InputError, match=r"nowhere.csv.gz: there is no such file"):
        task_from("nowhere.csv.gz")


def test_numbers_of_numpy_are_numbers_and_columns_may_be_arrays() -> None:
    import numpy as np
    import pandas

    texts = [f"text {i}" for i in range(60)]
    for labels in ([np.int64(i % 2) for i in range(60)], [np.float32(i % 2) for i in range(60)]):
        rows = [{"text": text, "label": label} for text, label in zip(texts, labels, strict=True)]
        assert task_from(rows).labels() == (" 0", " 1")
        assert task_from({"text": tuple(texts), "label": np.array(labels)}).labels() == (" 0", " 1")
        assert task_from({"text": pandas.Series(texts), "label": labels}).labels() == (" 0", " 1")
    truths = [{"text": text, "label": np.bool_(i % 2)} for i, text in enumerate(texts)]
    assert task_from(truths).labels() == (" false", " true")
    with pytest.raises(InputError, match="row 0: column 'label' is missing"):
        task_from([{"text": text, "label": 10**5_000} for text in texts])


def test_splits_of_other_names_are_said(tmp_path: Path) -> None:
    import datasets

    rows = labelled(["x", "y"] * 50)
    said = "splits of the data that are not used: extra"
    assert said in task_from({"train": rows, "extra": rows}).warnings  # type: ignore[attr-defined]
    part = datasets.Dataset.from_list(list(rows))
    assert said in task_from(datasets.DatasetDict({"train": part, "extra": part})).warnings  # type: ignore[attr-defined]


def test_the_answer_is_no_group(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'label' is the answer and cannot group the rows"):
        task_of(tmp_path, labelled(["x", "y"] * 50), group_column="label")


def turns(*said: str) -> list[dict[str, str]]:
    """Turns of the user and the assistant by turns."""
    return [{"role": "assistant" if nth % 2 else "user", "content": text} for nth, text in enumerate(said)]


@pytest.mark.parametrize(
    "form", ["whole conversations", "answers as turns", "answers as texts", "a prompt beside whole ones"]
)
def test_of_two_answers_the_chosen_one_is_to_be_written(tmp_path: Path, form: str) -> None:
    """Whole conversations were read as texts with labels, and the label was the answer that people had rejected."""
    rows: list[dict[str, Any]] = []
    for n in range(60):
        asked, good, bad = f"film {n}", f"yes {n % 2}", f"no {n % 2}"
        whole = {"chosen": turns(asked, good), "rejected": turns(asked, bad)}
        rows.append(
            {
                "whole conversations": whole,
                "a prompt beside whole ones": {"prompt": asked, **whole},
                "answers as turns": {
                    "prompt": turns(asked),
                    "chosen": [{"role": "assistant", "content": good}],
                    "rejected": [{"role": "assistant", "content": bad}],
                },
                "answers as texts": {"prompt": asked, "chosen": good, "rejected": bad},
            }[form]
        )
    task = task_of(tmp_path, rows)
    assert task.labels() is None
    for item in task.held_out("test"):
        text = item.prompt if isinstance(item.prompt, str) else item.prompt[0].content  # type: ignore[union-attr]
        assert text.startswith("film ")
        assert isinstance(item.prompt, str) or len(item.prompt) == 1
        assert str(item.target).strip() == f"yes {int(text.split()[1]) % 2}"


@pytest.mark.parametrize("form", ["texts", "turns", "a whole conversation", "csv"])
def test_answers_that_people_did_not_want_are_left_out(tmp_path: Path, form: str) -> None:
    """Rows for KTO: a wrong answer marked false was trained on, and scored, as if it were right."""
    rows: list[dict[str, Any]] = []
    for n in range(90):
        asked, said, is_wanted = f"film {n}", f"{'no' if n % 3 == 1 else 'yes'} {n % 2}", n % 3 != 1
        talk = turns(asked, said)
        rows.append(
            {
                "texts": {"prompt": asked, "completion": said, "label": is_wanted},
                "turns": {"prompt": talk[:1], "completion": talk[1:], "label": is_wanted},
                "a whole conversation": {"messages": talk, "label": is_wanted},
                "csv": {"prompt": asked, "completion": said, "label": str(is_wanted)},
            }[form]
        )
    task = task_of(tmp_path, rows)
    assert task.labels() is None
    assert sum(task.sizes.values()) == 60
    assert all(str(item.target).strip().startswith("yes") for item in task.held_out("test"))
    assert any("30 of 90 rows are left out: 'label' marks their answers as not wanted" in one for one in task.warnings)
    assert task.reading is not None
    assert task.reading.unused == ()
    with pytest.raises(InputError, match="says of every answer that it is not wanted"):
        task_of(tmp_path, [{**row, "label": False} for row in rows])


def test_a_column_label_of_other_values_marks_nothing(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"film {n}", "completion": f"yes {n}", "label": ("true", "false", "maybe")[n % 3]} for n in range(60)
    ]
    assert sum(task_of(tmp_path, rows).sizes.values()) == 60
    asked = [{**row, "label": ("true", "false")[n % 2]} for n, row in enumerate(rows)]
    shown = task_of(tmp_path, asked, template="{prompt} {label}")
    assert sum(shown.sizes.values()) == 60
    labelled = [{"text": row["prompt"], "label": row["label"]} for row in asked]
    assert task_of(tmp_path, labelled).labels() == (" false", " true")


def test_two_answers_without_a_prompt_are_refused(tmp_path: Path) -> None:
    rows = [{"chosen": f"Human: {n} Assistant: yes", "rejected": f"Human: {n} Assistant: no"} for n in range(60)]
    with pytest.raises(InputError, match="cannot tell which columns to use"):
        task_of(tmp_path, rows)


def test_numbers_of_fewer_digits_are_written_as_short_as_they_are(tmp_path: Path) -> None:
    """0.6 of a column of float32 was written 0.6000000238418579."""
    import datasets
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    from pyarrow import parquet

    texts, numbers = [f"text {i}" for i in range(60)], [i / 10 for i in range(60)]
    wanted = task_from([{"prompt": text, "target": n} for text, n in zip(texts, numbers, strict=True)]).fingerprint()
    for kind in ("float16", "float32", "float64"):
        array = np.array(numbers, dtype=kind)
        frame = pd.DataFrame({"prompt": texts, "target": array})
        table = pa.table({"prompt": texts, "target": pa.array(array)})
        parquet.write_table(table, tmp_path / "t.parquet")
        inner = pa.table({"a": pa.array([{"prompt": t, "target": n} for t, n in zip(texts, array, strict=True)])})
        forms = [frame, table, {"prompt": texts, "target": array}, tmp_path / "t.parquet", datasets.Dataset(table)]
        forms += [[{"prompt": text, "target": n} for text, n in zip(texts, array, strict=True)]]
        forms += [frame.astype({"target": f"{'half' * (kind == 'float16')}float[pyarrow]"})] if "64" not in kind else []
        forms += [frame.astype({"target": kind.title()})] if kind != "float16" else []
        assert {task_from(form).fingerprint() for form in forms} == {wanted}
        found = task_from(inner, prompt_column="a.prompt", target_column="a.target")
        assert {item.target for item in found.held_out("test")} <= {f" {n:g}" for n in numbers}


def test_a_missing_number_of_fewer_digits_is_missing() -> None:
    import pandas as pd
    import pyarrow as pa

    numbers = [None if i % 6 == 0 else i / 10 for i in range(60)]
    for column in (pd.array(numbers, dtype="Float32"), pd.array(numbers, dtype="float32")):
        with pytest.raises(InputError, match=r"row 0: column 'target' is missing.*10 such rows"):
            task_from(pd.DataFrame({"prompt": [f"text {i}" for i in range(60)], "target": column}))
    lists = pa.table(
        {
            "prompt": [f"text {i}" for i in range(60)],
            "answers": pa.array([{"n": [0.1, 0.6]}] * 60, type=pa.struct({"n": pa.list_(pa.float32())})),
        }
    )
    assert task_from(lists, target_column="answers.n").held_out("test", 1)[0].accepted == ("0.1", "0.6")


def test_marks_of_wanted_answers_may_be_numbers_beside_prompt_and_completion(tmp_path: Path) -> None:
    """Completions marked 0 were trained on as right answers."""
    rows = [{"prompt": f"film {n}", "completion": f"yes {n}", "label": n % 4 != 0} for n in range(80)]
    wanted = task_of(tmp_path, rows).fingerprint()
    for marks in ([1, 0], ["1", "0"], ["true", "false"], ["True", "False"], [1.0, 0.0]):
        task = task_of(tmp_path, [{**row, "label": marks[n % 4 == 0]} for n, row in enumerate(rows)])
        assert task.fingerprint() == wanted
        assert task.reading is not None
        assert ("label", "whether an answer is wanted (true or 1) or not (false or 0)") in task.reading.used
        assert any("20 of 80 rows are left out: 'label' marks their answers as not" in note for note in task.warnings)
    others = [{"prompt": row["prompt"], "response": row["completion"], "label": n % 2} for n, row in enumerate(rows)]
    assert sum(task_of(tmp_path, others).sizes.values()) == 80
