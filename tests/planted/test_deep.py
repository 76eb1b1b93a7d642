"""Models of two and four layers, blind to a cue, and the command that measures all plantings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from elicitable.methods.catalog import METHODS
from elicitable.models.inject import use
from elicitable.models.model import Model
from elicitable.planted import deep_cases, measuring
from elicitable.planted.blindness import EQUAL, apart
from elicitable.planted.cases import plantings
from elicitable.planted.deep_cases import EitherCase, measured, planned, took
from elicitable.planted.models import DEEP_MIXES, load_planted
from elicitable.planted.rules import RULES
from elicitable.planted.tasks import EitherTask, Gather, held_out_digits
from elicitable.records.digested import read_digested, with_digest, write_digested
from elicitable.tasks.base import Task
from elicitable.values import Item

COPY, REVERSE = Gather(), Gather((4, 3, 2, 1, 0))


@pytest.fixture(scope="module")
def quartet() -> Model:
    return load_planted("quartet")


def test_each_item_asks_the_rule_of_its_cue() -> None:
    task = EitherTask("either", (COPY, REVERSE), (19, 20))
    assert isinstance(task, Task)
    for items in (task.sample(200, np.random.default_rng(0)), task.held_out("test")):
        for item in items:
            cue, *digits, _ = item.prompt
            assert list(item.target[::2]) == (digits if cue == 19 else digits[::-1])
        share = sum(item.prompt[0] == 19 for item in items) / len(items)
        assert 0.4 < share < 0.6
    assert task.held_out("test", 5) == task.held_out("test")[:5]
    assert task.fingerprint() == EitherTask("either", (COPY, REVERSE), (19, 20)).fingerprint()
    assert task.fingerprint() != EitherTask("either", (REVERSE, COPY), (19, 20)).fingerprint()


def test_whoever_does_not_see_the_cue_has_the_ceiling_at_most() -> None:
    task = EitherTask("either", (COPY, REVERSE), (19, 20))
    digits = held_out_digits("validation", 500)
    alike = (digits == digits[:, ::-1]).all(axis=1).mean()
    assert task.ceiling("validation", 500) == pytest.approx(0.5 + 0.5 * alike)
    assert EitherTask("same", (COPY, COPY), (19, 20)).ceiling("validation", 50) == 1.0


def test_every_deep_model_has_present_locked_and_absent_cases_of_rules_it_knows() -> None:
    names = [case.name for case in planned()]
    assert len(set(names)) == len(names) >= 30
    assert {(case.model, case.truth) for case in took()} == {
        (model, truth) for model in DEEP_MIXES for truth in ("nothing", "context", "weights")
    }
    for case in planned():
        if isinstance(case, EitherCase):
            mix = DEEP_MIXES[case.model]
            known = {rule for context, rule in mix.rules if not set(context) & set(mix.alike)}
            assert {case.one, case.two} <= known
            behind = [rule for context, rule in mix.rules if set(context) & set(mix.alike)]
            assert behind == [dict(mix.rules)[()]] * 2
            assert case.task().rules == (RULES[case.one], RULES[case.two])


@pytest.mark.parametrize("name", ["quartet/turn-2", "quartet/cued-copy", "quartet/either-copy-turn-2"])
def test_a_planting_is_measured_again_as_it_is_kept(name: str, quartet: Model) -> None:
    case = next(case for case in planned() if case.name == name)
    found = measured(case, quartet)
    assert found["took"] is True
    assert found == pytest.approx(plantings()[name], abs=0.01)  # last digits differ between kinds of processors


@pytest.mark.parametrize("name", DEEP_MIXES)
@torch.no_grad()
def test_no_context_moves_an_answer_when_the_cue_is_exchanged(name: str) -> None:
    model, (one, other) = load_planted(name), DEEP_MIXES[name].alike
    here = EitherTask("either", (COPY, REVERSE), (one, other)).items(
        held_out_digits("test", 16), np.zeros(16, dtype=np.int64)
    )
    there, elsewhere = ([Item((cue, *item.prompt[1:]), item.target) for item in here] for cue in (other, 13))
    assert apart(model, here, there) <= EQUAL
    assert apart(model, here, elsewhere) > 0.5
    for method in METHODS:
        if method.is_context and method.is_trained:
            context = method.build(model, 8, seed=0)
            for parameter in context.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
            with use(model, context):
                assert apart(model, here, there) <= EQUAL


def test_the_measurements_that_are_shipped_are_as_the_command_writes_them() -> None:
    assert measuring.as_text(with_digest(plantings())) == measuring.SHIPPED.read_text(encoding="utf-8")


def test_the_command_measures_a_part_and_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, shares = planned()[0], {"bare": 1 / 3, "took": True}
    one: dict[str, Any] = {"deep": (lambda: planned()[:1], lambda case, model: shares)}
    monkeypatch.setattr(measuring, "MEASURES", measuring.MEASURES | one)
    path = tmp_path / "planting.json"
    write_digested(path, {"copyist/copy": {"bare": 1.0, "took": True}, "none/such": {}}, "")
    measuring.main(["--part", "deep", "--out", str(path)])
    assert read_digested(path, "") == {
        "copyist/copy": {"bare": 1.0, "took": True},
        first.name: {"bare": 0.3333, "took": True},
    }
    assert first.name in capsys.readouterr().out


def test_a_case_that_was_not_measured_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deep_cases, "plantings", lambda: {planned()[0].name: {"took": True}})
    assert took() == planned()[:1]
