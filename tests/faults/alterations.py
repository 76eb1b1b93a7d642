"""Alter what is kept: flip bits, cut files short, take them away; then ask for the result again.

Every alteration has to be refused by name, or healed, or be of no consequence: the same result as before.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.commands import COMMANDS, ended, result, started
from tests.faults.models import letters_gguf, letters_model


@dataclass(frozen=True)
class Kept:
    """Something that is kept: how it is made in a folder, which files of it are altered, and how it is asked for.

    ``ask`` writes the result to standard output, and ends with 0, or with 2 where it is refused.
    """

    name: str
    make: Callable[[Path], None]
    files: str
    ask: Callable[[Path], int]


def _run(name: str) -> Callable[[Path], int]:
    return next(command.run for command in COMMANDS if command.name == name)


def _made(name: str) -> Callable[[Path], None]:
    def make(place: Path) -> None:
        code = ended(started(lambda: _run(name)(place / "out"), place / "said.txt"))
        assert code == 0, (place / "said.txt").read_text(encoding="utf-8")

    return make


def _again(name: str) -> Callable[[Path], int]:
    return lambda place: _run(name)(place / "out")


def _interrupted(place: Path) -> None:
    """A training that was stopped behind its first checkpoint."""
    from elicitable.training import checkpoint

    def work() -> int:
        write = checkpoint.Checkpoint.write

        def and_stop(self: Any, state: Any) -> None:
            write(self, state)
            if state.plain["steps"] >= 3:
                os._exit(0)

        checkpoint.Checkpoint.write = and_stop  # type: ignore[method-assign]
        return _run("tune")(place / "out")

    assert ended(started(work, place / "said.txt")) == 0
    assert list((place / "out" / "running").glob("*.safetensors"))


def _archived(place: Path) -> None:
    from elicitable.lab.reproduce import export

    _made("reproduce")(place)
    export(out=place / "out", to=place / "archive")
    shutil.rmtree(place / "out")


def _adapter(place: Path) -> None:
    from elicitable.methods.adapter import write_adapter
    from elicitable.methods.catalog import method_named

    model = letters_model()
    for name in ("lora", "kv-prefix", "soft-prompt", "value-bias"):
        write_adapter(model, method_named(name).build(model, 2, seed=0), place / name)


def _read_adapters(place: Path) -> int:
    from elicitable.methods.adapter import read_adapter

    model = letters_model()
    adapters = [read_adapter(model, place / name) for name in ("lora", "kv-prefix", "soft-prompt", "value-bias")]
    print("result:", [hashlib.sha256(str(one.state()).encode()).hexdigest() for one in adapters])
    return 0


def _model_folder(place: Path) -> None:
    from elicitable.cache import replacing_folder

    model = letters_model()
    with replacing_folder(place / "model") as partial:
        model.hf.save_pretrained(partial)
        model.tokenizer.save_pretrained(partial)


def _load_folder(place: Path) -> int:
    from elicitable.models.load import load

    print(f"\nresult: {load(place / 'model').fingerprint}")
    return 0


def _converted(place: Path) -> None:
    letters_gguf(place / "letters.gguf")
    assert ended(started(lambda: _load_gguf(place), place / "said.txt")) == 0, (place / "said.txt").read_text()


def _load_gguf(place: Path) -> int:
    from elicitable.models.load import load

    os.environ["ELICITABLE_CACHE"] = str(place / "cache")
    print(f"\nresult: {load(place / 'letters.gguf').fingerprint}", flush=True)
    return 0


KEPT = (
    Kept("checkpoint", _interrupted, "out/running/*", _again("tune")),
    Kept("adapter folder", _adapter, "*/*", _read_adapters),
    Kept("converted model", _converted, "cache/models/*/*", _load_gguf),
    Kept("record of a race", _made("verdict"), "out/trials/*/record.json", _again("verdict")),
    Kept("tensors of a race", _made("verdict"), "out/trials/*/state.safetensors", _again("verdict")),
    Kept("tuned adapter", _made("tune"), "out/*", _again("tune")),
    Kept("trials of a tuned adapter", _made("tune"), "out/trials/*/*", _again("tune")),
    Kept("tuned model", _made("tune full"), "out/*", _again("tune full")),
    Kept("records and bases", _made("reproduce"), "out/trials/*/*", _again("reproduce")),
    Kept("model folder", _model_folder, "model/*", _load_folder),
)


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


def alter(count: int, place: Path, draw: random.Random) -> tuple[Counter[str], list[str]]:
    """Alter everything that is kept, ``count`` times in all; how many of what, and what went wrong."""
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    for nth, kept in enumerate(KEPT):
        here = place / str(nth)
        share = count // len(KEPT) + (nth < count % len(KEPT))
        if not share:
            continue
        (here / "whole").mkdir(parents=True)
        kept.make(here / "whole")
        _alter_one(kept, share, here, draw, counts, wrong)
        shutil.rmtree(here)
    return counts, wrong


def _alter_one(kept: Kept, count: int, here: Path, draw: random.Random, counts: Counter[str], wrong: list[str]) -> None:
    place, said = here / "place", here / "said.txt"
    shutil.copytree(here / "whole", place)
    code, wanted = _asked(kept, place, said)
    if code:
        wrong.append(f"{kept.name}: unaltered it ends with {code}: {said.read_text()[-500:]}")
        return
    for _ in range(count):
        shutil.rmtree(place)
        shutil.copytree(here / "whole", place)
        path = draw.choice([one for one in sorted(place.glob(kept.files)) if one.is_file() and one.stat().st_size])
        what = f"{kept.name}, {path.relative_to(place)}, {draw.choice(ALTERATIONS)(path, draw)}"
        code, found = _asked(kept, place, said)
        text = said.read_text(encoding="utf-8", errors="replace")
        if code == 2 and "Traceback" not in text and str(place) in text:
            counts[f"{kept.name}: refused by name"] += 1
        elif code == 0 and _is_same(found, wanted, path.relative_to(place)) and "Traceback" not in text:
            counts[f"{kept.name}: healed, or of no consequence"] += 1
        else:
            counts[f"{kept.name}: WRONG"] += 1
            wrong.append(f"{what}: exit code {code}, {'another result' if code == 0 else text[-800:]}")


def _is_same(found: Any, wanted: Any, altered: Path) -> bool:
    """Whether the result is the same; tensors that are gone and that nothing asks for any more may stay away."""
    gone = altered.relative_to("out").as_posix() if altered.name == "state.safetensors" else ""
    return bool(found == wanted or (gone and {**found, gone: wanted[gone]} == wanted))


def _asked(kept: Kept, place: Path, said: Path) -> tuple[int, Any]:
    from elicitable.errors import ElicitableError

    def work() -> int:
        try:
            return kept.ask(place)
        except ElicitableError as error:
            print(f"error: {error}")
            return 2

    code = ended(started(work, said))
    if code:
        return code, None
    if (place / "out").exists():
        return code, result(place / "out")
    return code, [line for line in said.read_text(encoding="utf-8").splitlines() if line.startswith("result:")]
