"""Every experiment of the paper: build the graph of trials, run what is missing, say what came out.

    out/
      trials/<identity>/record.json    one folder a trial (see elicitable.runs.store)
      running/<identity>.safetensors   checkpoints of trials that are under way
      results.json                     the tables, made from the records at the end

Killed at any moment, the same command goes on: finished trials are found, running ones go on from their checkpoint.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elicitable.cache import replace_file
from elicitable.errors import InputError, StoreError
from elicitable.experiments.catalog import experiments_named, preset_named
from elicitable.experiments.experiment import Adapt, Experiment, Pretrain
from elicitable.runs.executors import Executor, executor_named
from elicitable.runs.jobs import CHECKPOINT_SECONDS, Job, Order, checkpoint_of, is_final, run_job
from elicitable.runs.outcomes import results_of
from elicitable.runs.store import Record, Store

RESULTS = "results.json"
Told = Callable[[Job, Record, int, int], None]  # a job, its record, how many are done, of how many


@dataclass(frozen=True)
class Line:
    """One line of ``--status``: ``state`` is done, failed, diverged, untestable, under way or waiting."""

    experiment: str
    job: Job
    state: str
    steps: int
    seconds: float
    reason: str = ""


def reproduce(
    names: Sequence[str] = (),
    *,
    preset: str = "quick",
    seeds: int | None = None,
    out: str | os.PathLike[str],
    executor: str | Executor = "local",
    workers: int | None = None,
    address: str | None = None,
    retry: bool = False,
    told: Told | None = None,
) -> dict[str, Any]:
    """Run the experiments of those names (all when none is named) and return the tables, also kept in ``out``.

    Args:
        names: of experiments (:mod:`elicitable.experiments.catalog`).
        preset: ``quick`` (one seed) or ``paper`` (ten); ``seeds`` overrides how many.
        out: the folder of the records; the same one resumes.
        executor: ``local``, ``inline``, ``ray``, or an executor; ``workers`` at once, ``address`` of a Ray cluster.
        retry: run failed trials again; otherwise their records, with the traceback, are kept as they are.
        told: called as each trial is done.

    Raises:
        UnknownNameError: an experiment, a preset or an executor of that name is not known.
        MissingPackageError: Ray is asked for and not installed.
        StoreError: ``out`` cannot be written to, is in use, or holds a record that cannot be read.
    """
    chosen, count = _chosen(names, preset, seeds)
    runner = executor if isinstance(executor, Executor) else executor_named(executor, workers, address)
    return run_experiments(chosen, preset, count, out=out, executor=runner, retry=retry, told=told)


def _chosen(names: Sequence[str], preset: str, seeds: int | None) -> tuple[tuple[Experiment, ...], int]:
    known = preset_named(preset)
    if seeds is not None and seeds < 1:
        raise InputError(f"seeds must be at least 1, got {seeds}.")
    return experiments_named(names), known.seeds if seeds is None else seeds


def run_experiments(
    experiments: Sequence[Experiment],
    preset: str,
    seeds: int,
    *,
    out: str | os.PathLike[str],
    executor: Executor,
    retry: bool = False,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    told: Told | None = None,
) -> dict[str, Any]:
    """What :func:`reproduce` does, for any experiments."""
    store = Store(out)
    assert store.folder is not None
    folder = store.folder.absolute()
    jobs = graph(experiments, seeds)
    with _alone(folder):
        todo = [job for job in jobs if not is_final(store.get(job.spec()), retry)]
        done = len(jobs) - len(todo)

        def finished(index: int, record: Record) -> None:
            nonlocal done
            done += 1
            if told:
                told(todo[index], record, done, len(jobs))

        orders = [Order(job, str(folder), checkpoint_seconds, retry) for job in todo]
        executor.run(run_job, orders, _needs(todo), finished)
        found = results(experiments, preset, seeds, store)
        _write_results(folder, found)
    return found


def results(experiments: Sequence[Experiment], preset: str, seeds: int, store: Store) -> dict[str, Any]:
    """The tables from the records that are there; runs nothing."""
    pairs = []
    for experiment in experiments:
        runs: dict[str, list[tuple[Job, Record | None]]] = {trial.name: [] for trial in experiment.trials}
        for job in _jobs(experiment, seeds):
            runs[job.trial.name].append((job, store.get(job.spec())))
        pairs.append((experiment, runs))
    return results_of(pairs, preset, seeds)


def tables(
    names: Sequence[str] = (), *, preset: str = "quick", seeds: int | None = None, out: str | os.PathLike[str]
) -> dict[str, Any]:
    """The tables of what ``out`` holds; runs nothing."""
    chosen, count = _chosen(names, preset, seeds)
    return results(chosen, preset, count, Store(out))


def status(
    names: Sequence[str] = (), *, preset: str = "quick", seeds: int | None = None, out: str | os.PathLike[str]
) -> list[Line]:
    """Where every trial stands; runs nothing. A trial that experiments share is listed under each of them."""
    chosen, count = _chosen(names, preset, seeds)
    store = Store(out)
    return [_line(experiment.name, job, store) for experiment in chosen for job in _jobs(experiment, count)]


def _line(experiment: str, job: Job, store: Store) -> Line:
    record = store.get(job.spec())
    if record is not None:
        state = "done" if record["status"] == "ok" else record["status"]
        reason = "" if state == "done" else record["stopped"]
        return Line(experiment, job, state, record.get("steps", 0), record["timing"]["seconds"], reason)
    kept = checkpoint_of(store, job).read()
    if kept is None:
        return Line(experiment, job, "waiting", 0, 0.0)
    return Line(experiment, job, "under way", kept.plain["steps"], kept.plain["seconds"])


def graph(experiments: Sequence[Experiment], seeds: int) -> list[Job]:
    """Every job once, bases before what is built on them; a base that several experiments name is one job."""
    jobs = {job.identity: job for experiment in experiments for job in _jobs(experiment, seeds)}
    return sorted(jobs.values(), key=lambda job: (job.seed, job.base is not None))


def _jobs(experiment: Experiment, seeds: int) -> Iterator[Job]:
    for trial in experiment.trials:
        for seed in range(seeds):
            if isinstance(trial, Adapt):
                base = _base(experiment, trial, seed)
                for rate in trial.rates:
                    for restart in range(trial.restarts):
                        yield Job(trial, seed, rate, restart, base)
            else:
                yield Job(trial, seed)


def _base(experiment: Experiment, trial: Adapt, seed: int) -> Job | None:
    named = [one for one in experiment.trials if one.name == trial.base]
    return Job(named[0], seed) if named and isinstance(named[0], Pretrain) else None


def _needs(jobs: Sequence[Job]) -> dict[int, list[int]]:
    """By index, the indices of the bases that are yet to be run."""
    places = {job.identity: index for index, job in enumerate(jobs)}
    return {
        index: [places[job.base.identity]]
        for index, job in enumerate(jobs)
        if job.base is not None and job.base.identity in places
    }


def _write_results(folder: Path, found: dict[str, Any]) -> None:
    replace_file(folder / RESULTS, (json.dumps(found, indent=1) + "\n").encode())


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, so that two runs do not do the same trials; the system lets go of it when we die."""
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        yield
        return
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StoreError(f"another run is using {folder}; wait for it or choose another --out.") from error
        yield
