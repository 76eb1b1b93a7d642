"""From a name to a task."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from elicitable.errors import InputError, UnknownNameError
from elicitable.tasks import hub
from elicitable.tasks.catalog import catalog, task_from
from elicitable.tasks.digit_rules import RULES
from elicitable.tasks.digits import DigitTask
from elicitable.tasks.options import TaskOptions


def test_the_catalog_lists_every_built_in_task() -> None:
    assert set(catalog()) == {*RULES, "mixed", "movie-reviews"}
    for name, card in catalog().items():
        assert card.name == name
        assert card.description
        assert card.source
        assert len(card.description) < 60


@pytest.mark.parametrize("name", [*RULES, "mixed"])
def test_names_give_their_task_and_the_card_says_what_kind_it_is(name: str) -> None:
    task = task_from(name)
    assert task.name == name
    assert (task.labels() is None) == (catalog()[name].kind == "generation")


def test_importing_the_catalog_loads_nothing_heavy() -> None:
    code = "import sys, elicitable.tasks.catalog as c; c.catalog(); "
    code += "print([m for m in ('numpy', 'torch', 'transformers', 'datasets', 'csv') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_unknown_names_have_near_matches_and_a_way_out() -> None:
    with pytest.raises(UnknownNameError) as caught:
        task_from("asscending")
    assert "unknown task 'asscending': did you mean 'ascending'" in str(caught.value)
    assert "CSV, TSV, JSON or Parquet file" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.csv", "nowhere.csv: there is no such file"),
        ("data/nowhere.jsonl", "data/nowhere.jsonl: there is no such file"),
        ("/no/such/place", "/no/such/place: there is no such file"),
        ("./ascending", "./ascending: there is no such file"),
        ("", "a task is a name or a path, not ''"),
        (Path("ascending"), "ascending: there is no such file"),
    ],
)
def test_paths_that_are_not_there(
    name: str | Path, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        task_from(name)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        task_from(str(tmp_path))


@pytest.mark.parametrize("name", ["hub:owner/name", "owner/name", "hub:name"])
def test_names_of_hub_data_sets(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def record(name: str, options: TaskOptions) -> DigitTask:
        asked.append((name, options.config))
        return DigitTask("add-1")

    monkeypatch.setattr(hub, "hub_task", record)
    task_from(name, config="small", template=None)
    assert asked == [(name.removeprefix("hub:"), "small")]


def test_options_that_there_are_not(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="task 'ascending' takes no options, so not 'template'"):
        task_from("ascending", template="x")
    task_from("ascending", template=None)  # not given
    with pytest.raises(
        UnknownNameError, match=r"unknown option of task 't.csv' 'txt_column': did you mean 'text_column'"
    ):
        task_from("t.csv", txt_column="x")
    with pytest.raises(UnknownNameError, match="'config'"):
        task_from("t.csv", config="x")
    with pytest.raises(UnknownNameError, match="'validation'"):
        task_from("hub:owner/name", validation="x")
    with pytest.raises(UnknownNameError, match="did you mean 'template'"):
        task_from("movie-reviews", templat="x")


def test_own_tasks_pass_through_and_non_tasks_say_what_they_lack() -> None:
    task = DigitTask("add-2")
    assert task_from(task) is task
    with pytest.raises(InputError, match="takes no options: template"):
        task_from(task, template="x")

    class Half:
        name = "half"

        def labels(self) -> None:
            return None

    with pytest.raises(InputError, match="Half is no task: it lacks sample, held_out, fingerprint"):
        task_from(Half())  # type: ignore[arg-type]
