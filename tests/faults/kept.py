"""Everything that is kept, with how it is made, which of its files are altered, and how it is asked for again.

One entry adds a kind.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.faults.commands import command_named, ended, started
from tests.faults.models import letters_gguf, letters_model

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Kept:
    """Something that is kept: how it is made in a folder, which files of it are altered, and how it is asked for.

    ``ask`` writes the result to standard output, and ends with 0, or with 2 where it is refused.
    """

    name: str
    make: Callable[[Path], None]
    files: str
    ask: Callable[[Path], int]


def _made(name: str) -> Callable[[Path], None]:
    """Run a command of the table, and first what makes that from which it reads."""

    def make(place: Path) -> None:
        command = command_named(name)
        for run, folder in ((command.given, "given"), (command.run, "out")):
            if run is not None:
                code = ended(started(partial(run, place / folder), place / "said.txt"))
                assert code == 0, (place / "said.txt").read_text(encoding="utf-8")

    return make


def _again(name: str) -> Callable[[Path], int]:
    return lambda place: command_named(name).run(place / "out")


def _answers(place: Path) -> int:
    """Answer rows with what was made, from an altered folder."""
    shutil.rmtree(place / "out")
    return command_named("predict").run(place / "out")


def _exported(form: str) -> Callable[[Path], int]:
    """Export from an altered folder."""

    def ask(place: Path) -> int:
        shutil.rmtree(place / "out")
        return command_named(f"export to {form}").run(place / "out")

    return ask


def _stopped(name: str, is_far: Callable[[Path], bool]) -> Callable[[Path], None]:
    """A command that was killed as soon as its folder held what it keeps until it goes on."""

    def make(place: Path) -> None:
        def work() -> int:
            real = os.replace

            def and_stop(*paths: Any) -> None:
                real(*paths)
                if is_far(place / "out"):
                    os._exit(0)

            os.replace = and_stop  # type: ignore[assignment]
            return command_named(name).run(place / "out")

        assert ended(started(work, place / "said.txt")) == 0, (place / "said.txt").read_text(encoding="utf-8")
        assert is_far(place / "out")

    return make


def _keeps(pattern: str, steps: int = 0) -> Callable[[Path], bool]:
    """Whether a folder holds a file of ``pattern``, whose run has come so many steps far."""

    def is_far(out: Path) -> bool:
        from safetensors import safe_open

        for path in out.glob(pattern):
            with safe_open(path, "pt") as file:
                head = json.loads((file.metadata() or {}).get("run", "{}"))
            if head.get("plain", {}).get("steps", 0) >= steps:
                return True
        return False

    return is_far


def _archived(place: Path) -> None:
    from elicitable.lab.reproduce import export

    _made("reproduce")(place)
    assert ended(started(lambda: _exports(place, export), place / "said.txt")) == 0
    shutil.rmtree(place / "out")


def _exports(place: Path, export: Callable[..., Any]) -> int:
    _reproduce_known()
    export(out=place / "out", to=place / "archive")
    return 0


def _tables(place: Path) -> int:
    """Make tables of an archive; records that are gone are told by the tables themselves: fewer than planned."""
    from elicitable.lab.reproduce import tables

    _reproduce_known()
    found = tables(out=place / "archive")
    trials = [one for experiment in found["experiments"] for one in experiment["trials"]]
    if any(one["recorded"] < one["planned"] for one in trials):
        print(f"{place / 'archive'}: {sum(one['recorded'] for one in trials)} records of {len(trials)} trials")
        return 2
    print("result:", json.dumps(found, sort_keys=True))
    return 0


def _reproduce_known() -> None:
    """Put the tiny experiment in the place of the paper's."""
    from tests.faults.commands import tiny_experiment

    from elicitable.experiments import catalog

    catalog.EXPERIMENTS = (tiny_experiment(),)


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


def _compiled(place: Path) -> int:
    """Read what a context was compiled into: an adapter, or a whole model."""
    from elicitable.methods.adapter import read_adapter
    from elicitable.models.load import load

    if (place / "out" / "config.json").is_file():
        print(f"\nresult: {load(place / 'out').fingerprint}")
    else:
        state = read_adapter(load("toy:ascending"), place / "out").state()
        print(f"\nresult: {hashlib.sha256(str(state).encode()).hexdigest()}")
    return 0


