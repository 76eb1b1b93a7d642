"""Turn records into tables: ours beside the source's, and whether each claim is reproduced. Nothing is run here.

An adaptation was run at every rate and from every restart. For each seed, the run with the best validation score
counts, and the whole sweep is kept beside it.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from elicitable.diagnosis.intervals import mean_interval, percentile_gap, percentile_interval
from elicitable.experiments.experiment import Adapt, Cell, Claim, Experiment, Figure
from elicitable.lab.jobs import Job
from elicitable.records.schema import to_plain
from elicitable.records.trial import TrialRecord

VERSION = 1
Run = tuple[Job, TrialRecord]
Asked = tuple[Job, TrialRecord | None]  # a job and its record, None where it was not run yet
Runs = Mapping[str, Sequence[Asked]]  # by trial name, every job of an experiment
Chosen = Mapping[int, Run]  # by seed, the run of a trial that counts
_interval = lru_cache(maxsize=64)(percentile_interval)  # a claim, a table and a figure ask for the same cell


def results_of(experiments: Sequence[tuple[Experiment, Runs]], preset: str, seeds: Sequence[int]) -> dict[str, Any]:
    """Collect everything that the report needs, as plain data."""
    tables = [_experiment(experiment, runs, seeds) for experiment, runs in experiments]
    records = {job.identity: record for _, runs in experiments for jobs in runs.values() for job, record in jobs}
    known = [record for record in records.values() if record is not None]
    versions: dict[str, str] = dict(next((record.versions for record in known if record.versions), {}))
    return {
        "version": VERSION,
        "preset": preset,
        "seeds": len(seeds),
        "first_seed": seeds[0],
        "experiments": tables,
        "outcomes": dict(Counter(claim["outcome"] for table in tables for claim in table["claims"])),
        "trials": len(records),
        "trials_recorded": len(known),
        "trials_failed": sum(record.status == "failed" for record in known),
        "seconds": round(sum(record.timing.seconds for record in known), 1),
        "versions": versions,
        "processors": sorted({record.processor for record in known if record.processor}),
    }


def _experiment(experiment: Experiment, runs: Runs, seeds: Sequence[int]) -> dict[str, Any]:
    chosen = {name: _chosen(jobs) for name, jobs in runs.items()}
    missing = {job.seed for jobs in runs.values() for job, record in jobs if record is None}
    whole = len(set(seeds) - missing)
    return {
        "name": experiment.name,
        "title": experiment.title,
        "source": experiment.source,
        "deviations": list(experiment.deviations),
        "claims": [_claim(claim, chosen, runs) for claim in experiment.claims],
        "trials": [_trial(experiment, name, jobs, chosen[name]) for name, jobs in runs.items()],
        "seeds_whole": whole,
        "companion_seconds": _times(experiment.companion_seconds, whole),
        "figures": [_figure(figure, chosen) for figure in experiment.figures],
        "seconds": round(
            sum(record.timing.seconds for jobs in runs.values() for _, record in jobs if record is not None), 1
        ),
    }


def _times(seconds: float | None, seeds: int) -> float | None:
    return round(seconds * seeds, 1) if seconds is not None and seeds else None


def _chosen(jobs: Sequence[Asked]) -> dict[int, Run]:
    """Choose per seed the run of the best validation score (then of the lowest loss); only seeds that are complete."""
    chosen: dict[int, Run] = {}
    for seed in sorted({job.seed for job, _ in jobs}):
        own = [(job, record) for job, record in jobs if job.seed == seed]
        whole = [(job, record) for job, record in own if record is not None]
        usable = [(job, record) for job, record in whole if record.is_ok]
        if usable and len(whole) == len(own):
            chosen[seed] = max(usable, key=lambda one: _worth(one[1]))
    return chosen


def _worth(record: TrialRecord) -> tuple[float, float]:
    validation, loss = record.validation, record.validation_loss_nats
    return (-1.0 if validation is None else validation, -(float("inf") if loss is None else loss))


def _claim(claim: Claim, chosen: Mapping[str, Chosen], runs: Runs) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "text": claim.text,
        "trial": claim.cell.trial,
        "measurement": claim.cell.measurement,
        "unit": claim.unit,
        "source": claim.source,
        "bound": {"relation": claim.bound.relation, "value": claim.bound.value},
        "refuted": claim.refuted,
    }
    ours = chosen[claim.cell.trial]
    if claim.minus is None:
        found = _summary(ours, claim.cell)
    else:
        found = _difference(ours, claim.cell, chosen[claim.minus.trial], claim.minus)
    if found is None:
        cells = [claim.cell, *([claim.minus] if claim.minus else [])]
        return {**entry, **_empty(), **_missing([one for cell in cells for one in runs[cell.trial]])}
    has_interval = found["low"] is not None
    outcome = claim.outcome(*(found[end] if has_interval else found["mean"] for end in ("low", "high")))
    notes = [] if outcome == "reproduced" else [_evidence(claim, chosen)]
    notes += ["the interval lies on both sides of the bound"] if outcome == "not settled" else []
    notes += [] if has_interval else ["one value, and no interval"]
    failed = sum(record is not None and record.status == "failed" for _, record in runs[claim.cell.trial])
    notes += [f"{failed} of its runs failed"] if failed else []
    return {**entry, **found, "outcome": outcome, "reason": "; ".join(note for note in notes if note)}


def _evidence(claim: Claim, chosen: Mapping[str, Chosen]) -> str:
    """Say what a differing claim rests on: how the chosen runs ended, and what the cell beside it says."""
    runs = list(chosen[claim.cell.trial].values())
    parts = [] if runs[0][0].rate is None else [f"best of the sweep: {_named(runs)}"]
    if claim.beside is not None and (other := _summary(chosen[claim.beside.trial], claim.beside)) is not None:
        parts.append(f"{claim.beside.trial} has {other['mean']:.2f} {claim.unit}".rstrip())
    return "; ".join(parts)


def _named(runs: Sequence[Run]) -> str:
    """Return the rates, steps and ends of some runs, in one phrase."""
    rates = sorted({job.rate for job, _ in runs if job.rate is not None})
    steps = [record.steps for _, record in runs]
    ends = Counter(record.stopped for _, record in runs)
    span = f"{min(steps):,}" if min(steps) == max(steps) else f"{min(steps):,} to {max(steps):,}"
    ended = ", ".join(f"{count} × {name}" if len(runs) > 1 else name for name, count in ends.most_common())
    return f"rate {' or '.join(f'{rate:g}' for rate in rates)}, {span} steps, ended by {ended}"


def _empty() -> dict[str, Any]:
    return {"mean": None, "sd": None, "low": None, "high": None, "values": []}


def _missing(jobs: Sequence[Asked]) -> dict[str, str]:
    """Say why there is no number: it cannot be had here, some of it was not run yet, or all of it failed."""
    known = [record for _, record in jobs if record is not None]
    telling = ["untestable", *(["failed", "diverged"] if len(known) == len(jobs) else [])]
    for status in telling:
        for record in known:
            if record.status == status:
                return {"outcome": "not testable here", "reason": f"{status}: {record.stopped}"}
    return {"outcome": "not run yet", "reason": ""}


def _values(runs: Chosen, measurement: str) -> list[float]:
    """Return one value per seed; a task's score in percent."""
    found = []
    for _, record in runs.values():
        if measurement in record.scores:
            score = record.scores[measurement]
            found.append(100.0 * score.right / score.of)
        elif measurement in record.measurements:
            found.append(record.measurements[measurement])
    return found


