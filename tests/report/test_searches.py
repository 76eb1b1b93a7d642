"""What a search tried is said in the terminal, in the report and in the JSON."""

from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

import records
from elicitable.methods.examples import Examples
from elicitable.models.load import load
from elicitable.report import phrases
from elicitable.report.html import report_html
from elicitable.report.table import print_verdict
from elicitable.report.tried import tried_table
from elicitable.report.verdict_json import verdict_from_json, verdict_to_json
from elicitable.tasks.catalog import task_from
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


def test_lists_of_worked_examples_are_told_apart_by_numbers():
    """Orders and exchanges of the same examples have the same count and origin; the numbers say which is which."""
    lists = (["a → x", "<b> → y"], ["<b> → y", "a → x"], ["a → x", "c → z"])
    sweep = tuple({"setting": {"k": 2, "shown": one}, "from": "edits", "validation": 0.5} for one in lists)
    table = tried_table(replace(records.arm("examples"), sweep=sweep))
    assert [row[0] for row in table.rows] == ["k 2, shown 1, 2", "k 2, shown 2, 1", "k 2, shown 1, 3"]
    assert table.examples == ("a → x", "<b> → y", "c → z")
    page = report_html(records.with_arm(records.verdict(), "examples", sweep=sweep))
    assert "<li>a → x</li><li>&lt;b&gt; → y</li><li>c → z</li>" in page


def test_what_a_search_of_examples_tells_tells_every_candidate_from_the_others():
    task, model = task_from("ascending"), load("toy:ascending")
    search = Examples().search(model, task, seed=0, draws=2)
    told = [str(dict(one.told)) for one in next(search).candidates]
    assert len(set(told)) == len(told) == 4  # two draws of two counts
    assert "→" in told[0]
    assert "seed" not in told[0]
