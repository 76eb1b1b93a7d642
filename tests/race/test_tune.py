"""``tune`` into a folder: the same arguments resume there, others leave it alone, and nothing is half there."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import elicitable as el
from elicitable.cache import check_seal
from elicitable.errors import InputError, StoreError, TrainingDivergedError
from elicitable.race import tune as tuning
from elicitable.race.reporter import Silent
from elicitable.records.folder import written_whole
from elicitable.values import CurvePoint, Item

Files = dict[str, bytes]
STEPS = 40


class Reverse:
    """Ten digits, written the other way round."""

    name = "reverse"

    def labels(self) -> None:
        return None

    def sample(self, n: int, rng: np.random.Generator) -> list[Item]:
        rows = [tuple(map(int, row)) for row in rng.integers(10, size=(n, 3))]
        return [Item(row, row[::-1]) for row in rows]

    def held_out(self, split: str, n: int | None = None) -> list[Item]:
        return self.sample(n or 64, np.random.default_rng(len(split)))

    def fingerprint(self) -> str:
        return "reverse-1"


def tuned(out: Path | None, **changed: Any) -> Any:
    """A tune that sweeps three rates and then trains 40 steps, on the small toy."""
    given: dict[str, Any] = {"method": "kv-prefix", "size": 2, "steps": STEPS, "test_items": 32} | changed
    return el.tune("toy:ascending", Reverse(), out=out, **given)


def adapter_files(folder: Path) -> Files:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.suffix != ".json"}


def without_clock(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in ("seconds", "out")}


class Interrupting(Silent):
    """Ctrl-C at the ``at``-th thing that begins, after ``points`` points of its curve."""

    def __init__(self, at: int, points: int = 0) -> None:
        self.begun: list[str] = []
        self.at, self.left = at, points

    def begin(self, arm: str, what: str, arms_done: int, arms: int) -> None:
        self.begun.append(what)
        if len(self.begun) == self.at and self.left == 0:
            raise KeyboardInterrupt

    def point(self, point: CurvePoint, share: float) -> None:
        if len(self.begun) == self.at and point.validation is not None:  # points by the clock do not count
            self.left -= 1
            if self.left <= 0:
                raise KeyboardInterrupt


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A tune that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, tuned(folder)


def test_a_start_that_nobody_names_is_that_of_a_race() -> None:
    """A prefix on a toy started from its vocabulary here, and at random in a race, whose rates then failed."""
    one = tuned(None, steps=1, learning_rate=0.1)
    assert one.adaptation.setting["init"] == "random"
    assert tuned(None, steps=1, learning_rate=0.1, init="sink").adaptation.setting["init"] == "sink"


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint at every place where one can be, and several places in forty steps."""
    monkeypatch.setattr(tuning, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("elicitable.training.loop.CHUNK", 4)
    monkeypatch.setattr("elicitable.training.batches.CHUNK", 4)


def same(folder: Path, again: Any, whole: tuple[Path, Any]) -> None:
    """The folder and the result are those of the tune that nothing interrupted, bit for bit."""
    assert adapter_files(folder) == adapter_files(whole[0])
    assert without_clock(again.record) == without_clock(whole[1].record)
    assert json.loads((folder / "elicitable.json").read_text()) == again.record
    theirs = whole[1].adaptation.state()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in again.adaptation.state().items())
    assert not list(folder.rglob(".*"))
    assert not (folder / "running").exists()


def test_an_interrupted_sweep_goes_on_with_the_rates_that_are_left(whole: tuple[Path, Any], tmp_path: Path) -> None:
    stop = Interrupting(at=3)
    with pytest.raises(KeyboardInterrupt):
        tuned(tmp_path, reporter=stop)
    assert adapter_files(tmp_path) == {}
    rest = Interrupting(at=99)
    again = tuned(tmp_path, reporter=rest)
    assert stop.begun[-1] == rest.begun[0]
    assert [*stop.begun[:-1], *rest.begun][:-1] == [f"rate {one['learning_rate']:g}" for one in again.record["sweep"]]
    same(tmp_path, again, whole)


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("method", ["kv-prefix", "lora", "full"])
def test_an_interrupted_long_run_goes_on_from_its_checkpoint(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, method: str
) -> None:
    monkeypatch.setattr(tuning, "pace_for", lambda *_: small_pace())
    changed = {"method": method, "size": 1, "learning_rate": 0.01}
    uninterrupted = tmp_path / "whole", tuned(tmp_path / "whole", **changed)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        tuned(out, **changed, reporter=Interrupting(at=1, points=2))
    assert len(list((out / "running").iterdir())) == 1
    assert adapter_files(out) == {}
    steps: list[int] = []
    step = tuning.train.__globals__["_step"]
    monkeypatch.setitem(tuning.train.__globals__, "_step", lambda *a: (steps.append(1), step(*a))[1])
    again = tuned(out, **changed)
    assert len(steps) == STEPS - 12  # stopped at the 16th; kept before the 4th, the 8th and the 12th
    same(out, again, uninterrupted)


def small_pace() -> tuning.Pace:
    return tuning.Pace(4, STEPS, 5, 8, 16, 32, 64, 1000)


