"""A verdict survives being written as JSON; what is not a verdict is refused by the name of its key."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import fields

import numpy as np
import pytest

import records
from elicitable.errors import StoreError
from elicitable.report.verdict_json import plain_json, verdict_from_json, verdict_to_json
from elicitable.values import ArmResult, Budget

ARM_KEYS = {
    "method", "setting", "numbers_trained", "bytes_stored", "keys_per_layer", "mean", "low", "high", "items", "seeds",
    "learning_rate", "steps", "seconds", "side_effect_nats", "status", "reason", "stopped", "sweep", "curves",
    "prefix_mass", "samples", "behind", "correct", "rung", "deployment", "answers", "rule", "raw_mean", "effort",
    "share_of_batch",
    "cut_items", "cut_tokens",
}  # fmt: skip
TOP_KEYS = {
    "why", "items", "label", "reasons", "arms", "provenance", "model", "task", "margin", "answer", "card", "margins",
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in records.ALL if name != "with failures"])
def test_round_trip(name):
    verdict = records.ALL[name]()
    text = json.dumps(verdict_to_json(verdict), allow_nan=False)
    assert verdict_from_json(json.loads(text)) == verdict


def test_the_keys_are_the_promised_ones():
    record = verdict_to_json(records.verdict())
    assert set(record) == TOP_KEYS
    assert all(set(arm) == ARM_KEYS for arm in record["arms"])
    parts = {*(one.name for one in fields(ArmResult)), *(one.name for one in fields(Budget))} - {"budget"}
    assert parts == ARM_KEYS  # nothing that is known of an arm is left out


def test_what_is_not_finite_becomes_null_and_is_read_back_as_nan():
    verdict = records.with_failures()
    record = json.loads(json.dumps(verdict_to_json(verdict), allow_nan=False))
    diverged = next(arm for arm in record["arms"] if arm["method"] == "layer-prefix")
    assert diverged["curves"][0][-1] == {"step": 50, "loss_nats": None, "validation": None}
    read = next(arm for arm in verdict_from_json(record).arms if arm.method == "layer-prefix")
    assert math.isnan(read.curves[0][-1].loss_nats)
    assert verdict_to_json(verdict_from_json(record)) == record


def test_plain_json_takes_what_settings_hold():
    value = {
        "rank": np.int64(1),
        "rate": np.float32(0.5),
        "w": np.array([1.0, np.inf]),
        "names": ("a", None),
        "on": True,
    }
    assert plain_json(value) == {"rank": 1, "rate": 0.5, "w": [1.0, None], "names": ["a", None], "on": True}


def change(record, path, value):
    """``record`` with the place ``path`` set to ``value``; deleted when value is the ellipsis."""
    record = copy.deepcopy(record)
    place = record
    for step in path[:-1]:
        place = place[step]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return record


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("label",), ..., r"the key 'label' is missing"),
        (("label",), 3, r"'label' should be a text, got 3"),
        (("arms",), {}, r"'arms' should be a list"),
        (("arms", 2, "mean"), "0.5", r"'arms\[2\]\.mean' should be a finite number, got '0\.5'"),
        (("arms", 2, "mean"), True, r"'arms\[2\]\.mean' should be a finite number, got True"),
        (("arms", 2, "mean"), float("nan"), r"'arms\[2\]\.mean' should be a finite number"),
        (("arms", 1, "seeds"), ..., r"the key 'arms\[1\]\.seeds' is missing"),
        (("arms", 1, "items"), -1, r"'arms\[1\]\.items' should be a whole number"),
        (("arms", 3, "curves", 0, 1, "step"), None, r"'arms\[3\]\.curves\[0\]\[1\]\.step'"),
        (("arms", 0, "new"), 1, r"unknown key 'arms\[0\]\.new'.*newer version"),
        (("new",), 1, r"unknown key 'new'"),
        (("arms", 0), [], r"'arms\[0\]' should be an object"),
        (("margin",), None, r"'margin' should be a finite number"),
        (("provenance",), "x" * 500, r"'provenance' should be an object, got 'x+\.\.\.\."),
    ],
)
def test_what_is_not_a_verdict_is_refused_by_key(path, value, message):
    record = change(verdict_to_json(records.verdict()), path, value)
    with pytest.raises(StoreError, match=message):
        verdict_from_json(record)


@pytest.mark.parametrize("record", [[], None, "verdict"])
def test_what_is_no_object_is_refused(record):
    with pytest.raises(StoreError, match="'the verdict' should be an object"):
        verdict_from_json(record)
