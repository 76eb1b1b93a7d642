"""The commands that are killed, and what of their results must be the same afterwards. One line adds a command."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OF_THE_CLOCK = {
    "price",
    "plain_seconds",
    "with_seconds",
    "overhead",
    "training_seconds",
    "run",
    "decision",
    "timing",
    "seconds",
    "digest",
    "out",
    "command",
    "measuring_seconds",
    "train_seconds",
    "adapter",
    "path",
}
WRITTEN_AGAIN = ("report.html", "results.json")  # every run writes them from what it has


@dataclass(frozen=True)
class Command:
    """What is run on an output folder, in a process of its own, and what it leaves there."""

    name: str
    run: Callable[[Path], int]


def typed(*words: str) -> Callable[[Path], int]:
    """The command line with ``words``, its folder given by ``--out``."""

    def run(out: Path) -> int:
        from elicitable import cli

        sys.argv = ["elicitable", *words, "--out", str(out)]
        try:
            cli.main()
        except SystemExit as stop:
            return int(stop.code or 0)

    return run


def _reproduce(out: Path) -> int:
    from elicitable.experiments import catalog
    from elicitable.experiments.experiment import Adapt, Experiment, Pretrain, Training
    from elicitable.values import ToySpec

    toy = ToySpec("tiny", "ascending", layers=1, heads=2, d_model=16, steps=30, learning_rate=3e-3, batch=8)
    training = Training(steps=30, batch=8, evaluate_every=15, validation_items=8)
    options = (("init", "random"),)
    adapted = Adapt(
        "prefix", "base", "descending", "kv-prefix", 2, (0.1,), training, ("descending",), options=options, test_items=9
    )
    base = Pretrain("base", toy, ("ascending",))
    catalog.EXPERIMENTS = (Experiment("tiny", "A tiny one", "nowhere", (base, adapted), (), (), ()),)
    return typed("reproduce", "--executor", "inline", "--quiet")(out)


_TOY = ("-m", "toy:ascending", "-t", "ascending", "--quiet")
COMMANDS = (
    Command(
        "verdict",
        typed("verdict", *_TOY, "--method", "kv-prefix", "--method", "value-bias", "--seeds", "1", "--steps", "6",
              "--test-items", "12", "--json"),
    ),
    Command("tune", typed("tune", *_TOY, "--method", "kv-prefix", "--learning-rate", "0.1", "--steps", "8")),
    Command("tune full", typed("tune", *_TOY, "--method", "full", "--learning-rate", "1e-3", "--steps", "4")),
    Command("reproduce", _reproduce),
)  # fmt: skip


def started(work: Callable[[], int], said: Path) -> int:
    """Run ``work`` in a fork of this process, which has everything loaded; its number. ``said`` gets what it prints."""
    number = os.fork()
    if number:
        return number
    code = 1
    try:
        os.setsid()
        with said.open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _keep_often()
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _keep_often() -> None:
    """Take a checkpoint at every other step, which is where data are drawn, and not once a minute."""
    from elicitable.training import batches, checkpoint, loop

    checkpoint.Checkpoint.is_due = lambda self: True  # type: ignore[method-assign]
    batches.CHUNK = loop.CHUNK = 2


def ended(number: int, seconds: float = 300.0) -> int:
    """Wait for a process; its exit code, negative where a signal ended it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found, status = os.waitpid(number, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(number, signal.SIGKILL)
    os.waitpid(number, 0)
    return 124


def result(out: Path) -> dict[str, Any]:
    """What a command left in ``out``, without what the clock says: JSON as data, other files by their digest."""
    found: dict[str, Any] = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if name.startswith("running/"):  # ends of legs, of which a rerun keeps those that it made itself
            continue
        if not path.is_file() or path.name in ("seal.json", ".lock", *WRITTEN_AGAIN) or "figures" in name:
            continue
        if path.suffix == ".json":
            found[name] = _settled(json.loads(path.read_text(encoding="utf-8")))
        elif path.suffix != ".md":
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _settled(plain: Any) -> Any:
    if isinstance(plain, dict):
        return {name: _settled(held) for name, held in plain.items() if name not in OF_THE_CLOCK}
    return [_settled(one) for one in plain] if isinstance(plain, list) else plain