@pytest.mark.parametrize("method", ["kv-prefix", "lora", "full", "layer-prefix", "soft-prompt", "value-bias"])
def test_a_finished_tune_is_not_run_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, method: str) -> None:
    changed = {"method": method, "size": 1, "steps": 4, "learning_rate": 0.001}
    first = tuned(tmp_path, **changed)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    monkeypatch.setattr(tuning, "train", None)
    monkeypatch.setattr(tuning.Marking, "mark", None)
    again = tuned(tmp_path, **changed)
    assert again.record == first.record
    theirs = first.adaptation.state()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in again.adaptation.state().items())
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"seed": 7}, "seed 0, not 7"),
        ({"size": 3}, "size 2, not 3"),
        ({"method": "lora"}, "method 'kv-prefix', not 'lora'"),
        ({"learning_rate": 0.5}, "learning rates"),
        ({"init": "sink"}, "options {'init': 'random'}, not {'init': 'sink'}"),
        ({"steps": 3}, "another pace"),
        ({"test_items": 3}, "another pace"),
    ],
)
def test_other_arguments_leave_the_folder_as_it_is(
    whole: tuple[Path, Any], changed: dict[str, Any], named: str
) -> None:
    before = {path: path.read_bytes() for path in whole[0].rglob("*") if path.is_file()}
    with pytest.raises(StoreError, match="choose another --out") as refused:
        tuned(whole[0], **changed)
    assert named in str(refused.value)
    assert {path: path.read_bytes() for path in whole[0].rglob("*") if path.is_file()} == before


def test_an_adapter_of_another_program_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(StoreError, match="that these arguments did not make"):
        tuned(tmp_path, steps=2)
    assert [path.name for path in tmp_path.iterdir()] == ["adapter_config.json"]


def test_another_task_of_the_same_name_and_data_is_another(whole: tuple[Path, Any]) -> None:
    class Other(Reverse):
        def labels(self) -> None:
            """The same, written by somebody else."""

    with pytest.raises(StoreError, match="another task"):
        el.tune("toy:ascending", Other(), method="kv-prefix", size=2, steps=STEPS, test_items=32, out=whole[0])


def test_an_unfinished_tune_and_another_run_beside_each_other(tmp_path: Path) -> None:
    """Seed 0 is stopped, seed 7 takes the folder: what is there is seed 7's alone, and seed 0 is refused."""
    with pytest.raises(KeyboardInterrupt):
        tuned(tmp_path / "shared", reporter=Interrupting(at=2))
    tuned(tmp_path / "shared", seed=7)
    assert json.loads((tmp_path / "shared" / "elicitable.json").read_text())["seed"] == 7
    tuned(tmp_path / "alone", seed=7)
    assert adapter_files(tmp_path / "shared") == adapter_files(tmp_path / "alone")
    with pytest.raises(StoreError, match="seed 7, not 0"):
        tuned(tmp_path / "shared")


def test_what_dies_while_the_adapter_is_written_leaves_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, whole: tuple[Path, Any]
) -> None:
    write = tuning.write_artefact

    def dies(*given: Any) -> None:
        write(*given)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(tuning, "write_artefact", dies)
        with pytest.raises(KeyboardInterrupt):
            tuned(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["trials"]
    same(tmp_path, tuned(tmp_path), whole)


@pytest.mark.parametrize("after", [0, 1, 2, 3, 4, 5])
def test_wherever_the_power_goes_the_folder_is_old_or_new_or_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, after: int
) -> None:
    """Renames one by one, that of the new seal beside them first: weights and configuration are never of two makers."""
    last = ("record", "config")

    def write(mark: str) -> None:
        with written_whole(tmp_path, last) as folder:
            for name in ("config", "weights", "record"):
                (folder / name).write_text(mark)

    write("old")
    (tmp_path / "notes").write_text("mine")
    real, left = os.replace, [after]

    def dies(source: Any, target: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise SystemExit("the power is gone")
        real(source, target)

    monkeypatch.setattr(os, "replace", dies)
    if after < 5:
        with pytest.raises(SystemExit):
            write("new")
    else:
        write("new")
    found = {path.name: path.read_text() for path in tmp_path.iterdir() if path.is_file()}
    assert found.pop("notes") == "mine"
    is_sealed = found.pop("seal.json", None) is not None
    assert "config" not in found or set(found.values()) == {"old" if after == 0 else "new"}
    assert ("config" in found) == (after not in (1, 2, 3))
    assert is_sealed == (after in (0, 5))
    assert check_seal(tmp_path, "") == is_sealed
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


def test_a_rate_at_which_it_diverged_is_no_trial(tmp_path: Path) -> None:
    with pytest.raises(TrainingDivergedError, match="give a lower one"):
        tuned(tmp_path / "out", method="full", learning_rate=1e30, steps=4)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named_before_anything_is_trained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ELICITABLE_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(tuning, "train", lambda *given, **named: pytest.fail("something was trained"))
    with pytest.raises(StoreError, match="ELICITABLE_CACHE"):
        el.tune("toy:ascending", "ascending", method="lora", steps=4, out=tmp_path / "out")


@pytest.mark.parametrize("out", [3, "", b"x"])
def test_an_output_folder_is_a_path(out: Any, tmp_path: Path) -> None:
    for asked in (
        lambda: el.tune("toy:ascending", "ascending", method="lora", steps=4, out=out),
        lambda: el.forecast("toy:ascending", "ascending", out=out),
        lambda: el.reproduce(["combine-skills"], out=out),
        lambda: el.export(tmp_path, "peft", out),
        lambda: el.prune("toy:ascending", tmp_path, "ascending", out),
        lambda: el.pretrain("ascending", out),
    ):
        with pytest.raises(InputError, match="an output folder is a path"):
            asked()
