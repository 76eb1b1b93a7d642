"""What may go wrong while the experiments run: kills, full disks, damaged and foreign files, failures, lost workers.

Nothing of it may change a record, overwrite a file, or end in a traceback.
"""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.disks import small_disk_at
from tiny_experiment import SCRIPT, TINY, forget, records, run

from elicitable import cli
from elicitable.errors import StoreError
from elicitable.executors.executor import executor_named
from elicitable.experiments import catalog
from elicitable.lab import jobs, reproduce
from elicitable.records.lock import alone
from elicitable.records.store import Store

NEEDS_RAY = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="runs where `pip install elicitable[ray]`"),
    # Ray's own processes outlive the objects that started them until the interpreter collects those
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
RAY = pytest.param("ray", marks=NEEDS_RAY)
LOCAL = pytest.param("local", marks=pytest.mark.slow)


@pytest.fixture
def reproduce_tiny(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """``elicitable reproduce … --out FOLDER`` with the tiny experiment as the only one: exit code, both outputs."""
    monkeypatch.setattr(catalog, "EXPERIMENTS", (TINY,))

    def call(out: Path, *given: str) -> tuple[int, str, str]:
        arguments = ["elicitable", "reproduce", "--out", str(out), "--executor", "inline", *given]
        monkeypatch.setattr(sys, "argv", arguments)
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0), *capsys.readouterr()

    return call


def files(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


# --- the same records from every way of running ---------------------------------------------------------------


def test_two_runs_of_one_trial_give_the_same_bytes(copy: Path) -> None:
    """A base run anew gives its record and its weights again, so all that is built on it does too."""
    wanted = {name: data for name, data in files(copy).items() if name.endswith("state.safetensors")}
    kept = records(copy)
    forget(copy, kind="pretrain")
    run(copy)
    assert json.dumps(records(copy)) == json.dumps(kept)
    assert wanted
    assert {name: data for name, data in files(copy).items() if name.endswith("state.safetensors")} == wanted


@pytest.mark.parametrize("name", [LOCAL, RAY])
def test_two_workers_give_the_records_of_one_process(whole: Path, tmp_path: Path, name: str) -> None:
    run(tmp_path / "out", executor=executor_named(name, 2))
    assert records(tmp_path / "out") == records(whole)


# --- kills ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["local", "inline"])
def test_killed_twice_at_random_moments_the_rerun_gives_the_undisturbed_records(
    whole: Path, tmp_path: Path, executor: str
) -> None:
    out, draw = tmp_path / "out", random.Random(time.time_ns())
    command, moments = [sys.executable, str(SCRIPT), str(out), executor], []
    for _ in range(2):
        process = subprocess.Popen(command, start_new_session=True)
        seen = len(files(out)) if out.exists() else 0
        while (len(files(out)) if out.exists() else 0) <= seen + 1 and process.poll() is None:
            time.sleep(0.02)
        moments.append(draw.uniform(0.0, 3.0))
        time.sleep(moments[-1])
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(command, check=True)
    assert records(out) == records(whole), f"killed after {moments} s of work"
    assert not list((out / "running").iterdir())
    assert not list((out / "trials").glob(".*"))


class KillsOnce(reproduce.Watcher):
    """Kills the first worker that is at a job."""

    killed = 0

    @contextmanager
    def watching(self, jobs: Sequence[jobs.Job], todo: Sequence[jobs.Job], store: Store) -> Iterator[None]:
        import psutil

        over = threading.Event()

        def look() -> None:
            while not over.wait(0.05) and not self.killed:
                if not list((store.folder / "running").glob("*.safetensors")):  # type: ignore[operator]
                    continue
                for process in psutil.Process().children(recursive=True):
                    if "ray::run_job" in " ".join(process.cmdline()):
                        process.kill()
                        self.killed = process.pid
                        return

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


@pytest.mark.parametrize("name", [RAY])
def test_a_ray_worker_that_is_killed_meanwhile_is_retried(whole: Path, tmp_path: Path, name: str) -> None:
    watcher = KillsOnce()
    run(tmp_path / "out", executor=executor_named(name, 2), watcher=watcher, checkpoint_seconds=0.0)
    assert watcher.killed
    assert records(tmp_path / "out") == records(whole)


# --- full disks -----------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 kilobytes."""
    with small_disk_at(tmp_path / "disk", 64) as place:
        yield place


@pytest.mark.slow
def test_a_full_disk_is_named_and_what_is_recorded_stays(
    small_disk: Path, whole: Path, reproduce_tiny: Callable[..., Any]
) -> None:
    """The base fits, what follows does not; given more room the same command goes on."""
    out = small_disk / "out"
    code, _, err = reproduce_tiny(out)
    assert code == 2
    assert "Traceback" not in err
    assert str(out) in err.splitlines()[-1]
    assert "No space left on device" in err.splitlines()[-1]
    kept, wanted = records(out), records(whole)
    assert 0 < len(kept) < len(wanted)
    assert all(wanted[name] == record for name, record in kept.items())
    assert not list((out / "trials").glob(".*"))
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    assert reproduce_tiny(out)[0] == 0
    assert records(out) == wanted


@pytest.mark.parametrize("part", ["record.json", "state.safetensors"])
def test_a_disk_that_is_full_for_a_record_leaves_no_part_of_it(
    copy: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    import safetensors.torch

    def full(*_: Any, **__: Any) -> None:
        if part == "state.safetensors":
            raise safetensors.SafetensorError("I/O error: No space left on device (os error 28)")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    gone = forget(copy, kind="pretrain")
    before = files(copy)
    monkeypatch.setattr(*((safetensors.torch, "save_file") if "state" in part else (os, "fsync")), full)
    with pytest.raises(StoreError, match=rf"cannot write .*{gone}.*No space left on device.*not recorded"):
        run(copy)
    after = {name: data for name, data in files(copy).items() if not name.startswith("running")}
    assert after == before


# --- damaged, unreadable and foreign files --------------------------------------------------------------------


def newer(path: Path) -> None:
    record = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**record, "version": 99}), encoding="utf-8")


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def edited(path: Path) -> None:
    record = json.loads(path.read_text(encoding="utf-8"))
    record["spec"]["seed"] = 7
    path.write_text(json.dumps(record), encoding="utf-8")


