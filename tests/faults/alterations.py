"""Alter what is kept: flip bits, cut files short, take them away; then ask for the result again.

Every alteration has to be refused by name, or healed, or be of no consequence: the same result as before.
"""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.faults.commands import ended, result, started
from tests.faults.counts import Counted, Known, Only
from tests.faults.kept import KEPT, Kept


def _flip(path: Path, draw: random.Random) -> str:
    data = bytearray(path.read_bytes())
    at = draw.randrange(8 * len(data))
    data[at // 8] ^= 1 << at % 8
    path.write_bytes(data)
    return f"bit {at}"


def _cut(path: Path, draw: random.Random) -> str:
    data = path.read_bytes()
    at = draw.randrange(len(data))
    path.write_bytes(data[:at])
    return f"cut at {at}"


def _blank(path: Path, draw: random.Random) -> str:
    data = bytearray(path.read_bytes())
    at = draw.randrange(len(data))
    data[at : at + 64] = bytes(len(data[at : at + 64]))
    path.write_bytes(data)
    return f"zeros at {at}"


def _remove(path: Path, draw: random.Random) -> str:
    path.unlink()
    return "taken away"


ALTERATIONS = (_flip, _flip, _flip, _flip, _cut, _blank, _remove)


def alter(count: int, place: Path, seed: int, only: Only, is_known: Known) -> Iterator[Counted]:
    """Alter everything that is kept (or what ``only`` names) ``count`` times in all; what ``is_known`` is left out."""
    chosen = [kept for kept in KEPT if only is None or kept.name in only]
    for nth, kept in enumerate(chosen):
        share = count // len(chosen) + (nth < count % len(chosen))
        if not share or is_known(kept.name, share):
            continue
        here, began = place / str(nth), time.monotonic()
        (here / "whole").mkdir(parents=True)
        kept.make(here / "whole")
        ends, wrong = _alter_one(kept, share, here, random.Random(f"{seed} {kept.name}"))
        shutil.rmtree(here)
        yield Counted("alterations", kept.name, dict(ends), wrong, time.monotonic() - began, seed)


def _alter_one(kept: Kept, count: int, here: Path, draw: random.Random) -> tuple[Counter[str], list[str]]:
    place, said = here / "place", here / "said.txt"
    ends: Counter[str] = Counter()
    wrong: list[str] = []
    shutil.copytree(here / "whole", place)
    code, wanted = _asked(kept, place, said)
    if code:
        return ends, [f"{kept.name}: unaltered it ends with {code}: {said.read_text()[-500:]}"]
    for _ in range(count):
        shutil.rmtree(place)
        shutil.copytree(here / "whole", place)
        files = [one for one in sorted(place.glob(kept.files)) if one.is_file() and one.stat().st_size]
        if not files:
            return ends, [*wrong, f"{kept.name}: nothing is kept as {kept.files}"]
        path = draw.choice(files)
        what = f"{kept.name}, {path.relative_to(place)}, {draw.choice(ALTERATIONS)(path, draw)}"
        code, found = _asked(kept, place, said)
        text = said.read_text(encoding="utf-8", errors="replace")
        if code == 2 and "Traceback" not in text and str(place) in text:
            ends["refused by name"] += 1
        elif code == 0 and _is_same(found, wanted, path.relative_to(place)) and "Traceback" not in text:
            ends["healed, or of no consequence"] += 1
        else:
            ends["WRONG"] += 1
            wrong.append(f"{what}: exit code {code}, {'another result' if code == 0 else text[-800:]}")
    return ends, wrong


def _is_same(found: dict[str, Any], wanted: dict[str, Any], altered: Path) -> bool:
    """Whether the result is the same; tensors that are gone and that nothing asks for any more may stay away."""
    gone = altered.relative_to("out").as_posix() if altered.match("out/trials/*/state.safetensors") else ""
    return bool(found == wanted or (gone and {**found, gone: wanted[gone]} == wanted))


def _asked(kept: Kept, place: Path, said: Path) -> tuple[int, dict[str, Any]]:
    """Ask for what is kept; the exit code, and what is left in the output folder and was said of the result."""
    from elicitable.errors import ElicitableError

    def work() -> int:
        try:
            return kept.ask(place)
        except ElicitableError as error:
            print(f"error: {error}")
            return 2

    code = ended(started(work, said))
    if code:
        return code, {}
    left = result(place / "out") if (place / "out").exists() else {}
    return code, left | {"said": [line for line in said.read_text("utf-8").splitlines() if line.startswith("result:")]}
