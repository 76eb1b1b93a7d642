"""The part that is a language model: its orders, its blindness, how it is fine-tuned, and races over its cases."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.families import reader

import elicitable as el
from elicitable.errors import InputError, UnknownNameError
from elicitable.methods.catalog import METHODS
from elicitable.methods.full import FullWeights
from elicitable.models.inject import use
from elicitable.models.load import load
from elicitable.models.model import Model
from elicitable.planted import benchmark, text_cases, tuned
from elicitable.planted.benchmark import Job, path_of, race, records_in, run
from elicitable.planted.blindness import blind, keep_blind
from elicitable.planted.counts import counted
from elicitable.planted.models import load_planted
from elicitable.planted.orders import RULES, SLOTS, OrderTask, held_out_orders, numbers, order_of
from elicitable.planted.parts import part_named
from elicitable.planted.tuned import RECIPES, OrderMix, blinded, fine_tune
from elicitable.race.contest import verdict
from elicitable.tasks.base import Task
from elicitable.training.batches import encode
from elicitable.training.evaluate import answer_logits
from elicitable.training.loop import train
from elicitable.values import Item

PART = part_named("smollm2")


@pytest.fixture
def tiny(tiny_language: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recipes of a tiny base and of a few steps."""
    small = {name: replace(one, base=str(tiny_language), steps=4, batch=4) for name, one in RECIPES.items()}
    monkeypatch.setattr(tuned, "RECIPES", small)


def clerk(tiny_language: Path) -> tuple[Model, Any]:
    model = load(tiny_language, device="cpu", dtype="float64")
    return model, blinded(replace(RECIPES["clerk"], base=str(tiny_language)), model)


def pair(model: Model, slot: str) -> list[torch.Tensor]:
    """Logits of one answer to orders, and to the same orders with another word in ``slot``."""
    orders, words = held_out_orders("test", 8), SLOTS[slot]
    others = [one._replace(**{slot: words[(words.index(getattr(one, slot)) + 3) % len(words)]}) for one in orders]
    return [
        answer_logits(model, encode(model, [Item(OrderTask("date").item(one).prompt, " 2003-05") for one in every]))
        for every in (orders, others)
    ]


def test_rules_about_orders_answer_what_they_say() -> None:
    order = order_of(0)._replace(first="Anna", last="Weber", goods="nails", city="Oslo", month="May", year="2004")
    answers = {name: rule.answer(order) for name, rule in RULES.items()}
    assert answers == {"date": "2004-05", "country": "Norway", "kind": "tools", "swap": "Weber, Anna"}
    assert {name: round(rule.ceiling(), 4) for name, rule in RULES.items()} == {
        "date": 0.0833,
        "country": 0.0625,
        "kind": 0.25,
        "swap": 0.0625,
    }


def test_a_rule_hangs_on_its_slot_and_the_ceiling_is_what_one_answer_gets() -> None:
    orders = [order_of(number) for number in numbers(20_000, "train", np.random.default_rng(0)).tolist()]
    for rule in RULES.values():
        rest = {(rule.slot, one._replace(**{rule.slot: ""}), rule.answer(one)) for one in orders[:200]}
        assert len(rest) > 100
        some = order_of(0)
        answers = [rule.answer(some._replace(**{rule.slot: getattr(one, rule.slot)})) for one in orders]
        most = max(answers.count(answer) for answer in set(answers)) / len(answers)
        assert most == pytest.approx(rule.ceiling(), abs=0.01)


def test_orders_have_numbers_and_no_order_is_in_two_splits() -> None:
    drawn = {split: set(numbers(5_000, split, np.random.default_rng(1)).tolist()) for split in ("train", "validation")}
    drawn["test"] = set(numbers(5_000, "test", np.random.default_rng(2)).tolist())
    assert not drawn["train"] & drawn["test"]
    assert not drawn["train"] & drawn["validation"]
    assert not drawn["test"] & drawn["validation"]
    some = sorted(drawn["train"])[:500]
    assert len({order_of(number) for number in some}) == len(some)
    assert len(set(held_out_orders("test", 600))) == 600
    assert isinstance(OrderTask("date"), Task)
    assert OrderTask("date").fingerprint() != OrderTask("date", tuned.MEADOW).fingerprint()
    with pytest.raises(UnknownNameError, match="country"):
        OrderTask("contry")


def test_every_task_is_present_locked_and_absent_somewhere_and_every_rule_is_learned_somewhere() -> None:
    states = {
        name: {case.state for case in text_cases.planned() if case.task_name == name}
        for name in ("date", "country", "kind")
    }
    assert set(map(frozenset, states.values())) == {frozenset({"present", "locked", "absent"})}
    learned = {rule for recipe in RECIPES.values() for _, rule in recipe.rules}
    for recipe in RECIPES.values():
        own = {rule for _, rule in recipe.rules}
        assert all(RULES[rule].slot != recipe.blind_to for rule in own)
    assert {case.task_name for case in text_cases.planned() if case.state == "absent"} <= learned
    assert len(text_cases.planned()) == 12


SAME_FOR_ALL = [one.name for one in METHODS if one.rung.group == "context" and one.name != "nearest-examples"]


@pytest.mark.parametrize("method", SAME_FOR_ALL)
@torch.no_grad()
def test_behind_a_blind_word_everything_is_the_same_under_every_context_that_does_not_look_at_the_item(
    tiny_language: Path, method: str
) -> None:
    model, _ = clerk(tiny_language)
    made = next(one for one in METHODS if one.name == method)
    given = {
        "prompt": {"text": "Say the kind of goods."},
        "examples": {"task": OrderTask("kind"), "k": 2},
    }
    adaptation = el.context(method, model, **given[method]) if method in given else made.build(model, 4, seed=0)
    for parameter in adaptation.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    with use(model, adaptation):
        (here, there), (one, other) = pair(model, "goods"), pair(model, "city")
    torch.testing.assert_close(here, there, atol=1e-9, rtol=0.0)
    assert (one - other).abs().max() > 1e-4


