"""LoRA behind worked examples: the two used together, trained together, and taken apart again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.families import FAMILIES, reader
from tests.race.test_workers import Scrambled, small

import elicitable as el
from elicitable.errors import InputError
from elicitable.methods.catalog import METHODS, method_named
from elicitable.methods.lora_behind_examples import LoRABehindExamples
from elicitable.models.layout import Layout
from elicitable.models.model import Model
from elicitable.training.batches import Reading, stream
from elicitable.training.loop import Plan, prepared, reading_of, train
from elicitable.values import Item

from .conftest import trained
from .test_contract import IDS, MOVED, NOISE, Shared, every_model, far, logits, model

__all__ = ["model"]  # a fixture, used by name
NAME = "lora-behind-examples"
Build = Callable[..., Model]


@every_model
def test_it_is_the_changed_weights_reading_examples_and_text(model: Model) -> None:
    both = trained(NAME, model)
    lora, examples = both.parts
    with el.use(model, both):
        found = logits(model)
    for parts in ([lora, examples], [examples, lora]):
        with el.use(model, parts):
            assert torch.equal(logits(model), found)
    ids = examples.state()["token_ids"]
    with el.use(model, lora):
        whole = logits(model, torch.cat([ids.expand(2, -1), IDS], dim=1))[:, ids.shape[1] :]
    moved = MOVED if model.anatomy.has_relative_positions else NOISE[model.name]
    assert far(found, whole) < moved
    with torch.no_grad():
        read_by_the_base = examples.prefix(model)
    with el.use(model, [lora, read_by_the_base]):
        assert far(logits(model), found) > 1e-3  # so it matters who reads the examples


def test_it_has_loras_numbers_and_the_examples_keys(shared: Shared) -> None:
    model = shared("llama")
    both = trained(NAME, model)
    lora, examples = both.parts
    assert both.budget().numbers_trained == lora.budget().numbers_trained == method_named("lora").numbers(model, 2)
    assert both.budget().keys_per_layer == examples.budget().keys_per_layer == 6
    assert both.budget().bytes_stored == lora.bytes_stored() + examples.bytes_stored()
    with pytest.raises(InputError, match="at least one item"):
        LoRABehindExamples().build(model, 2)


def test_no_race_runs_it_unasked_and_one_that_does_runs_the_examples_first(tmp_path: Any) -> None:
    assert NAME not in [method.name for method in METHODS]
    assert LoRABehindExamples().rung > method_named("lora").rung
    given: dict[str, Any] = {"methods": [NAME], "seeds": 1, "margin": 0.5, "budget": 2000, "search_passes": 64}
    found = []
    for executor, out in ((None, None), (Scrambled(2), tmp_path)):  # workers are told the examples
        with small():
            arms = {
                arm.method: arm
                for arm in el.verdict("toy:ascending", "ascending", **given, out=out, executor=executor).arms
            }
        assert set(arms) == {"examples", NAME}
        assert arms[NAME].status == "ok"
        assert arms[NAME].setting["items"] == arms["examples"].setting["items"]
        assert arms[NAME].budget.keys_per_layer == arms["examples"].budget.keys_per_layer > 0
        found.append([(arm.method, arm.correct, arm.setting) for arm in arms.values()])
    assert found[0] == found[1]


def test_without_a_choice_to_stand_behind_it_is_skipped_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    from elicitable.methods import examples

    monkeypatch.setattr(examples, "draw", lambda task, k, seed: [])
    with small():
        answer = el.verdict("toy:ascending", "ascending", methods=[NAME], budget=2000, search_passes=128, seeds=1)
    [arm] = [arm for arm in answer.arms if arm.method == NAME]
    assert arm.status == "skipped"
    assert "behind what examples chooses" in arm.reason
    with small(), pytest.raises(InputError, match="nothing that examples can choose"):
        el.tune("toy:ascending", "ascending", method=NAME, size=1, learning_rate=0.01, steps=2)


def test_what_was_chosen_builds_it_again_in_its_layout(letters_model: Build) -> None:
    model = letters_model(has_start=True)
    method = LoRABehindExamples()
    laid = Layout(start="none", separator=" + ", stops=("\n",), system="be brief")
    shown = [Item("on it:", " yes"), Item("off it:", " no")]
    chosen = method.stands_on.build(model, items=shown, layout=laid, text="sort ")
    given = method.standing_on(chosen)
    assert hash(tuple(given.items()))  # it travels to workers as it is
    both = method.build(model, 1, **given)
    assert both.layout == chosen.layout == replace(laid, examples=tuple(shown), head="sort ")
    again = method.again(model, 1, 0, both.setting, None, both.state())
    assert again.layout == both.layout
    assert again.held() == both.held()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_that_a_tokenizer_joins_with_the_examples_can_stand_behind_them(family: str) -> None:
    """Training texts come one by one, so the context holds only what is the same before any of them."""
    from elicitable.models.rows import rows_of

    model = reader(family)
    shown = [Item("a film:", " good"), Item("the sea:", " bad")]
    both = LoRABehindExamples().build(model, 1, items=shown, layout=Layout(separator=" "))
    texts = [Item(f"{begin}a text:", " good") for begin in ("", " ", "\n", "x")]
    behind = rows_of(model, texts, both.layout, held=both.held())
    assert len(both.held()) > 5
    wholes = rows_of(model, texts, both.layout)
    assert [[*both.held(), *row.content] for row in behind] == [row.content for row in wholes]


class Shouts:
    """Five training texts, of which one is shown."""

    name = "shouts"
    rows = tuple(Item(f"{letter}:", f" {letter}") for letter in "abcde")

    def labels(self) -> None:
        return None

    def sample(self, n: int, rng: np.random.Generator) -> list[Item]:
        return [self.rows[place] for place in rng.integers(5, size=n)]

    def held_out(self, split: str, n: int | None = None) -> list[Item]:
        return [Item(f"{letter}:", f" {letter}") for letter in "xyzw"]

    def fingerprint(self) -> str:
        return "shouts-1"


def test_no_batch_holds_an_item_that_stands_among_the_examples(letters_model: Build) -> None:
    model, task = letters_model(), Shouts()
    for shown, kept in (((task.rows[0],), "bcde"), (task.rows[:4], "e"), ((), "abcde")):
        drawn = stream(model, task, 4, np.random.default_rng(0), Reading(4, shown=shown))
        batches = [part for _ in range(40) for part in next(drawn)]
        assert sum(map(len, batches)) == 160
        first = {str(model.tokenizer.decode(int(row[row >= 0][1]))) for part in batches for row in part.targets}
        assert first == set(kept)


def test_where_the_context_shows_all_that_there_is_nothing_is_trained(letters_model: Build) -> None:
    """It went on with the items that are shown, and learned to copy."""
    model, task = letters_model(), Shouts()
    both = LoRABehindExamples().build(model, 1, items=task.rows)
    with pytest.raises(InputError, match=r"every training item of shouts.*5 worked examples.*give more rows"):
        train(model, both, task, Plan(1e-2, 2, batch=4), seed=0)


def test_items_are_drawn_again_where_chance_drew_none_but_those_that_are_shown(letters_model: Build) -> None:
    model, rng = letters_model(), np.random.default_rng(0)

    class Seldom(Shouts):
        drawn = 0

        def sample(self, n: int, rng: np.random.Generator) -> list[Item]:
            self.drawn += 1
            return [self.rows[self.drawn == 3]] * n

    task = Seldom()
    [part] = next(stream(model, task, 4, rng, Reading(4, shown=task.rows[:1])))
    assert {str(model.tokenizer.decode(int(row[row >= 0][1]))) for row in part.targets} == {"b"}
    assert task.drawn == 3


def test_training_sees_the_examples_through_the_weights(letters_model: Build) -> None:
    """The gradient of a number is the slope of the loss, with the examples' keys and values moving along."""
    from elicitable.training.batches import encode
    from elicitable.training.evaluate import answer_logits, token_losses

    model, task = letters_model(), Shouts()
    both = LoRABehindExamples().build(model, 1, items=task.rows[:2])
    reading = reading_of(Plan(1e-3, 2, batch=4), both)
    batch = encode(model, task.rows[2:], None, reading.layout, reading.held)

    def loss() -> torch.Tensor:
        with prepared(model, both) as refresh:
            refresh()
            return token_losses(answer_logits(model, batch), batch.targets).sum()

    b = both.parameters()[1]
    with torch.no_grad():
        for parameter in both.parameters():
            parameter.add_(0.05)
    [found] = torch.autograd.grad(loss(), [b])
    step = 1e-5
    with torch.no_grad():
        b[0, 0] += step
        above = loss()
        b[0, 0] -= 2 * step
        below = loss()
        b[0, 0] += step
    assert float(found[0, 0]) == pytest.approx(float((above - below) / (2 * step)), rel=1e-6, abs=1e-9)
    fit = train(model, both, task, Plan(1e-2, 6, batch=4, evaluate_every=3), seed=0)
    assert fit.steps == 6
