"""The graph of trials run whole, resumed, killed and refused, on an experiment that takes seconds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_experiment import BASE, PREFIX, TINY, TRAINING, forget, records, run

from elicitable.errors import InputError, StoreError, UnknownNameError
from elicitable.lab import jobs, reproduce
from elicitable.lab.outcomes import results_of
from elicitable.models.speed.processor import kind
from elicitable.records.store import Store
from elicitable.records.trial import Times, TrialRecord


class Told(reproduce.Watcher):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.jobs: list[jobs.Job] = []

    def done(self, job: jobs.Job, record: Any) -> None:
        self.jobs.append(job)


def test_every_trial_is_recorded_and_every_claim_judged(whole: Path) -> None:
    results = json.loads((whole / "results.json").read_text(encoding="utf-8"))
    assert len(records(whole)) == results["trials"] == results["trials_recorded"] == 6
    assert {record["status"] for record in records(whole).values()} == {"ok"}
    assert {record["processor"] for record in records(whole).values()} == {kind()}
    assert results["processors"] == [kind()]
    table = results["experiments"][0]
    assert [claim["outcome"] for claim in table["claims"]] == ["reproduced", "differs", "reproduced"]
    assert results["outcomes"] == {"reproduced": 2, "differs": 1}
    assert {trial["name"]: len(trial["sweep"]) for trial in table["trials"]} == {
        "base": 1, "prefix": 2, "lora": 2, "full": 1,
    }  # fmt: skip
    chosen = next(trial for trial in table["trials"] if trial["name"] == "prefix")
    best = max(chosen["sweep"], key=lambda one: (one["validation"], -one["loss_nats"]))
    assert chosen["chosen"][0]["rate"] == best["rate"]
    assert not list((whole / "running").glob("*")) if (whole / "running").exists() else True


def test_a_rerun_does_nothing(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("record.json")}
    monkeypatch.setattr(jobs, "_execute", lambda *_: pytest.fail("a trial was run again"))
    run(copy)
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("record.json")} == before


def test_what_is_missing_is_run_again_to_the_same_record(copy: Path) -> None:
    wanted = records(copy)
    forget(copy, rate=0.1)
    told = Told()
    run(copy, watcher=told)
    assert [job.rate for job in told.jobs] == [0.1]
    assert records(copy) == wanted


def test_an_interrupted_trial_goes_on_from_its_checkpoint_to_the_same_record(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from elicitable.training.checkpoint import Checkpoint

    wanted = records(copy)
    gone = forget(copy, kind="pretrain")
    write = Checkpoint.write

    def stop(self: Checkpoint, state: Any) -> None:
        write(self, state)
        if state.plain["steps"] >= 96:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "write", stop)
    with pytest.raises(KeyboardInterrupt):
        run(copy, checkpoint_seconds=0.0)
    monkeypatch.setattr(Checkpoint, "write", write)
    left = {path.name for path in (copy / "running").iterdir()}  # a beat is written once a second, if it lasts so long
    assert f"{gone}.safetensors" in left <= {f"{gone}.safetensors", f"{gone}.json"}
    checkpoint = Checkpoint(copy / "running" / f"{gone}.safetensors", gone)
    kept = checkpoint.read()
    assert kept is not None
    checkpoint.write(replace(kept, plain={**kept.plain, "seconds": 1_000.0}))
    run(copy)
    assert records(copy) == wanted
    timing = json.loads((copy / "trials" / gone / "record.json").read_text(encoding="utf-8"))["timing"]
    assert timing["seconds"] > timing["train_seconds"] > 1_000  # the time before the interruption counts
    assert not list((copy / "running").iterdir())


def test_a_worker_that_does_not_see_the_folder_says_so(tmp_path: Path) -> None:
    order = jobs.Order(jobs.Job(BASE, 0), str(tmp_path / "elsewhere"))
    with pytest.raises(StoreError, match="folder that all workers share"):
        jobs.run_job(order)


def test_a_model_that_cannot_be_had_is_untestable_and_tried_again(tmp_path: Path) -> None:
    lost = replace(PREFIX, base=str(tmp_path / "no-such-model.gguf"), rates=(0.1,))
    claim = replace(TINY.claims[1])
    experiment = replace(TINY, trials=(lost,), claims=(claim,), figures=())
    judged = run(tmp_path / "out", experiment)["experiments"][0]["claims"][0]
    assert judged["outcome"] == "not testable here"
    assert "no such GGUF file" in judged["reason"]
    [record] = records(tmp_path / "out").values()
    assert not jobs.is_final(TrialRecord.from_json({**record, "timing": {"seconds": 0.0}}, "here"))


def test_a_sweep_that_is_not_whole_is_not_run_yet_whatever_came_of_a_part_of_it() -> None:
    made = [jobs.Job(PREFIX, 0, rate) for rate in PREFIX.rates]
    of_prefix = replace(TINY, trials=(PREFIX,), claims=(TINY.claims[1],), figures=())

    def outcome(*statuses: str | None) -> str:
        records = [None if one is None else TrialRecord(one, "its loss rose", Times(0.0)) for one in statuses]
        runs = {"prefix": list(zip(made, records, strict=True))}
        return str(results_of([(of_prefix, runs)], "quick", [0])["experiments"][0]["claims"][0]["outcome"])

    for status in ("diverged", "failed"):
        assert outcome(status, None) == "not run yet"
        assert outcome(status, status) == "not testable here"
    assert outcome("untestable", None) == "not testable here"


def test_names_do_not_enter_an_identity_and_everything_else_does() -> None:
    base = jobs.Job(BASE, 0)
    job = jobs.Job(PREFIX, 0, 0.1, 0, base)
    assert replace(job, trial=replace(PREFIX, name="other", rates=(0.5,))).identity == job.identity
    training = replace(TRAINING, steps=7)
    others = [
        replace(job, seed=1),
        replace(job, rate=0.2),
        replace(job, restart=1),
        replace(job, trial=replace(PREFIX, size=3)),
        replace(job, trial=replace(PREFIX, training=training)),
        replace(job, trial=replace(PREFIX, options=())),
        replace(job, base=replace(base, seed=1)),
        replace(job, base=replace(base, trial=replace(BASE, toy=replace(BASE.toy, layers=2)))),
    ]
    assert len({job.identity, *(one.identity for one in others)}) == 1 + len(others)


def test_seed_0_sweeps_and_the_seeds_after_it_keep_to_later_rates() -> None:
    kept = replace(PREFIX, rates=(0.1, 0.3, 1.0), later_rates=(0.3,))
    experiment = replace(TINY, trials=(BASE, kept), claims=(), figures=())
    rates = {seed: [job.rate for job in reproduce.graph([experiment], [seed]) if job.rate] for seed in (0, 1)}
    assert rates == {0: [0.1, 0.3, 1.0], 1: [0.3]}
    swept = replace(experiment, trials=(BASE, replace(kept, later_rates=())))
    assert [job.identity for job in reproduce.graph([experiment], [1])] == [
        job.identity for job in reproduce.graph([swept], [1]) if job.rate in (None, 0.3)
    ]


def test_the_companion_s_time_is_for_the_seeds_that_are_whole(copy: Path) -> None:
    timed, store = replace(TINY, companion_seconds=60.0), Store(copy, is_read_only=True)

    def table() -> dict[str, Any]:
        return reproduce.results([timed], "quick", [0, 1], store)["experiments"][0]

    assert (table()["seeds_whole"], table()["companion_seconds"]) == (1, 60.0)
    forget(copy, rate=0.1)
    assert (table()["seeds_whole"], table()["companion_seconds"]) == (0, None)


def test_status_says_what_is_done_under_way_and_waiting(tmp_path: Path) -> None:
    lines = reproduce.status(["new-task"], out=tmp_path)
    assert {line.state for line in lines} == {"waiting"}
    job = lines[0].job
    Store(tmp_path).put(
        job.spec(), {"status": "ok", "stopped": "", "steps": 5, "scores": {}, "curve": [], "timing": {"seconds": 1.5}}
    )
    assert [line.state for line in reproduce.status(["new-task"], out=tmp_path)].count("done") == 1
    assert reproduce.tables(["new-task"], out=tmp_path)["outcomes"]["not run yet"] >= 1


def test_arguments_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'new-task'"):
        reproduce.reproduce(["new-tsk"], out=tmp_path)
    with pytest.raises(UnknownNameError, match="preset"):
        reproduce.reproduce(preset="slow", out=tmp_path)
    with pytest.raises(InputError, match="seeds must be at least 1"):
        reproduce.reproduce(seeds=0, out=tmp_path)


def test_no_experiments_give_empty_tables() -> None:
    assert results_of([], "quick", [0])["experiments"] == []
