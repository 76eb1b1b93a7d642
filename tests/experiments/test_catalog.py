"""The experiments hold together: every claim and figure names a trial that is there and measures what it claims."""

from __future__ import annotations

import re
import sys
from dataclasses import FrozenInstanceError, asdict, fields
from pathlib import Path

import pytest

import elicitable.experiments as room
from elicitable.errors import InputError, UnknownNameError
from elicitable.experiments.catalog import EXPERIMENTS, experiments_named, preset_named
from elicitable.experiments.experiment import DIGIT_TASKS, Adapt, Bound, Experiment, Measure, Pretrain, Training
from elicitable.methods.catalog import method_named
from elicitable.tasks.catalog import catalog
from elicitable.training.loop import Plan

EACH = pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda one: one.name)


@EACH
def test_claims_and_figures_name_what_is_measured(experiment: Experiment) -> None:
    names = [trial.name for trial in experiment.trials]
    assert len(names) == len(set(names))
    for claim in experiment.claims:
        for cell in (claim.cell, *(one for one in (claim.minus, claim.beside) if one)):
            trial = experiment.trial(cell.trial)
            if cell.measurement in catalog():
                assert not isinstance(trial, Measure)
                assert cell.measurement in trial.scored
        assert isinstance(claim.bound.holds(0.0, claim.source), bool)
    for figure in experiment.figures:
        assert {experiment.trial(name).name for name in figure.trials} == set(figure.trials)


@EACH
def test_what_the_source_reports_would_be_judged_reproduced(experiment: Experiment) -> None:
    for claim in experiment.claims:
        if claim.source is not None and claim.unit in ("%", "points"):
            assert claim.outcome(claim.source, claim.source) == "reproduced", claim.text


@EACH
def test_trials_name_methods_tasks_and_bases_that_there_are(experiment: Experiment) -> None:
    for trial in experiment.trials:
        if isinstance(trial, Adapt):
            schedule = method_named(trial.method).schedule
            assert schedule is not None
            assert set(trial.scored) <= set(catalog())
            base = [one for one in experiment.trials if one.name == trial.base]
            assert trial.base == "smollm2" or isinstance(base[0], Pretrain)
            Plan(learning_rate=trial.rates[0], **asdict(trial.training))
            assert trial.rates_at(0) == trial.rates
            assert set(trial.rates_at(1)) <= set(trial.rates)
        elif isinstance(trial, Pretrain):
            assert set(trial.scored) <= set(DIGIT_TASKS)


def test_every_figure_of_the_paper_s_table_is_claimed() -> None:
    claimed = {claim.source for experiment in EXPERIMENTS for claim in experiment.claims}
    printed = {
        91.41, 84.91, 0.09, 31.4, 19.2, 30.0, 15.6, 94.09, 83.72, 99.62, 99.78, 5.9, 27.8, 39.7, 22.8, 99.69, 99.59,
        100.0, 99.97, 71.59, 0.62, 0.31, 92.38, 4.88e-4, 9.16e-5, 0.016, 0.174,
    }  # fmt: skip
    assert printed <= claimed


def test_same_budget_is_the_same_budget() -> None:
    [experiment] = experiments_named(["same-budget"])
    numbers = [claim.source for claim in experiment.claims if claim.cell.measurement == "numbers trained"]
    assert numbers == [12_288.0] * 3


def test_experiments_are_frozen_and_found_by_name() -> None:
    with pytest.raises(FrozenInstanceError):
        EXPERIMENTS[0].name = "other"  # type: ignore[misc]
    assert experiments_named() == EXPERIMENTS
    with pytest.raises(UnknownNameError, match="did you mean 'combine-skills'"):
        experiments_named(["combine-skill"])
    assert (preset_named("quick").seeds, preset_named("paper").seeds) == (1, 10)
    with pytest.raises(UnknownNameError, match="Known: paper, quick"):
        preset_named("fast")
    with pytest.raises(InputError, match="no trial named 'x'"):
        EXPERIMENTS[0].trial("x")


def test_bounds() -> None:
    assert Bound("at least", 2.0).holds(2.0, None)
    assert not Bound("at most", 2.0).holds(2.1, None)
    assert Bound("within", 2.0).holds(5.0, 7.0)
    with pytest.raises(InputError, match="needs a value in the source"):
        Bound("within", 2.0).holds(5.0, None)


@pytest.mark.parametrize(
    ("bound", "low", "high", "outcome"),
    [
        (Bound("at most", 10.0), 3.0, 10.0, "reproduced"),
        (Bound("at most", 10.0), 3.3, 21.8, "not settled"),
        (Bound("at most", 10.0), 10.1, 21.8, "differs"),
        (Bound("at least", 50.0), 18.0, 36.0, "differs"),
        (Bound("at least", 50.0), 49.9, 60.0, "not settled"),
        (Bound("within", 2.0), 6.5, 8.5, "reproduced"),
        (Bound("within", 2.0), 8.0, 12.0, "not settled"),
        (Bound("within", 2.0), 1.0, 20.0, "not settled"),  # around it, and beyond it on both sides
        (Bound("within", 2.0), 10.0, 12.0, "differs"),
    ],
)
def test_an_outcome_is_that_of_the_whole_interval(bound: Bound, low: float, high: float, outcome: str) -> None:
    assert bound.outcome(low, high, 7.0) == outcome


@EACH
def test_every_claim_says_what_would_refute_it(experiment: Experiment) -> None:
    for claim in experiment.claims:
        assert len(claim.refuted.split()) >= 4, claim.text


def test_the_fields_of_a_training_are_those_of_a_plan() -> None:
    assert {field.name for field in fields(Training)} < {field.name for field in fields(Plan)}


def test_the_room_imports_nothing_but_itself_and_the_ground() -> None:
    for path in Path(room.__path__[0]).glob("*.py"):
        for module in re.findall(r"^(?:from|import) ([\w.]+)", path.read_text(encoding="utf-8"), re.MULTILINE):
            is_own = module.startswith(("elicitable.experiments", "elicitable.errors", "elicitable.values"))
            assert is_own or module.partition(".")[0] in sys.stdlib_module_names, (path, module)
