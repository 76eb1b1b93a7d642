"""What a trial reads is part of its identity, and is compared with what is there before the trial runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tiny_experiment import BASE, PREFIX

from elicitable.experiments.catalog import EXPERIMENTS
from elicitable.experiments.experiment import Measure, Planned
from elicitable.experiments.sources import PINNED
from elicitable.lab import sources
from elicitable.lab.jobs import Job, Order, run_job
from elicitable.lab.reproduce import graph
from elicitable.models.model import Model
from elicitable.records.form_1 import DATA_OF_THEN
from elicitable.tasks.catalog import task_from

QUESTION = Measure(
    "q", "toy:ascending", "identity", (("method", "kv-prefix"), ("size", 1), ("texts", 1)), ("passages",)
)


def test_every_job_of_the_paper_says_what_it_reads() -> None:
    for job in graph(EXPERIMENTS, [0]):
        data = job.spec()["data"]
        assert data
        assert all(isinstance(found, str) and len(found) == 16 for found in data.values()), data
    wanted = {
        "movie-reviews": task_from("movie-reviews").fingerprint()[:16] if _has_reviews() else PINNED["movie-reviews"],
        "smollm2": PINNED["smollm2"],
    }
    assert _data("prefix-use") == wanted
    assert _data("llm-identity") == {"passages": PINNED["passages"], "smollm2": PINNED["smollm2"]}
    assert _data("token-reach") == {"smollm2": PINNED["smollm2"]}
    assert Job(replace(BASE, toy=replace(BASE.toy, task="mixed")), 0).spec()["data"]["mixed"] == DATA_OF_THEN["mixed"]


def _data(name: str) -> dict[str, str]:
    [experiment] = [one for one in EXPERIMENTS if one.name == name]
    return dict(graph([experiment], [0])[-1].spec()["data"])


def _has_reviews() -> bool:
    from elicitable.cache import cache_dir

    return (cache_dir() / "movie-reviews").exists()


def test_other_data_are_another_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(QUESTION, 0)
    before = job.identity
    monkeypatch.setitem(PINNED, "passages", "0" * 16)
    assert job.identity != before
    assert Job(replace(QUESTION, base="toy:mixed"), 0).spec()["data"] != job.spec()["data"]
    assert Job(replace(QUESTION, base="no/such.gguf"), 0).spec()["data"]["no/such.gguf"] is None


@pytest.mark.parametrize(
    ("name", "trial"),
    [
        ("passages", QUESTION),
        ("descending", replace(PREFIX, base="toy:ascending", measures=())),
        ("toy:ascending", QUESTION),
    ],
)
def test_data_that_are_others_than_the_experiments_were_defined_on_are_refused(
    name: str, trial: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PINNED, name, "0" * 16)
    record = run_job(Order(Job(trial, 0, 0.1), str(tmp_path)))
    assert record.status == "untestable"
    assert record.stopped.startswith(f"{name} is not what the experiments were defined on: its fingerprint here is")


def test_a_weight_changes_the_fingerprint_of_the_weights(digits_model: object) -> None:
    model: Model = digits_model(10)  # type: ignore[operator]
    before = sources.weights_fingerprint(model)
    next(model.hf.parameters()).data.view(-1)[0] += 1.0
    assert sources.weights_fingerprint(model) != before
