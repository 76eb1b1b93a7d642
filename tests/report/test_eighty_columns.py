"""At 80 columns nothing is cut: what does not fit on a line goes on on the next, word by word."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console
from tests.conftest import tiny_gpt2
from tests.report.test_reproduction import results
from tests.report.test_rows import CROSSING, GROWTHS

import elicitable as el
import records
from elicitable.cli.reproduce import _print_status
from elicitable.cli.tune import _said
from elicitable.experiments import combine_skills
from elicitable.lab.jobs import Job
from elicitable.lab.reproduce import Line
from elicitable.microscope.inspect import inspect
from elicitable.race.checked import Checked, Finding, as_text
from elicitable.report.conclusion import conclusion
from elicitable.report.microscope import details, inspection_table
from elicitable.report.progress import LiveReporter
from elicitable.report.reproduction import print_reproduction
from elicitable.report.rows import rows_lines
from elicitable.report.table import print_verdict, print_wrapped
from elicitable.values import CurvePoint

WIDTHS = (60, 80, 120)
LONG = "the loss or its gradient was no finite number any more, at every one of its learning rates, on this machine"


def shown(print_it, width=80):
    stream = io.StringIO()
    print_it(Console(file=stream, width=width))
    return stream.getvalue()


def assert_whole(text, width, *wanted):
    """No line is wider than the terminal, none ends in an ellipsis, and every word that was given is there."""
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    found = " ".join(text.split())
    for sentence in wanted:
        assert " ".join(sentence.split()) in found


@pytest.mark.parametrize("width", WIDTHS)
def test_why_an_arm_failed_is_told_whole(width):
    arm = replace(records.arm("lora"), status="diverged", mean=None, reason=LONG)
    assert_whole(shown(lambda console: LiveReporter(console).end(arm), width), width, LONG)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_live_line_always_says_the_time_that_is_left(width):
    stream = io.StringIO()
    live = LiveReporter(Console(file=stream, width=width), time_limit=600.0)
    live.begin("nearest-examples", "learning rate 0.00030 of 4, the first 512 steps, then half as many again", 3, 9)
    live.point(CurvePoint(12_345, 0.123, 0.5), 0.5)
    assert len(live.line()) <= width
    assert live.line().startswith("[4/9] nearest-ex")
    assert live.line().endswith(" left")
    assert "…" in live.line()  # what is done is shortened, the time never


@pytest.mark.parametrize("width", WIDTHS)
def test_reasons_and_warnings_are_told_whole(width):
    verdict = records.with_failures()
    assert_whole(shown(lambda console: print_verdict(verdict, console), width), width, *verdict.reasons)


@pytest.mark.parametrize("width", WIDTHS)
def test_what_a_check_found_is_told_whole(width):
    findings = (Finding("saved whole", "pass", LONG), Finding("left behind", "fail", LONG, f"Do this: {LONG}"))
    checked = Checked("a-folder", "smollm2", findings)
    text = as_text(checked, width)
    assert_whole(text, width, LONG, f"left behind: Do this: {LONG}", "a-folder is not sound on smollm2. What to do:")


def test_what_was_tuned_and_the_curves_by_rows_are_told_whole():
    record = {
        "method": "lora", "task": "a-task", "score": "accuracy", "mean": 0.5, "low": 0.4, "high": 0.6, "items": 2_000,
        "numbers_trained": 12_288, "learning_rate": 0.001,
        "checks": [{"name": "left behind", "status": "fail", "found": LONG, "advice": LONG}],
    }  # fmt: skip
    sentences = list(_said(record))
    assert_whole(shown(lambda console: print_wrapped(sentences, console)), 80, *sentences)
    lines = rows_lines(GROWTHS, CROSSING)
    text = shown(lambda console: print_wrapped(lines, console))
    assert_whole(text, 80, *lines)
    assert text.splitlines()[0] == lines[0]  # columns stay columns
    assert len(lines[0]) == len(lines[1])


@pytest.mark.parametrize("width", WIDTHS)
def test_a_reproduction_is_told_whole(width, tmp_path):
    found = results()
    text = shown(lambda console: print_reproduction(found, console, tmp_path / "report.html"), width)
    claims, paths = text.split("Tables: ")  # a path stays on one line
    assert_whole(claims, width, "LoRA <does> | it: ours 97.50 % [95.00, 99.00], source 92.38 %", "untestable: no model")
    assert paths == f"{tmp_path / 'results.md'}\nReport: {tmp_path / 'report.html'}\n"


def test_where_every_trial_stands_is_told_whole(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = [
        Line("combine-skills", Job(combine_skills.EXPERIMENT.trials[0], 0, rate, 1), "failed", 5, 1.0, LONG)
        for rate in (0.1, 0.3)
    ]
    _print_status(lines, {"trials": 2, "trials_recorded": 2, "outcomes": {}}, as_json=False)
    text = capsys.readouterr().out
    assert_whole(text, 80, *(f"failed {line.job.describe()} ({LONG})" for line in lines))
    assert text.count("combine-skills") == 1  # the heading of both


def test_an_inspection_begins_with_its_conclusion_and_fits():
    model = tiny_gpt2(10)
    found = inspect(model, el.context("prompt", model, token_ids=[7, 2]), [[3, 1, 2]])

    def everything(console):
        print_wrapped(conclusion(found), console)
        console.print(inspection_table(found))
        print_wrapped(details(found), console)

    text = shown(everything)
    assert_whole(text, 80, *conclusion(found), *details(found))
    assert text.startswith("The context takes ")
