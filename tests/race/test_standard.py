"""What is pruned, ablated or compiled is scored as its run was: by the run's score, under the run's rule."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.deploy.conftest import save_letters, text_of, write_rows

import elicitable as el
from elicitable.diagnosis.intervals import point
from elicitable.errors import InputError
from elicitable.methods.adapter import write_adapter
from elicitable.models.model import Model
from elicitable.race.inside import reading_with
from elicitable.race.standard import Standard
from elicitable.tasks.catalog import task_from

Call = Callable[..., tuple[int, str, str]]
ITEMS, FEW = 40, 8
LABELS = ("yes", "no way", "maybe")
PRUNED: dict[str, Any] = {"items": 16, "test_items": ITEMS, "steps": 0}
OWN = "def vowels(target, answer):\n    return sum(letter in 'aeiou' for letter in answer) / max(len(answer), 1)\n"


@dataclass(frozen=True)
class Tuned:
    """A kv-prefix, tuned for a score."""

    model: Model
    folder: Path
    base: Path
    train: Path
    test: Path
    record: dict[str, Any]

    @property
    def options(self) -> dict[str, Any]:
        return {"test": self.test, "template": "{text}:"}

    @property
    def typed(self) -> list[str]:
        return ["-m", str(self.base), "-t", str(self.train), "--test", str(self.test), "--template", "{text}:", "-q"]

    @property
    def task(self) -> Any:
        return task_from(self.train, **self.options)


def tuned(place: Path, answer: str, **how: Any) -> Tuned:
    base = save_letters(place / "model")
    rows = [{"text": text_of(n), answer: LABELS[(n * n + n // 3) % 3]} for n in range(160)]
    train, test = write_rows(place / "train.csv", rows[:-ITEMS]), write_rows(place / "test.csv", rows[-ITEMS:])
    given: dict[str, Any] = {"method": "kv-prefix", "size": 4, "learning_rate": 0.1, "steps": 8, "test_items": ITEMS}
    options = {"test": test, "template": "{text}:"}
    found = el.tune(str(base), train, out=place / "run", stop="\n", **given, **how, **options)
    return Tuned(el.load(str(base)), place / "run", base, train, test, dict(found.record))


@pytest.fixture(scope="module")
def free(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    """Free answers, of which chrF gives something for what is not right too."""
    return tuned(tmp_path_factory.mktemp("free"), "target", score="chrf")


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    return tuned(tmp_path_factory.mktemp("labels"), "label", score="macro-f1", rule="fitted")


def test_a_prefix_is_pruned_by_the_score_of_its_run(free: Tuned, tmp_path: Path) -> None:
    """Exact match decided: where it is 0 before and after, whatever is dropped keeps it."""
    record = el.prune(free.model, free.folder, free.task, tmp_path / "small", margin=0.0, **PRUNED)
    assert record["score"] == "chrf"
    assert record["test_before"] == pytest.approx(free.record["mean"], abs=1e-12)
    assert record["test_before"] > 0
    assert record["score_after"] >= record["score_before"]


def test_labels_are_pruned_by_the_score_and_the_rule_of_their_run(labels: Tuned, tmp_path: Path) -> None:
    record = el.prune(labels.model, labels.folder, labels.task, tmp_path / "small", **PRUNED)
    assert record["test_before"] == pytest.approx(labels.record["mean"], abs=1e-12)
    assert el.read(tmp_path / "small").record.result.score == "macro-f1"  # type: ignore[union-attr]


def test_a_score_of_ones_own_is_asked_for_again(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    run = tuned(tmp_path, "target", score=f"{tmp_path / 'mine.py'}:vowels")
    with pytest.raises(InputError, match=r"scored by vowels, a function of your own.* --score FILE\.py:FUNCTION"):
        el.prune(run.model, run.folder, run.task, tmp_path / "small", **PRUNED)
    assert not (tmp_path / "small" / "artefact.json").exists()
    given = {"score": f"{tmp_path / 'mine.py'}:vowels"}
    record = el.prune(run.model, run.folder, run.task, tmp_path / "small", **PRUNED, **given)
    assert record["test_before"] == pytest.approx(run.record["mean"], abs=1e-12)


def whole(record: dict[str, Any]) -> float:
    """Return the score that every part was left out of."""
    part = record["ablations"][0]
    return float(part["score"] + part["lost"])


@pytest.mark.parametrize("of", ["labels", "free"])
def test_parts_are_left_out_by_the_score_the_rule_and_the_lengths_of_the_run(
    of: str, request: pytest.FixtureRequest, call: Call, tmp_path: Path
) -> None:
    """The look cuts texts, and so did what was scored; labels were decided by their plain likelihood."""
    run: Tuned = request.getfixturevalue(of)
    out = tmp_path / "inspected"
    cut = ("--texts", "2", "--max-tokens", "14", "--ablate", str(FEW))
    code, _, err = call("inspect", "-c", str(run.folder), *run.typed, *cut, "--out", str(out))
    assert (code, err) == (0, "")
    record = el.read(run.folder).record
    assert record is not None
    held = run.task.held_out("validation", FEW)
    adaptation = el.read(run.folder).adaptation(run.model)
    with el.use(run.model, adaptation):
        reading = reading_with(run.model, adaptation, record)
        wanted = point(Standard.of(run.model, run.task, record).outcome(run.model, run.task, held, reading))
    assert whole(json.loads((out / "inspection.json").read_text())) == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("of", ["labels", "free"])
def test_a_compiled_context_is_scored_as_its_run_was(of: str, request: pytest.FixtureRequest) -> None:
    run: Tuned = request.getfixturevalue(of)
    artefact = el.read(run.folder)
    assert artefact.record is not None
    standard = Standard.of(run.model, run.task, artefact.record)
    given: dict[str, Any] = {"texts_of_task": 8, "rank": 1, "steps": 0, "test_items": ITEMS, "control": False}
    layout = artefact.record.layout.layout()
    found = el.compile_context(
        run.model, artefact.adaptation(run.model), task=run.task, layout=layout, marks=standard.outcome, **given
    )
    score = found.record["score"]
    assert score["context"] == pytest.approx(run.record["mean"], abs=1e-12)
    lost, low, high = score["lost"]
    assert lost == pytest.approx(score["context"] - score["compiled"])
    assert low <= lost <= high


def test_a_folder_that_is_named_by_a_point_is_pruned_beside_itself(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ended in a traceback: "." has no name."""
    model = el.load("toy:ascending")
    write_adapter(model, el.context("kv-prefix", model, length=3), tmp_path / "whole")
    monkeypatch.chdir(tmp_path / "whole")
    code, said, err = call(
        "prune", ".", "-m", "toy:ascending", "-t", "descending", "--items", "8", "--steps", "0", "-q"
    )
    assert (code, err) == (0, "")
    assert "exact-match: validation" in said
    assert (tmp_path / "whole-pruned" / "artefact.json").is_file()
