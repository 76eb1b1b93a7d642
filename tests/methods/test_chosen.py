"""Prompts and examples that are looked for: what is offered, that it is legal, and that its record builds it again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import elicitable as el
from elicitable.errors import InputError
from elicitable.methods import prompt, swaps
from elicitable.methods.base import Adaptation, Method
from elicitable.methods.catalog import method_named
from elicitable.methods.instructions import bank, edits, proposals, sentence
from elicitable.methods.swaps import swapped_ids, swapped_texts, written
from elicitable.models.layout import PLAIN
from elicitable.models.model import Model
from elicitable.models.restoring import swapped
from elicitable.race.marking import Marking
from elicitable.race.trial import Trial, _choose
from elicitable.records.trial import TrialRecord
from elicitable.rng import generator
from elicitable.training.loop import Plan, reading_of
from elicitable.values import Item

Build = Callable[..., Model]


class Letters:
    """Two letters in, the first again or the other; the smallest task of labels that there is."""

    name = "letters"

    def labels(self) -> tuple[str, ...]:
        return (" a", " b")

    def _items(self) -> list[Item]:
        pairs = [(x, y) for x in "abcdefg" for y in "abcdefg"]
        return [Item(f"{x}{y}:", " a" if x < y else " b") for x, y in pairs]

    def sample(self, n: int, rng: np.random.Generator) -> list[Item]:
        items = self._items()
        return [items[place] for place in rng.integers(0, len(items), n)]

    def held_out(self, split: str, n: int | None = None) -> list[Item]:
        return self._items()[:n]

    def fingerprint(self) -> str:
        return "letters"


def chosen(model: Model, method: str | Method, task: Any = None, **more: Any) -> tuple[Adaptation, TrialRecord]:
    recipe = method_named(method)
    plan = Plan(learning_rate=0.0, steps=1, validation_items=24)
    options = recipe.start(model) | more.pop("options", {})
    trial = Trial(recipe, 0, plan, 0, options=options, layouts=more.pop("layouts", (PLAIN,)), **more)
    return _choose(trial, model, task or Letters())


@pytest.fixture
def model(letters_model: Build) -> Model:
    return letters_model(has_start=True)


@pytest.mark.parametrize("method", ["prompt", "examples", "nearest-examples", "zero-shot"])
def test_what_is_chosen_is_built_again_from_its_record(model: Model, method: str) -> None:
    layouts = (PLAIN, replace(PLAIN, start="none"))
    best, record = chosen(model, method, layouts=layouts, passes=600)
    plain = TrialRecord.from_json(replace(record, setting=best.setting).to_json(), "here")
    again = method_named(method).from_setting(model, plain.setting, PLAIN)
    best.fit(model, Letters().held_out("test"))
    again.fit(model, Letters().held_out("test"))
    assert again.setting == best.setting
    assert again.layout == best.layout
    assert again.held() == best.held()
    assert plain.effort == record.effort
    assert record.effort is not None
    assert record.effort.items == 24
    assert record.effort.median <= record.effort.best == record.validation


def test_a_search_for_a_prompt_goes_through_all_its_sources(model: Model) -> None:
    _, record = chosen(model, "prompt", options={"prompts": ["say a. "]}, passes=1_800)
    assert record.effort is not None
    found = set(record.effort.origins)
    assert {"given", "bank", "token swaps", "edits"} <= found
    assert record.tried_count == record.effort.candidates > 40
    texts = [one["setting"]["text"] for one in record.tried]
    assert len(texts) == len(set(texts))
    assert record.tried[0]["validation"] == record.validation


def test_a_given_prompt_is_tried_as_it_is_and_apart_from_what_follows(model: Model) -> None:
    """A sentence was glued to the first word of every text, and to that of the user's turn in a chat."""
    given = ("say a", "say b. ", "say c\n")
    offer = next(method_named("prompt").search(model, Letters(), 0, prompts=given, layouts=(PLAIN,)))
    texts = [one.setting["text"] for one in offer.candidates]
    assert texts == [*given, "say a\n\n"]


def test_a_search_for_examples_tries_counts_draws_instructions_and_edits(model: Model) -> None:
    best, record = chosen(model, "examples", passes=1_500)
    assert record.effort is not None
    assert {"draws of 1, 2, 4 …", "edits"} <= set(record.effort.origins)
    assert "items" not in record.tried[0]["setting"]
    assert len(best.setting["items"]) == best.setting["k"]
    assert best.keys_per_layer() <= 32  # half of the model's positions