def _outcomes(runs: Chosen, measurement: str) -> tuple[tuple[int, ...], ...]:
    return tuple(record.scores[measurement].items for _, record in runs.values() if measurement in record.scores)


def _summary(runs: Chosen, cell: Cell) -> dict[str, Any] | None:
    """Return mean, standard deviation and interval over seeds.

    A score's interval is the bootstrap's over items and seeds, in percent; any other's is Student's over seeds.
    """
    values = _values(runs, cell.measurement)
    if not values:
        return None
    outcomes = _outcomes(runs, cell.measurement)
    return _spread(values, _in_percent(_interval(outcomes, 0)) if outcomes else _over_seeds(values))


def _difference(ours: Chosen, cell: Cell, others: Chosen, minus: Cell) -> dict[str, Any] | None:
    """Return ``cell`` − ``minus`` over the seeds that both have, in pairs over test items, or over seeds."""
    both = sorted(set(ours) & set(others))
    if not both:
        return None
    own, other = {seed: ours[seed] for seed in both}, {seed: others[seed] for seed in both}
    pairs = zip(_values(own, cell.measurement), _values(other, minus.measurement), strict=True)
    values = [a - b for a, b in pairs]
    outcomes = _outcomes(own, cell.measurement), _outcomes(other, minus.measurement)
    if not all(outcomes):
        return _spread(values, _over_seeds(values))
    _, *ends = percentile_gap(*outcomes, seed=0)
    return _spread(values, _in_percent(ends))