def unreadable(path: Path) -> None:
    """A folder where the file should be: not even root can read it."""
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (newer, "newer elicitable (store version 99, this one reads 1)"),
        (truncated, "cannot be read"),
        (edited, "not the record of its own spec"),
        (unreadable, "cannot be read"),
    ],
)
@pytest.mark.parametrize("given", [(), ("--status",), ("--tables",)])
def test_a_record_that_cannot_be_used_is_named_and_nothing_is_overwritten(
    copy: Path, reproduce_tiny: Callable[..., Any], damage: Callable[[Path], None], words: str, given: tuple[str, ...]
) -> None:
    path = next(copy.rglob("record.json"))
    damage(path)
    before = files(copy)
    code, out, err = reproduce_tiny(copy, *given)
    assert (code, out) == (2, "")
    assert str(path) in err
    assert words in err
    assert "Traceback" not in err
    assert files(copy) == before


def test_weights_that_are_damaged_are_named_and_left(copy: Path, reproduce_tiny: Callable[..., Any]) -> None:
    forget(copy, kind="adapt")
    path = next(copy.rglob("state.safetensors"))
    truncated(path)
    before = path.read_bytes()
    code, _, err = reproduce_tiny(copy)
    assert code == 2
    assert f"{path} cannot be read" in err
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", [truncated, unreadable])
def test_a_checkpoint_that_is_damaged_is_named_and_left(
    copy: Path, reproduce_tiny: Callable[..., Any], damage: Callable[[Path], None]
) -> None:
    gone = forget(copy, kind="adapt")
    path = copy / "running" / f"{gone}.safetensors"
    path.parent.mkdir(exist_ok=True)
    shutil.copy(next(copy.rglob("state.safetensors")), path)
    damage(path)
    before = files(copy)
    code, _, err = reproduce_tiny(copy)
    assert code == 2
    assert f"{path} cannot be read" in err
    assert files(copy) == before


