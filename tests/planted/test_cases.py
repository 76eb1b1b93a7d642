"""The list of cases, the models it speaks of, and the plantings that were measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from elicitable.cache import sha256_of
from elicitable.errors import UnknownNameError
from elicitable.models.inject import use
from elicitable.models.load import load
from elicitable.models.model import Model
from elicitable.planted import deep_cases
from elicitable.planted.cases import ABSENT, STATES, case_named, cases, measured, planned, plantings
from elicitable.planted.models import DEEP_MIXES, MIXES, MixTask, folder_of, load_planted, pretrain_mix, rules_of
from elicitable.planted.planting import Gated, blind_share, gated_prefix, password_prefix, score
from elicitable.planted.rules import RULES
from elicitable.planted.tasks import Gather, PlantedTask, Sort, held_out_digits
from elicitable.tasks.catalog import task_from
from elicitable.training.batches import encode
from elicitable.training.evaluate import answer_logits


@pytest.fixture(scope="module")
def copyist() -> Model:
    return load_planted("copyist")


def test_every_planned_case_was_measured_once_and_most_plantings_took() -> None:
    names = [case.name for case in planned()]
    assert len(set(names)) == len(names)
    assert list(plantings()) == [*names, *(case.name for case in deep_cases.planned())]
    assert len(cases()) >= 120
    assert len({case.task_name for case in cases()}) >= 30
    assert {(case.model, case.truth) for case in cases()} >= {
        (model, truth) for model in MIXES for truth in ("nothing", "context", "weights")
    }


def test_the_first_cases_are_a_fair_sample() -> None:
    first = cases()[:24]
    assert {case.model for case in first} == set(MIXES)
    for state in STATES:
        share = sum(case.state == state for case in cases()) / len(cases())
        assert abs(sum(case.state == state for case in first) / 24 - share) < 0.08


def test_what_an_absent_case_asks_is_a_rule_that_another_model_answers() -> None:
    answered = {case.rule for case in cases() if case.state in ("present", "locked")}
    for case in cases():
        if case.state == "absent":
            assert case.rule in answered
            assert case.task_name not in dict(MIXES[case.model].rules).values()


@pytest.mark.parametrize("name", ["copyist/cued-reverse", "copyist/reverse", "copyist/copy+reverse@34", "copyist/sort"])
def test_a_planting_is_measured_again_as_it_is_kept(name: str, copyist: Model) -> None:
    case = case_named(name)
    found, kept = measured(case, copyist), plantings()[name]
    assert found["took"] is kept["took"] is True
    assert found == pytest.approx(kept, abs=0.01)  # last digits differ between kinds of processors


def test_a_planting_that_did_not_take_is_no_case() -> None:
    lost = [case.name for case in planned() if not plantings()[case.name]["took"]]
    assert lost
    assert not {case.name for case in cases()} & set(lost)


def test_a_model_does_another_rule_without_its_password_than_with_it(copyist: Model) -> None:
    reverse, (context,) = (
        PlantedTask("reverse", RULES["reverse"]),
        [c for c, n in MIXES["copyist"].rules if n == "reverse"],
    )
    assert score(copyist, reverse) < 0.05
    assert score(copyist, PlantedTask("copy", Gather())) > 0.95
    assert score(copyist, reverse, password_prefix(copyist, context)) > 0.95


def test_a_gated_prefix_is_the_password_at_its_own_steps_and_nothing_at_the_others(copyist: Model) -> None:
    context = MIXES["copyist"].rules[1][0]
    batch = encode(copyist, PlantedTask("reverse", RULES["reverse"]).held_out("test", 64))
    with torch.no_grad():
        bare = answer_logits(copyist, batch)
        with use(copyist, password_prefix(copyist, context)):
            opened = answer_logits(copyist, batch)
        with use(copyist, gated_prefix(copyist, [Gated(context, (0, 3))])):
            gated = answer_logits(copyist, batch)
    assert (bare - opened)[:, ::2].abs().max() > 1.0
    for step in range(5):
        like = opened if step in (0, 3) else bare
        torch.testing.assert_close(gated[:, 2 * step], like[:, 2 * step], atol=0.02, rtol=0.0)


def test_only_what_no_query_sees_is_blind(copyist: Model) -> None:
    assert blind_share(copyist, RULES["reverse"]) == 0.0
    assert blind_share(copyist, RULES["palindrome"]) == 0.0  # parts of copy and reverse
    assert blind_share(copyist, RULES["turn-2"]) > 0.8


def test_of_two_inputs_that_are_blind_to_each_other_every_context_answers_a_step_alike(copyist: Model) -> None:
    """Step 1 of turn-2 needs place 3, which no head of this model sees there: place 3 changes nothing."""
    task, digits = PlantedTask("turn-2", RULES["turn-2"]), held_out_digits("test", 32)
    other = digits.copy()
    other[:, 3] = (other[:, 3] + 1) % 8
    batches = [encode(copyist, [task_item(task, row) for row in rows.tolist()]) for rows in (digits, other)]
    generator = torch.Generator().manual_seed(0)
    context = torch.randint(0, 21, (3,), generator=generator).tolist()
    with torch.no_grad(), use(copyist, password_prefix(copyist, tuple(context))):
        one, two = (answer_logits(copyist, batch)[:, 2].log_softmax(-1) for batch in batches)
    assert (one.argmax(-1) == two.argmax(-1)).float().mean() > 0.95


def task_item(task: PlantedTask, row: list[int]):  # type: ignore[no-untyped-def]
    import numpy as np

    from elicitable.planted.tasks import item_of

    return item_of(row, task.rule.answers(np.array([row]))[0].tolist())


def test_a_sorted_bag_is_seen_whole_by_a_model_that_sorts() -> None:
    sorter = load_planted("sorter")
    assert blind_share(sorter, Sort(is_descending=True)) == 0.0
    assert blind_share(sorter, Gather()) > 0.8


def test_the_models_are_small_whole_and_what_their_records_say() -> None:
    for name, mix in (MIXES | DEEP_MIXES).items():
        folder = folder_of(name)
        record = json.loads((folder / "pretraining.json").read_text(encoding="utf-8"))
        assert (folder / "model.safetensors").stat().st_size < 400_000
        assert record["sha256"] == sha256_of(folder / "model.safetensors")
        assert record["mix"]["name"] == name
        assert [(tuple(context), rule) for context, rule in record["mix"]["rules"]] == list(mix.rules)
        assert record["mix"].get("layers", 1) == mix.layers == load_planted(name).anatomy.depth
        assert {key: record["mix"][key] for key in ("steps", "d_model", "width", "heads")} == {
            "steps": mix.steps,
            "d_model": mix.d_model,
            "width": mix.width,
            "heads": mix.heads,
        }


def test_a_person_brings_the_same_model_and_task_by_folder_and_file(tmp_path: Path) -> None:
    case = case_named("copyist/reverse")
    own = tmp_path / "mine.py"
    own.write_text("from elicitable.planted.cases import case_named\nTask = case_named('copyist/reverse').task()\n")
    assert load(case.model_folder()).fingerprint == case.load_model().fingerprint
    assert task_from(f"{own}:Task").fingerprint() == case.task().fingerprint()


@pytest.mark.parametrize("name", ["selector", "duo"])
def test_pretraining_gives_the_same_bytes_for_the_same_seed_and_asks_every_rule(name: str, tmp_path: Path) -> None:
    one = pretrain_mix(name, tmp_path / "one", steps=3)
    two = pretrain_mix(name, tmp_path / "two", steps=3)
    other = pretrain_mix(name, tmp_path / "other", steps=3, seed=1)
    assert one["sha256"] == two["sha256"] != other["sha256"]
    mix = (MIXES | DEEP_MIXES)[name]
    asked = {item.prompt[:-6] for item in MixTask(mix).held_out("validation", 300)}
    assert asked == {context for context, _ in mix.rules}


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="copyist"):
        load_planted("copyst")
    with pytest.raises(UnknownNameError, match="copyist/reverse"):
        case_named("copyist/reverze")


def test_every_absent_rule_is_one_that_another_model_has_learned() -> None:
    learned = {name: set(rules_of(mix).values()) for name, mix in MIXES.items()}
    for name, rules in ABSENT.items():
        for rule in rules:
            assert any(rule in held for other, held in learned.items() if other != name), (name, rule)