def _in_percent(ends: Sequence[float]) -> tuple[float, float]:
    return 100.0 * ends[0], 100.0 * ends[1]


def _over_seeds(values: Sequence[float]) -> tuple[float, float] | None:
    return mean_interval(values) if len(values) > 1 else None


def _spread(values: list[float], ends: tuple[float, float] | None) -> dict[str, Any]:
    return {
        "mean": _rounded(statistics.fmean(values)),
        "sd": _rounded(statistics.stdev(values)) if len(values) > 1 else None,
        "low": None if ends is None else _rounded(ends[0]),
        "high": None if ends is None else _rounded(ends[1]),
        "values": [_rounded(value) for value in values],
    }


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _trial(experiment: Experiment, name: str, jobs: Sequence[Asked], chosen: Chosen) -> dict[str, Any]:
    trial = experiment.trial(name)
    measured = {m for _, record in chosen.values() for m in (*record.scores, *record.measurements)}
    order = {name: nth for nth, name in enumerate(getattr(trial, "scored", ()))}
    return {
        "name": name,
        "kind": type(trial).__name__.lower(),
        "method": trial.method if isinstance(trial, Adapt) else None,
        "cells": {m: _summary(chosen, Cell(name, m)) for m in sorted(measured, key=lambda m: (order.get(m, 99), m))},
        "chosen": [
            {
                "seed": seed,
                "rate": job.rate,
                "restart": job.restart,
                "steps": record.steps,
                "stopped": record.stopped,
            }
            for seed, (job, record) in chosen.items()
        ],
        "sweep": [_of_sweep(job, record) for job, record in jobs if record is not None],
        "recorded": sum(record is not None for _, record in jobs),
        "planned": len(jobs),
    }


def _of_sweep(job: Job, record: TrialRecord) -> dict[str, Any]:
    return {
        "seed": job.seed,
        "rate": job.rate,
        "restart": job.restart,
        "status": record.status,
        "stopped": record.stopped,
        "steps": record.steps,
        "validation": record.validation,
        "loss_nats": record.validation_loss_nats,
        "seconds": record.timing.seconds,
    }


def _figure(figure: Figure, chosen: Mapping[str, Chosen]) -> dict[str, Any]:
    """Collect what there is to draw from, once per seed: the curves of the chosen runs, their pictures of that kind."""
    series = []
    for name in figure.trials:
        records = [record for _, record in chosen[name].values()]
        series.append(
            {
                "trial": name,
                "curves": [to_plain(record.curve) for record in records if record.curve],
                "pictures": [record.pictures[figure.kind] for record in records if figure.kind in record.pictures],
            }
        )
    return {"kind": figure.kind, "caption": figure.caption, "series": series}
