"""One record for every trial: what is written is read again, and whatever is wrong with one is named."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from elicitable.errors import InputError, StoreError
from elicitable.records.form_1 import DATA_OF_THEN, first_form
from elicitable.records.store import Store, identity
from elicitable.records.trial import (
    Outcomes,
    Times,
    TrialRecord,
    keep_trial,
    kept_trial,
    record_of_fit,
)
from elicitable.training.loop import Fit
from elicitable.values import Budget, CurvePoint, Score

WHOLE = TrialRecord(
    status="ok",
    stopped="steps",
    timing=Times(3.5, 2.25, 0.5),
    steps=20,
    curve=(CurvePoint(10, 1.5, 0.25), CurvePoint(20, 1.0)),
    validation=0.25,
    validation_loss_nats=1.5,
    scores={"add-1": Outcomes.of_items((1, 0, 1))},
    measurements={"numbers trained": 5},
    pictures={"attention": {"weights": [[1.0]], "bias": None}},
    fingerprint="abc",
    versions={"torch": "2"},
    setting={"init": "random"},
    budget=Budget(5, 20, 1),
    tried=({"setting": {}, "validation": 0.5},),
    tried_count=1,
    test_loss_nats=0.5,
    elsewhere_nats=2.0,
    prefix_mass=((0.5, 0.25),),
    samples=({"prompt": "1", "target": "2", "answer": "3"},),
)
LEAST = {"status": "ok", "stopped": "steps", "timing": {"seconds": 1.0}}


def test_what_is_kept_is_read_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert kept_trial(store, {"seed": 0}) is None
    assert keep_trial(store, {"seed": 0}, WHOLE) == WHOLE == kept_trial(Store(tmp_path), {"seed": 0})
    assert TrialRecord.from_json(LEAST, "here").to_json() == LEAST  # what has its default is left out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, r"colour is no key of a record"),
        ({"timing": {"seconds": 1.0, "minutes": 2}}, r"timing\.minutes is no key"),
        ({"status": None}, r"status must be one of ok, .*, not None"),
        ({"status": "fine"}, r"status must be one of ok"),
        ({"stopped": 3}, r"stopped must be a text, not 3"),
        ({"timing": {}}, r"timing\.seconds is missing"),
        ({"timing": 1.0}, r"timing must be an object"),
        ({"timing": {"seconds": True}}, r"timing\.seconds must be a number, not True"),
        ({"steps": 1.5}, r"steps must be a whole number, not 1\.5"),
        ({"steps": True}, r"steps must be a whole number, not True"),
        ({"curve": {}}, r"curve must be a list"),
        ({"curve": [[1, 2.0]]}, r"curve\[0\] must be a list of step, loss_nats, validation"),
        ({"curve": [[1, 2.0, None], ["x", 2.0, None]]}, r"curve\[1\]\.step must be a whole number, not 'x'"),
        ({"validation": "high"}, r"validation must be a number"),
        ({"scores": {"add-1": {"right": 1, "of": 2}}}, r"scores\.add-1\.bits is missing"),
        ({"scores": {"add-1": {"right": 1, "of": 2, "bits": "zz"}}}, r"scores\.add-1: bits must be a hexadecimal"),
        ({"scores": {"add-1": {"right": 1, "of": 2, "bits": "3"}}}, r"scores\.add-1: bits do not say that 1 of 2"),
        ({"scores": {"add-1": {"right": 1, "of": 0, "bits": "1"}}}, r"scores\.add-1: bits do not say"),
        ({"measurements": {"m": "1"}}, r"measurements\.m must be a number"),
        ({"measurements": [1]}, r"measurements must be an object"),
        ({"budget": {"numbers_trained": 1}}, r"budget\.bytes_stored is missing"),
        ({"prefix_mass": [[0.1], 0.2]}, r"prefix_mass\[1\] must be a list"),
        ({"samples": [{"prompt": 1}]}, r"samples\[0\]\.prompt must be a text"),
    ],
)
def test_what_is_wrong_is_named_and_left(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    store, spec = Store(tmp_path), {"seed": 0}
    store.put(spec, {**LEAST, **change})
    path = tmp_path / "trials" / identity(spec) / "record.json"
    before = path.read_bytes()
    with pytest.raises(StoreError, match=message) as refusal:
        kept_trial(store, spec)
    assert str(path) in str(refusal.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize("key", LEAST)
def test_what_is_missing_is_named(key: str) -> None:
    with pytest.raises(StoreError, match=f"{key} is missing"):
        TrialRecord.from_json({name: held for name, held in LEAST.items() if name != key}, "here")


def test_a_fit_becomes_a_record_and_numbers_that_are_not_finite_are_written_as_null() -> None:
    curve = [CurvePoint(1, 0.123456789, 1 / 3), CurvePoint(2, math.nan)]
    fit = Fit(curve=curve, best=Score((1, 0), 0.5), state={"w": None}, steps=2, seconds=1.23456, stopped="steps")  # type: ignore[dict-item]
    record = record_of_fit(fit)
    assert (record.status, record.validation, record.timing.train_seconds) == ("ok", 0.5, 1.235)
    text = json.dumps(record.to_json(), allow_nan=False)
    assert json.loads(text)["curve"] == [[1, 0.123457, 0.333333], [2, None, None]]
    again = TrialRecord.from_json(json.loads(text), "here")
    assert math.isnan(again.curve[1].loss_nats)
    assert record_of_fit(replace(fit, stopped="diverged")).status == "diverged"
    assert record_of_fit(replace(fit, best=None)).status == "diverged"


def test_outcomes_that_contradict_themselves_are_refused() -> None:
    correct = (0, 1, 1, 0, 1)
    assert Outcomes.of_items(correct).items == correct
    assert Outcomes.of_items(correct).share == 0.6
    with pytest.raises(InputError, match="do not say that 2 of 5"):
        Outcomes(2, 5, "d")


def test_records_of_the_first_form_are_found_as_long_as_the_data_are_those_of_then(tmp_path: Path) -> None:
    base = {"kind": "pretrain", "data": {"mixed": DATA_OF_THEN["mixed"], "add-1": "8"}, "trial": {}}
    now = {"kind": "adapt", "data": {"smollm2": DATA_OF_THEN["smollm2"]}, "trial": {"base": base}}
    then = {"kind": "adapt", "data": {}, "trial": {"base": {**base, "data": {"add-1": "8"}}}}
    assert first_form(now) == then
    assert first_form(then) is None
    store = Store(tmp_path)
    store.put(then, LEAST, {})
    assert kept_trial(store, now) == kept_trial(store, then)
    assert str(tmp_path / "trials" / identity(then)) in store.where(now)
    others = {**now, "data": {"smollm2": "another"}}
    assert kept_trial(store, others) is None
    store.put(now, {**LEAST, "stopped": "anew"})  # what is run again counts first
    found = kept_trial(store, now)
    assert found is not None
    assert found.stopped == "anew"
