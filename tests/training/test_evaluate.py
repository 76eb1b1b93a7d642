"""Scores against what they claim to equal: greedy decoding, and log-likelihoods worked out one token at a time."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

import elicitable as el
from elicitable.errors import InputError
from elicitable.models.layout import Layout
from elicitable.models.model import Model
from elicitable.training.batches import IGNORED, encode
from elicitable.training.evaluate import Reading, answers, evaluate, read_labels
from elicitable.values import Item

Build = Callable[..., Model]
SUMS = 1e-12  # float64 sums of a few dozen terms of size 1


def next_token_nats(model: Model, ids: list[int]) -> np.ndarray:
    """−log p of every next token, from one unpadded forward pass of ``ids``, in numpy."""
    with torch.no_grad():
        logits = model.hf(input_ids=torch.tensor([ids])).logits[0, -1].double().numpy()
    return np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits


def answer_nats(model: Model, prompt: list[int], answer: list[int]) -> float:
    """−log p(answer | prompt), a forward pass a token."""
    return sum(float(next_token_nats(model, prompt + answer[:i])[token]) for i, token in enumerate(answer))


def greedy(model: Model, prompt: tuple[int, ...], length: int) -> tuple[int, ...]:
    written: list[int] = []
    for _ in range(length):
        written.append(int(next_token_nats(model, [*prompt, *written]).argmin()))
    return tuple(written)


@pytest.mark.parametrize("with_context", [False, True])
def test_one_teacher_forced_pass_scores_as_greedy_decoding_does(digits_model: Build, with_context: bool) -> None:
    """Every prompt of two tokens out of four with every answer of three: 16 · 64 items, all that there are."""
    model = digits_model(4)
    context = el.context("kv-prefix", model, length=2, seed=1) if with_context else []
    items = [Item(p, t) for p in product(range(4), repeat=2) for t in product(range(4), repeat=3)]
    with el.use(model, context):
        score = evaluate(model, items, None, Reading(batch=100))
        written = {p: greedy(model, p, 3) for p in product(range(4), repeat=2)}
        spoken = [answer.text for answer in answers(model, items[::64], None, Reading())]
    assert list(score.correct) == [int(item.target == written[item.prompt]) for item in items]
    assert sum(score.correct) == 16
    assert len(set(written.values())) > 2  # the answers depend on the prompts
    assert spoken == [" ".join(map(str, written[item.prompt])) for item in items[::64]]


def test_the_loss_is_the_mean_log_likelihood_per_token(digits_model: Build) -> None:
    model = digits_model(10)
    items = [Item((1, 2, 3), (4, 5)), Item((9,), (0,)), Item((5, 5, 5, 5), (1, 2, 3))]
    by_hand = [answer_nats(model, list(i.prompt), list(i.target)) for i in items]
    for batch in (1, 2, 3):
        score = evaluate(model, items, None, Reading(batch=batch))
        assert score.loss_nats == pytest.approx(sum(by_hand) / 6, abs=SUMS)


@pytest.mark.parametrize("has_start", [False, True])
@pytest.mark.parametrize("labels", [("y", "n"), (" yes", " no", " maybe so")])
def test_label_likelihood_is_the_sum_over_the_labels_tokens(
    letters_model: Build, labels: tuple[str, ...], has_start: bool
) -> None:
    model = letters_model(has_start)
    prompts = ["is it so?", "a", "what a long question this is?"]
    items = [Item(prompt, label) for prompt, label in zip(prompts * 2, labels * 3, strict=False)]
    start = [0] if has_start else []
    assert model.start_ids() == start
    ids = {text: model.ids(text).flatten().tolist() for text in (*prompts, *labels)}
    by_hand = np.array([[answer_nats(model, start + ids[i.prompt], ids[k]) for k in labels] for i in items])
    with torch.no_grad():
        costs = read_labels(model, items, labels, Reading())
    assert costs.nats.numpy() == pytest.approx(by_hand, abs=SUMS)
    assert [own.tokens for own in costs.lengths] == [tuple(len(label) for label in labels)] * len(items)
    score = evaluate(model, items, labels, Reading(batch=2))
    truth = [labels.index(item.target) for item in items]
    assert list(score.correct) == (by_hand.argmin(1) == truth).astype(int).tolist()
    own = by_hand[np.arange(len(items)), truth].sum()
    assert score.loss_nats == pytest.approx(own / sum(len(labels[t]) for t in truth), abs=SUMS)
    with torch.no_grad():
        spoken = [answer.text for answer in answers(model, items, labels, Reading())]
    assert spoken == [labels[i] for i in by_hand.argmin(1)]


def test_a_long_prompt_loses_its_beginning_and_never_its_answer(letters_model: Build) -> None:
    model = letters_model(has_start=True)
    whole = encode(model, [Item("abcdefgh", " yes")], max_tokens=8)
    text = "".join(model.tokenizer.convert_ids_to_tokens(whole.input_ids[0].tolist()))
    assert text == "<s>fgh ye"
    assert model.tokenizer.convert_ids_to_tokens(whole.targets[0].tolist()) == list(" yes")
    with pytest.raises(InputError, match="room for 1 tokens before an answer here, and 9 stand there, 8 of them text"):
        encode(model, [Item("abcdefgh", " yes")], max_tokens=5)
    bare = encode(model, [Item("abc", "d")], layout=Layout(start="none"))
    assert bare.input_ids.tolist() == model.ids("abc").tolist()


def test_rows_are_padded_on_the_left_and_targets_are_aligned_at_the_end(digits_model: Build) -> None:
    batch = encode(digits_model(10), [Item((1, 2, 3), (4, 5)), Item((6,), (7, 8, 9)), Item((1,), (2,))])
    assert batch.input_ids.tolist() == [[1, 2, 3, 4], [0, 6, 7, 8], [0, 0, 0, 1]]
    assert batch.attention_mask is not None
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1], [0, 1, 1, 1], [0, 0, 0, 1]]
    assert batch.targets.tolist() == [[IGNORED, 4, 5], [7, 8, 9], [IGNORED, IGNORED, 2]]
    assert encode(digits_model(10), [Item((1,), (2,))] * 2).attention_mask is None


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (Item((1, 2), (10,)), "token id 10.*vocabulary of 10"),
        (Item((1, -2), (1,)), "token id -2"),
        (Item((1, 2), ()), "needs an answer"),
        (Item((), (1, 2)), r"before the answer \(1, 2\): the prompt is empty"),
        (Item((1,) * 60, (2,) * 6), "tiny has room for 64 tokens here, and an item has 65 to be read, and ids"),
        (Item("text", " answer"), "no tokenizer"),
    ],
)
def test_items_a_model_cannot_read_are_refused(digits_model: Build, item: Item, message: str) -> None:
    with pytest.raises(InputError, match=message):
        encode(digits_model(10), [item])


def test_an_item_of_ids_that_takes_every_position_is_read(digits_model: Build) -> None:
    assert encode(digits_model(10), [Item((1,) * 60, (2,) * 5)]).input_ids.shape == (1, 64)


def test_an_empty_answer_in_a_text_is_refused(letters_model: Build) -> None:
    with pytest.raises(InputError, match="needs an answer"):
        encode(letters_model(), [Item("text", "")])


def test_an_answer_stands_behind_the_last_marker(letters_model: Callable[..., Model], monkeypatch: Any) -> None:
    """What is written is given; the rows that are read are those with the tail, and nothing has a loss."""
    from elicitable.methods.prompt import Prompt
    from elicitable.training import evaluate as module
    from elicitable.training.generate import Answer
    from elicitable.training.loop import Plan, reading_of

    model = letters_model(has_start=True)
    context = Prompt().build(model, text="say. ", tail=" so", marker="A:")
    said = ["hm A: no\nA: b\nmore", "A:  a ", "a", "A:", "b A: a and A: c"]
    asked: list[list[int]] = []

    def writes(model: Model, rows: Any, layout: Any, most: Any, batch: int) -> list[Answer]:
        asked.extend(row.content for row in rows)
        return [Answer(text, (1,), True) for text in said]

    monkeypatch.setattr(module, "generate", writes)
    items = [Item(f"{letter}:", target) for letter, target in zip("abcde", (" b", " a", " a", " a", " a"), strict=True)]
    with el.use(model, context):
        score = evaluate(model, items, None, reading_of(Plan(0.0, 1), context))
    assert score.correct == (1, 1, 0, 0, 0)
    assert score.loss_nats == float("inf")
    assert [model.tokenizer.decode(ids).replace(" ", "") for ids in asked[:2]] == ["a:so", "b:so"]
