"""The reading of a task's data, said back: at 80 columns, in the report and as JSON, nothing left unsaid."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from elicitable.report.html import write_page
from elicitable.report.reading import print_reading, reading_section, reading_to_json
from elicitable.tasks.catalog import task_from
from elicitable.tasks.reading import Lengths, Summary, summary_of
from elicitable.values import Item


def printed(summary: Summary, width: int = 80) -> str:
    stream = io.StringIO()
    print_reading(summary, Console(file=stream, width=width))
    return stream.getvalue()


def rows(n: int = 200) -> list[dict[str, Any]]:
    return [
        {"": i, "title": f"title {i}", "content": f"body {i} " + "long " * i, "label": f"<b>{'xyz'[i % 3]}", "by": "me"}
        for i in range(n)
    ]


def test_everything_that_was_understood_is_printed() -> None:
    text = printed(summary_of(task_from(rows())))
    for line in (
        "data: classification, 3 labels",
        "  read      content, title",
        "  label     label",
        "  not used  by; (no name) (it only numbers the rows)",
        "  shown as  {title}\\n{content}\\nLabel: …",
        "  splits    train 141, validation 19, test 40",
        "  labels    <b>x: train 48, validation 6, test 13",
        "            <b>y: train 48",
        "  example   title ",
        "            body ",
        "            Label: → <b>",
        "warning: a column that is not used: by (a template can show them, by name: {by})",
    ):
        assert line in text, (line, text)


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    lines = printed(summary_of(task_from(rows())), width).splitlines()
    assert max(map(cell_len, lines)) <= width
    assert [line for line in lines if line != line.rstrip()] == []


def test_a_long_example_is_cut_in_the_terminal_and_whole_elsewhere() -> None:
    summary = summary_of(task_from([{"text": "word " * 5_000 + str(i), "label": "xy"[i % 2]} for i in range(60)]))
    text = printed(summary)
    assert " characters …] " in text
    assert len(text) < 2_500
    assert reading_to_json(summary)["example"]["prompt"] == summary.example.prompt
    assert len(summary.example.prompt) > 25_000
    assert str(summary.example.prompt) in reading_section(summary).html


def test_of_many_labels_the_most_frequent_are_printed_and_all_are_kept() -> None:
    many = [{"text": f"text {i}", "label": f"intent {i % 77 if i < 385 else 0}"} for i in range(400)]
    summary = summary_of(task_from(many))
    text = printed(summary)
    assert "  labels    intent 0: train " in text
    assert "            and 65 more, down to intent 9: 5 rows" in text
    assert len(reading_to_json(summary)["labels"]) == 77
    assert reading_section(summary).html.count("<tr><td>intent") == 77


def test_the_section_escapes_what_is_in_the_data_and_stands_in_a_page(tmp_path: Path) -> None:
    section = reading_section(summary_of(task_from(rows())))
    assert "<b>" not in section.html
    assert "&lt;b&gt;x" in section.html
    assert section.title in write_page("data", [section], tmp_path / "page.html").read_text("utf-8")


def test_the_json_is_strict_and_has_every_field() -> None:
    found = reading_to_json(summary_of(task_from(rows())))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["sizes"] == {"train": 141, "validation": 19, "test": 40}
    assert found["labels"]["<b>x"] == {"train": 48, "validation": 6, "test": 13}
    assert found["reading"]["unused"] == [["by", ""], ["", "it only numbers the rows"]]
    assert found["warnings"][0].startswith("a column that is not used: by")


def test_conversations_are_shown_turn_by_turn() -> None:
    talk = [
        {"messages": [{"role": "user", "content": f"say {i}"}, {"role": "assistant", "content": "x"}]}
        for i in range(60)
    ]
    summary = summary_of(task_from(talk))
    text = printed(summary)
    assert "  read, but its last answer: the target messages" in text
    assert "shown as  the messages of a conversation, in the model's chat template" in text
    assert f"  example   user: {summary.example.prompt[0].content}\n            assistant: →x" in text  # type: ignore[union-attr]


def test_lengths_are_median_95_of_100_and_longest() -> None:
    texts = ["x" * length + " y" for length in range(1, 101)]
    summary = summary_of(task_from([{"prompt": text, "target": f"t {len(text)}"} for text in texts]))
    assert summary.lengths["prompt characters"] == Lengths(52, 97, 102)
    assert summary.lengths["prompt words"] == Lengths(2, 2, 2)
    assert summary.distinct == summary.sizes


@pytest.mark.parametrize("name", ["ascending", "mixed"])
def test_a_task_of_token_ids_has_a_summary_too(name: str) -> None:
    summary = summary_of(task_from(name))
    assert summary.lengths["prompt tokens"].longest == summary.lengths["target tokens"].longest == 10
    assert summary.reading is None
    assert f"{name}: generation\n  splits    validation " in printed(summary)


def test_a_persons_own_task_has_a_summary() -> None:
    class Parity:
        name = "parity"
        warnings = ("mine",)

        def labels(self) -> tuple[str, ...]:
            return (" even", " odd")

        def sample(self, n: int, rng: Any) -> list[Item]:
            return self.held_out("test")[:n]

        def held_out(self, split: str, n: int | None = None) -> list[Item]:
            return [Item(f"Is {i % 7} even or odd?", self.labels()[i % 7 % 2]) for i in range(14)][:n]

        def fingerprint(self) -> str:
            return "1"

    summary = summary_of(Parity())
    assert summary.sizes == {"validation": 14, "test": 14}
    assert summary.distinct == {"validation": 7, "test": 7}
    assert summary.labels == {"even": {"validation": 8, "test": 8}, "odd": {"validation": 6, "test": 6}}
    assert "warning: mine" in printed(summary)
