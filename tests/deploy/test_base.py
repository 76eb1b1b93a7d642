"""The base of an artefact is loaded again as it was then: in its type, packed and spread, wherever it lies now."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.deploy.conftest import save_letters, text_of

import elicitable as el
from elicitable.cache import seal, sealed_files
from elicitable.deploy import predict
from elicitable.deploy.artefact import ARTEFACT
from elicitable.deploy.making import base_of
from elicitable.deploy.record import Base
from elicitable.errors import StoreError

Call = Callable[..., tuple[int, str, str]]
ROWS = [{"text": text_of(n), "label": "yes" if n % 2 else "no"} for n in range(120)]


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """What was tuned in bfloat16, as on a GPU, and its model, which lies elsewhere by now."""
    place = tmp_path_factory.mktemp("moved")
    model = el.load(str(save_letters(place / "then")), dtype="bfloat16")
    el.tune(model, ROWS, method="kv-prefix", size=2, learning_rate=0.1, steps=2, test_items=10, out=place / "run")
    shutil.move(place / "then", place / "now")
    return place / "run", place / "now"


def test_a_model_that_is_named_is_loaded_in_the_type_of_then(
    moved: tuple[Path, Path], call: Call, tmp_path: Path
) -> None:
    run, model = map(str, moved)
    code, said, err = call("predict", run, "--model", model, "--text", ROWS[0]["text"], "-q")
    assert (code, err) == (0, "")
    assert said.strip()
    code, said, err = call("export", run, "--to", "kv", "--out", str(tmp_path / "kv"), "--model", model)
    assert (code, err) == (0, "")
    assert str(el.predictor(run, model=Path(model)).model.dtype) == "torch.bfloat16"


def test_a_run_is_compiled_in_the_type_of_then_where_none_is_named(
    moved: tuple[Path, Path], call: Call, tmp_path: Path
) -> None:
    run, model = map(str, moved)
    texts = tmp_path / "texts.txt"
    texts.write_text("".join(f"{row['text']}\n" for row in ROWS[:12]), encoding="utf-8")
    typed = (run, "--model", model, "--texts", str(texts), "--rank", "2", "--steps", "0", "-q")
    assert call("compile", *typed, "--out", str(tmp_path / "out"))[0] == 0
    code, _, err = call("compile", *typed, "--dtype", "float32", "--out", str(tmp_path / "other"))
    assert code == 2
    assert "in bfloat16, and this one is in float32" in err


def test_a_run_is_inspected_and_pruned_in_the_type_of_then(
    moved: tuple[Path, Path], call: Call, tmp_path: Path
) -> None:
    run, model = map(str, moved)
    rows = tmp_path / "rows.csv"
    rows.write_text("text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in ROWS), encoding="utf-8")
    about = ("--model", model, "--task", str(rows), "-q")
    code, _, err = call("inspect", *about, "--context", run, "--texts", "4", "--out", str(tmp_path / "look"))
    assert (code, err) == (0, "")
    code, _, err = call("prune", run, *about, "--items", "8", "--steps", "0", "--out", str(tmp_path / "pruned"))
    assert (code, err) == (0, "")


def test_a_model_in_memory_is_taken_as_it_is(moved: tuple[Path, Path]) -> None:
    model = el.load(str(moved[1]))
    assert el.predictor(moved[0], model=model, any_base=True).model is model
    assert str(model.dtype) == "torch.float32"


@pytest.mark.parametrize(
    ("how", "kept"),
    [
        ({}, (None, None)),
        ({"load_in": "4bit"}, ("4bit", None)),
        ({"load_in": "8bit", "device_map": "balanced"}, ("8bit", "balanced")),
        ({"device_map": {"": "cuda:3"}}, (None, "auto")),  # a device of that machine
    ],
)
def test_how_a_model_was_packed_and_spread_is_kept(how: dict[str, Any], kept: tuple[Any, Any]) -> None:
    model = el.load("toy:ascending")
    model.how = how
    base = base_of(model)
    assert (base.load_in, base.device_map) == kept


@pytest.mark.parametrize("named", [True, False])
def test_a_base_is_packed_and_spread_again(
    moved: tuple[Path, Path], named: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = el.read(moved[0]).record
    assert record is not None
    packed = replace(record, base=replace(record.base, load_in="4bit", device_map="auto", path=str(moved[1])))
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(predict, "load", lambda name, **how: asked.append({"name": name} | how))
    model = str(moved[1]) if named else None
    predict.base_model(packed, "auto", model)
    predict.base_model(packed, "cpu", model)
    then = {"name": str(moved[1]), "dtype": "bfloat16", "load_in": "4bit"}
    assert asked == [then | {"device": "auto", "device_map": "auto"}, then | {"device": "cpu"}]


def test_a_model_is_spread_again(tmp_path: Path) -> None:
    model = el.load(str(save_letters(tmp_path / "model")), device_map="auto")
    el.tune(model, ROWS, method="kv-prefix", size=2, learning_rate=0.1, steps=2, test_items=10, out=tmp_path / "run")
    found = el.predictor(tmp_path / "run")
    assert found.model.how == {"device_map": "auto"}
    assert found.one(ROWS[0]["text"]).answer in ("yes", "no")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"load_in": "2bit"}, "base.load_in must be one of 8bit, 4bit"),
        ({"device_map": "cuda:7"}, "base.device_map must be one of auto, balanced, sequential"),
        ({"device_map": {"": "disk"}}, "base.device_map must be one of"),
    ],
)
def test_what_a_record_says_of_it_is_held_to_what_there_is(
    moved: tuple[Path, Path], tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    shutil.copytree(moved[0], tmp_path / "run")
    path = tmp_path / "run" / ARTEFACT
    plain = json.loads(path.read_text(encoding="utf-8"))
    assert not {"load_in", "device_map"} & plain["base"].keys()  # as in what was written before they were kept
    path.write_text(json.dumps(plain | {"base": plain["base"] | changed}), encoding="utf-8")
    seal(path.parent, sealed_files(path.parent) or ())
    with pytest.raises(StoreError, match=said):
        el.read(tmp_path / "run")


def test_another_base_is_refused_with_how_it_was_loaded_then(moved: tuple[Path, Path]) -> None:
    artefact = el.read(moved[0])
    assert artefact.record is not None
    base = replace(artefact.record.base, load_in="4bit")
    assert isinstance(base, Base)
    packed = replace(artefact, record=replace(artefact.record, base=base))
    with pytest.raises(el.errors.InputError, match=r"as it was then \(dtype='bfloat16', load_in='4bit'\)"):
        packed.adaptation(el.load(str(moved[1])))
