"""The recipes of CONTRIBUTING for an experiment, a measure and a figure, followed to the letter by someone new."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import elicitable.experiments as room
from elicitable.errors import UnknownNameError
from elicitable.executors.executor import Inline
from elicitable.experiments import catalog
from elicitable.experiments.experiment import Experiment, Figure
from elicitable.lab import measures
from elicitable.lab.reproduce import run_experiments
from elicitable.report import experiment_figures
from elicitable.report.reproduction import write_reproduction

RECIPES = Path(__file__).parents[1] / "CONTRIBUTING.md"

EXPERIMENT_FILE = '''
"""How large the weights of a toy are."""

from elicitable.experiments.experiment import Bound, Cell, Claim, Experiment, Figure, Measure

_TRIAL = Measure("weights of a toy", "toy:ascending", "largest weight")

EXPERIMENT = Experiment(
    name="large-weights",
    title="Weights are not large",
    source="section 5.2",
    trials=(_TRIAL,),
    claims=(
        Claim("none is above 100", Cell(_TRIAL.name, "largest"), None, Bound("at most", 100.0), "", refuted="one were"),
    ),
    figures=(Figure("largest weight", (_TRIAL.name,), "The largest weight of every matrix."),),
)
'''

MEASURE = '''
@question("largest weight")
def largest_weight(model, settings, seed):
    """The largest weight of every matrix."""
    largest = [float(weight.detach().abs().max()) for weight in model.hf.parameters() if weight.ndim == 2]
    return {"measurements": {"largest": max(largest)}, "pictures": {"largest weight": largest}}
'''

FIGURE = '''
@figure("largest weight")
def largest_weight(drawn, experiment):
    """A bar a matrix."""
    pictures = [picture for series in drawn["series"] for picture in series["pictures"]]
    if not pictures:
        return None
    figure, [panel] = _grid(1)
    panel.bar(range(len(pictures[0])), pictures[0])
    return figure
'''


@pytest.fixture
def one_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    """Each of the three is added at its one place: a file of the room, and a function at the end of a file."""
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "large_weights.py").write_text(EXPERIMENT_FILE, encoding="utf-8")
    folders = [*room.__path__, str(tmp_path / "room")]
    monkeypatch.setattr(room, "__path__", folders)
    monkeypatch.setattr(measures, "QUESTIONS", dict(measures.QUESTIONS))
    monkeypatch.setattr(experiment_figures, "FIGURES", dict(experiment_figures.FIGURES))
    exec(MEASURE, vars(measures).copy())
    exec(FIGURE, vars(experiment_figures).copy())
    monkeypatch.setattr(catalog, "EXPERIMENTS", catalog.found_in(folders))
    [found] = catalog.experiments_named(["large-weights"])
    monkeypatch.delitem(sys.modules, "elicitable.experiments.large_weights")
    return found


def test_an_experiment_a_measure_and_a_figure_of_one_s_own_are_run_judged_and_drawn(
    one_more: Experiment, tmp_path: Path
) -> None:
    names = [experiment.name for experiment in catalog.EXPERIMENTS]
    assert names == [
        "token-reach", "llm-identity", "new-task", "elicit", "large-weights", "combine-skills", "same-budget",
        "prefix-use",
    ]  # fmt: skip
    out = tmp_path / "out"
    results = run_experiments([one_more], "quick", [0], out=out, executor=Inline())
    [claim] = results["experiments"][0]["claims"]
    assert (claim["outcome"], claim["values"] != []) == ("reproduced", True), claim["reason"]
    write_reproduction(json.loads((out / "results.json").read_text(encoding="utf-8")), out)
    assert (out / "figures" / "large-weights-largest-weight.svg").exists()
    assert "![The largest weight of every matrix.]" in (out / "results.md").read_text(encoding="utf-8")


def test_a_look_of_one_s_own_is_taken_on_the_items_that_it_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "LOOKS", {})
    given = []

    @measures.look("count", items=3)
    def count(model: object, adaptation: object, items: object) -> measures.Found:
        given.append(items)
        return {"measurements": {"items": len(items)}, "pictures": {}}  # type: ignore[arg-type]

    from elicitable.lab import jobs
    from elicitable.tasks.catalog import task_from

    task = task_from("add-1")
    found = jobs._look(None, None, ("count",), task)  # type: ignore[arg-type]
    assert found == {"measurements": {"items": 3}, "pictures": {}}
    assert given == [task.held_out("test", 3)]


def test_a_figure_that_nobody_draws_is_refused_by_its_name() -> None:
    drawn = {"kind": "learning curve", "caption": "", "series": []}
    with pytest.raises(UnknownNameError, match="unknown figure 'learning curve': did you mean 'learning curves'"):
        experiment_figures.experiment_figure(drawn, {})
    assert Figure("any", (), "").kind == "any"


@pytest.mark.parametrize("place", ["experiments/", "lab/measures.py", "report/experiment_figures.py"])
def test_the_recipes_name_the_places(place: str) -> None:
    assert f"In `{place}`" in RECIPES.read_text(encoding="utf-8")
