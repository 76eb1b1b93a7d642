"""The command line as a process: how soon it answers, what it loads, and how it ends when it is told to."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from elicitable import cli

INTERRUPTED = "interrupted: what is finished is kept; the same command resumes."


def started(*args: str) -> subprocess.Popen[str]:
    """``elicitable ARGS`` in a process of its own, which says "here" when this package's code begins to run."""
    program = (
        "from elicitable import cli\n"
        "run = cli._run\n"
        "cli._run = lambda: (print('here', flush=True), run())[1]\n"
        "cli.main()\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", program, *args],
        stdout=pipe,
        stderr=pipe,
        text=True,
        env=environment,
        preexec_fn=heed_signals,
    )


def heed_signals() -> None:
    """Let signals end this process, also where the tests themselves run in the background or under ``nohup``."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def child_cpu_seconds(*args: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-c", "from elicitable.cli import main; main()", *args], check=True, capture_output=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_answers_within_half_a_second_of_cpu_time() -> None:
    assert min(child_cpu_seconds("--help") for _ in range(3)) < 0.5


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys; sys.argv = ['elicitable', '--help']\n"
        "from elicitable.cli import main\n"
        "try:\n    main()\nfinally:\n"
        "    heavy = {'torch', 'transformers', 'numpy', 'pandas', 'matplotlib', 'rich', 'peft'}\n"
        "    print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_nobody_looks_for_garbage_while_a_command_imports_and_somebody_does_after_it() -> None:
    with contextlib.suppress(ImportError), cli.importing():
        assert not gc.isenabled()
        raise ImportError
    assert gc.isenabled()
    gc.unfreeze()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_keeps_what_is_finished_and_says_how_to_go_on(tmp_path: Path, number: signal.Signals) -> None:
    args = ["verdict", "--model", "toy:ascending", "--task", "descending", "--method", "zero-shot", "--method", "full"]
    process = started(*args, "--out", str(tmp_path))
    deadline = time.monotonic() + 120
    while not any("record.json" in names for *_, names in os.walk(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert INTERRUPTED in err
    assert "Traceback" not in err
    for record in tmp_path.rglob("record.json"):
        assert json.loads(record.read_text(encoding="utf-8"))["status"] == "ok"
    assert all(not path.name.startswith(".") for path in (tmp_path / "trials").iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("wait", [0.0, 0.02, 0.05, 0.1, 0.3])
def test_a_signal_right_at_the_start_ends_without_a_traceback(
    tmp_path: Path, number: signal.Signals, wait: float
) -> None:
    """From the moment on that this package's own code runs; before that, the interpreter answers."""
    process = started("verdict", "-m", "toy:ascending", "-t", "ascending", "--out", str(tmp_path / "out"))
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    time.sleep(wait)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert "Traceback" not in err
    assert err.endswith(f"{INTERRUPTED}\n")
    assert list(tmp_path.iterdir()) == []


def test_a_signal_that_somebody_ignores_stays_ignored() -> None:
    """As under ``nohup``; and handlers are as they were when the command is over."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    came: list[int] = []
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with contextlib.suppress(KeyboardInterrupt), cli._signals_raised(came):
            os.kill(os.getpid(), signal.SIGHUP)
            assert came == []
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
    finally:
        signal.signal(signal.SIGHUP, before[signal.SIGHUP])
    assert came == [signal.SIGTERM]
    assert {number: signal.getsignal(number) for number in before} == before


def test_a_signal_that_comes_while_an_object_is_taken_down_is_not_lost() -> None:
    """Python drops what ``__del__`` raises, an interrupt too."""

    class Slow:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)

    def run() -> None:
        thing = Slow()
        del thing
        time.sleep(10)

    came: list[int] = []
    before = sys.unraisablehook
    with pytest.raises(KeyboardInterrupt), cli._signals_raised(came):
        run()
    assert set(came) == {signal.SIGTERM}
    assert sys.unraisablehook is before


@pytest.mark.parametrize("ends", [KeyboardInterrupt, ImportError("half of a package")])
def test_whatever_an_interrupt_becomes_is_an_interrupt(
    call: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch, ends: BaseException
) -> None:
    """An import that is interrupted may end in an error of another kind."""

    def run() -> int:
        if isinstance(ends, ImportError):
            with contextlib.suppress(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(1)
        raise ends

    monkeypatch.setattr(cli, "_run", run)
    code = 143 if isinstance(ends, ImportError) else 130
    assert call("models") == (code, "", f"{INTERRUPTED}\n")


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "_run", run)
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_a_reader_that_leaves_is_no_error() -> None:
    """``elicitable … | head -1``: exit code 141 and nothing on standard error."""
    read, written = os.pipe()
    os.close(read)
    program = [sys.executable, "-c", "from elicitable.cli import main; main()", "construct", "list", "--json"]
    with os.fdopen(written, "w") as closed:
        done = subprocess.run(program, stdout=closed, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
    ids=["nothing", "spins", "policy"],
)
def test_threads_that_wait_soon_sleep_unless_somebody_said_otherwise(given: dict[str, str], spins: str | None) -> None:
    """It is settled before torch is loaded, which reads it once."""
    program = (
        "import os, sys; from elicitable import cli; assert 'torch' not in sys.modules; "
        "print(os.environ.get('GOMP_SPINCOUNT'))"
    )
    bare = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run([sys.executable, "-c", program], env=bare | given, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(spins)