def _sealed(place: Path) -> int:
    """Compare a folder that nothing here reads with its seal, as whoever serves it can."""
    from elicitable.cache import check_seal

    assert check_seal(place / "out", "Export it again.")
    print("result: whole")
    return 0


def _copied(source: str, to: str) -> Callable[[Path], None]:
    """Copy what is kept in the repository or shipped with the package."""

    def make(place: Path) -> None:
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, place / to)
        else:
            shutil.copy(ROOT / source, place / to)

    return make


def _toy(place: Path) -> int:
    from elicitable.models import load

    load.files = lambda package: place  # type: ignore[assignment]
    print(f"\nresult: {load.load('toy:ascending').fingerprint}")
    return 0


def _toy_in_cache(place: Path) -> int:
    from elicitable.models.load import home_of, load

    os.environ["ELICITABLE_CACHE"] = str(place / "cache")
    print(f"\nresult: {load(str(home_of(load('toy:ascending')))).fingerprint}", flush=True)
    return 0


def _cached_toy(place: Path) -> None:
    assert ended(started(lambda: _toy_in_cache(place), place / "said.txt")) == 0, (place / "said.txt").read_text()


def _planted_model(place: Path) -> int:
    from elicitable.models.load import load

    print(f"\nresult: {load(place / 'copyist').fingerprint}")
    return 0


def _plantings(place: Path) -> int:
    from elicitable.planted import cases

    cases.files = lambda package: place  # type: ignore[assignment]
    cases.plantings.cache_clear()
    print(f"result: {cases.plantings()}")
    return 0


def _shipped_forecast(place: Path) -> int:
    from elicitable.forecasting.model import read_forecaster

    print(f"result: {read_forecaster(place / 'shipped.json')}")
    return 0


def _few_cases(place: Path) -> None:
    """The records of three cases, from which a forecast is trained."""
    for name in ("copyist~copy.json", "copyist~reverse.json", "adder~copy.json"):
        for kind in ("signals", "rows"):
            (place / "forecast" / kind).mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / "records/forecast" / kind / name, place / "forecast" / kind)
        (place / "planted-truth").mkdir(exist_ok=True)
        shutil.copy(ROOT / "records/planted-truth" / name.replace("~", "-"), place / "planted-truth")


def _known_cases(place: Path) -> int:
    from elicitable.forecasting.records import read_known

    print(f"result: {read_known(place / 'forecast')}")
    return 0


def _reviews(place: Path) -> int:
    """Read the table of reviews, from the cache or from the archive that was laid there by hand."""
    from elicitable.tasks import movie_reviews as reviews

    table = b"1\t2.1\tRocks\r\n2\t-1.5\tTepid"
    inner, outer = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as files:
        held = tarfile.TarInfo(reviews._TABLE)
        held.size = len(table)
        files.addfile(held, io.BytesIO(table))
    with zipfile.ZipFile(outer, "w") as packed:
        packed.writestr(zipfile.ZipInfo(reviews._INNER), inner.getvalue())
    folder = place / "cache" / "movie-reviews"
    if not folder.exists():
        folder.mkdir(parents=True)
        (folder / reviews._ARCHIVE).write_bytes(outer.getvalue())
        (place / "sha.txt").write_text(hashlib.sha256(outer.getvalue()).hexdigest(), encoding="utf-8")
    os.environ["ELICITABLE_CACHE"] = str(place / "cache")
    reviews._TABLE_SHA256 = hashlib.sha256(table).hexdigest()  # type: ignore[misc]
    reviews._ARCHIVE_SHA256 = (place / "sha.txt").read_text(encoding="utf-8")  # type: ignore[misc]
    reviews.fetch_archive = lambda place: _no_network(place)
    print(f"result: {reviews.load_table()!r}")
    return 0


def _no_network(folder: Path) -> bytes:
    from elicitable.errors import InputError

    raise InputError(f"there is no network to fetch the archive with, and none in {folder}")


def _kept_reviews(place: Path) -> None:
    assert ended(started(lambda: _reviews(place), place / "said.txt")) == 0, (place / "said.txt").read_text()


