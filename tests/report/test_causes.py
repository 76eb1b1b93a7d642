"""What a person sees of the causes: in a terminal of 80 columns, in the report, and as the next thing to type."""

from __future__ import annotations

import io
import json
import re
import shlex
import subprocess
from dataclasses import replace
from html import escape

import pytest
from rich.console import Console

from elicitable.cli.options import flags
from elicitable.diagnosis.causes import NO_TIME, Diagnosis, Experiment, Why
from elicitable.diagnosis.sizes import SizeCurve
from elicitable.durations import seconds_of
from elicitable.report.causes import alike, print_why, why_commands, why_json, why_section, without_result
from elicitable.report.following import Typed
from elicitable.report.table import print_next
from elicitable.untrusted import in_one_line
from elicitable.values import ArmResult, Budget, Rung

HOSTILE = "<script>alert(1)</script>\x1b[31m"
SIZE = Experiment(
    "kv-prefix",
    "size",
    "with 24 virtual tokens in the place of 6",
    0.9,
    0.88,
    0.92,
    (0.05, 0.03, 0.07),
    closed=0.9,
    setting={"--learning-rate": "0.1", "--size": "24"},
)
LOST = Experiment("", "unbounded", "the unbounded context", reason=f"no time {HOSTILE}")
STRUCTURE = Diagnosis(
    "prompt", "structure", True, ("prompt scores 0.10.", "No context does it."), "Change the weights."
)
WHY = Why(
    "full",
    0.95,
    (
        STRUCTURE,
        replace(STRUCTURE, of="examples", sentences=("examples scores 0.11.", "No context does it.")),
        Diagnosis("kv-prefix", "capacity", True, (f"kv-prefix {HOSTILE}", "It is too small."), "Give it more.", SIZE),
    ),
    (SIZE, LOST),
    (SizeCurve("kv-prefix", ((100, 0.1), (400, 0.9)), 200.0, 2.0),),
)
BASE = ("--model", "m", "--task", "my file.csv", "--template", "{text} no")
NOTHING = Budget(8, 8, 0)
CONTEXT, WEIGHTS = Rung(2, 0, "a prefix", "prefix", "context"), Rung(4, 0, "weights", "weights", "weights")
ARMS = (
    ArmResult("kv-prefix", CONTEXT, {"length": 6, "init": "sink", "chat": False}, NOTHING, "ok", learning_rate=0.3),
    ArmResult("full", WEIGHTS, {}, NOTHING, "ok", learning_rate=0.001),
)
TYPED = Typed(BASE, flags(budget=100), {"kv-prefix": "mine.py:KV"})


@pytest.mark.parametrize(
    ("limit", "twice"),
    [("604800", "1209600"), ("500000s", "1000000s"), ("1.5h", "3h"), ("0.00001", "0.00002"), ("1000000 m", "2000000m")],
)
def test_twice_the_time_can_be_typed(limit: str, twice: str) -> None:
    """From 500,000 seconds on it was written with an exponent, and refused."""
    command = Typed(["--task", "r.csv"], ["--time-limit", limit]).longer()
    assert command == f"elicitable verdict --task r.csv --time-limit {twice} --why"
    assert seconds_of(twice) == pytest.approx(2 * (seconds_of(limit) or 0), rel=1e-15)  # both are read as float64


def test_a_value_that_looks_like_an_option_is_kept() -> None:
    typed = Typed(flags(prompt=["--time-limit", "-- a"], task="r.csv"), flags(time_limit="1h", margin="-1"))
    assert typed.longer() == (
        "elicitable verdict --prompt=--time-limit '--prompt=-- a' --task r.csv --margin=-1 --time-limit 2h --why"
    )
    assert "--margin 2" in typed.verdict({"--margin": "2"})
    assert "-1" not in typed.verdict({"--margin": "2"})


