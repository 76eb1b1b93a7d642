"""What a reproduction says while it runs: a line a running trial, and about how long the rest takes."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tiny_experiment import BASE, FULL, PREFIX, TINY

from elicitable.cli import overview
from elicitable.cli.overview import Forecast, Overview
from elicitable.experiments.experiment import Measure
from elicitable.lab.heartbeat import Beat, Heartbeat, heartbeat_path, read_beat
from elicitable.lab.jobs import Job
from elicitable.lab.reproduce import graph
from elicitable.records.store import Store
from elicitable.values import CurvePoint

BASE_JOB = Job(BASE, 0)
JOBS = [Job(PREFIX, seed, rate, 0, Job(BASE, seed)) for seed in (0, 1) for rate in (0.03, 0.1)]
OTHER = Job(FULL, 0, 0.01, 0, BASE_JOB)


def took(seconds: float, **more: Any) -> dict[str, Any]:
    return {"status": "ok", "stopped": "steps", "timing": {"seconds": seconds}, **more}


def test_the_forecast_goes_by_the_trial_then_by_the_pace_of_its_method_then_of_all() -> None:
    known = Forecast(workers=1)
    assert known.left([]) == 0.0
    assert known.left([(BASE_JOB, None)]) is None
    known.learn(JOBS[0], took(10.0))
    known.learn(JOBS[1], took(20.0))
    known.learn(JOBS[2], took(60.0))
    assert known.left([(JOBS[3], None)]) == 20.0  # the median of its own trial
    training = replace(PREFIX.training, steps=3 * PREFIX.training.steps)
    longer = replace(JOBS[3], trial=replace(PREFIX, name="another", training=training))
    assert known.left([(longer, None)]) == pytest.approx(60.0)  # three times the work
    rows = FULL.training.steps * FULL.training.batch / (PREFIX.training.steps * PREFIX.training.batch)
    assert known.left([(OTHER, None)]) == pytest.approx(20.0 * rows)  # no such method yet: the pace of all
    known.learn(OTHER, took(100.0))
    assert known.left([(OTHER, None)]) == 100.0


def test_the_forecast_does_not_take_a_language_model_for_a_toy() -> None:
    known = Forecast(workers=1)
    question = Job(Measure("a question", "smollm2", "identity"), 0)
    known.learn(question, took(700.0))
    assert known.left([(JOBS[0], None), (JOBS[1], None)]) is None  # a question's 700 s say nothing of a toy
    assert known.left([(JOBS[0], None), (question, Beat(share=0.5, seconds=300.0))]) == 300.0


def test_the_forecast_of_a_running_trial_goes_by_its_own_pace() -> None:
    known = Forecast(workers=2)
    assert known.left([(JOBS[0], Beat(share=0.25, seconds=30.0))]) == 90.0
    known.learn(JOBS[1], took(20.0))
    assert known.left([(JOBS[0], Beat(share=0.01, seconds=5.0))]) == 15.0  # too early to say: what others took
    running = [(JOBS[0], Beat(share=0.5, seconds=40.0)), (JOBS[2], None), (JOBS[3], None)]
    assert known.left(running) == 40.0  # (40 + 20 + 20) s by two workers, and no sooner than the longest
    assert known.left([(JOBS[0], Beat(share=0.5, seconds=90.0)), (JOBS[2], None)]) == 90.0


def test_a_heartbeat_is_read_as_it_was_said_and_gone_when_stopped(tmp_path: Path) -> None:
    path = heartbeat_path(tmp_path, "abc")
    beat = Heartbeat(path, began=0.0)
    beat.point(CurvePoint(50, 1.25, 0.5), 0.25)
    beat.point(CurvePoint(60, 1.0, None), 0.5)  # within the same second: not written
    found = read_beat(tmp_path, "abc")
    assert found is not None
    assert (found.share, found.steps, found.text) == (0.25, 50, "step 50, loss 1.250, validation 0.500")
    path.write_text("{", encoding="utf-8")
    assert read_beat(tmp_path, "abc") is None
    beat.stop()
    assert not list(path.parent.iterdir())
    Heartbeat(tmp_path / "file" / "x.json", 0.0).say("fine", 0.5)
    (tmp_path / "blocked").write_text("no folder", encoding="utf-8")
    Heartbeat(tmp_path / "blocked" / "x.json", 0.0).say("nothing is decided by it", 0.5)


def test_every_running_trial_has_a_line_and_the_whole_has_one(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(overview, "LOOK_SECONDS", 60.0)
    text = io.StringIO()
    said = Overview(Console(file=text, width=100), workers=2)
    jobs = graph([TINY], [0])
    store = Store(tmp_path)
    store.put(jobs[0].spec(), took(8.0))
    with said.watching(jobs, jobs[1:], store):
        for job, share in ((jobs[1], 0.5), (jobs[2], 0.25)):
            path = heartbeat_path(tmp_path, job.identity)
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps({"share": share, "seconds": 30.0, "steps": 9, "text": "step 9"}))
        lines = said.lines()
        assert lines[0] == "  prefix, seed 0, rate 0.03: step 9 (50%)"
        assert lines[1] == "  prefix, seed 0, rate 0.1: step 9 (25%)"
        assert lines[2] == "1 of 6 trials done, 2 under way, about 1:30 left"
        said.done(jobs[1], took(61.0, validation=0.5))
        said.done(jobs[3], {"status": "failed", "stopped": "RuntimeError: x", "timing": {"seconds": 1.0}})
        assert said.lines()[-1].startswith("3 of 6 trials done, 1 failed, 1 under way, about ")
    assert text.getvalue().splitlines() == [
        "[2/6] prefix, seed 0, rate 0.03: steps, validation 0.500 (1:01)",
        f"[3/6] {jobs[3].describe()}: failed (0:01)",
    ]


def test_what_a_killed_run_left_behind_is_not_under_way(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(overview, "LOOK_SECONDS", 60.0)
    said = Overview(Console(file=io.StringIO(), width=100), workers=2)
    jobs = graph([TINY], [0])
    for job in jobs[1:3]:
        Heartbeat(heartbeat_path(tmp_path, job.identity), 0.0).say("step 9", 0.5)
    with said.watching(jobs, jobs, Store(tmp_path)):
        assert " 0 under way" in said.lines()[-1]
        Heartbeat(heartbeat_path(tmp_path, jobs[1].identity), 0.0).say("step 10", 0.6)
        assert said.lines()[0].endswith("step 10 (60%)")
        assert " 1 under way" in said.lines()[-1]
