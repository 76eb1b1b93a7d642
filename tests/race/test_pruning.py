"""Pruning a folder: what is written acts as the record says, and half is trained on only where it cannot go without."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import elicitable as el
from elicitable.errors import InputError
from elicitable.methods.adapter import read_adapter, write_adapter
from elicitable.methods.kv_prefix import KVPrefixContext
from elicitable.methods.pruned_prefix import PrunedPrefixContext
from elicitable.models.model import Model
from elicitable.models.prefixes import prefix_length
from elicitable.race import pruning as module
from elicitable.race.pruning import prune_adapter, pruning_summary
from elicitable.tasks.catalog import task_from

FEW: dict[str, Any] = {"items": 40, "test_items": 20}


@pytest.fixture(scope="module")
def model() -> Model:
    return el.load("toy:ascending")


@pytest.fixture
def adapter(model: Model, tmp_path: Path) -> Path:
    return write_adapter(model, el.context("kv-prefix", model, length=6), tmp_path / "whole")


def test_a_prefix_that_does_nothing_is_pruned_to_a_single_pair(model: Model, adapter: Path, tmp_path: Path) -> None:
    task = task_from("descending")  # an untrained prefix does not solve it
    record = prune_adapter(model, adapter, task, tmp_path / "small", steps=0, **FEW)
    assert (record["pairs_after"], len(record["kept"]), record["trained_steps"]) == (1, 1, 0)
    assert json.loads((tmp_path / "small" / "elicitable.json").read_text()) == json.loads(json.dumps(record))
    left = read_adapter(model, tmp_path / "small")
    assert isinstance(left, PrunedPrefixContext)
    assert left.content_at == 6
    assert sum(x.numel() for x in left.parameters()) == record["numbers_after"]
    text = pruning_summary(record)
    assert "dropped 5 of 6 virtual tokens" in text
    assert "PEFT cannot load this one" in text


@pytest.mark.parametrize("peft", [False, True])
def test_half_is_trained_on_where_it_cannot_go_without(
    model: Model, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, peft: bool
) -> None:
    monkeypatch.setattr(module._Pruning, "score", lambda self, prefix, items: float(prefix_length(prefix) in (3, 6)))
    record = prune_adapter(model, adapter, task_from("descending"), tmp_path / "small", steps=2, peft=peft, **FEW)
    assert record["trained_steps"] == 2
    assert (len(record["kept"]), len(record["dropped"])) == (3, 3)
    left, whole = read_adapter(model, tmp_path / "small"), read_adapter(model, adapter)
    assert isinstance(left, KVPrefixContext if peft else PrunedPrefixContext)
    moved = left.prefix(model).keys[0][0, 0] - whole.prefix(model).keys[0][0, 0, list(record["kept"])]  # type: ignore[index]
    assert 0 < moved.abs().max() < 2.1 * module.RATES[0]  # two steps from where it was, each about the rate
    assert "trained on for 2 steps" in pruning_summary(record)
    assert ("PEFT cannot" in pruning_summary(record)) != peft


def test_what_is_no_prefix_is_named(model: Model, tmp_path: Path) -> None:
    soft = write_adapter(model, el.context("soft-prompt", model, length=2), tmp_path / "soft")
    with pytest.raises(InputError, match="holds no prefix \\(it is soft-prompt\\)"):
        prune_adapter(model, soft, task_from("descending"), tmp_path / "small")
    assert not (tmp_path / "small").exists()
    assert torch.is_tensor(read_adapter(model, soft).parameters()[0])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"items": 0}, "items must be a whole number, at least 1, not 0"),
        ({"items": 1}, "two validation items, one to search on and one to confirm, and descending gives 1 of the 1 "),
        ({"test_items": 0}, "test items must be"),
        ({"margin": -0.1}, "a share of the score from 0 to 1 .* got -0.1"),
        ({"margin": 3.0}, "a share of the score"),
        ({"steps": -1}, "steps must be a whole number of at least 0"),
    ],
)
def test_sizes_that_cannot_be_are_named_as_they_were_given(
    model: Model, adapter: Path, tmp_path: Path, given: dict[str, Any], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        prune_adapter(model, adapter, task_from("descending"), tmp_path / "small", **FEW | {"steps": 0} | given)
    assert not (tmp_path / "small" / "elicitable.json").exists()


def test_what_is_left_is_an_artefact_like_any_other(letters_model: Any, tmp_path: Path) -> None:
    """It is read as its record says: in the layout of what was pruned, by a rule, with the score that was measured."""
    from tests.deploy.conftest import save_letters, text_of, write_rows

    folder = save_letters(tmp_path / "model")
    rows = [{"text": text_of(n), "label": ("yes", "no way", "maybe")[(n * n + n // 3) % 3]} for n in range(160)]
    train, test = write_rows(tmp_path / "train.csv", rows[:-40]), write_rows(tmp_path / "test.csv", rows[-40:])
    data: dict[str, Any] = {"test": test, "template": "{text}:"}
    given: dict[str, Any] = {"method": "kv-prefix", "size": 4, "learning_rate": 0.1, "steps": 8, "test_items": 40}
    el.tune(str(folder), train, out=tmp_path / "run", stop="\n", **given, **data)
    model, task = el.load(str(folder)), task_from(train, **data)
    for peft, method, forms in ((False, "pruned-prefix", ()), (True, "kv-prefix", ("peft", "kv"))):
        small = tmp_path / method
        said = prune_adapter(model, tmp_path / "run", task, small, steps=0, peft=peft, items=16, test_items=40)
        before, after = el.read(tmp_path / "run").record, el.read(small).record
        assert before is not None
        assert after is not None
        assert (after.method, after.role, after.rung) == (method, "pruned", "prefix")
        assert after.layout == before.layout
        assert after.layout.end == "\n"
        assert after.form == before.form
        assert after.budget.keys_per_layer == len(said["kept"]) if peft else after.budget.keys_per_layer <= 4
        right = [
            one.answer == row["label"] for one, row in zip(el.predictor(small)(rows[-40:]), rows[-40:], strict=True)
        ]
        assert sum(right) / 40 == after.result.mean
        assert el.check(model, small, quick=True).findings[0].status == "pass"
        left = el.read(small).adaptation(model)
        with el.use(model, small), torch.no_grad():
            found = model(input_ids=model.ids("say it")).logits
        with el.use(model, left), torch.no_grad():
            assert torch.equal(model(input_ids=model.ids("say it")).logits, found)
        for form in forms:
            assert (el.export(small, form, tmp_path / f"{method}-{form}") / "README.md").is_file()
        if peft:
            continue
        compiled = el.compile_context(model, left, task=task, texts_of_task=8, rank=1, steps=0, test_items=8)
        assert compiled.adaptation.parameters()


def test_a_run_is_pruned_by_its_winner_and_read_as_that_was(model: Model, tmp_path: Path) -> None:
    given: dict[str, Any] = {"methods": ["kv-prefix"], "seeds": 1, "steps": 3, "test_items": 20, "budget": 768}
    el.verdict(model, "descending", out=tmp_path / "run", **given)
    record = prune_adapter(model, tmp_path / "run", task_from("descending"), tmp_path / "small", steps=0, **FEW)
    assert record["test_items"] == 20
    assert el.read(tmp_path / "small").record is not None