def test_contexts_that_fall_short_for_the_same_reason_are_told_together_in_80_columns() -> None:
    assert [[one.of for one in group] for group in alike(WHY)] == [["prompt", "examples"], ["kv-prefix"]]
    out = io.StringIO()
    print_why(WHY, Console(file=out, width=80))
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("No context does it.") == 1
    assert "prompt, examples: structure" in text
    assert "\x1b" not in text
    assert "no time" in text


def test_the_report_shows_every_experiment_and_escapes_what_comes_from_outside() -> None:
    html = why_section(WHY, ["elicitable tune"]).html
    assert "<script>alert" not in html
    assert "\x1b" not in html
    assert html.count('role="table"') == 1  # there is nothing to draw for a cause without experiments
    drawn = [one for one in WHY.experiments if one.mean is not None]
    assert all(f'">{escape(in_one_line(one.what))}</div>' in html for one in drawn)  # told whole
    dots = [float(left) for left in re.findall(r'class="dot" style="left:([\d.]+)%', html)]
    assert dots == pytest.approx([100 * one.mean for one in drawn], abs=0.01)
    assert 'aria-label="' in html
    assert "half of the gain at about 200 numbers" in html


def test_what_to_type_acts_on_the_cause() -> None:
    commands = why_commands(WHY, ARMS, TYPED)
    full, prefix = (shlex.split(one) for one in commands)  # what two contexts ask for alike is typed once
    assert full == ["elicitable", "tune", *BASE, "--method", "full", "--learning-rate", "0.001"]
    given = ["--size", "24", "--init", "sink", "--chat", "off", "--learning-rate", "0.1"]
    assert prefix == ["elicitable", "tune", *BASE, "--method", "mine.py:KV", *given]
    reading = replace(SIZE, kind="reading", setting={"--template": "{text}\nIt's:"})
    asked = replace(WHY, diagnoses=(Diagnosis("prompt", "reading", True, ("a", "b"), "c", reading),))
    (command,) = why_commands(asked, ARMS, TYPED)
    assert "\n" not in command
    written = subprocess.run(["bash", "-c", f"printf '%s|' {command}"], capture_output=True, text=True, check=True)
    again = ["elicitable", "verdict", *BASE[:4], "--budget", "100", "--template", "{text}\nIt's:"]
    assert written.stdout.split("|")[:-1] == again
    assert "--rows-curve" in why_commands(replace(WHY, diagnoses=(replace(STRUCTURE, cause="data"),)), ARMS, TYPED)[0]


def test_what_goes_on_names_the_folder_in_which_what_ran_is_kept() -> None:
    typed = Typed(BASE, ["--time-limit", "1m"], out=["--out", "mine"])
    data = replace(WHY, diagnoses=(replace(STRUCTURE, cause="data"),))
    (rows,) = why_commands(data, ARMS, typed)
    assert shlex.split(rows)[-3:] == ["--rows-curve", "--out", "mine"]
    assert shlex.split(typed.longer())[-5:] == ["--time-limit", "2m", "--why", "--out", "mine"]
    assert "--out" not in typed.verdict({"--template": "{text}"})  # another race
    assert "--out" not in typed.tune(ARMS[0])


def test_a_start_at_what_was_chosen_is_not_typed() -> None:
    """Its text is ids, which no option takes."""
    setting = {"length": 2, "init": "text", "origin": "the chosen prompt", "text": [3, 5]}
    assert "--init" not in TYPED.tune(replace(ARMS[0], setting=setting))
    assert "--layer 1" in TYPED.tune(replace(ARMS[0], setting={"layer": 1}))


def test_another_context_that_does_it_is_what_to_type_and_what_to_see() -> None:
    """The commonest case on a model of token ids had neither."""
    another = Experiment("prompt", "context", "kv-prefix", 0.93, 0.91, 0.95, (0.02, 0.0, 0.03))
    found = Diagnosis("prompt", "optimisation", False, ("prompt scores 0.10.", "b"), "Use kv-prefix.", another)
    why = replace(WHY, diagnoses=(found,), experiments=(), curves=())
    (command,) = why_commands(why, ARMS, TYPED)
    given = ["--size", "6", "--init", "sink", "--chat", "off", "--learning-rate", "0.3"]
    assert shlex.split(command) == ["elicitable", "tune", *BASE, "--method", "mine.py:KV", *given]
    html = why_section(why, ()).html
    assert 'role="rowheader">kv-prefix</div>' in html
    chosen = replace(ARMS[0], learning_rate=None)
    assert why_commands(why, (chosen, ARMS[1]), TYPED) == ()  # nothing of it is trained


