"""Labels one by one: every number is there, at 80 columns, and no label gets out of its cell or its line."""

from __future__ import annotations

import json
import re

import pytest
from rich.cells import cell_len

from elicitable.report.classes import classes_json, classes_lines, classes_section, confusions
from elicitable.values import ClassResult, ClassResults

HOSTILE = ("<script>alert(1)</script>", "\x1b[31mred\n", "永" * 40, '"><img src=x>')


def results(labels: tuple[str, ...], outside: int = 0) -> ClassResults:
    """Every label right 10 times, taken for the next one once, and ``outside`` times for no label."""
    size = len(labels)
    counts = tuple(
        (*(10 if j == i else int(size > 1 and j == (i + 1) % size) for j in range(size)), outside) for i in range(size)
    )
    classes = tuple(ClassResult(label, 0.9, 0.8, None, sum(row)) for label, row in zip(labels, counts, strict=True))
    return ClassResults(labels, counts, classes)


def test_two_labels_in_a_terminal() -> None:
    assert classes_lines(results(("positive", "negative"), outside=3)) == [
        "            precision  recall    F1   items",
        "1 positive       0.90    0.80     -      14",
        "2 negative       0.90    0.80     -      14",
        "",
        "target             1        2 no label",
        "1 positive        10        1        3",
        "2 negative         1       10        3",
    ]


@pytest.mark.parametrize("size", [1, 2, 9, 20, 77])
@pytest.mark.parametrize("prefix", ["", "a rather long name of a label, number ", "永" * 30])
def test_no_line_is_wider_than_the_terminal(size: int, prefix: str) -> None:
    found = results(tuple(f"{prefix}{i}" for i in range(size)), outside=1)
    lines = classes_lines(found)
    assert max(map(cell_len, lines)) <= 80
    assert len(lines) >= size + 2


def test_of_many_labels_the_commonest_confusions_are_listed() -> None:
    found = results(tuple(f"intent {i}" for i in range(77)), outside=5)
    assert confusions(found)[0] == ("intent 0", "no label", 5)
    assert len(confusions(found)) == 20
    assert classes_lines(found)[-1] == "    5 times  intent 19 answered as no label"
    assert "The commonest confusions" in classes_section(found).html


def test_the_section_holds_every_number() -> None:
    section = classes_section(results(("yes", "no")), of="kv-prefix")
    assert section.title == "Labels one by one: kv-prefix"
    assert re.findall(r"<td>(.*?)</td>", section.html) == ["0.90", "0.80", "-", "11"] * 2 + ["10", "1", "1", "10"]
    assert "no label" not in section.html


@pytest.mark.parametrize("size", [4, 24])
def test_no_label_gets_out_of_its_cell_or_line(size: int) -> None:
    found = results((*HOSTILE, *map(str, range(size - 4))), outside=1)
    section, lines = classes_section(found), classes_lines(found)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in section.html
    assert set(re.findall(r"<(\w+)", section.html)) == {"p", "div", "table", "thead", "tbody", "tr", "th", "td"}
    assert all(line.isprintable() for line in lines)
    assert "\x1b" not in section.html


def test_json_is_strict_and_whole() -> None:
    record = json.loads(json.dumps(classes_json(results(HOSTILE)), allow_nan=False))
    assert record["labels"] == list(HOSTILE)
    assert record["confusion"][0] == [10, 1, 0, 0, 0]
    assert record["classes"][1] == {"label": HOSTILE[1], "precision": 0.9, "recall": 0.8, "f1": None, "support": 11}
