"""Kill commands: at random moments, and at every call that changes the disk; then run them again to the end."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tests.faults.commands import COMMANDS, Command, ended, result, started
from tests.faults.counts import Counted, Known, Only

CALLS = ("replace", "unlink", "mkdir", "rmdir", "fsync", "rename", "chmod")
LEFT = re.compile(r"\..+\.[0-9a-f]{8}-\d+-[0-9a-f]{8}")


def killing(work: Callable[[], int], at: int, told: Path | None = None) -> Callable[[], int]:
    """``work`` that kills itself before (even) or after (odd) its ``at // 2``-th call that changes the disk."""

    def run() -> int:
        done = 0

        def around(call: Callable[..., Any]) -> Callable[..., Any]:
            def counted(*args: Any, **given: Any) -> Any:
                nonlocal done
                mine, done = done, done + 1
                if mine == at // 2 and at % 2 == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                found = call(*args, **given)
                if mine == at // 2:
                    os.kill(os.getpid(), signal.SIGKILL)
                return found

            return counted

        for name in CALLS:
            setattr(os, name, around(getattr(os, name)))
        code = work()
        if told is not None:
            told.write_text(str(done), encoding="utf-8")
        return code

    return run


def kill(count: int, place: Path, seed: int, only: Only, is_known: Known) -> Iterator[Counted]:
    """Kill every command (or those of ``only``) ``count`` times in all; what ``is_known`` is left out."""
    chosen = [command for command in COMMANDS if only is None or command.name in only]
    for nth, command in enumerate(chosen):
        share = count // len(chosen) + (nth < count % len(chosen))
        if not share or is_known(command.name, share):
            continue
        here, began = place / command.name.replace(" ", "-"), time.monotonic()
        here.mkdir(parents=True)
        ends, wrong = _kill_one(command, share, here, random.Random(f"{seed} {command.name}"))
        shutil.rmtree(here)
        yield Counted("kills", command.name, dict(ends), wrong, time.monotonic() - began, seed)


def _kill_one(command: Command, count: int, here: Path, draw: random.Random) -> tuple[Counter[str], list[str]]:
    whole, said, told = here / "whole", here / "said.txt", here / "calls.txt"
    ends: Counter[str] = Counter()
    wrong: list[str] = []
    if command.given is not None and (code := ended(started(partial(command.given, here / "given"), said))):
        return ends, [f"{command.name}: what it reads cannot be made: {said.read_text()[-500:]}"]
    began = time.monotonic()
    code = ended(started(killing(lambda: command.run(whole), -2, told), said))
    seconds = time.monotonic() - began
    if code:
        return ends, [f"{command.name}: undisturbed it ends with {code}: {said.read_text()[-500:]}"]
    wanted, calls = result(whole), int(told.read_text(encoding="utf-8"))
    for nth in range(count):
        out = here / f"out-{nth}"
        if nth % 2 == 0:
            at = draw.randrange(2 * calls)
            what, code = f"at call {at}", ended(started(killing(partial(command.run, out), at), said))
        else:
            number = draw.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGINT))
            wait = draw.uniform(0.0, 1.1 * seconds)
            process = started(partial(command.run, out), said)
            time.sleep(wait)
            os.kill(process, number)
            what, code = f"by {number.name} after {wait:.3f} s", ended(process)
        ends["killed" if code else "had ended"] += 1
        complaint = _after(command, out, wanted, said)
        if complaint:
            wrong.append(f"{command.name} killed {what}: {complaint}")
        shutil.rmtree(out, ignore_errors=True)
    return ends, wrong


def _after(command: Command, out: Path, wanted: dict[str, Any], said: Path) -> str:
    """Run the command again; what is not as it would have been undisturbed."""
    before = said.read_text(encoding="utf-8", errors="replace")
    if "Traceback" in before:
        return f"traceback when killed: {before[-800:]}"
    code = ended(started(lambda: command.run(out), said))
    after = said.read_text(encoding="utf-8", errors="replace")
    if command.writes_once and code == 2 and f"{out} is there already" in after:
        code = 0  # it was whole when it was killed
    if code or "Traceback" in after:
        return f"the rerun ends with {code}: {after[-800:]}"
    if (found := result(out)) != wanted:
        names = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
        return f"another result: {names}"
    left = [path.relative_to(out).as_posix() for path in out.rglob(".*") if LEFT.fullmatch(path.name)]
    return f"left behind: {left}" if left else ""
