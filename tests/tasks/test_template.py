"""Templates: slots, separators, several columns, and lines that are left out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elicitable.errors import InputError, UnknownNameError
from elicitable.tasks.splitting import Row
from elicitable.tasks.template import Template


@pytest.mark.parametrize(
    ("template", "separator", "prompt", "target"),
    [
        ("{text}", None, "T", " A"),
        ("{text}\nLabel:", None, "T\nLabel:", " A"),
        ("{text}\nLabel: ", None, "T\nLabel:", " A"),
        ("Q {text}\n", None, "Q T", "\nA"),
        ("{text}\\nLabel:\\t", None, "T\nLabel:", "\tA"),
        ("{text}:", "", "T:", "A"),
        ("{text}:", "\\n\\t", "T:", "\n\tA"),  # as a line break in the template
        ("{x} {{text}}", None, "{x} {T}", " A"),
    ],
)
def test_templates(template: str, separator: str | None, prompt: str, target: str) -> None:
    item = Template.parse(template, "classification", separator).item(Row(("T",), "A"))
    assert (item.prompt, item.target) == (prompt, target)


@given(st.text(), st.text())
def test_a_text_enters_the_template_verbatim(text: str, answer: str) -> None:
    item = Template.parse("Review: {text}\nLabel:", "classification").item(Row((text,), answer))
    assert item.prompt + item.target == f"Review: {text}\nLabel: {answer}"


@pytest.mark.parametrize(
    ("template", "kind", "slot"),
    [
        ("no slot", "classification", "{text}"),
        ("no slot", "generation", "{prompt}"),
        ("{text}{text}", "classification", ""),
    ],
)
def test_a_template_needs_its_slot_once(template: str, kind: Any, slot: str) -> None:
    with pytest.raises(InputError, match=r"must contain {.*} exactly once") as caught:
        Template.parse(template, kind)
    assert slot in str(caught.value)


def test_columns_go_by_name_and_the_main_slot_is_the_main_column() -> None:
    columns = ["title", "body", "id"]
    two = Template.parse("{title}: {text} ({id})", "classification", None, columns, "body")
    assert two.names == ("body", "id", "title")
    assert two.item(Row(("It rained.", "7", "Weather"), "news")).prompt == "Weather: It rained. (7)"
    assert Template.parse("{body}", "generation", None, columns, "body").names == ("body",)
    assert Template.parse("{prompt}", "classification", None, columns, "body").names == ("body",)
    named = Template.parse("{text}\n{title}", "classification", None, ["title", "text"], "title")
    assert named.names == ("text", "title")  # a column of that name is that column


def test_a_line_whose_columns_are_all_empty_is_left_out() -> None:
    form = Template.parse("Task: {a}\nInput: {b}, {c}\n\nAnswer:", "generation", None, ["a", "b", "c"], "a")
    assert form.item(Row(("add", "", ""), "x")).prompt == "Task: add\n\nAnswer:"
    assert form.item(Row(("add", "", "3"), "x")).prompt == "Task: add\nInput: , 3\n\nAnswer:"
    assert form.item(Row(("two\nlines", "1", "3"), "x")).prompt == "Task: two\nlines\nInput: 1, 3\n\nAnswer:"


def test_a_name_that_is_no_column_is_said_and_braces_of_other_things_stay() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown column in the template .* 'tilte': did you mean 'title'"):
        Template.parse("{tilte}\n{text}", "classification", None, ["title", "body"], "body")
    with pytest.raises(InputError, match=r"exactly once, or columns by name: {title}, {body}"):
        Template.parse("{title} {title}", "classification", None, ["title", "body"], "body")
    json = Template.parse('{text}\nAs JSON: {"label": …}', "classification", None, ["title", "body"], "body")
    assert json.item(Row(("T",), "A")).prompt == 'T\nAs JSON: {"label": …}'


@given(st.lists(st.text(), min_size=2, max_size=2), st.text(alphabet="ab {\n:", min_size=1))
def test_several_columns_that_are_all_filled_enter_verbatim(cells: list[str], between: str) -> None:
    cells = [cell or "-" for cell in cells]
    form = Template.parse("<{a}" + between + "{b}>", "generation", None, ["a", "b"], "a")
    assert form.item(Row(tuple(cells), "x")).prompt == f"<{cells[0]}{between}{cells[1]}>"
