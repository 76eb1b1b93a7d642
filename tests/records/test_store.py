"""The store: identities that stay, records that are whole or not there, and nothing of others overwritten."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from elicitable.errors import StoreError
from elicitable.methods.catalog import method_named
from elicitable.models.layout import Layout
from elicitable.race.trial import Trial
from elicitable.records.store import VERSION, Store, identity
from elicitable.training.loop import Plan

SPEC: dict[str, Any] = {"method": "lora", "size": 3, "rate": 1e-3}
RECORD = {"status": "ok", "test": {"correct": "0110"}, "curve": [[1, 0.5, None]]}


def record_of(folder: Path) -> Path:
    return folder / "trials" / identity(SPEC) / "record.json"


def test_identities_are_pinned() -> None:
    """A changed identity makes every stored race run again: raise the store's version if that is wanted."""
    assert VERSION == 1
    assert identity({"method": "lora", "size": 3, "options": {"modules": ["q", "v"]}}) == "f1425820084c7e115c6a"
    assert identity({"a": (1, 2)}) == identity({"a": [1, 2]})
    assert identity({"a": {"v", "q", "k", "o"}}) == identity({"a": ["k", "o", "q", "v"]})
    assert identity({"a": range(2, 0, -1)}) == identity({"a": [2, 1]})
    assert identity({"a": 1, "b": 2}) == identity({"b": 2, "a": 1})
    assert len({identity(spec) for spec in ({"a": 1}, {"a": 1.5}, {"a": "1"}, {"a": None}, {"b": 1}, {})}) == 6


@pytest.mark.parametrize("in_memory", [True, False])
def test_what_is_put_is_got(tmp_path: Path, in_memory: bool) -> None:
    store = Store(None if in_memory else tmp_path / "new" / "folder")
    assert store.get(SPEC) is None
    state = {"0": torch.arange(4.0).reshape(2, 2).T, "1": torch.ones(1, dtype=torch.float64)}
    put = store.put(SPEC, RECORD, state)
    got = store.get(SPEC)
    assert put == got == {**RECORD, "version": 1, "spec": SPEC}
    loaded = store.state(SPEC)
    assert all(torch.equal(loaded[name], state[name]) and loaded[name].dtype == state[name].dtype for name in state)
    assert list(store) == [put]
    assert store.get({**SPEC, "size": 4}) is None


def test_a_new_store_in_the_same_folder_finds_it(tmp_path: Path) -> None:
    Store(tmp_path).put(SPEC, RECORD)
    assert Store(tmp_path).get(dict(reversed(SPEC.items()))) is not None
    assert Store(tmp_path).state(SPEC) == {}
    assert [path.name for path in (tmp_path / "trials").iterdir()] == [identity(SPEC)]  # nothing partial is left
    Store(tmp_path).put(SPEC, {"status": "failed"})
    assert Store(tmp_path).get(SPEC) == {"status": "failed", "version": 1, "spec": SPEC}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("", "cannot be read"),
        ("[1, 2]", "not a record"),
        ('{"version": 1, "spec": {"method": "full"}}', "not the record of its own spec"),
        ('{"version": 1}', "not the record of its own spec"),
        ('{"version": 1, "spec": 7}', "not the record of its own spec"),
        ('{"version": 2, "spec": {}}', "newer elicitable"),
        ('{"version": "2", "spec": {}}', "version '2'"),
        ('{"spec": {}}', "version None"),
    ],
)
def test_a_record_that_is_corrupt_foreign_or_newer_is_named_and_left(tmp_path: Path, text: str, message: str) -> None:
    store = Store(tmp_path)
    store.put(SPEC, RECORD)
    record_of(tmp_path).write_text(text, encoding="utf-8")
    with pytest.raises(StoreError, match=message) as refusal:
        store.get(SPEC)
    assert str(record_of(tmp_path)) in str(refusal.value)
    assert record_of(tmp_path).read_text(encoding="utf-8") == text


def test_a_record_that_is_no_text_is_named(tmp_path: Path) -> None:
    Store(tmp_path).put(SPEC, RECORD)
    record_of(tmp_path).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StoreError, match="cannot be read"):
        Store(tmp_path).get(SPEC)


def test_a_corrupt_state_is_named(tmp_path: Path) -> None:
    Store(tmp_path).put(SPEC, RECORD, {"0": torch.ones(3)})
    state = record_of(tmp_path).with_name("state.safetensors")
    state.write_bytes(state.read_bytes()[:20])
    with pytest.raises(StoreError, match=r"state\.safetensors cannot be read"):
        Store(tmp_path).state(SPEC)


def test_an_output_folder_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StoreError, match=r"output folder .*file.* cannot be written to"):
            Store(folder)


def test_a_record_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (tmp_path / "trials").write_text("in the way", encoding="utf-8")
    with pytest.raises(StoreError, match="not recorded"):
        store.put(SPEC, RECORD)
    (tmp_path / "trials").unlink()
    with pytest.raises(ValueError, match="Out of range"):
        store.put(SPEC, {"loss": float("nan")})
    assert list((tmp_path / "trials").iterdir()) == []
    assert store.get(SPEC) is None


class Named:
    """Stands for a model and for a task: only their fingerprints enter an identity."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def fingerprint(self) -> Any:
        return _Text(self.name)

    @property
    def identity(self) -> Any:
        return _Text(self.name)


class _Text(str):
    def __call__(self) -> str:
        return str(self)


def test_everything_that_changes_a_result_changes_the_identity_and_seconds_do_not() -> None:
    plan = Plan(learning_rate=1e-3, steps=10)
    trial = Trial(method_named("lora"), 3, plan, seed=0)
    model, task = Named("model"), Named("task")

    def name(one: Trial, model: Any = model, task: Any = task) -> str:
        return identity(json.loads(json.dumps(one.spec(model, task))))

    others = [
        replace(trial, method=method_named("full")),
        replace(trial, size=4),
        replace(trial, seed=1),
        replace(trial, test_items=5),
        replace(trial, options={"init": "sink"}),
        replace(trial, time_limit=60.0),
    ]
    for field in fields(Plan):
        old = asdict(plan)[field.name]
        if field.name != "seconds":
            given = {"betas": (0.5, 0.5), "select_by": "loss", "layout": Layout(start="none")}
            new = given[field.name] if field.name in given else 7 if old is None else old + 1
            others.append(replace(trial, plan=replace(plan, **{field.name: new})))
    names = [name(trial), *map(name, others), name(trial, Named("other")), name(trial, task=Named("other"))]
    assert len(set(names)) == len(names) == 3 + 6 + len(fields(Plan)) - 1
    assert name(replace(trial, plan=replace(plan, seconds=9.0))) == name(trial)
