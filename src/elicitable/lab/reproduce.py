"""Reproduce every experiment of the paper: build the graph of trials, run what is missing, say what came out.

    out/
      trials/<identity>/record.json    one folder per trial (see elicitable.records.store)
      running/<identity>.safetensors   checkpoints of trials that are under way
      running/<identity>.json          how far each of them is
      results.json                     the tables, made from the records at the end

Killed at any moment, the same command goes on: finished trials are found, running ones go on from their checkpoint.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elicitable.cache import replace_file
from elicitable.errors import InputError
from elicitable.executors.executor import Executor, executor_named
from elicitable.experiments.catalog import experiments_named, preset_named
from elicitable.experiments.experiment import Adapt, Experiment, Pretrain
from elicitable.lab.heartbeat import read_beat
from elicitable.lab.jobs import CHECKPOINT_SECONDS, Job, Order, is_final, lacks_weights, run_job
from elicitable.lab.outcomes import results_of
from elicitable.records.lock import alone, is_in_use
from elicitable.records.store import Store, add_to_archives
from elicitable.records.trial import TrialRecord, kept_trial

RESULTS = "results.json"


class Watcher:
    """Hear what a run does; this one says nothing."""

    @contextmanager
    def watching(self, jobs: Sequence[Job], todo: Sequence[Job], store: Store) -> Iterator[None]:
        """Watch the run, given all its jobs, those that are yet to be run, and where their records go."""
        yield

    def done(self, job: Job, record: TrialRecord) -> None:
        """Hear that one job was run."""


@dataclass(frozen=True)
class Line:
    """Hold one line of ``--status``.

    ``state`` is done, failed, diverged, untestable, under way, interrupted or waiting.
    """

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
    first_seed: int = 0,
    out: str | os.PathLike[str],
    executor: str | Executor = "local",
    workers: int | None = None,
    address: str | None = None,
    retry: bool = False,
    watcher: Watcher | None = None,
) -> dict[str, Any]:
    """Run the experiments of those names (all when none is named) and return the tables, also kept in ``out``.

    Args:
        names: of experiments (:mod:`elicitable.experiments.catalog`).
        preset: ``quick`` (one seed) or ``paper`` (ten); ``seeds`` overrides how many.
        first_seed: the seeds are this one and those that follow it.
        out: the folder of the records; the same one resumes.
        executor: ``local``, ``inline``, ``ray``, or an executor; ``workers`` at once, ``address`` of a Ray cluster.
        retry: run failed trials again; otherwise their records, with the traceback, are kept as they are.
        watcher: told what runs and what is done.

    Raises:
        UnknownNameError: an experiment, a preset or an executor of that name is not known.
        MissingPackageError: Ray is asked for and not installed.
        StoreError: ``out`` cannot be written to, is in use, or holds a record that cannot be read.
    """
    chosen, which = _chosen(names, preset, seeds, first_seed)
    runner = executor if isinstance(executor, Executor) else executor_named(executor, workers, address)
    return run_experiments(chosen, preset, which, out=out, executor=runner, retry=retry, watcher=watcher)


def _chosen(
    names: Sequence[str], preset: str, seeds: int | None, first_seed: int
) -> tuple[tuple[Experiment, ...], range]:
    known = preset_named(preset)
    if seeds is not None and seeds < 1:
        raise InputError(f"seeds must be at least 1, got {seeds}.")
    if first_seed < 0:
        raise InputError(f"the first seed must be at least 0, got {first_seed}.")
    return experiments_named(names), range(first_seed, first_seed + (known.seeds if seeds is None else seeds))


def run_experiments(
    experiments: Sequence[Experiment],
    preset: str,
    seeds: Sequence[int],
    *,
    out: str | os.PathLike[str],
    executor: Executor,
    retry: bool = False,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    watcher: Watcher | None = None,
) -> dict[str, Any]:
    """Do what :func:`reproduce` does, for any experiments."""
    store = Store(out)
    assert store.folder is not None
    folder = store.folder.absolute()
    jobs = graph(experiments, seeds)
    with alone(folder):
        store.sweep()
        todo, needed = _todo(jobs, store, retry)
        orders = [Order(job, str(folder), checkpoint_seconds, retry, job.identity in needed) for job in todo]
        told = watcher or Watcher()
        with told.watching(jobs, todo, store):
            executor.run(run_job, orders, _needs(todo), lambda index, record: told.done(todo[index], record))
        found = results(experiments, preset, seeds, store)
        write_results(found, folder)
    return found


def write_results(found: dict[str, Any], folder: str | os.PathLike[str]) -> None:
    """Write the tables as ``results.json`` into ``folder``.

    Raises:
        StoreError: it cannot be written to.
    """
    data = (json.dumps(found, indent=1) + "\n").encode()
    replace_file(Path(folder) / RESULTS, data, "Free the place and run it again.")


def _todo(jobs: Sequence[Job], store: Store, retry: bool) -> tuple[list[Job], set[str]]:
    """Return the jobs that are yet to be run, and the identities of the bases whose weights they need.

    A base whose record is there without its weights, as in an archive, is run again only if one of them needs it.
    """
    missing = {job.identity for job in jobs if not is_final(kept_trial(store, job.spec()), retry)}
    needed = {job.base.identity for job in jobs if job.identity in missing and job.base is not None}
    again = {job.identity for job in jobs if job.identity in needed and lacks_weights(store, job.spec())}
    return [job for job in jobs if job.identity in missing | again], needed


def results(experiments: Sequence[Experiment], preset: str, seeds: Sequence[int], store: Store) -> dict[str, Any]:
    """Make the tables from the records that are there; run nothing."""
    pairs = []
    for experiment in experiments:
        runs: dict[str, list[tuple[Job, TrialRecord | None]]] = {trial.name: [] for trial in experiment.trials}
        for job in _jobs(experiment, seeds):
            runs[job.trial.name].append((job, kept_trial(store, job.spec())))
        pairs.append((experiment, runs))
    return results_of(pairs, preset, seeds)


def tables(
    names: Sequence[str] = (),
    *,
    preset: str = "quick",
    seeds: int | None = None,
    first_seed: int = 0,
    out: str | os.PathLike[str],
) -> dict[str, Any]:
    """Make the tables of what ``out`` holds; run nothing and write nothing."""
    chosen, which = _chosen(names, preset, seeds, first_seed)
    return results(chosen, preset, which, Store(out, is_read_only=True))


def export(
    names: Sequence[str] = (),
    *,
    preset: str = "quick",
    seeds: int | None = None,
    first_seed: int = 0,
    out: str | os.PathLike[str],
    to: str | os.PathLike[str],
) -> list[Path]:
    """Add the records of ``out`` to the archives ``to/<experiment>.jsonl``, without weights; the paths.

    A base that experiments share is in the first of them. What failed, or could not be had, is left out. What an
    archive holds already stays there, and of a trial that it holds too the new record takes the place of the old. The
    folder is one that ``out`` can name: ``reproduce`` and ``tables`` find the records there.

    Raises:
        StoreError: a record or an archive cannot be read, or ``to`` cannot be written to or is in use.
    """
    chosen, which = _chosen(names, preset, seeds, first_seed)
    return export_experiments(chosen, which, Store(out, is_read_only=True), Path(to))


def export_experiments(experiments: Sequence[Experiment], seeds: Sequence[int], store: Store, to: Path) -> list[Path]:
    """Do what :func:`export` does, for any experiments."""
    listed: set[str] = set()
    found = {}
    for experiment in experiments:
        jobs = {job.identity: job for job in _jobs(experiment, seeds) if job.identity not in listed}
        listed |= set(jobs)
        records = [store.get(job.spec()) for job in jobs.values()]
        found[experiment.name] = [record for record in records if record and record["status"] in ("ok", "diverged")]
    with alone(to):
        return add_to_archives(found, to)


def status(
    names: Sequence[str] = (),
    *,
    preset: str = "quick",
    seeds: int | None = None,
    first_seed: int = 0,
    out: str | os.PathLike[str],
) -> list[Line]:
    """Say where every trial stands; runs nothing. A trial that experiments share is listed under each of them."""
    chosen, which = _chosen(names, preset, seeds, first_seed)
    store = Store(out, is_read_only=True)
    unfinished = "under way" if is_in_use(Path(out)) else "interrupted"
    return [_line(experiment.name, job, store, unfinished) for experiment in chosen for job in _jobs(experiment, which)]


def _line(experiment: str, job: Job, store: Store, unfinished: str) -> Line:
    assert store.folder is not None
    beat = read_beat(store.folder, job.identity)  # before the record: it is gone once the record is there
    record = kept_trial(store, job.spec())
    if record is not None:
        state, reason = ("done", "") if record.is_ok else (record.status, record.stopped)
        return Line(experiment, job, state, record.steps, record.timing.seconds, reason)
    if beat is None:
        return Line(experiment, job, "waiting", 0, 0.0)
    return Line(experiment, job, unfinished, beat.steps, beat.seconds, beat.text)


def graph(experiments: Sequence[Experiment], seeds: Sequence[int]) -> list[Job]:
    """Return every job once, bases before what is built on them; a base that several experiments name is one job.

    Seed by seed, and within one the longest first, so that no worker is left with a long one at the end.
    """
    jobs = {job.identity: job for experiment in experiments for job in _jobs(experiment, seeds)}
    return sorted(jobs.values(), key=lambda job: (job.seed, job.base is not None, -(job.work or math.inf)))


def _jobs(experiment: Experiment, seeds: Sequence[int]) -> Iterator[Job]:
    for trial in experiment.trials:
        for seed in seeds:
            if isinstance(trial, Adapt):
                base = _base(experiment, trial, seed)
                for rate in trial.rates_at(seed):
                    for restart in range(trial.restarts):
                        yield Job(trial, seed, rate, restart, base)
            else:
                yield Job(trial, seed)


def _base(experiment: Experiment, trial: Adapt, seed: int) -> Job | None:
    named = [one for one in experiment.trials if one.name == trial.base]
    return Job(named[0], seed) if named and isinstance(named[0], Pretrain) else None


def _needs(jobs: Sequence[Job]) -> dict[int, list[int]]:
    """Return, by index, the indices of the bases that are yet to be run."""
    places = {job.identity: index for index, job in enumerate(jobs)}
    return {
        index: [places[job.base.identity]]
        for index, job in enumerate(jobs)
        if job.base is not None and job.base.identity in places
    }
