"""What a search tried is said in the terminal, in the report and in the JSON."""

from __future__ import annotations

import io

from rich.console import Console

import records
from elicitable.report import phrases
from elicitable.report.html import report_html
from elicitable.report.table import print_verdict
from elicitable.report.verdict_json import verdict_from_json, verdict_to_json
from elicitable.values import Effort

EFFORT = Effort(34, 40, 1_232, 128, 41.25, 0.61, 0.4, {"bank": (24, 0.5), "token <swaps>": (10, 0.61)})


def searched():
    return records.with_arm(records.verdict(), "prompt", effort=EFFORT)


def test_the_words_hold_every_number():
    arm = next(arm for arm in searched().arms if arm.effort)
    assert phrases.searched(arm) == (
        "34 of 40 candidates in 1,232 item-passes and 41 s; the best has 0.61 of 128 validation items, the median "
        "candidate 0.40 of those that it was tried on"
    )
    assert phrases.origins(arm) == "token <swaps>: 10, best 0.61; bank: 24, best 0.50"
    assert phrases.searched(records.verdict().arms[0]) == ""


def test_the_terminal_and_the_report_say_them():
    console = Console(width=100, record=True, file=io.StringIO())
    print_verdict(searched(), console)
    shown = " ".join(console.export_text().split())
    assert "Searched - prompt: 34 of 40 candidates in 1,232 item-passes and 41 s;" in shown
    page = report_html(searched())
    assert "34 of 40 candidates in 1,232 item-passes" in page
    assert "token &lt;swaps&gt;: 10, best 0.61; bank: 24, best 0.50" in page
    assert "item-pass" not in report_html(records.verdict())


def test_the_json_gives_it_back():
    verdict = searched()
    assert verdict_from_json(verdict_to_json(verdict)) == verdict


def test_the_setting_of_a_trial_is_said_in_words():
    tried = {"setting": {"text": "Sort <this>.\n\n", "start": "bos"}, "from": "bank", "validation": 2 / 3, "items": 16}
    bare = {"setting": {}, "from": "given", "validation": 0.0, "items": 16}
    page = report_html(records.with_arm(records.verdict(), "prompt", sweep=(tried, bare)))
    assert "<td>text Sort &lt;this&gt;.⏎⏎, start bos</td><td>bank</td><td>0.667</td><td>16</td>" in page
    assert "<td>no settings</td><td>given</td><td>0.000</td>" in page
