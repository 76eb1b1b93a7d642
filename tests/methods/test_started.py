"""Trained contexts that start at a context that was chosen, and never see a training item's own answer in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import pytest
import torch

import elicitable as el
from elicitable.errors import InputError
from elicitable.methods.base import Adaptation
from elicitable.methods.catalog import method_named
from elicitable.methods.examples import Examples
from elicitable.methods.prompt import THINK, Prompt
from elicitable.models.layout import Layout
from elicitable.models.model import Model
from elicitable.training.batches import stream
from elicitable.training.loop import Plan, reading_of
from elicitable.values import Item

from .test_contract import MOVED, NOISE, Shared, every_model, far, logits, model
from .test_lora_behind_examples import Shouts

__all__ = ["model"]  # a fixture, used by name
Build = Callable[..., Model]
STARTED = ("soft-prompt", "layer-prefix", "kv-prefix")
every_started = pytest.mark.parametrize("method", STARTED)
SHOWN = (Item((3, 5), (8,)), Item((13,), (21, 34)), Item((1, 2, 4), (7, 11)))


@every_model
@every_started
@pytest.mark.parametrize("kind", ["prompt", "examples"])
def test_at_as_many_tokens_it_is_the_context_that_was_chosen(model: Model, method: str, kind: str) -> None:
    """Logits in float64; a kv-prefix stands at other rotary positions, whose angles are float32."""
    given: dict[str, Any] = {"token_ids": [7, 9, 4, 11]} if kind == "prompt" else {"items": SHOWN[:2]}
    chosen = el.context(kind, model, **given)
    started = el.context(method, model, length=chosen.keys_per_layer(), init=chosen)
    with el.use(model, chosen):
        wanted = logits(model)
    with el.use(model, started):
        found = logits(model)
    assert far(found, wanted) < (MOVED if model.anatomy.has_relative_positions else NOISE[model.name])


@pytest.mark.parametrize("name", ["gpt2", "opt"])
def test_a_kv_prefix_holds_the_very_keys_and_values_of_what_was_chosen(name: str, shared: Shared) -> None:
    model = shared(name)
    chosen = el.context("examples", model, items=SHOWN)
    started = el.context("kv-prefix", model, length=chosen.keys_per_layer(), init=chosen)
    with torch.no_grad():
        wanted, found = chosen.prefix(model), started.prefix(model)
    assert wanted is not None
    assert found is not None
    assert found.shift == wanted.shift
    for one, two in ((wanted.keys, found.keys), (wanted.values, found.values)):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True) if a is not None and b is not None)


@every_started
@pytest.mark.parametrize(("size", "tokens"), [(2, [4, 11]), (4, [7, 9, 4, 11]), (6, [4, 11, 7, 9, 4, 11])])
def test_the_tokens_next_to_the_content_are_taken_and_repeated(
    method: str, size: int, tokens: list[int], shared: Shared
) -> None:
    """Of a longer context the beginning was taken: the part of a template, and no answer of an example."""
    model = shared("llama")
    started = el.context(method, model, length=size, init=el.context("prompt", model, token_ids=[7, 9, 4, 11]))
    by_ids = el.context(method, model, length=size, init="text", text=[7, 9, 4, 11])
    with el.use(model, el.context("prompt", model, token_ids=tokens)):
        wanted = logits(model)
    for one in (started, by_ids):
        with el.use(model, one):
            assert far(logits(model), wanted) < MOVED


@pytest.mark.parametrize("head", ["", "sort "])
@pytest.mark.parametrize("is_text", [False, True])
def test_exactly_the_examples_in_the_last_tokens_are_named(
    is_text: bool, head: str, digits_model: Build, letters_model: Build
) -> None:
    """Every size from one token to all of them: with a token a letter, lengths alone say which examples are in it."""
    model = letters_model(has_start=True) if is_text else digits_model(64)
    shown = (Item("on it:", " yes"), Item("up:", " no"), Item("off it:", " no")) if is_text else SHOWN
    layout = Layout(separator="+", head=head) if is_text else None
    chosen = Examples().build(model, items=shown, layout=layout, text=head or None)
    lengths = [len(one.prompt) + len(one.target) + is_text for one in shown]
    ends = list(accumulate(reversed(lengths)))
    whole = chosen.keys_per_layer()
    assert whole == sum(lengths) + (1 + len(head) if is_text else 0)
    for size in range(1, whole + 2):
        wanted = next((k for k, end in enumerate(ends, start=1) if end >= size), len(shown))
        start = method_named("kv-prefix").start_at(model, size, chosen)
        assert start["text"] == tuple(chosen.ids.flatten().tolist()[-size:])
        assert method_named("kv-prefix").build(model, size, 0, **start).shown == shown[-wanted:]
        assert hash(tuple(start.items()))  # it travels to workers as it is


def test_in_a_chat_the_turns_in_the_last_tokens_tell_which_examples_they_show(letters_model: Build) -> None:
    """The template's own words stand between the examples and behind the last one; each token is named by one item."""
    model = letters_model()
    model.tokenizer.chat_template = "{% for m in messages %}({{ m.role[0] }}){{ m.content }}{% endfor %}(a)"
    shown = (Item("on it", "yes"), Item("up", "no"), Item("off it", "no"))
    chosen = Examples().build(model, items=shown, layout=Layout(chat=True, head="sort "), text="sort ")
    text = str(model.tokenizer.decode(chosen.ids[0])).replace(" ", "")
    assert text.endswith(".u.offit.a.no.u.")  # the letters have no brackets
    for size in range(1, chosen.keys_per_layer() + 1):
        seen = str(model.tokenizer.decode(chosen.ids[0, -size:])).replace(" ", "")
        found = method_named("soft-prompt").build(
            model, size, 0, **method_named("soft-prompt").start_at(model, size, chosen)
        )
        answers = seen.count("yes") + seen.count("no")
        assert answers <= len(found.shown) <= answers + 1
        assert found.shown == shown[-len(found.shown) :]


