"""Several ``with``s on one model: left in any order, the model is what those still open say, and at last as it was."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import elicitable as el
from elicitable.errors import InputError
from elicitable.methods.base import Adaptation
from elicitable.methods.full import Full
from elicitable.methods.lora import LoRA
from elicitable.models.architectures import tiny_model
from elicitable.models.model import Model
from elicitable.testing import trace

IDS = torch.tensor([[5, 9, 2, 30, 41, 8], [7, 7, 1, 60, 4, 22]])


def model_of(name: str = "llama") -> Model:
    return el.load(tiny_model(name))


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(input_ids=IDS).logits
    return found


def used(model: Model, parts: list[Any]) -> Tensor:
    with el.use(model, parts):
        return logits(model)


def moved(adaptation: Adaptation, seed: int) -> Adaptation:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for number in adaptation.parameters():
            number.add_(0.1 * torch.randn(number.shape, generator=generator).to(number))
    return adaptation


MADE: dict[str, Callable[[Model, int], Any]] = {
    "prompt": lambda model, seed: el.context("prompt", model, token_ids=[seed, 9, 4]),
    "soft-prompt": lambda model, seed: el.context("soft-prompt", model, length=seed),
    "lora": lambda model, seed: moved(LoRA().build(model, 2, seed), seed),
    "full": lambda model, seed: moved(Full().build(model), seed),
}
KINDS = [("prompt",) * 3, ("lora",) * 3, ("lora", "prompt", "full"), ("full", "soft-prompt", "lora")]


def open_after(order: str) -> list[str]:
    """Which are open after each letter: the first time it is put in, the second time left."""
    found = [""]
    for letter in order:
        found.append(found[-1].replace(letter, "") if letter in found[-1] else found[-1] + letter)
    return found


@pytest.mark.parametrize("kinds", KINDS, ids="-".join)
@pytest.mark.parametrize("order", ["abba", "abab", "abcabc", "abcbac", "abccab", "abacbc"])
def test_in_any_order_the_model_is_what_is_still_open(order: str, kinds: tuple[str, ...]) -> None:
    model = model_of()
    parts = {letter: MADE[kind](model, 3 + nth) for nth, (letter, kind) in enumerate(zip("abc", kinds, strict=True))}
    opened = open_after(order)
    expected = {those: used(model, [parts[letter] for letter in those]) for those in opened}
    before, withs = trace(model), {letter: el.use(model, part) for letter, part in parts.items()}
    for letter, earlier, now in zip(order, opened, opened[1:], strict=False):
        if len(now) > len(earlier):
            withs[letter].__enter__()
        elif earlier.endswith(letter):
            withs[letter].__exit__(None, None, None)
        else:
            with pytest.raises(InputError, match="another order than it was put in"):
                withs[letter].__exit__(None, None, None)
        assert torch.equal(logits(model), expected[now]), f"{letter}: {now!r} are open"
    assert trace(model) == before


def test_a_generator_that_ends_early_leaves_the_other_one_in_use() -> None:
    model = model_of()
    one, two = MADE["lora"](model, 1), MADE["prompt"](model, 2)

    def answers(part: Any) -> Iterator[Tensor]:
        with el.use(model, part):
            while True:
                yield logits(model)

    before, alone, both = trace(model), used(model, [two]), used(model, [one, two])
    first, second = answers(one), answers(two)
    next(first)
    assert torch.equal(next(second), both)
    with pytest.raises(InputError, match="leave the inner `with` first"):
        first.close()  # type: ignore[attr-defined]
    assert torch.equal(next(second), alone)
    second.close()  # type: ignore[attr-defined]
    assert trace(model) == before


def test_two_models_that_are_left_in_any_order_leave_torch_s_own_switches() -> None:
    one, two = model_of(), model_of("gpt2")
    before = torch.backends.cuda.cudnn_sdp_enabled()
    first, second = (el.use(model, MADE["prompt"](model, 3)) for model in (one, two))
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not torch.backends.cuda.cudnn_sdp_enabled()
    second.__exit__(None, None, None)
    assert torch.backends.cuda.cudnn_sdp_enabled() == before


def in_a_thread(task: Callable[[], Any]) -> Any:
    """What ``task`` returns, or what it raises, in a thread of its own."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(task())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.parametrize("kind", MADE)
