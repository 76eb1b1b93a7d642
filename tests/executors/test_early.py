"""Races of small models get a worker for every core by themselves, and nothing of them is left, however they end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from elicitable.executors import processes
from elicitable.models.load import load
from elicitable.race.workers import suited_executor

RACE = ("verdict", "--model", "toy:ascending", "--task", "descending")  # half a minute of two cores
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked early on Linux alone")
several = pytest.mark.skipif(processes.cores() < 2, reason="one core has no room for workers")
pytestmark = pytest.mark.usefixtures("_threads_are_free")


@pytest.fixture
def _threads_are_free(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in processes.SET_BY_HAND:
        monkeypatch.delenv(name, raising=False)


def begun(out: Path, *more: str) -> subprocess.Popen[str]:
    """The race in a session of its own, which heeds all signals whoever started these tests."""

    def apart() -> None:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)

    command = [sys.executable, "-m", "elicitable", *RACE, "--out", str(out), *more]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, preexec_fn=apart)


def alive(session: int) -> list[str]:
    """What still runs of a session."""
    found = []
    for one in psutil.process_iter():
        try:
            if os.getsid(one.pid) == session and one.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(one.cmdline())[:120])
        except (psutil.Error, ProcessLookupError):
            continue
    return found


def left_of(session: int) -> list[str]:
    """What has not ended of a session in ten seconds."""
    until = time.monotonic() + 10
    while (left := alive(session)) and time.monotonic() < until:
        time.sleep(0.1)
    return left


@several
def test_it_has_workers_unless_something_speaks_against_them(monkeypatch: pytest.MonkeyPatch) -> None:
    toy = load("toy:ascending")
    found = suited_executor(toy, None)
    assert found is not None
    assert (found.name, found.size) == ("local", min(processes.cores(), 4))
    assert suited_executor(toy, 60.0) is None
    monkeypatch.setattr("elicitable.race.workers.SMALL", sum(x.numel() for x in toy.hf.parameters()) - 1)
    assert suited_executor(toy, None) is None
    monkeypatch.undo()
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert suited_executor(toy, None) is None


@several
@LINUX
def test_workers_that_began_early_run_a_race_to_its_end(tmp_path: Path) -> None:
    """That their records are those of one process is held by tests/race/test_workers.py, for workers of any start."""
    few = ("--steps", "40", "--test-items", "64", "--method", "zero-shot", "--method", "kv-prefix")
    process = begun(tmp_path / "out", *few, "--method", "value-bias")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "Workers: local" in err
    answer = json.loads((tmp_path / "out" / "verdict.json").read_text())
    assert [arm["status"] for arm in answer["arms"]] == ["ok"] * 3
    assert not left_of(process.pid)


@LINUX
def test_workers_that_began_early_look_for_garbage(tmp_path: Path) -> None:
    """The process that they are forked from does not, while it imports."""
    program = tmp_path / "program.py"
    program.write_text(
        "import gc\n"
        "from elicitable.executors.executor import executor_named\n"
        "from elicitable.executors.processes import begin_early\n"
        "def looks(_):\n    return gc.isenabled(), gc.get_freeze_count() > 0\n"
        "if __name__ == '__main__':\n"
        "    begin_early(['json'])\n"
        "    print(executor_named('local', 1).run(looks, [0]))\n"
    )
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, check=True)
    assert done.stdout == "[(True, True)]\n"


@several
@LINUX
@pytest.mark.parametrize("seconds", [1.0, 3.0, 7.0])
@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM", "SIGKILL"])
def test_nothing_is_left_of_it_and_nothing_is_told_but_that_it_was_stopped(
    tmp_path: Path, how: str, seconds: float
) -> None:
    """Ctrl-C reaches every process of a terminal. Moments: while all import, and while workers begin and train."""
    process = begun(tmp_path / "out")
    time.sleep(seconds)
    ends: dict[str, Callable[[], None]] = {
        "Ctrl-C": lambda: os.killpg(process.pid, signal.SIGINT),
        "SIGTERM": process.terminate,
        "SIGKILL": process.kill,
    }
    ends[how]()
    _, err = process.communicate(timeout=60)
    assert process.returncode == {"Ctrl-C": 130, "SIGTERM": 143, "SIGKILL": -9}[how]
    assert "Traceback" not in err
    if how != "SIGKILL":
        assert "interrupted" in err.splitlines()[-1]
    assert not left_of(process.pid)


@LINUX
def test_the_environment_and_the_signals_are_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    monkeypatch.setattr(processes.forkserver, "ensure_running", lambda: started.append(dict(os.environ)))
    monkeypatch.setattr(processes.forkserver, "set_forkserver_preload", lambda names: started.append(names))
    monkeypatch.setitem(processes._start, "method", "spawn")
    before, heard = dict(os.environ), signal.pthread_sigmask(signal.SIG_BLOCK, ())
    processes.begin_early(["json"])
    assert started[0][1:] == ["json"]
    assert {name: started[1][name] for name in processes.SET_BY_HAND} == processes.ONE_THREAD
    assert dict(os.environ) == before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == heard
    assert processes._start["method"] == "forkserver"
