"""Hard and virtual tokens in the report and in the terminal: every number is there, and no token gets out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from elicitable.diagnosis.distinct import Distinct
from elicitable.records.reach import HardReach, ReachExample, TokenReach, VirtualReach
from elicitable.report.token_reach import reach_lines, shown, token_reach_section

COUNTED = Distinct(2000, 49_152, 1500, 1300, 80, 0.73, 0.77, 20_111.4, 32_148.8, 15_000.2, 33_000.7)
FOUND = TokenReach(
    model="smol<b>",
    vocab=49_152,
    d_model=576,
    start="<|im_start|>",
    length=10,
    seed=0,
    hard=HardReach(
        COUNTED,
        (("\n\n\n", 31),),
        (ReachExample("<script>alert(1)</script>", "writes & goes on"), ReachExample("\x1b[31m", "\udc80 red")),
        60.0,
    ),
    virtual=VirtualReach(
        "model",
        64,
        60,
        0.85,
        0.975,
        64,
        0.981,
        0.03,
        300,
        ({"rate": 0.03, "reached": 3, "tried": 4, "loss_nats": 0.31},),
        (
            ReachExample("virtual token 1", "<i>hit</i>", "<i>hit</i>", True, 80),
            ReachExample("virtual token 2", "wrote", "wanted", False, 0),
        ),
        540.0,
    ),
    seconds=600.0,
)


def test_the_section_has_the_numbers_and_escapes_every_token() -> None:
    section = token_reach_section(FOUND)
    for text in (
        "1,500 distinct",
        "[73.0 %, 77.0 %]",
        "20,111",
        "32,149",
        "15,000 to 33,001",
        "31 tokens",
        "&lt;|im_start|&gt;",
    ):
        assert text in section.html
    for text in ("60 wrote their target exactly", "93.8 % [85.0 %, 97.5 %]", "reached, step 80", "missed", "wanted"):
        assert text in section.html
    assert "<script>" not in section.html
    assert "<i>" not in section.html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in section.html
    assert section.html.isprintable()


def test_the_lines_have_the_numbers_and_no_control_characters() -> None:
    lines = reach_lines(FOUND)
    text = "\n".join(lines)
    for part in ("1,500 distinct", "93.8 % [85.0 %, 97.5 %]", "missed: wanted wanted", "80 steps -> <i>hit</i>"):
        assert part in text
    assert all(line.isprintable() for line in lines)
    assert "31 tokens -> \\n\\n\\n" in text
    assert "10 min 00 s in all" in text


def test_a_whole_vocabulary_is_not_estimated() -> None:
    whole = replace(COUNTED, sampled=49_152, distinct=30_000, low=30_000, high=30_000)
    lines = reach_lines(replace(FOUND, hard=replace(FOUND.hard, distinct=whole)))
    assert any("All 49,152 hard tokens: 30,000 distinct continuations (61.0 %)." in line for line in lines)
    assert not any("Chao" in line for line in lines)


@pytest.mark.parametrize(("text", "line"), [("a\tb", "a\\tb"), ("é", "é"), ("x" * 500, "x" * 119 + "…")])
def test_texts_are_shown_on_one_line(text: str, line: str) -> None:
    assert shown(text) == line