@pytest.mark.parametrize("method", ["examples", "nearest-examples"])
def test_a_search_without_an_example_that_fits_says_so(method: str, model: Model) -> None:
    class Long(Letters):
        def _items(self) -> list[Item]:
            return [Item(20 * item.prompt, item.target) for item in super()._items()]

    with pytest.raises(InputError, match=r"no (worked example|training text) has room: each that was drawn .* than 32"):
        chosen(model, method, Long())


def test_a_given_prompt_that_is_as_long_as_the_model_reads_is_refused_before_the_race(model: Model) -> None:
    asked: dict[str, Any] = {"prompts": ["say " * 16], "methods": ["prompt"], "search_passes": 24, "seeds": 1}
    with pytest.raises(InputError, match=r"the prompt 'say say say.*' has 64 tokens, and tiny reads 64 with the item"):
        el.verdict(model, Letters(), **asked)


def test_a_search_without_an_instruction_that_fits_is_skipped_and_says_so(model: Model) -> None:
    """Two hundred labels in a short window: every instruction names them all, and the arm was an IndexError."""

    class Many(Letters):
        def labels(self) -> tuple[str, ...]:
            return (" a", " b", *(f" label{nth}" for nth in range(20)))

    class Nothing:
        best, left = (), 0

    search: Any = method_named("prompt").search(model, Many(), 0, layouts=(PLAIN,))
    assert not next(search).candidates
    search.send(Nothing())  # those that name no label
    search.send(Nothing())
    with pytest.raises(InputError, match=r"no instruction has room: each takes more than 32 tokens, half of the pos"):
        search.send(Nothing())


