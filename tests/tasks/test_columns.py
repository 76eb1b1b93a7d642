"""Which columns are meant."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from elicitable.errors import InputError
from elicitable.tasks.columns import Columns, find_columns, names_like_data, other_reading
from elicitable.tasks.options import TaskOptions
from elicitable.tasks.tables import Table

FEW = [("yes", "no")[i % 2] for i in range(60)]
MANY = [f"value {i}" for i in range(60)]


def table(**columns: Sequence[str]) -> Table:
    rows = tuple(zip(*columns.values(), strict=True))
    return Table("t.csv", tuple(columns), rows, tuple(f"line {i + 2}" for i in range(len(rows))))


CASES = [
    (table(text=MANY, label=FEW), ("classification", "text", "label")),
    (table(id=MANY, Review=MANY, Sentiment=FEW), ("classification", "Review", "Sentiment")),
    (table(label=FEW, text=MANY), ("classification", "text", "label")),
    (table(prompt=MANY, completion=MANY), ("generation", "prompt", "completion")),
    (
        table(instruction=MANY, input=MANY, output=MANY),
        ("generation", "instruction", "output", "{instruction}\n{input}"),
    ),
    (table(question=MANY, answer=MANY), ("generation", "question", "answer")),
    (table(input=MANY, target=MANY), ("generation", "input", "target")),
    (table(input=MANY, target=FEW), ("classification", "input", "target")),
    (table(text=MANY, target=FEW), ("classification", "text", "target")),
    # two columns of unusual names: the one with fewer distinct values is the label
    (table(body=MANY, stars=FEW), ("classification", "body", "stars")),
    (table(stars=FEW, body=MANY), ("classification", "body", "stars")),
    (table(german=MANY, english=MANY[::-1]), ("generation", "german", "english")),
]


@pytest.mark.parametrize(("rows", "expected"), CASES)
def test_columns_are_found(rows: Table, expected: tuple[str, ...]) -> None:
    assert find_columns(rows, TaskOptions()) == Columns(*expected)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (TaskOptions(text_column="a", label_column="b"), ("classification", "a", "b")),
        (TaskOptions(prompt_column="b", target_column="a"), ("generation", "b", "a")),
        (TaskOptions(text_column="a"), ("classification", "a", "label")),
        (TaskOptions(label_column="a"), ("classification", "text", "a")),
        (TaskOptions(prompt_column="a"), ("generation", "a", "output")),
    ],
)
def test_named_columns_are_taken_and_their_partner_found(wanted: TaskOptions, expected: tuple[str, ...]) -> None:
    rows = table(a=MANY, b=FEW, text=MANY, label=FEW, output=MANY)
    assert find_columns(rows, wanted) == Columns(*expected)  # type: ignore[arg-type]


def test_the_partner_of_a_named_column_is_the_other_one_of_two() -> None:
    rows = table(a=MANY, b=FEW)
    assert find_columns(rows, TaskOptions(label_column="b")) == Columns("classification", "a", "b")
    assert find_columns(rows, TaskOptions(prompt_column="b")) == Columns("generation", "b", "a")


@pytest.mark.parametrize(
    ("rows", "wanted", "message"),
    [
        (table(a=MANY, b=FEW), TaskOptions(text_column="c"), "t.csv has no column 'c'; it has the columns a, b"),
        (table(a=MANY), TaskOptions(), "cannot tell which columns to use; it has only the column a"),
        (
            table(a=MANY, b=MANY, c=FEW),
            TaskOptions(),
            r"the columns a, b, c. Name them: .*--text-column, --label-column",
        ),
        (table(a=MANY, b=MANY, c=FEW), TaskOptions(text_column="a"), "cannot tell which columns to use"),
        (table(a=MANY, b=FEW), TaskOptions(text_column="a", target_column="b"), "not both"),
        (
            table(a=MANY, b=FEW),
            TaskOptions(text_column="a", label_column="a"),
            "cannot be both what is read and the answer",
        ),
    ],
)
def test_what_cannot_be_told_is_said(rows: Table, wanted: TaskOptions, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_columns(rows, wanted)


TWO = [
    (table(question=MANY, answer=MANY, category=FEW), "generation", "--label-column category reads"),
    (table(instruction=MANY, context=MANY, response=MANY, category=FEW), "generation", "--label-column category"),
    (table(input=MANY, output=MANY, label=FEW), "classification", "--target-column output reads"),
]


@pytest.mark.parametrize(("rows", "kind", "said"), TWO)
def test_of_two_readings_the_other_one_and_its_option_are_said(rows: Table, kind: str, said: str) -> None:
    """Dolly's and others' free answers were left out, and what a row is about was asked for."""
    for wanted in (TaskOptions(), TaskOptions(template=f"{{{rows.columns[0]}}}")):
        found = find_columns(rows, wanted)
        assert found.kind == kind
        (note,) = other_reading(rows, wanted, found)
        assert said in note
    option, column = said.split()[:2]
    wanted = TaskOptions(**{option.removeprefix("--").replace("-", "_"): column})
    found = find_columns(rows, wanted)
    assert found.kind == ("generation" if kind == "classification" else "classification")
    assert other_reading(rows, wanted, found) == []


def test_of_one_reading_no_other_is_said() -> None:
    for rows, _ in CASES:
        assert other_reading(rows, TaskOptions(), find_columns(rows, TaskOptions())) == []
    few = table(question=MANY, answer=FEW, category=FEW)
    assert find_columns(few, TaskOptions()) == Columns("classification", "question", "category")
    assert other_reading(few, TaskOptions(), find_columns(few, TaskOptions())) == []


@pytest.mark.parametrize(
    ("names", "is_said"),
    [
        (("What is this?", "It is that"), True),
        (("one two three four", "five"), True),
        (("value 3", "other"), True),  # a text of its own column
        (("customer question", "agent reply"), False),
        (("is it a question of yours", "label"), False),  # the other one has a usual name
        (("0", "1"), False),  # a frame whose columns have no names
    ],
)
def test_names_that_look_like_data_are_said(names: tuple[str, str], is_said: bool) -> None:
    """The first row of a file without names was taken for them, and nothing was said."""
    found = table(**dict(zip(names, (MANY, MANY[::-1]), strict=True)))
    assert bool(names_like_data(found, TaskOptions())) is is_said
    assert names_like_data(found, TaskOptions(text_column=names[0], label_column=names[1])) == []