class Digits(Shouts):
    """Five training items of token ids."""

    rows = tuple(Item((n, n + 8), (n + 16,)) for n in range(5))


@every_started
@pytest.mark.parametrize("is_text", [False, True])
def test_no_batch_of_training_shows_an_item_its_own_answer(
    method: str, is_text: bool, digits_model: Build, letters_model: Build
) -> None:
    """At every size that shows from one of the four examples to all of them, and behind examples that stay too."""
    model, task = (letters_model(), Shouts()) if is_text else (digits_model(32), Digits())
    chosen = Examples().build(model, items=task.rows[:4])
    built: list[Adaptation] = [el.context(method, model, length=size, init=chosen) for size in range(1, 24)]
    built.append(method_named("lora-behind-examples").build(model, 1, items=task.rows[:4]))
    seen = {len(one.shown) for one in built}
    assert seen == {1, 2, 3, 4}
    for one in built:
        answers = _answers(model, task, one)
        assert answers == {_ids(model, row.target) for row in task.rows if row not in one.shown}


def _answers(model: Model, task: Any, adaptation: Adaptation) -> set[tuple[int, ...]]:
    drawn = stream(model, task, 4, np.random.default_rng(0), reading_of(Plan(0.1, 1, batch=4), adaptation))
    rows = [row for _ in range(20) for part in next(drawn) for row in part.targets.tolist()]
    return {tuple(row[: len(_ids(model, task.rows[0].target))]) for row in rows}


def _ids(model: Model, text: str | Sequence[int]) -> tuple[int, ...]:
    return tuple(model.ids(text).flatten().tolist())


@every_started
def test_what_is_kept_of_it_gives_it_back(method: str, shared: Shared) -> None:
    model = shared("gpt2")
    recipe = method_named(method)
    started = el.context(method, model, length=3, init=el.context("examples", model, items=SHOWN))
    kept = json.loads(json.dumps(started.setting))
    assert kept == started.setting
    again = recipe.again(model, 3, 0, kept, None, started.state())
    assert again.shown == started.shown == SHOWN[-1:]
    assert again.setting == started.setting
    assert repr(started) == f"{method}(length=3, init='text', origin='the chosen examples', seed=0)"


def test_a_text_without_an_origin_is_told(shared: Shared) -> None:
    started = el.context("kv-prefix", shared("gpt2"), length=2, init="text", text=[9, 4])
    assert repr(started) == "kv-prefix(length=2, init='text', text=[9, 4], seed=0)"
    assert started.shown == ()


@every_started
def test_nothing_else_can_be_started_at(method: str, shared: Shared, letters_model: Build) -> None:
    model = shared("llama")
    prompt = el.context("prompt", model, token_ids=[7, 9])
    with pytest.raises(InputError, match=r"cannot start at prompt.* and at a text: init= is the name of a start"):
        el.context(method, model, init=prompt, text=[3])
    with pytest.raises(InputError, match=r"cannot start at soft-prompt.*prompt or worked examples"):
        el.context(method, model, init=el.context("soft-prompt", model, length=2))
    letters = letters_model()
    thinking = Prompt().build(letters, text=THINK, tail="so", marker="Answer:")
    assert not method_named(method).start_at(letters, 3, thinking)  # what stands behind the item is no part of it
