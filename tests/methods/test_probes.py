"""What finds out why a context falls short: the contract, and what each of them is held to besides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import elicitable as el
from elicitable.attention.operands import content_logits
from elicitable.errors import InputError
from elicitable.methods.base import Adaptation
from elicitable.methods.catalog import METHODS, PROBES, method_named
from elicitable.methods.frozen_attention import FrozenAttention
from elicitable.methods.some_weights import feed_forward, queries_and_keys, values_and_output
from elicitable.methods.unbounded import Network, Table, UnboundedContext
from elicitable.models.attend import Call
from elicitable.models.inject import installed, prefix_of
from elicitable.models.model import Model
from elicitable.testing import CHECKS, Subject
from elicitable.training.loop import Plan, train
from elicitable.values import PrefixKV

from .conftest import GIVEN, fresh_model
from .test_contract import FLOAT32_NORM, NOISE

IDS = torch.tensor([[12, 40, 5, 6, 33, 9], [8, 17, 3, 44, 20, 61]])
MODELS = ("gpt2", "llama", "gpt_neox")  # fused with learned positions; grouped heads apart; fused with rotary ones
# and with norms of queries and keys, sliding windows, soft-capped logits, learned sinks, ALiBi, one key head for all
ALL = (*NOISE, "gemma2", "gpt_oss", "bloom", "falcon")
CONTEXTS = ("kv-prefix", "soft-prompt", "prompt")
Shared = Callable[[str], Model]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("method", PROBES, ids=lambda method: str(method.name))
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: str(check.__name__))
def test_the_contract_is_kept(shared: Shared, name: str, method: el.Method, check: Callable[[Subject], None]) -> None:
    check(Subject(method, shared(name), tolerance=max(1e-9, NOISE[name])))


def test_no_race_runs_them_unasked_and_all_are_found_by_name() -> None:
    assert not {method.name for method in METHODS} & {method.name for method in PROBES}
    assert all(method_named(method.name) is method for method in PROBES)


# --- the unbounded context --------------------------------------------------------------------------------------------


def first_output(model: Model, ids: Tensor, **given: Tensor) -> Tensor:
    """What the first layer's attention gives."""
    seen: list[Tensor] = []
    with model.anatomy.attentions[0].register_forward_hook(lambda _, args, out: seen.append(out[0])), torch.no_grad():
        model(input_ids=ids, **given)
    return seen[0]


def context_of(kind: str, model: Model, length: int) -> Adaptation:
    """A context, large enough that its share of attention hangs on the query."""
    context = method_named(kind).build(model, length, seed=4, **GIVEN.get(kind, {"init": "random"}))
    with torch.no_grad():
        for parameter in context.parameters():
            parameter.mul_(2.0)
    return context


def prefix_for(model: Model, length: int, kind: str = "kv-prefix") -> PrefixKV:
    """Its keys and values."""
    prefix = context_of(kind, model, length).prefix(model)
    assert prefix is not None
    return prefix


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(("kind", "length"), [("kv-prefix", 1), ("kv-prefix", 7), ("soft-prompt", 4), ("prompt", 4)])
def test_its_table_holds_any_contexts_first_layer_exactly(shared: Shared, name: str, kind: str, length: int) -> None:
    model = shared(name)
    with torch.no_grad():
        prefix = prefix_for(model, length, kind)
    unbounded = UnboundedContext().build(model, 2, positions=24, shift=prefix.shift)
    unbounded.follow(model, prefix)
    assert isinstance(unbounded.layers[0], Table)
    mask = torch.ones_like(IDS)
    mask[1, :2] = 0  # padded on the left, so its tokens stand elsewhere
    with el.use(model, prefix):
        wanted = first_output(model, IDS, attention_mask=mask)
    with el.use(model, unbounded):
        found = first_output(model, IDS, attention_mask=mask)
    read = mask.bool()
    # float64 sums of 64 terms of size 1
    torch.testing.assert_close(found[read], wanted[read], rtol=0.0, atol=1e-12)
    assert float((first_output(model, IDS, attention_mask=mask) - wanted)[read].abs().max()) > 0.1


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("kind", CONTEXTS)
def test_where_it_starts_at_a_context_it_is_that_context_in_every_layer(shared: Shared, name: str, kind: str) -> None:
    model = shared(name)
    context = context_of(kind, model, 4)
    started = UnboundedContext().starting_at(model, context, "there").build(model, 2)
    mask = torch.ones_like(IDS)
    mask[1, :2] = 0
    read = mask.bool()

    def logits(*inside: Any) -> Tensor:
        with torch.no_grad(), el.use(model, list(inside)):
            return model(input_ids=IDS, attention_mask=mask).logits[read]

    noise = NOISE.get(name, FLOAT32_NORM)
    torch.testing.assert_close(logits(started), logits(context), rtol=0.0, atol=noise)
    other = prefix_for(model, 2)  # around it
    torch.testing.assert_close(logits(other, started), logits(other, prefix_of(model, [context])), rtol=0.0, atol=noise)
    with torch.no_grad():
        for parameter in started.parameters():
            parameter.add_(0.5)
    assert float((logits(started) - logits(context)).abs().max()) > 1e-3


