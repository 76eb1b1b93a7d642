"""What records carry besides scores: pictures that satisfy the equations they illustrate, and small measurements."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_experiment import PREFIX

from elicitable.experiments.experiment import Measure
from elicitable.lab import jobs, measures
from elicitable.lab.jobs import Job, Order, run_job
from elicitable.methods.catalog import method_named
from elicitable.models.model import Model
from elicitable.tasks.catalog import task_from
from elicitable.values import Item

ITEMS = task_from("descending").held_out("test", 10)
PICTURE_ROUNDING = 1e-3  # pictures keep three digits after the point


def prefix(model: Model, size: int, method: str = "kv-prefix") -> Any:
    return method_named(method).build(model, size, seed=0, init="random")


def full(model: Model) -> Any:
    weights = method_named("full").build(model, 1, seed=0)
    with torch.no_grad():
        for parameter in weights.parameters():
            parameter.mul_(1.5)
    return weights


@pytest.mark.parametrize(("size", "method"), [(1, "kv-prefix"), (3, "kv-prefix"), (2, "layer-prefix")])
def test_attention_rows_sum_to_one_and_show_the_prefix_first(
    digits_model: Callable[..., Model], size: int, method: str
) -> None:
    model = digits_model(10)
    picture = measures.attention(model, prefix(model, size, method), ITEMS)["pictures"]["attention"]
    weights = np.asarray(picture["weights"])
    assert picture["prefix"] == size
    assert weights.shape == (19, size + 19)
    assert np.allclose(weights.sum(axis=1), 1.0, atol=weights.shape[1] * PICTURE_ROUNDING)
    assert not np.triu(weights[:, size:], 1).any()
    assert weights[:, :size].any()
    plain = np.asarray(measures.attention(model, full(model), ITEMS)["pictures"]["attention"]["weights"])
    assert plain.shape == (19, 19)


@pytest.mark.parametrize("method", ["kv-prefix", "layer-prefix"])
def test_one_virtual_token_moves_every_activation_along_one_direction(
    digits_model: Callable[..., Model], method: str
) -> None:
    """t^pt = α·W_V s + (1 − α)·t, read off the picture, for every input."""
    model = digits_model(10)
    picture = measures.activations(model, prefix(model, 1, method), ITEMS)["pictures"]["activations"]
    before, after, mass, bias = (np.asarray(picture[key]) for key in ("before", "after", "mass", "bias"))
    assert before.shape == after.shape == (10, 8)
    assert np.ptp(mass) > 0.01
    wanted = mass[:, None] * bias + (1 - mass[:, None]) * before
    assert np.abs(after - wanted).max() < 2 * PICTURE_ROUNDING
    assert np.abs(after - before).max() > 20 * PICTURE_ROUNDING


def test_changed_weights_move_activations_and_have_no_bias(digits_model: Callable[..., Model]) -> None:
    model = digits_model(10)
    kept = {name: weight.clone() for name, weight in model.hf.state_dict().items()}
    picture = measures.activations(model, full(model), ITEMS)["pictures"]["activations"]
    assert picture["bias"] is None
    assert not np.any(picture["mass"])
    assert np.abs(np.asarray(picture["after"]) - np.asarray(picture["before"])).max() > PICTURE_ROUNDING
    assert all(torch.equal(weight, kept[name]) for name, weight in model.hf.state_dict().items())


def test_shares_of_a_prefix_s_positions_sum_to_one_in_every_layer(letters_model: Callable[..., Model]) -> None:
    model = letters_model()
    items = [Item(word, "yes") for word in ("a good one", "bad", "no use at all", "fine")]
    found = measures.prefix_use(model, prefix(model, 4), items)
    shares = np.asarray(found["pictures"]["position shares"]["shares"])
    assert shares.shape == (2, 4)
    assert np.allclose(shares.sum(axis=1), 1.0, atol=4e-4)  # four digits after the point
    two = 100 * np.sort(shares, axis=1)[:, -2:].sum(axis=1).mean()
    assert found["measurements"]["share of the two largest"] == pytest.approx(two, abs=0.02)
    assert found["measurements"]["spread in layer 0"] >= 0


def test_both_equations_hold_to_rounding_and_deeper_layers_drift(
    letters_model: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measures, "ITEMS", ["a good one", "no use at all"])  # the passages are too long for this model
    found = measures.identity(letters_model(), {"method": "layer-prefix", "size": 3, "texts": 2}, seed=0)
    assert found["measurements"]["attention residual"] < 1e-12  # the model is in float64
    assert found["measurements"]["output residual"] < 1e-12
    assert found["measurements"]["drift of deeper layers"] > 1e-3
    assert {name: len(values) for name, values in found["pictures"]["residuals"].items()} == {
        "attention residual": 2, "output residual": 2, "drift": 2, "mass": 2,
    }  # fmt: skip


def test_a_measurement_keeps_its_parts_while_it_runs_and_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = (("hard_tokens", 4), ("virtual_tokens", 2), ("length", 2), ("steps", 5))
    job = Job(Measure("reach", "toy:ascending", "token reach", settings), 0)
    real, seen = measures.token_reach, []

    def look(model: Any, **given: Any) -> Any:
        found = real(model, **given)
        seen.extend(path.name for path in given["out"].glob("trials/*/record.json"))
        return found

    monkeypatch.setattr(measures, "token_reach", look)
    record = run_job(Order(job, str(tmp_path)))
    assert (record.status, record.measurements["hard tokens tried"]) == ("ok", 4)
    assert record.measurements["virtual tokens tried"] == 2
    assert seen
    assert not list((tmp_path / "running").iterdir())
    assert record.fingerprint is not None
    assert len(record.fingerprint) == 16


def test_what_is_not_known_is_a_failure_with_a_reason(tmp_path: Path) -> None:
    record = run_job(Order(Job(Measure("m", "toy:ascending", "colour"), 0), str(tmp_path)))
    assert (record.status, record.stopped.partition(";")[0]) == (
        "failed",
        "InputError: no measurement is named 'colour'",
    )
    with pytest.raises(Exception, match="no measure is named 'colour'"):
        jobs._look(None, None, ("colour",), None)  # type: ignore[arg-type]
    assert "activations" in PREFIX.measures


def test_a_measurement_that_keeps_parts_has_the_seconds_of_all_its_sittings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(model: Any, settings: Any, seed: int, out: Path, progress: Any) -> Any:
        return {"measurements": {}, "pictures": {}, "seconds": 1_000.0}

    monkeypatch.setitem(measures.QUESTIONS, "token reach", measures.Question(asked, keeps_parts=True))
    record = run_job(Order(Job(Measure("m", "toy:ascending", "token reach"), 0), str(tmp_path)))
    assert (record.status, record.timing.seconds) == ("ok", 1_000.0)