def test_what_is_not_known_for_want_of_time_is_asked_again_for_longer() -> None:
    unknown = Diagnosis("prompt", "unknown", False, ("prompt scores 0.10.",), "Give more time: what ran is kept.")
    late = replace(WHY, diagnoses=(unknown,), experiments=(replace(LOST, reason=NO_TIME),))
    (command,) = why_commands(late, ARMS, Typed(BASE, ["--time-limit", "30m", "--budget", "100"]))
    assert shlex.split(command) == [
        "elicitable", "verdict", *BASE, "--budget", "100", "--time-limit", "60m", "--why"
    ]  # fmt: skip
    assert why_commands(replace(WHY, diagnoses=(unknown,)), ARMS, TYPED) == ()
    cut_off = (ARMS[0], replace(ARMS[1], stopped="time"))  # the verdict is open, so it has to be settled first
    assert why_commands(replace(WHY, diagnoses=(unknown,), experiments=()), cut_off, TYPED) == (TYPED.longer(),)


def test_numbers_anywhere_are_spoken_of_only_where_they_were_tried() -> None:
    """Of a context's curve alone nothing follows about what is elicited."""
    alone = why_section(WHY, ()).html
    assert "wherever they are put" not in alone
    assert "half of the gain at about 200 numbers (from 2 points)" in alone
    assert "from the model as it is to full" in alone
    anywhere = SizeCurve("numbers anywhere", ((100, 0.1), (400, 0.9), (1_600, 0.9)), 300.0, 2.0)
    assert "wherever they are put" in why_section(replace(WHY, curves=(*WHY.curves, anywhere)), ()).html


def test_each_command_has_a_line_of_its_own() -> None:
    html = why_section(WHY, ["elicitable tune --template $'a\\nb'", "elicitable <verdict>"]).html
    assert "<pre>elicitable tune --template $&#x27;a\\nb&#x27;\nelicitable &lt;verdict&gt;</pre>" in html


def test_the_record_is_plain_json() -> None:
    record = json.loads(json.dumps(why_json(WHY), allow_nan=False))
    assert record["diagnoses"][2]["remedy"]["setting"]["--size"] == "24"
    assert [one["reason"] for one in record["experiments"]] == ["", LOST.reason]


def test_experiments_without_a_result_are_told_by_their_reason_and_the_first_of_many_by_name() -> None:
    lost = [replace(LOST, of="prompt" if nth else "", what=f"way {nth}", reason="no time") for nth in range(5)]
    slow = replace(LOST, what="the unbounded context", reason="the loss was no number any more")
    assert without_result(replace(WHY, experiments=(lost[0], SIZE, slow, *lost[1:]))) == [
        "No score: the task, way 0; prompt, way 1; prompt, way 2; and 2 more (no time)",
        "No score: the task, the unbounded context (the loss was no number any more)",
    ]
    assert without_result(replace(WHY, experiments=tuple(lost[:3]))) == [
        "No score: the task, way 0; prompt, way 1; prompt, way 2 (no time)"
    ]
    assert without_result(replace(WHY, experiments=(SIZE,))) == []


def test_a_cause_that_is_not_known_is_said_once_and_nothing_is_named_next_where_nothing_is_to_type() -> None:
    why = replace(WHY, diagnoses=(Diagnosis("prompt", "unknown", False, ("prompt scores 0.10.",), "Give it more."),))
    out = io.StringIO()
    print_why(why, Console(file=out, width=80))
    print_next((), Console(file=out, width=80))
    text = out.getvalue()
    assert "prompt: not known yet\n" in text
    assert "Next" not in text
    assert all(line == line.rstrip() for line in text.splitlines())
