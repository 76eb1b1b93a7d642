"""The verdict in a terminal: readable at 80 columns, unbroken from 60 to 200, plain when piped."""

from __future__ import annotations

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

import records
from elicitable.errors import UnknownNameError
from elicitable.report.table import bar, print_verdict, verdict_table


def printed(verdict, width=80, encoding="utf-8", report=None, **console):
    """What a pipe of that width and encoding receives."""
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, encoding=encoding, errors="replace", newline="\n") as stream:
        print_verdict(verdict, Console(file=stream, width=width, **console), report)
        stream.flush()
        return raw.getvalue().decode(encoding)


@pytest.mark.parametrize("name", records.ALL)
@pytest.mark.parametrize("width", [60, 72, 80, 100, 200])
def test_no_line_is_wider_than_the_terminal(name, width):
    text = printed(records.ALL[name](), width)
    assert max(map(cell_len, text.splitlines())) <= width


@pytest.mark.parametrize("width", [60, 80, 200])
def test_every_arm_is_one_row_with_its_score(width):
    lines = printed(records.verdict(), width).splitlines()
    for arm in records.verdict().arms:
        row = next(line for line in lines if line[2:].startswith(f"{arm.method} "))
        assert f"{arm.mean:.2f} [{arm.low:.2f}, {arm.high:.2f}]" in row


def test_at_80_columns_nothing_is_left_out():
    text = printed(records.verdict())
    row = next(line for line in text.splitlines() if "kv-prefix" in line and "12,288" in line)
    assert row.split() == [
        ">",
        "kv-prefix",
        "0.98",
        "[0.97,",
        "0.99]",
        "━━━━━━━━",
        "12,288",
        "6",
        "0.1",
        "+1.78",
        "ok",
    ]


def test_narrow_terminals_give_up_the_bar_first():
    assert "━" in printed(records.verdict(), 80)
    assert "━" not in printed(records.verdict(), 68)
    assert "learn." in printed(records.verdict(), 68)


def test_a_pipe_gets_no_escapes_and_a_terminal_gets_colour():
    assert "\x1b" not in printed(records.verdict())
    assert "\x1b[" in printed(records.verdict(), force_terminal=True, color_system="truecolor")


def test_an_ascii_stream_gets_ascii_bars():
    text = printed(records.verdict(), encoding="ascii")
    assert "########" in text
    assert "?" not in text


def test_arms_without_a_score_say_why():
    text = printed(records.with_failures())
    assert "layer-prefix took no part: diverged (the loss became NaN at step 50)" in text
    assert "full took no part: failed (RuntimeError: out of memory at step 3)" in text
    assert "examples took no part: skipped (the examples do not fit in 32 positions)" in text


def test_warnings_and_report_are_shown():
    text = printed(records.verdict(), report="a-rather-long-folder-name/" * 5 + "report.html")
    assert "Warnings\n  - prompt was searched up to 6 tokens only" in text
    assert text.endswith("Report: " + "a-rather-long-folder-name/" * 5 + "report.html\n")


def test_texts_from_files_cannot_style_or_move_the_terminal():
    text = printed(records.hostile(), 200)
    assert "\x1b" not in text
    assert "\x00" not in text
    assert "because <script>alert('x')</script> [red]rich[/red] \\u001b[31m" in text


def test_the_control_comes_last_and_is_never_the_answer():
    rows = [line for line in printed(records.verdict()).splitlines() if line.rstrip().endswith(" ok")]
    assert rows[-1].startswith("  value-bias")


def test_the_table_alone_is_a_renderable():
    stream = io.StringIO()
    Console(file=stream, width=80).print(verdict_table(records.verdict()))
    assert stream.getvalue().count(" ok") == 9


def test_an_unknown_label_is_refused():
    with pytest.raises(UnknownNameError, match="unknown label of a verdict 'prefixes': did you mean 'prefix'"):
        printed(records.verdict(label="prefixes"))


@pytest.mark.parametrize(
    ("mean", "expected"), [(None, ""), (-1.0, "...."), (0.0, "...."), (0.5, "##.."), (2.0, "####")]
)
def test_bar(mean, expected):
    assert bar(mean, 4, "#", ".") == expected
