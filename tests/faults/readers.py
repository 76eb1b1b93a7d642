"""Every reader of something from outside, with what it is given. One entry adds a reader."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from tests.faults.models import letters_gguf, letters_model
from tests.faults.mutations import (
    HOSTILE_TEXTS,
    altered_bytes,
    altered_json,
    altered_json_text,
    altered_tensors,
)
from tests.faults.reader import Reader
from tests.faults.readers_code import CODE
from tests.faults.readers_kept import KEPT
from tests.faults.readers_peft import PEFT, read_adapter_folder
from tests.faults.readers_rows import ROWS, TABLES, as_csv, summed_up
from tests.faults.readers_text import TEXTS

# --- adapters -------------------------------------------------------------------------------------------------

_TRAINED = ("lora", "kv-prefix", "soft-prompt", "value-bias")


@lru_cache(maxsize=1)
def _good_adapters() -> tuple[tuple[dict[str, Any], dict[str, Any]], ...]:
    from elicitable.methods.catalog import method_named
    from elicitable.methods.pruned_prefix import PrunedPrefixContext

    model = letters_model()
    made = [method_named(name).build(model, 2, seed=0) for name in _TRAINED]
    pruned = PrunedPrefixContext.of(made[1].prefix(model))
    forms = [one.folder_form(model) for one in (*made, pruned)]
    return tuple((json.loads(json.dumps(config)), dict(tensors)) for config, tensors in forms)


def _adapters(place: Path) -> st.SearchStrategy[Any]:
    def of(form: tuple[dict[str, Any], dict[str, Any]]) -> st.SearchStrategy[Any]:
        config, tensors = form
        return st.tuples(altered_json_text((config,)), altered_tensors(tensors))

    return st.sampled_from(_good_adapters()).flatmap(of)


def _adapter_tensors(place: Path) -> st.SearchStrategy[Any]:
    from safetensors.torch import save

    return altered_bytes(
        tuple(save({k: t.detach().contiguous() for k, t in one.items()}) for _, one in _good_adapters())
    )


def _read_tensors(place: Path, data: bytes) -> object:
    from elicitable.untrusted import read_tensors

    (place / "tensors").write_bytes(data)
    return read_tensors(place / "tensors", is_finite=True)


# --- checkpoints, records, archives ---------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _training() -> Any:
    import torch

    from elicitable.methods.catalog import method_named
    from elicitable.rng import generator
    from elicitable.training.loop import Fit, Phase, Plan, _Run

    adaptation = method_named("kv-prefix").build(letters_model(), 2, seed=0)
    optimizer = torch.optim.AdamW(adaptation.parameters(), lr=0.1)
    for parameter in adaptation.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return _Run(
        adaptation, optimizer, {"data": generator(0, "a"), "offset": generator(0, "b")}, Fit(), Phase(Plan(0.1, 9))
    )


def _checkpoints(place: Path) -> st.SearchStrategy[Any]:
    from elicitable.training.checkpoint import Checkpoint

    frozen = _training().freeze()
    Checkpoint(place / "good", "it").write(frozen)
    plain = json.loads(json.dumps(frozen.plain))
    return st.one_of(
        altered_bytes(((place / "good").read_bytes(),)),
        st.tuples(altered_json((plain,)), altered_tensors(frozen.tensors)),
    )


def _read_checkpoint(place: Path, given: Any) -> object:
    from elicitable.training.checkpoint import Checkpoint, Frozen

    checkpoint = Checkpoint(place / "it", "it")
    if isinstance(given, bytes):
        checkpoint.path.write_bytes(given)
    else:
        plain, tensors = given
        checkpoint.write(Frozen(tensors, plain))
    return _training().take_up(checkpoint)


_RECORD = {
    "status": "ok", "stopped": "steps", "timing": {"seconds": 1.0, "train_seconds": 0.5}, "steps": 3,
    "curve": [[1, 2.0, None], [3, 1.0, 0.5]], "validation": 0.5, "validation_loss_nats": 1.0,
    "scores": {"ascending": {"right": 2, "of": 4, "bits": "a"}}, "raw": {"right": 1, "of": 4, "bits": "1"},
    "budget": {"numbers_trained": 3, "bytes_stored": 12, "keys_per_layer": 1}, "setting": {"length": 1},
    "tried": [{"setting": {}, "validation": 0.1}], "tried_count": 1, "prefix_mass": [[0.1]],
    "answers": ["1", "2", "3", "4"],
    "samples": [{"prompt": "p", "target": "t", "answer": "a"}], "rule": {"name": "sum"},
}  # fmt: skip
_SPEC = {"seed": 0}


def _records(place: Path) -> st.SearchStrategy[Any]:
    from elicitable.records.store import RECORD, Store, identity

    Store(place).put(_SPEC, _RECORD)
    good = (place / "trials" / identity(_SPEC) / RECORD).read_bytes()
    return st.one_of(altered_bytes((good,)), altered_json((_RECORD,)), altered_json_text((json.loads(good),)))


def _read_record(place: Path, given: Any) -> object:
    from elicitable.race.trial import Trial, _fitting
    from elicitable.records.store import RECORD, Store, identity
    from elicitable.records.trial import kept_trial
    from elicitable.training.loop import Plan

    store = Store(place)
    if isinstance(given, bytes):
        path = place / "trials" / identity(_SPEC) / RECORD
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(given)
    else:
        try:
            store.put(_SPEC, given)
        except (ValueError, TypeError):  # what no program could have kept
            return None
    known = kept_trial(store, _SPEC)
    assert known is not None
    trial = Trial(method=None, size=1, plan=Plan(0.1, 1), seed=0, test_items=4)  # type: ignore[arg-type]
    return _fitting(known, trial, _task(), "record").to_json()


@lru_cache(maxsize=1)
def _task() -> Any:
    from elicitable.tasks.catalog import task_from

    return task_from("ascending")


def _archives(place: Path) -> st.SearchStrategy[Any]:
    from elicitable.records.store import write_archive

    write_archive([{**_RECORD, "version": 1, "spec": {"seed": seed}} for seed in range(3)], place / "good.jsonl")
    good = (place / "good.jsonl").read_bytes()
    (place / "good.jsonl").unlink()
    return st.one_of(altered_bytes((good,)), altered_json_text(tuple(map(json.loads, good.splitlines()))))


def _read_archive(place: Path, data: bytes) -> object:
    from elicitable.records.store import Store
    from elicitable.records.trial import kept_trial

    (place / "some.jsonl").write_bytes(data)
    store = Store(place, is_read_only=True)
    return [kept_trial(store, {"seed": seed}) for seed in range(3)]


def _seals(place: Path) -> st.SearchStrategy[Any]:
    from elicitable.cache import replacing_folder

    with replacing_folder(place / "sealed") as partial:
        (partial / "file").write_bytes(b"whole")
    return altered_json_text((json.loads((place / "sealed" / "seal.json").read_bytes()),))


def _read_seal(place: Path, data: bytes) -> object:
    from elicitable.cache import check_seal

    (place / "file").write_bytes(b"whole")
    (place / "seal.json").write_bytes(data)
    return check_seal(place, "Write it again.")


# --- templates -------------------------------------------------------------------------------------


def _templates(place: Path) -> st.SearchStrategy[Any]:
    (place / "rows.csv").write_bytes(as_csv())
    good = (
        "{text}\nLabel: {label}",
        "{% for x in y %}",
        "{text",
        "{0}{n:>999999999}",
        "{text!r}",
        "{text.x[0]}",
        *HOSTILE_TEXTS,
    )
    texts = altered_bytes(tuple(one.encode("utf-8", "surrogatepass") for one in good))
    return texts.map(lambda data: (str(place / "rows.csv"), data.decode("utf-8", "replace")))


def _read_template(place: Path, given: tuple[str, str]) -> object:
    return summed_up(given[0], template=given[1])


# --- models and code ------------------------------------------------------------------------------------------


def _ggufs(place: Path) -> st.SearchStrategy[Any]:
    letters_gguf(place / "good.gguf")
    return altered_bytes(((place / "good.gguf").read_bytes(),))


def _read_gguf(place: Path, data: bytes) -> object:
    import os
    import shutil

    from elicitable.models.load import load

    os.environ["ELICITABLE_CACHE"] = str(place / "cache")
    (place / "model.gguf").write_bytes(data)
    try:
        return load(place / "model.gguf").fingerprint
    finally:
        shutil.rmtree(place / "cache", ignore_errors=True)


_MODEL_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def _model_folders(place: Path) -> st.SearchStrategy[Any]:
    model = letters_model()
    model.hf.save_pretrained(place)
    model.tokenizer.save_pretrained(place)
    good = {name: (place / name).read_bytes() for name in _MODEL_FILES}

    def of(name: str) -> st.SearchStrategy[Any]:
        if name.endswith(".json"):
            return altered_json_text((json.loads(good[name]),)).map(lambda data: {**good, name: data})
        return altered_bytes((good[name],)).map(lambda data: {**good, name: data})

    return st.sampled_from(_MODEL_FILES).flatmap(of)


def _read_model(place: Path, files: dict[str, bytes]) -> object:
    from elicitable.models.load import load

    for name, data in files.items():
        (place / name).write_bytes(data)
    return load(place).fingerprint


READERS = (
    Reader("adapter folder", _adapters, read_adapter_folder),
    Reader("tensors", _adapter_tensors, _read_tensors),
    Reader("checkpoint", _checkpoints, _read_checkpoint),
    Reader("record", _records, _read_record),
    Reader("archive", _archives, _read_archive),
    Reader("seal", _seals, _read_seal),
    *TABLES,
    *ROWS,
    Reader("template", _templates, _read_template),
    *TEXTS,
    *CODE,
    *KEPT,
    *PEFT,
    Reader("model folder", _model_folders, _read_model),
    Reader("gguf", _ggufs, _read_gguf),
)
