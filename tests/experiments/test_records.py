"""The records of the full run that are kept in the repository, and the tables that are made of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from elicitable.experiments.catalog import EXPERIMENTS, preset_named
from elicitable.experiments.experiment import Adapt
from elicitable.lab.reproduce import graph, tables
from elicitable.records.store import Store
from elicitable.report.reproduction import FIGURES, reproduction_markdown

RECORDS = Path(__file__).parents[2] / "records" / "paper"
MOST_BYTES = 5_000_000

pytestmark = pytest.mark.skipif(
    not list(RECORDS.glob("*.jsonl")), reason="runs once the records of the paper preset are in the repository"
)


def test_the_tables_are_made_of_the_records() -> None:
    """``elicitable reproduce --preset paper --out records/paper --tables`` writes them anew."""
    text = (RECORDS / "results.md").read_text(encoding="utf-8")
    assert text == reproduction_markdown(tables(preset="paper", out=RECORDS), FIGURES)
    for path in (RECORDS / FIGURES).iterdir():
        assert f"({FIGURES}/{path.name})" in text


def test_every_record_is_of_a_trial_that_the_experiments_ask_for_now() -> None:
    """A changed spec or protocol would leave records behind that nothing reads."""
    jobs = graph(EXPERIMENTS, range(preset_named("paper").seeds))
    store = Store(RECORDS, is_read_only=True)
    found = sum(store.get(job.spec()) is not None for job in jobs)
    lines = [line for path in RECORDS.glob("*.jsonl") for line in path.read_text(encoding="utf-8").splitlines()]
    assert found == len(lines)
    assert {json.loads(line)["status"] for line in lines} <= {"ok", "diverged"}


def test_later_seeds_keep_the_rates_that_did_best_at_seed_0() -> None:
    """By validation score, then loss; the test split has no say in it."""
    store, checked = Store(RECORDS, is_read_only=True), 0
    for experiment in EXPERIMENTS:
        for trial in experiment.trials:
            if isinstance(trial, Adapt) and trial.rates_at(1) != trial.rates:
                jobs = [job for job in graph((experiment,), [0]) if job.trial == trial]
                found = {job.rate: store.get(job.spec()) or {} for job in jobs}
                worst_first = sorted(
                    found, key=lambda rate: (found[rate]["validation"], -found[rate]["validation_loss_nats"])
                )
                assert trial.restarts == 1
                assert set(trial.later_rates) == set(worst_first[-len(trial.later_rates) :]), trial.name
                checked += 1
    assert checked


def test_the_records_are_small_and_say_nothing_of_the_machine() -> None:
    files = list(RECORDS.glob("*.jsonl"))
    assert sum(path.stat().st_size for path in files) < MOST_BYTES
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert "/home/" not in text
        assert "/root/" not in text
        assert "traceback" not in text