def test_a_context_is_the_same_after_it_was_read_by_a_model_that_scales_its_inputs_in_place() -> None:
    model = fresh_model("ctrl")
    context = context_of("soft-prompt", model, 3)
    before = context.state()
    with torch.no_grad():
        context.prefix(model)
    assert all(torch.equal(before[name], after) for name, after in context.state().items())


def test_its_records_say_where_it_started(shared: Shared) -> None:
    method = UnboundedContext().starting_at(shared("gpt2"), context_of("kv-prefix", shared("gpt2"), 2), "there")
    assert method.identity != UnboundedContext().identity
    assert "there" in method.identity


def test_on_a_toy_of_one_layer_the_whole_model_answers_as_with_the_context() -> None:
    model = el.load("toy:ascending", device="cpu", dtype="float64")
    prefix = prefix_for(model, 2)
    unbounded = UnboundedContext().build(model, 1, shift=2)
    unbounded.follow(model, prefix)
    ids = torch.randint(10, (5, 19), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        with el.use(model, prefix):
            wanted = model(input_ids=ids).logits
        with el.use(model, unbounded):
            found = model(input_ids=ids).logits
    torch.testing.assert_close(found, wanted, rtol=0.0, atol=1e-11)  # logits of size 10 to 30


def test_a_context_around_it_keeps_its_share(shared: Shared) -> None:
    """Two contexts, one of them as a table: the mass of both is in one softmax."""
    model = shared("gpt2")
    one, other = prefix_for(model, 3), prefix_for(model, 2)
    unbounded = UnboundedContext().build(model, 2, shift=2)
    unbounded.follow(model, other)
    with el.use(model, [one, other]):
        wanted = first_output(model, IDS)
    with el.use(model, [one, unbounded]):
        found = first_output(model, IDS)
    torch.testing.assert_close(found, wanted, rtol=0.0, atol=1e-12)


def test_where_no_table_fits_there_is_a_network_and_it_says_so(shared: Shared) -> None:
    model = shared("llama")  # no end of positions
    unbounded = UnboundedContext().build(model, 2)
    assert all(isinstance(layer, Network) for layer in unbounded.layers)
    with pytest.raises(InputError, match="only a table"):
        unbounded.follow(model, prefix_for(model, 2))
    short = UnboundedContext().build(model, 2, positions=3)
    with el.use(model, short), pytest.raises(InputError, match="3 positions"):
        model(input_ids=IDS)
    with el.use(model, short), pytest.raises(InputError, match="not embeddings"):
        model(inputs_embeds=model.embed(IDS))


# --- some weights -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NOISE)
def test_the_parts_of_attention_share_nothing_and_leave_nothing_out(shared: Shared, name: str) -> None:
    model = shared(name)
    match, carried, forward = queries_and_keys(model), values_and_output(model), feed_forward(model)
    own = dict(model.hf.named_parameters())
    inside = {id(p) for one in model.anatomy.attentions for p in one.parameters()}
    for weight_name, parameter in own.items():
        taken = torch.zeros(parameter.shape, dtype=torch.int)
        for part in (match, carried):
            if weight_name in part:
                mask = part[weight_name]
                taken += torch.ones_like(taken) if mask is None else mask.int()
        assert bool((taken == (1 if id(parameter) in inside else 0)).all()), weight_name
    assert not set(forward) & (set(match) | set(carried))
    assert forward


def calls_of(model: Model) -> list[Call]:
    calls: list[Call] = []
    with installed(model) as slot, slot.watched_by(calls.append), torch.no_grad():  # type: ignore[arg-type]
        model(input_ids=IDS)
    return calls


@pytest.mark.parametrize("name", NOISE)
def test_queries_and_keys_move_no_value_and_values_no_query(name: str) -> None:
    model = fresh_model(name)
    plain = calls_of(model)[0]
    for kind, moves_match in (("queries-and-keys", True), ("values-and-output", False)):
        adaptation = Subject(method_named(kind), model).trained()
        with el.use(model, adaptation):
            changed = calls_of(model)[0]
        assert torch.equal(changed.query, plain.query) != moves_match
        assert torch.equal(changed.key, plain.key) != moves_match
        assert torch.equal(changed.value, plain.value) == moves_match


# --- attention replayed -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("layers", [None, [0]])
def test_with_nothing_trained_it_is_the_base_model_bit_for_bit(
    shared: Shared, name: str, layers: list[int] | None
) -> None:
    model, mask = shared(name), torch.ones_like(IDS)
    mask[1, :2] = 0
    with torch.no_grad():
        own = model(input_ids=IDS).logits  # by the model's own attention, which reads padded rows otherwise
        with installed(model):
            plain = model(input_ids=IDS).logits
            attended = model(input_ids=IDS, attention_mask=mask).logits
            written = model.generate(IDS, attention_mask=mask, max_new_tokens=4, do_sample=False, pad_token_id=0)
        with el.use(model, FrozenAttention().build(model, layers=layers)):
            found, whole = model(input_ids=IDS, attention_mask=mask).logits, model(input_ids=IDS).logits
            again = model.generate(IDS, attention_mask=mask, max_new_tokens=4, do_sample=False, pad_token_id=0)
    assert torch.equal(found, attended)
    assert torch.equal(whole, plain)
    assert torch.equal(written, again)
    if name in NOISE:  # the others write their attention out by themselves, in another order
        assert torch.equal(whole, own)


@pytest.mark.parametrize("name", MODELS)
def test_once_trained_its_patterns_are_still_the_base_models(shared: Shared, name: str) -> None:
    """An identity as values: each head's output is then its pattern."""
    model = shared(name)
    plain = calls_of(model)
    replayed = Subject(FrozenAttention(), model).trained()
    depth, keys, seen = model.anatomy.depth, IDS.shape[1], []
    with el.use(model, replayed), installed(model) as slot:
        see = slot.watchers[0]

        def patterns(call: Call) -> Tensor | None:
            eye = torch.eye(keys, call.value.shape[3], dtype=call.value.dtype).expand(call.value.shape)
            seen.append((call, see(replace(call, value=eye))))
            return None

        with slot.watched_by(patterns, first=True), torch.no_grad():
            model(input_ids=IDS)
    found = seen[-depth:]
    for layer, (call, pattern) in enumerate(found):
        wanted = torch.softmax(content_logits(plain[layer].detached()), dim=-1)
        assert pattern is not None
        width = min(keys, call.value.shape[3])
        torch.testing.assert_close(pattern[..., :width], wanted[..., :width], rtol=0.0, atol=NOISE[name])
        if layer:
            assert not torch.allclose(call.query, plain[layer].query)


def test_a_layer_that_is_not_there_is_refused(shared: Shared) -> None:
    for layers in ([], [7], [-1]):
        with pytest.raises(InputError, match="layers"):
            FrozenAttention().build(shared("gpt2"), layers=layers)


@pytest.mark.parametrize("method", PROBES, ids=lambda method: str(method.name))
def test_the_loop_trains_it(method: el.Method) -> None:
    """A few steps lower the loss on the one-layer toy."""
    from elicitable.tasks.catalog import task_from

    model = el.load("toy:ascending", device="cpu", dtype="float32")
    rates = method.schedule.learning_rates if method.schedule else ()
    plan = Plan(rates[-1], steps=12, batch=16, warmup=2, evaluate_every=4, validation_items=32)
    fit = train(
        model,
        method.build(model, 400 if method.probe == "subspace" else 4, seed=0),
        task_from("ascending-add-1"),
        plan,
        seed=0,
    )
    losses = [point.loss_nats for point in fit.curve]
    assert losses[-1] < losses[0]
