"""What commands keep for other commands, as another program could have written it: no seal, or a digest that fits."""

from __future__ import annotations

import json
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from tests.faults.mutations import altered_bytes, altered_json, altered_json_text, altered_tensors
from tests.faults.reader import Reader

ROOT = Path(__file__).parents[2]
Files = dict[str, Any]  # a file's plain content or tensors by its name


def read_json_file(path: Path) -> Any:
    """The plain content of a file."""
    return json.loads(path.read_text(encoding="utf-8"))


@lru_cache(maxsize=1)
def _toy() -> Any:
    from elicitable.models.load import load

    return load("toy:ascending")


@lru_cache(maxsize=1)
def _artefacts() -> tuple[Files, ...]:
    """Artefacts of a trained context, of changed weights, of a chosen text, and of what PEFT has no form for."""
    from safetensors.torch import load_file

    from elicitable.race.contest import verdict

    methods = ["prompt", "kv-prefix", "lora", "value-bias", "steering"]
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {
            "methods": methods,
            "keep": methods,
            "budget": 2_000,
            "seeds": 1,
            "steps": 3,
            "test_items": 4,
        }
        verdict("toy:ascending", "ascending", out=folder, **options)
        found = []
        for path in sorted(Path(folder).glob("**/artefact.json")):
            files = [one for one in path.parent.iterdir() if one.name != "seal.json"]
            found.append(
                {one.name: load_file(one) if one.suffix == ".safetensors" else read_json_file(one) for one in files}
            )
    assert len(found) == len(methods)
    return tuple(found)


def _altered_artefacts(place: Path) -> st.SearchStrategy[Any]:
    def of(files: Files) -> st.SearchStrategy[Any]:
        names = st.sampled_from(sorted(files))
        return names.flatmap(lambda name: _changed(files[name], name).map(lambda held: {**files, name: held}))

    return st.sampled_from(_artefacts()).flatmap(of)


def _changed(held: Any, name: str) -> st.SearchStrategy[Any]:
    return altered_tensors(held) if name.endswith(".safetensors") else altered_json_text((held,))


def write_files(place: Path, files: Files) -> None:
    """Write each file: bytes as they are, tensors as safetensors, plain data as JSON."""
    from elicitable.cache import write_tensors

    for name, held in files.items():
        if isinstance(held, bytes):
            (place / name).write_bytes(held)
        elif name.endswith(".safetensors"):
            write_tensors(place / name, held)
        else:
            (place / name).write_text(json.dumps(held), encoding="utf-8")


def _read_artefact(place: Path, files: Files) -> object:
    """Answer two rows with an artefact, one of which is broken."""
    from elicitable.deploy.predict import predictor

    write_files(place, files)
    return list(predictor(place, model=_toy())(["3 1 4 1 5 7 2 6 5 3", "none"]))


def _read_tuned(place: Path, files: Files) -> object:
    from elicitable.race.in_the_way import other_than, record_in

    write_files(place, files)
    return other_than(record_in(place), {"method": "lora", "size": 1, "seed": 0})


# --- planted cases and forecasts ------------------------------------------------------------------------------


def _without_digest(path: str) -> Any:
    return {name: held for name, held in read_json_file(ROOT / path).items() if name != "digest"}


def _digested(path: str) -> st.SearchStrategy[Any]:
    """A file's content altered, with a digest that fits where it may have one; or its bytes altered."""
    from elicitable.records.digested import with_digest

    def sworn(held: Any) -> bytes:
        return json.dumps(with_digest(held) if isinstance(held, dict) else held).encode("utf-8", "surrogatepass")

    return st.one_of(altered_json((_without_digest(path),)).map(sworn), altered_bytes(((ROOT / path).read_bytes(),)))


def _read_planted(place: Path, data: bytes) -> object:
    from elicitable.planted.benchmark import is_of, records_in
    from elicitable.planted.cases import case_named
    from elicitable.planted.counts import as_markdown, counted
    from elicitable.planted.parts import part_named

    (place / "copyist-copy.json").write_bytes(data)
    found, part = records_in(place, part_named("one-layer")), part_named("one-layer")
    is_of(found[0], case_named("copyist/copy"), _toy(), part.asked)
    return as_markdown(counted(found, part))


def _cases(place: Path) -> st.SearchStrategy[Any]:
    kinds = st.sampled_from(("signals", "rows"))
    return kinds.flatmap(lambda kind: _digested(f"records/forecast/{kind}/copyist~copy.json").map(lambda d: (kind, d)))


def _read_case(place: Path, given: tuple[str, bytes]) -> object:
    from elicitable.forecasting.records import read_known

    kind, data = given
    for one in ("signals", "rows"):
        (place / "forecast" / one).mkdir(parents=True)
        name = f"forecast/{one}/copyist~copy.json"
        (place / name).write_bytes(data if one == kind else (ROOT / "records" / name).read_bytes())
    return read_known(place / "forecast")


def _read_forecast(place: Path, data: bytes) -> object:
    from elicitable.forecasting.model import read_forecaster
    from elicitable.forecasting.names import SIGNALS

    (place / "shipped.json").write_bytes(data)
    return read_forecaster(place / "shipped.json").predict(dict.fromkeys(SIGNALS, 0.5))


def _beats(place: Path) -> st.SearchStrategy[Any]:
    return altered_json_text(({"share": 0.5, "seconds": 3.0, "steps": 7, "text": "step 7, loss 0.1"},))


def _read_beat(place: Path, data: bytes) -> object:
    from elicitable.lab.heartbeat import heartbeat_path, read_beat

    path = heartbeat_path(place, "it")
    path.parent.mkdir()
    path.write_bytes(data)
    return read_beat(place, "it")


def _tuned_records(place: Path) -> st.SearchStrategy[Any]:
    spec = {"method": "kv-prefix", "size": 2, "seed": 0, "learning_rates": [0.1], "options": {}, "pace": {"batch": 8}}
    return altered_json_text(({"identity": "x", "spec": spec, "mean": 0.5},)).map(
        lambda data: {"elicitable.json": data}
    )


KEPT = (
    Reader("artefact", _altered_artefacts, _read_artefact),
    Reader("record of an adapter", _tuned_records, _read_tuned),
    Reader("race of a planted case", lambda place: _digested("records/planted-truth/copyist-copy.json"), _read_planted),
    Reader("case of a forecast", _cases, _read_case),
    Reader("forecast", lambda place: _digested("src/elicitable/forecasting/shipped.json"), _read_forecast),
    Reader("heartbeat", _beats, _read_beat),
)