FORMS = ("prompt", "peft", "merged", "prompt-embeds", "kv")
KEPT = (
    Kept("checkpoint", _stopped("tune", _keeps("running/*.safetensors", 3)), "out/running/*", _again("tune")),
    Kept("end of a leg", _stopped("verdict", _keeps("running/*.safetensors")), "out/running/*", _again("verdict")),
    Kept("weights set aside", _stopped("verdict with causes", _keeps("aside/*.safetensors")), "out/aside/*",
         _again("verdict with causes")),
    Kept("checkpoint of a trial", _stopped("reproduce", _keeps("running/*.safetensors", 8)),
         "out/running/*.safetensors", _again("reproduce")),
    Kept("adapter folder", _adapter, "*/*", _read_adapters),
    Kept("converted model", _converted, "cache/models/*/*", _load_gguf),
    Kept("record of a race", _made("verdict"), "out/trials/*/record.json", _again("verdict")),
    Kept("tensors of a race", _made("verdict"), "out/trials/*/state.safetensors", _again("verdict")),
    Kept("what a race shows", _made("verdict"), "out/*", _again("verdict")),
    Kept("winner of a race, raced again", _made("verdict"), "out/winner/*", _again("verdict")),
    Kept("kept beside the winner, raced again", _made("verdict"), "out/kept/*/*", _again("verdict")),
    Kept("experiments on causes", _made("verdict with causes"), "out/trials/*/*", _again("verdict with causes")),
    Kept("causes", _made("verdict with causes"), "out/why.json", _again("verdict with causes")),
    Kept("points of a curve over rows", _made("verdict with rows"), "out/trials/*/*", _again("verdict with rows")),
    Kept("curve over rows", _made("verdict with rows"), "out/rows.json", _again("verdict with rows")),
    Kept("tuned adapter", _made("tune"), "out/*", _again("tune")),
    Kept("trials of a tuned adapter", _made("tune"), "out/trials/*/*", _again("tune")),
    Kept("tuned model", _made("tune full"), "out/*", _again("tune full")),
    Kept("artefact that answers", _made("predict"), "given/*", _answers),
    Kept("answers", _made("predict"), "out/*", _again("predict")),
    *(Kept(f"artefact exported to {form}", _made(f"export to {form}"), "given/**/*", _exported(form))
      for form in FORMS),
    Kept("exported adapter", _made("export to peft"), "out/*", _compiled),
    Kept("exported model", _made("export to merged"), "out/*", _compiled),
    *(Kept(f"exported to {form}", _made(f"export to {form}"), "out/*", _sealed) for form in FORMS),
    Kept("compiled adapter", _made("compile"), "out/*", _compiled),
    Kept("compiled model", _made("compile to weights"), "out/*", _compiled),
    Kept("compiled prefix", _made("compile to a short prefix"), "out/*", _compiled),
    Kept("pruned adapter", _made("prune"), "out/*", _compiled),
    Kept("inspection", _made("inspect"), "out/*", _again("inspect")),
    Kept("pretrained toy", _made("pretrain"), "out/*", _sealed),
    Kept("records and bases", _made("reproduce"), "out/trials/*/*", _again("reproduce")),
    Kept("tables of a reproduction", _made("reproduce"), "out/*", _again("reproduce")),
    Kept("archive of records", _archived, "archive/*", _tables),
    Kept("races of planted cases", _made("reproduce planted-truth"), "out/*", _again("reproduce planted-truth")),
    Kept("what a forecast is trained on", _few_cases, "forecast/**/*", _known_cases),
    Kept("forecast that is shipped", _copied("src/elicitable/forecasting/shipped.json", "shipped.json"),
         "shipped.json", _shipped_forecast),
    Kept("forecast that was made", _made("forecast"), "out/*", _again("forecast")),
    Kept("plantings", _copied("src/elicitable/planted/planting.json", "planting.json"), "planting.json",
         _plantings),
    Kept("planted model", _copied("src/elicitable/planted/checkpoints/copyist", "copyist"), "copyist/*",
         _planted_model),
    Kept("toys that are shipped", _copied("src/elicitable/models/checkpoints", "checkpoints"), "checkpoints/*", _toy),
    Kept("toy in the cache", _cached_toy, "cache/models/*/*", _toy_in_cache),
    Kept("reviews in the cache", _kept_reviews, "cache/movie-reviews/*", _reviews),
    Kept("model folder", _model_folder, "model/*", _load_folder),
)  # fmt: skip
