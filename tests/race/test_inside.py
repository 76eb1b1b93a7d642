"""What the score loses without a part of a context: measured, and nothing else moves."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

import elicitable as el
from elicitable.cli.commands import app
from elicitable.errors import InputError
from elicitable.methods.catalog import method_named
from elicitable.microscope.inspect import inspect
from elicitable.race.inside import leave_out, prefix_to_cut, score_with
from elicitable.race.marking import Marking
from elicitable.race.standard import Standard
from elicitable.scores.exact_match import ExactMatch
from elicitable.tasks.catalog import task_from
from elicitable.training.decision_rules import SUM
from elicitable.training.evaluate import Reading, evaluate

ITEMS, READING = 40, Reading(batch=250)
PLAIN = Standard(Marking(ExactMatch()), SUM)


def test_every_part_is_left_out_once_and_the_dearest_is_dear() -> None:
    model, task = el.load("toy:ascending"), task_from("ascending")
    prefix = prefix_to_cut(model, el.context("prompt", model, token_ids=[0, 0, 0]))
    items = task.held_out("validation", ITEMS)
    bare = evaluate(model, items, None, Reading(batch=250)).mean
    heard: list[tuple[int, int]] = []
    found = inspect(model, prefix, [item.prompt for item in items[:2]])
    lost = leave_out(
        model, prefix, task, ITEMS, found, READING, PLAIN, told=lambda done, whole: heard.append((done, whole))
    )
    assert [part.what for part in lost] == ["token 0", "token 1", "token 2", "layer 0", "layer 0 head 0"]
    assert heard == [(i + 1, 6) for i in range(6)]
    # the toy has one layer with one head: without either it is the bare model, which sorts; with three zeros it cannot
    with_it = score_with(model, prefix, task, items, READING, PLAIN)
    assert with_it < bare - 0.2
    assert [part.score for part in lost[3:]] == pytest.approx([bare, bare])
    assert [part.lost for part in lost[3:]] == pytest.approx([with_it - bare] * 2)


def test_without_its_only_token_a_context_is_nothing() -> None:
    model, task = el.load("toy:ascending"), task_from("ascending")
    prefix = prefix_to_cut(model, method_named("kv-prefix").build(model, 1, seed=0, init="random"))
    items = task.held_out("validation", ITEMS)
    lost = leave_out(model, prefix, task, ITEMS, inspect(model, prefix, [[3, 1, 2]]), READING, PLAIN)
    assert lost[0].what == "token 0"
    assert lost[0].score == evaluate(model, items, None, Reading(batch=250)).mean


def test_a_long_context_is_left_out_by_neighbours() -> None:
    model, task = el.load("toy:ascending"), task_from("ascending")
    prefix = prefix_to_cut(model, el.context("prompt", model, token_ids=[i % 10 for i in range(40)]))
    lost = leave_out(model, prefix, task, 4, replace(inspect(model, prefix, [[3, 1, 2]]), heads=()), READING, PLAIN)
    assert [lost[0].what, lost[19].what, lost[20].what] == ["tokens 0–1", "tokens 38–39", "layer 0"]


def test_weights_have_nothing_to_leave_out() -> None:
    model = el.load("toy:ascending")
    with pytest.raises(InputError, match="no keys and values that could be left out"):
        prefix_to_cut(model, method_named("lora").build(model, 1, seed=0))


def test_the_command_measures_when_asked(tmp_path: Path) -> None:
    given = [
        "inspect",
        "--model",
        "toy:ascending",
        "--task",
        "ascending",
        "--prompt",
        "3 1",
        "--texts",
        "4",
        "--quiet",
    ]
    done = CliRunner().invoke(app, [*given, "--ablate", "20", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "points lost" in done.output
    record = json.loads((tmp_path / "inspection.json").read_text())
    assert [part["what"] for part in record["ablations"]] == ["token 0", "token 1", "layer 0", "layer 0 head 0"]
    assert (tmp_path / "figures" / "left-out.svg").exists()
    assert "score lost without" in (tmp_path / "report.html").read_text()
