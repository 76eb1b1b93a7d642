"""The commands that are killed, and what of their results must be the same afterwards. One line adds a command."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

OF_THE_CLOCK = {
    "price",
    "cpu_seconds",
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
PRICE = re.compile(r"About .+? more would tell")  # measured steps, in a sentence
WRITTEN_AGAIN = ("report.html",)  # every run writes it from what it has; it says when


@dataclass(frozen=True)
class Command:
    """What is run on an output folder, in a process of its own, and what it leaves there.

    ``given`` makes the folder ``given`` beside the output folder, from which the command reads. A command that
    ``writes_once`` refuses a folder that is whole already.
    """

    name: str
    run: Callable[[Path], int]
    given: Callable[[Path], int] | None = None
    writes_once: bool = False


def typed(*words: str, is_kept_often: bool = True) -> Callable[[Path], int]:
    """The command line with ``words``, in which {out} and {given} are folders; what it writes goes to {out}."""

    def run(out: Path) -> int:
        from elicitable import cli

        if is_kept_often:
            _keep_often()
        rest = () if any("{out}" in word for word in words) else ("--out", "{out}")
        sys.argv = ["elicitable", *(word.format(out=out, given=out.parent / "given") for word in (*words, *rest))]
        try:
            cli.main()
        except SystemExit as stop:
            return int(stop.code or 0)

    return run


def tiny_experiment() -> Any:
    """A toy that is trained for a moment, and a prefix of it."""
    from elicitable.experiments.experiment import Adapt, Experiment, Pretrain, Training
    from elicitable.values import ToySpec

    toy = ToySpec("tiny", "ascending", layers=1, heads=2, d_model=16, steps=30, learning_rate=3e-3, batch=8)
    training = Training(steps=30, batch=8, evaluate_every=15, validation_items=8)
    options = (("init", "random"),)
    adapted = Adapt(
        "prefix", "base", "descending", "kv-prefix", 2, (0.1,), training, ("descending",), options=options, test_items=9
    )
    base = Pretrain("base", toy, ("ascending",))
    return Experiment("tiny", "A tiny one", "nowhere", (base, adapted), (), (), ())


def _reproduce(out: Path) -> int:
    from elicitable.experiments import catalog

    catalog.EXPERIMENTS = (tiny_experiment(),)
    return typed("reproduce", "--executor", "inline", "--quiet")(out)


def _verdict_by_itself(out: Path) -> int:
    """A race that has workers without being told to, forked from a process that imports beside it."""
    from elicitable.executors.processes import SET_BY_HAND

    for name in SET_BY_HAND:
        os.environ.pop(name, None)
    return typed("verdict", *_TOY, "--method", "kv-prefix", "--method", "value-bias", *_FEW, is_kept_often=False)(out)


def _planted_truth(out: Path) -> int:
    """Two cases, each raced by one arm that is not trained."""
    from elicitable.planted import benchmark

    race = benchmark.verdict

    def short(model: Any, task: Any, **options: Any) -> Any:
        return race(model, task, **{**options, "methods": ["zero-shot"], "test_items": 20})

    benchmark.verdict = short  # type: ignore[attr-defined]
    return typed("reproduce", "planted-truth", "--cases", "2", "--quiet")(out)


def _pretrain(out: Path) -> int:
    from elicitable.models import toys

    tiny = replace(toys.TOYS["ascending"], layers=1, heads=2, d_model=16, batch=8)
    toys.TOYS["ascending"] = tiny
    return typed("pretrain", "ascending", "--steps", "6", "--quiet")(out)


_TOY = ("-m", "toy:ascending", "-t", "ascending", "--quiet")
_FEW = ("--seeds", "1", "--steps", "6", "--test-items", "12", "--json")
_PREFIX = ("tune", *_TOY, "--method", "kv-prefix", "--learning-rate", "0.1", "--steps", "8")
_LORA = ("tune", *_TOY, "--method", "lora", "--learning-rate", "1e-3", "--steps", "4")
_PROMPT = ("verdict", *_TOY, "--method", "prompt", "--seeds", "1", "--test-items", "12")
_CONTEXT = ("compile", "-m", "toy:ascending", "-t", "ascending", "--prompt", "7 0 3", "--items", "12",
            "--test-items", "8", "--steps", "4", "--quiet")  # fmt: skip
ROWS = "prompt\n3 1 4 1 5 7 2 6 5 3\n0 1 2 3 4 5 6 7 7 1\nnone\n2 7 1 0 2 0 1 0 2 0\n"


def _predict(out: Path) -> int:
    """Answer four rows, one of which is broken: so the exit code is 1."""
    (out.parent / "rows.csv").write_text(ROWS, encoding="utf-8")
    code = typed("predict", "{given}", "--input", str(out.parent / "rows.csv"), "--out", "{out}/answers.csv")(out)
    return 0 if code == 1 else code


COMMANDS = (
    Command("verdict", typed("verdict", *_TOY, "--method", "kv-prefix", "--method", "value-bias", "--keep", "kv-prefix",
                             "--keep", "value-bias", *_FEW)),
    Command("verdict of a prompt", typed(*_PROMPT)),
    Command("verdict with causes", typed("verdict", "-m", "toy:ascending", "-t", "descending", "--quiet", "--method",
                                         "kv-prefix", "--method", "full", "--why", *_FEW)),
    Command("verdict with rows", typed("verdict", *_TOY, "--budget", "2000", "--method", "kv-prefix", "--method",
                                       "lora", "--rows-curve", *_FEW)),
    Command("verdict on workers", typed("verdict", *_TOY, "--method", "kv-prefix", "--method", "value-bias", *_FEW,
                                        "--executor", "local", "--workers", "2", is_kept_often=False)),
    Command("verdict on workers of its own", _verdict_by_itself),
    Command("tune", typed(*_PREFIX)),
    Command("tune full", typed("tune", *_TOY, "--method", "full", "--learning-rate", "1e-3", "--steps", "4")),
    Command("reproduce", _reproduce),
    Command("reproduce planted-truth", _planted_truth),
    Command("compile", typed(*_CONTEXT)),
    Command("compile to weights", typed(*_CONTEXT, "--to", "weights")),
    Command("compile to a short prefix", typed(*_CONTEXT, "--to", "short-prefix", "--keys", "2")),
    Command("export to prompt", typed("export", "{given}", "--to", "prompt", "--out", "{out}"), typed(*_PROMPT), True),
    Command("export to peft", typed("export", "{given}", "--to", "peft", "--out", "{out}"), typed(*_PREFIX), True),
    Command("export to merged", typed("export", "{given}", "--to", "merged", "--out", "{out}"), typed(*_LORA), True),
    Command("export to prompt-embeds", typed("export", "{given}", "--to", "prompt-embeds", "--out", "{out}"),
            typed(*_PROMPT), True),
    Command("export to kv", typed("export", "{given}", "--to", "kv", "--out", "{out}"), typed(*_PREFIX), True),
    Command("predict", _predict, typed(*_PREFIX)),
    Command("prune", typed("prune", "{given}", *_TOY, "--items", "8", "--steps", "4"),
            typed(*_PREFIX, "--budget", "800")),
    Command("forecast", typed("forecast", *_TOY)),
    Command("inspect", typed("inspect", *_TOY, "--prompt", "7 0 3", "--texts", "2")),
    Command("pretrain", _pretrain),
)  # fmt: skip


def command_named(name: str) -> Command:
    """The command of that name."""
    return next(command for command in COMMANDS if command.name == name)


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
    if isinstance(plain, str):
        return PRICE.sub("", plain)
    return [_settled(one) for one in plain] if isinstance(plain, list) else plain