def test_what_another_thread_has_in_use_is_not_joined(kind: str) -> None:
    model = model_of()
    one, two = MADE[kind](model, 3), MADE[kind](model, 4)
    before, alone = trace(model), used(model, [one])
    with el.use(model, one):
        for task in (lambda: used(model, [two]), lambda: LoRA().build(model, 2)):
            refused = in_a_thread(task)
            assert isinstance(refused, InputError)
            assert "LlamaForCausalLM is in use in another thread" in str(refused)
        assert torch.equal(logits(model), alone)
        assert torch.equal(in_a_thread(lambda: logits(model)), alone)  # reading is for every thread, as in streaming
    assert trace(model) == before
    assert torch.equal(in_a_thread(lambda: used(model, [two])), used(model, [two]))


def test_a_with_may_be_left_in_another_thread() -> None:
    """Web servers run the two halves of a generator in whichever thread is free."""
    model = model_of()
    before, opened = trace(model), el.use(model, MADE["lora"](model, 1))
    opened.__enter__()
    assert in_a_thread(lambda: opened.__exit__(None, None, None)) is False
    assert trace(model) == before
    in_a_thread(lambda: used(model, [MADE["prompt"](model, 3)]))


@pytest.mark.parametrize("name", ["llama", "gpt2", "bloom"])
@pytest.mark.parametrize("kind", ["prompt", "lora"])
def test_a_copy_inside_is_refused(kind: str, name: str) -> None:
    model = model_of(name)
    before, plain = trace(model), logits(model)
    with el.use(model, MADE[kind](model, 3)):
        for copied in (copy.deepcopy, pickle.dumps):
            for thing in (model, model.hf, model.anatomy.decoder):
                with pytest.raises(InputError, match="copy it outside"):
                    copied(thing)
    assert trace(model) == before
    assert torch.equal(logits(copy.deepcopy(model.hf)), plain)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_model_is_trained_behind_a_context_for_as_many_steps_as_one_likes(name: str) -> None:
    model = model_of(name)
    model.hf.requires_grad_(True)
    losses = []
    optimizer = torch.optim.SGD(model.hf.parameters(), lr=0.01)
    with el.use(model, MADE["prompt"](model, 3)):
        for _ in range(3):
            loss = model(input_ids=IDS, labels=IDS).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(float(loss.detach()))
    assert losses[0] > losses[1] > losses[2]
    assert all(weight.requires_grad for weight in model.hf.parameters())


def test_a_context_still_has_its_own_gradient() -> None:
    model = model_of()
    model.hf.requires_grad_(True)
    context = MADE["soft-prompt"](model, 3)
    with el.use(model, context):
        model(input_ids=IDS, labels=IDS).loss.backward()
    assert float(context.parameters()[0].grad.abs().max()) > 0


def test_an_attention_that_is_set_inside_is_not_passed_over() -> None:
    model = model_of()
    before = trace(model)
    with el.use(model, MADE["prompt"](model, 3)):
        model.hf.set_attn_implementation("eager")
        with pytest.raises(InputError, match="attention was set to 'eager'"):
            logits(model)
    assert trace(model) == before


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_attention_weights_that_there_are_none_of_are_refused(attention: str) -> None:
    model = model_of()
    model.hf.set_attn_implementation(attention)
    with el.use(model, MADE["prompt"](model, 3)), pytest.raises(InputError, match=r"output_attentions.*watch"):
        model(input_ids=IDS, output_attentions=True)
    if attention == "eager":
        assert len(model(input_ids=IDS, output_attentions=True).attentions) == model.anatomy.depth


def test_a_model_is_read_while_another_thread_runs_another_one() -> None:
    """Attention calls of every thread were noted for whoever looked: a model of two layers had four."""
    busy, calls, stop = model_of(), 0, threading.Event()

    def run() -> None:
        with el.use(busy, []):
            while not stop.is_set():
                busy(input_ids=IDS)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        for _ in range(20):
            assert Model(tiny_model("llama")).anatomy.depth == 2
            calls += 1
    finally:
        stop.set()
        thread.join()
    assert calls == 20


def test_a_call_goes_on_as_it_began_where_another_runs_within_it() -> None:
    """A window counts the tokens of the call that it belongs to."""
    model = Model(tiny_model("gemma3_text", dtype=torch.float32))
    ids, asked = torch.arange(6)[None] + 3, []

    def ask(*given: Any) -> None:
        if not asked:
            asked.append(1)
            model(input_ids=ids[:, :1])

    with el.use(model, el.context("prompt", model, token_ids=[7, 9, 4])), torch.no_grad():
        plain = model(input_ids=ids).logits
        with model.anatomy.blocks[0].register_forward_pre_hook(ask):
            found = model(input_ids=ids).logits
    assert asked
    assert torch.equal(found, plain)