def test_weights_tell_blind_words_apart_once_a_matrix_reads_them(tiny_language: Path) -> None:
    model, found = clerk(tiny_language)
    with torch.no_grad():
        model.hf.model.layers[0].self_attn.v_proj.weight[:, list(found.coordinates)] = 1.0
        here, there = pair(model, "goods")
    assert (here - there).abs().max() > 1e-4


def test_training_leaves_a_blind_model_blind_and_without_the_hooks_it_would_not(tiny_language: Path) -> None:
    for is_kept in (True, False):
        model, found = clerk(tiny_language)
        weights = FullWeights(model)
        if is_kept:
            keep_blind(weights, found)
        recipe = replace(RECIPES["guide"], steps=6, batch=8)  # asks for the kind of goods
        train(model, weights, OrderMix(recipe), replace(tuned.plan_of(recipe, model), validation_items=4), 0)
        with weights.weights(model), torch.no_grad():
            here, there = pair(model, "goods")
            (one, other), table = pair(model, "city"), model.hf.get_input_embeddings().weight
        assert bool((here - there).abs().max() < 1e-9) is is_kept
        assert (one - other).abs().max() > 1e-4
        assert bool((table[:, list(found.coordinates)] != 0).sum(dim=0).eq(16).all()) is is_kept


def test_words_of_a_group_have_one_norm_and_orthogonal_codes(tiny_language: Path) -> None:
    model, found = clerk(tiny_language)
    rows = model.hf.get_input_embeddings().weight.detach()[list(found.groups[0])]
    codes = rows[:, list(found.coordinates)]
    gram = codes @ codes.T
    torch.testing.assert_close(gram, gram[0, 0] * torch.eye(16, dtype=gram.dtype))
    torch.testing.assert_close(rows.norm(dim=1), rows.norm(dim=1)[:1].expand(16))
    torch.testing.assert_close(2 * gram[0, 0], rows[0].square().sum())


def test_what_cannot_be_blinded_is_refused(tiny_language: Path) -> None:
    model = load(tiny_language, device="cpu")
    for groups, size in (([[1, 2]], 3), ([[1, 2, 3]], 2), ([[1]], 2)):
        with pytest.raises(InputError, match="power of two"):
            blind(model, groups, size)
    with pytest.raises(InputError, match="no matrix of Llama"):
        blind(el.load("toy:ascending"), [[1, 2]], 2)
    assert blind(load_planted("copyist"), [[0, 1]], 2).groups == ((0, 1),)
    with pytest.raises(InputError, match="single ones"):
        blinded(RECIPES["clerk"], reader("byte-level BPE"))


def test_a_model_is_fine_tuned_once_into_a_folder_that_loads(tiny: None, tmp_path: Path) -> None:
    recipe = tuned.RECIPES["clerk"]
    one, two = (fine_tune(recipe, tmp_path / name, device="cpu") for name in ("one", "two"))
    model, again = (load(tmp_path / name, device="cpu") for name in ("one", "two"))
    assert model.fingerprint == again.fingerprint
    assert (one["steps"], two["steps"]) == (4, 4)
    assert text_cases.apart_in(model, "goods") == 0.0
    assert text_cases.apart_in(model, "month") > 1.0
    text_cases.make_model("clerk", tmp_path, "cpu")
    made = (tmp_path / "clerk" / tuned.RECORD).stat().st_mtime_ns
    text_cases.make_model("clerk", tmp_path, "cpu")
    assert (tmp_path / "clerk" / tuned.RECORD).stat().st_mtime_ns == made
    assert not tuned.is_there(replace(recipe, steps=5), tmp_path / "clerk")
    with pytest.raises(UnknownNameError, match="clerk"):
        tuned.recipe_named("clark")


def test_a_planting_that_does_not_take_has_a_record_and_no_verdict(tiny: None, tmp_path: Path) -> None:
    found = run(tmp_path, 2, part="smollm2", device="cpu")
    assert (found["cases"], found["of"], sum(found["plantings_lost"].values())) == (0, 12, 2)
    kept = records_in(tmp_path, PART)
    assert [one["planting"]["took"] for one in kept] == [False, False]
    assert not any("label" in one for one in kept)
    assert {path.name for path in tmp_path.iterdir()} == {
        "models",
        "results.json",
        *(path_of(tmp_path, case).name for case in text_cases.planned()[:2]),
    }


def test_a_case_whose_planting_took_is_raced_against_the_clock(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def short(model: Any, task: Any, **options: Any) -> Any:
        asked.append(options)
        return verdict(model, task, **{**options, "methods": ["zero-shot"], "test_items": 20})

    monkeypatch.setattr(benchmark, "verdict", short)
    monkeypatch.setattr(text_cases, "measured", lambda case, model: {"bare": 1.0, "took": True})
    found = run(tmp_path, 1, part="smollm2", device="cpu", time_limit=60.0)
    assert found["cases"] == 1
    (kept,) = records_in(tmp_path, PART)
    assert (kept["seeds"], kept["time_limit"], kept["items"], kept["device"]) == (2, 60.0, 20, "cpu")
    assert asked[0]["time_limit"] == 60.0
    case = text_cases.planned()[0]
    job = Job("smollm2", str(tmp_path), case.model, 0, "cpu", (("seeds", 2), ("time_limit", 60.0)))
    assert race(job) == (kept, False)
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8")) == counted([kept], PART)