def test_instructions_without_labels_stand_in_where_the_labels_have_no_room(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Many(Letters):
        def labels(self) -> tuple[str, ...]:
            return (" a", " b", *(f" label{nth}" for nth in range(60)))

    class Nothing:
        best, left = (), 0

    monkeypatch.setattr(prompt, "room_of", lambda model: 60)
    search: Any = method_named("prompt").search(model, Many(), 0, layouts=(PLAIN,))
    assert not next(search).candidates
    texts = [one.setting["text"] for one in search.send(Nothing()).candidates]
    assert texts
    assert not [text for text in texts if "label1" in text]


def test_few_passes_are_kept_and_said(model: Model) -> None:
    _, record = chosen(model, "prompt", passes=60)
    assert record.effort is not None
    assert record.effort.passes <= 60
    assert record.stopped == "passes"
    assert record.effort.candidates < record.effort.offered


def test_digits_are_tried_exhaustively_before_anything_else(digits_model: Build) -> None:
    class Reverse(Letters):
        def labels(self) -> None:  # type: ignore[override]
            return None

        def _items(self) -> list[Item]:
            return [Item((x, y), (y, x)) for x in range(8) for y in range(8)]

    _, record = chosen(digits_model(8), "prompt", Reverse(), passes=1_700)
    assert record.effort is not None
    assert record.effort.origins["short sequences"][0] == 8 + 64
    assert record.effort.candidates > 8 + 64


def test_the_bank_names_the_labels_and_the_columns() -> None:
    task = Letters()
    texts = list(bank(task))
    assert len(texts) == len(set(texts)) >= 15
    assert sum("a or b" in text or "- a\n- b" in text or '"a" or "b"' in text for text in texts) == len(texts)
    task.reading = type("Read", (), {"used": (("review", "read"), ("mood", "label"))})()  # type: ignore[attr-defined]
    assert "Read the review and give the mood.\n\n" in list(bank(task))


def test_edits_are_different_texts_of_the_same_end() -> None:
    found = edits("Read the text. Answer a or b.\n\n", generator(0, "x"), 12)
    assert len(found) == len(set(found)) == 12
    assert all(text.endswith("\n\n") and text.strip() and text != "Read the text. Answer a or b.\n\n" for text in found)


def test_a_swap_of_ids_changes_one_token_and_only_downhill() -> None:
    slopes = torch.tensor([[0.0, -1.0, 2.0], [0.5, 0.0, -3.0]])
    found = swapped_ids([0, 1], slopes, generator(0, "x"), 10)
    assert found == [[0, 2], [1, 1]]  # the steepest first, and none that is said to do harm


def test_a_swap_in_a_text_gives_a_text_that_differs_in_one_token(model: Model) -> None:
    layout = replace(PLAIN, head="say a or b. ")
    ids = model.ids(layout.head).flatten().tolist()
    slopes = torch.randn(1 + len(ids), model.anatomy.vocab, generator=torch.Generator().manual_seed(0))
    found = swapped_texts(model, layout, slopes, generator(0, "x"), 9)
    assert len(found) == 9
    for text in found:
        apart = [(one, other) for one, other in zip(text, layout.head, strict=True) if one != other]
        assert len(apart) == 1
        assert "<s>" not in text


def test_swaps_are_offered_where_the_slopes_are_however_few_they_are(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A last token that some rows do not share has no slope; each place was then given those of the one before."""
    layout, seen = replace(PLAIN, head="say a or b. "), []
    ids = model.ids(layout.head).flatten().tolist()
    monkeypatch.setattr(swaps, "steep_swaps", lambda slopes, places, rng: seen.append(list(places)) or ())
    for count in (1 + len(ids), len(ids)):
        swapped_texts(model, layout, torch.zeros(count, model.anatomy.vocab), generator(0, "x"), 9)
    whole, fewer = seen
    assert whole[0] == fewer[0] == 1  # behind the start token
    assert fewer == [place for place in whole if place < len(ids)]


def test_special_tokens_and_blanks_are_never_written(model: Model) -> None:
    assert written(model.tokenizer, model.tokenizer.bos_token_id, "a") == ""
    assert written(model.tokenizer, model.tokenizer.convert_tokens_to_ids(" "), "a") == ""
    assert written(model.tokenizer, model.tokenizer.convert_tokens_to_ids("c"), "a") == "c"
    assert written(model.tokenizer, model.tokenizer.convert_tokens_to_ids("c"), " a") == " c"


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("The instruction was to say which letter comes first.\n\nmore", "Say which letter comes first."),
        ("a", ""),
        ("", ""),
        ("word " * 80, ""),
    ],
)
def test_what_is_no_instruction_is_no_proposal(said: str, found: str) -> None:
    assert sentence(said) == found


def test_a_model_proposes_and_what_it_costs_is_said(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    from elicitable.methods import instructions

    asked: list[str] = []

    def writes(writer: Model, questions: list[str], seconds: float) -> list[str]:
        asked.extend(questions)
        return [f"Say which letter is number {nth // 2}." for nth in range(len(questions))]

    monkeypatch.setattr(instructions, "_written", writes)
    texts, passes = proposals(model, None, Letters(), 0)
    assert texts == [f"Say which letter is number {nth}.\n\n" for nth in range(4)]
    assert passes == 8 * 5 + 48
    assert len(set(asked)) == len(asked) == 8
    assert all("Input: " in one and "Output: " in one for one in asked)


def test_a_proposer_writes_no_longer_than_there_is_time(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another model beside a quick one could take minutes of a limit of seconds."""
    from elicitable.methods import instructions

    monkeypatch.setattr(instructions, "MOST_TOKENS", 24)
    forward, seen = model.hf.forward, []

    def slow(*given: Any, **more: Any) -> Any:
        seen.append(time.sleep(0.05))
        return forward(*given, **more)

    with swapped(model.hf, forward=slow):
        instructions._written(model, ["say a:"])
        assert len(seen) > 20
        seen.clear()
        instructions._written(model, ["say a:"], seconds=0.2)
        assert len(seen) < 10


def test_what_a_model_writes_together_is_what_it_writes_alone(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    from elicitable.methods import instructions

    monkeypatch.setattr(instructions, "MOST_TOKENS", 6)
    questions = ["say a:", "which letter is this:", "b:"]
    together = instructions._written(model, questions)
    assert together == [instructions._written(model, [one])[0] for one in questions]
    assert all(together)
    assert instructions._written(model, ["a" * 60]) == []  # the model has 64 positions


def test_the_last_few_are_compared_by_the_rule_that_each_would_get(model: Model) -> None:
    task = Letters()
    marking = Marking.of(model, task)
    best, record = chosen(model, "prompt", task, marking=marking, passes=500)
    plain, _ = chosen(model, "prompt", task, passes=500 - 4 * 24)
    items = task.held_out("validation", 24)

    def estimate(setting: dict[str, Any]) -> float:
        context = method_named("prompt").from_setting(model, setting, PLAIN)
        context.fit(model, items)
        with el.use(model, context):
            return marking.estimate(model, task, items, reading_of(Plan(0.0, 1), context))

    finalists = [one["setting"] for one in record.tried if one["items"] == 24][:4]
    assert len(finalists) == 4
    assert estimate(best.setting) == max(map(estimate, finalists)) >= estimate(plain.setting)
    assert record.effort is not None
    assert record.effort.passes <= 500