def test_a_checkpoint_of_another_trial_is_named_and_left(copy: Path, reproduce_tiny: Callable[..., Any]) -> None:
    from elicitable.training.checkpoint import Checkpoint, Frozen

    gone = forget(copy, kind="adapt")
    path = copy / "running" / f"{gone}.safetensors"
    Checkpoint(path, "somebody else").write(Frozen({}, {"steps": 1}))
    code, _, err = reproduce_tiny(copy)
    assert code == 2
    assert f"{path} belongs to another trial" in err


# --- exit codes, status, locks --------------------------------------------------------------------------------


def test_failed_trials_are_kept_and_change_the_exit_code(
    copy: Path, reproduce_tiny: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, wanted = forget(copy, rate=0.03), records(copy)

    def fail(*_: Any) -> Any:
        raise RuntimeError("the roof is leaking")

    real = jobs._adapt
    monkeypatch.setattr(jobs, "_adapt", fail)
    code, out, err = reproduce_tiny(copy)
    assert code == 1
    assert "1 of its runs failed" in " ".join(out.split())  # lines are broken at the terminal's width
    assert "1 trial failed: --status says why, and --retry runs them again." in out
    assert "prefix, seed 0, rate 0.03: failed" in err
    assert "in fail" in records(copy)[gone]["traceback"]
    monkeypatch.setattr(jobs, "_adapt", real)
    out = " ".join(reproduce_tiny(copy, "--status")[1].split())
    assert "failed prefix, seed 0, rate 0.03 (RuntimeError: the roof is leaking)" in out
    assert reproduce_tiny(copy)[0] == 1  # not run again unless asked
    assert reproduce_tiny(copy, "--retry", "--quiet")[::2] == (0, "")
    assert {name: record for name, record in records(copy).items() if name != gone} == wanted
    assert records(copy)[gone]["status"] == "ok"


@contextmanager
def held_by_another_thread(folder: Path) -> Iterator[None]:
    over, begun = threading.Event(), threading.Event()

    def hold() -> None:
        with alone(folder):
            begun.set()
            over.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    assert begun.wait(10)
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_status_and_tables_work_while_another_run_has_the_folder(
    copy: Path, reproduce_tiny: Callable[..., Any]
) -> None:
    gone = forget(copy, rate=0.03)
    beat = {"share": 0.5, "seconds": 3.0, "steps": 75, "text": "step 75, loss 1.500"}
    (copy / "running").mkdir(exist_ok=True)
    (copy / "running" / f"{gone}.json").write_text(json.dumps(beat), encoding="utf-8")
    with held_by_another_thread(copy):
        code, _, err = reproduce_tiny(copy)
        assert code == 2
        assert f"another run is using {copy} (process {os.getpid()} on " in err
        code, out, _ = reproduce_tiny(copy, "--status", "--json")
        [line] = [one for one in json.loads(out)["trials"] if one["state"] != "done"]
        assert (code, line["state"], line["steps"], line["reason"]) == (0, "under way", 75, "step 75, loss 1.500")
        assert reproduce_tiny(copy, "--tables", "--quiet")[0] == 0
    out = reproduce_tiny(copy, "--status")[1]
    assert out.count("interrupted ") == 1
    assert out.count("done ") == 5


def test_status_of_a_folder_that_is_not_there_creates_nothing(
    tmp_path: Path, reproduce_tiny: Callable[..., Any]
) -> None:
    code, out, _ = reproduce_tiny(tmp_path / "new", "--status")
    assert (code, out.count("waiting")) == (0, 6)
    assert not (tmp_path / "new").exists()


def test_without_ray_the_command_says_what_to_run(
    tmp_path: Path, reproduce_tiny: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    code, out, err = reproduce_tiny(tmp_path / "out", "--executor", "ray")
    assert (code, out) == (2, "")
    assert err == "error: --executor ray needs Ray, which is not installed; run: pip install 'elicitable[ray]'\n"
    assert not (tmp_path / "out").exists()


def test_the_first_seed_may_be_named(tmp_path: Path, reproduce_tiny: Callable[..., Any]) -> None:
    out = reproduce_tiny(tmp_path / "out", "--status", "--seed", "4", "--seeds", "2")[1]
    assert "base, seed 4" in out
    assert "base, seed 5" in out
    assert "seed 0" not in out
    assert "the first seed must be at least 0, got -1" in reproduce_tiny(tmp_path / "out", "--seed", "-1")[2]


# --- archives -------------------------------------------------------------------------------------------------


@pytest.fixture
def archive(copy: Path, tmp_path: Path) -> Path:
    """A folder that holds the records as one file, without weights."""
    [path] = reproduce.export_experiments([TINY], [0], Store(copy), tmp_path / "archive")
    assert [one.name for one in path.parent.iterdir()] == ["tiny.jsonl"]
    return path.parent


def test_an_archive_gives_the_tables_and_nothing_is_run(
    archive: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "_execute", lambda *_: pytest.fail("a trial was run again"))
    assert run(archive) == json.loads((whole / "results.json").read_text(encoding="utf-8"))
    assert not (archive / "trials").exists()


def test_an_export_loses_nothing_of_what_an_archive_holds(archive: Path, copy: Path, tmp_path: Path) -> None:
    before = (archive / "tiny.jsonl").read_bytes()
    for out in (tmp_path / "empty", copy):
        if out == copy:
            forget(copy, rate=0.03)
        reproduce.export_experiments([TINY], [0], Store(out, is_read_only=True), archive)
        assert (archive / "tiny.jsonl").read_bytes() == before


def test_all_three_views_are_written_without_a_run(copy: Path, reproduce_tiny: Callable[..., Any]) -> None:
    results = copy / "results.json"
    wanted = json.loads(results.read_text(encoding="utf-8"))
    results.write_text("{}", encoding="utf-8")
    reproduce_tiny(copy, "--tables", "--seeds", "2")
    found = json.loads(results.read_text(encoding="utf-8"))
    assert (wanted["seeds"], found["seeds"]) == (1, 2)
    assert {"results.md", "report.html"} <= {path.name for path in copy.iterdir()}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--status", "--export", "there"), "--status writes nothing; leave it out, or --export."),
        (("--status", "--tables"), "--status writes nothing; leave it out, or --tables."),
        (("--status", "--retry"), "--status runs nothing; leave it out, or --retry."),
        (("--tables", "--retry"), "--tables runs nothing; leave it out, or --retry."),
    ],
)
def test_what_would_be_passed_over_is_refused(
    tmp_path: Path, reproduce_tiny: Callable[..., Any], given: tuple[str, ...], words: str
) -> None:
    code, out, err = reproduce_tiny(tmp_path / "out", *given)
    assert (code, out) == (2, "")
    assert words in err
    assert not (tmp_path / "out").exists()


def test_a_base_without_weights_is_run_again_only_for_what_needs_it(archive: Path, whole: Path) -> None:
    path = archive / "tiny.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    [gone] = [line for line in lines if json.loads(line)["spec"]["rate"] == 0.03]
    path.write_text("".join(f"{line}\n" for line in lines if line != gone), encoding="utf-8")
    before = path.read_bytes()
    run(archive)
    assert path.read_bytes() == before
    assert {one["spec"]["kind"] for one in records(archive).values()} == {"pretrain", "adapt"}
    assert len(records(archive)) == 2
    assert records(archive).items() <= records(whole).items()


def test_a_damaged_archive_is_named_by_its_line(archive: Path, reproduce_tiny: Callable[..., Any]) -> None:
    path = archive / "tiny.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    for line, words in (("{", "cannot be read"), (lines[1].replace('"version":1', '"version":99'), "newer")):
        path.write_text("\n".join([lines[0], line]), encoding="utf-8")
        code, _, err = reproduce_tiny(archive)
        assert code == 2
        assert f"{path}:2" in err
        assert words in err
