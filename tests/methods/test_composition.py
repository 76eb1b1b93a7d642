"""A context is its tokens: injected, moved, put one after another, a different one for every row, under beams."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

import elicitable as el
from elicitable.errors import InputError
from elicitable.methods.layer_prefix import residuals
from elicitable.models import prefixes
from elicitable.models.capture import capture_tokens
from elicitable.models.inject import prefix_of
from elicitable.models.model import Model
from elicitable.models.prefixes import stack_rows
from elicitable.values import PrefixKV

from .conftest import trained
from .test_contract import IDS, MOVED, NOISE, Shared, every_model, far, logits, model

__all__ = ["model"]  # a fixture, used by name

FIRST, SECOND = torch.tensor([[7, 9, 4, 11, 30]]), torch.tensor([[22, 3, 50]])


def prompt(model: Model, ids: Tensor) -> el.methods.base.Adaptation:
    return el.context("prompt", model, token_ids=ids.flatten().tolist())


def used(model: Model, *parts: Any) -> Tensor:
    """The content's logits with ``parts`` in place."""
    with el.use(model, parts):
        return logits(model)


def concatenated(model: Model, *before: Tensor, ids: Tensor = IDS) -> Tensor:
    """The base model's own logits for the content, everything standing in its input."""
    whole = torch.cat([*(b.expand(len(ids), -1) for b in before), ids], dim=1)
    return logits(model, whole)[:, -ids.shape[1] :]


def tolerance(model: Model) -> float:
    """Rotary models have the concatenation at other absolute positions than the injected context."""
    return MOVED if model.anatomy.has_relative_positions else NOISE[model.name]


@every_model
def test_an_injected_prompt_is_the_concatenated_prompt(model: Model) -> None:
    assert far(used(model, prompt(model, FIRST)), concatenated(model, FIRST)) < tolerance(model)
    assert far(logits(model), concatenated(model, FIRST)) > 1e-2  # the prompt matters


@every_model
def test_examples_are_their_own_tokens(model: Model) -> None:
    from elicitable.values import Item

    context = el.context("examples", model, items=[Item((7, 9), (4,)), Item((11,), (30,))])
    assert context.setting["k"] == 2
    assert far(used(model, context), concatenated(model, FIRST)) < tolerance(model)


@every_model
@pytest.mark.parametrize("is_nested", [False, True])
def test_two_prompts_are_the_concatenation_of_both(model: Model, is_nested: bool) -> None:
    one, two = prompt(model, FIRST), prompt(model, SECOND)
    if is_nested:
        with el.use(model, one), el.use(model, two):
            both = logits(model)
        with el.use(model, one):
            with el.use(model, two):
                pass
            left = logits(model)
        assert far(left, concatenated(model, FIRST)) < tolerance(model)  # the inner one is gone
    else:
        both = used(model, one, two)
    assert far(both, concatenated(model, FIRST, SECOND)) < tolerance(model)
    assert far(both, concatenated(model, SECOND, FIRST)) > 1e-2


@every_model
def test_three_prompts_and_a_long_one_are_their_concatenation(model: Model) -> None:
    long = torch.arange(3, 20)[None]
    three = used(model, prompt(model, FIRST), prompt(model, long), prompt(model, SECOND))
    assert far(three, concatenated(model, FIRST, long, SECOND)) < tolerance(model)


@every_model
def test_a_captured_prompt_composes_like_the_prompt(model: Model) -> None:
    with torch.no_grad():
        captured = prefix_of(model, [prompt(model, FIRST), prompt(model, SECOND)])
    assert captured is not None
    assert far(used(model, captured), concatenated(model, FIRST, SECOND)) < tolerance(model)


@every_model
@pytest.mark.parametrize("method", ["soft-prompt", "layer-prefix", "kv-prefix", "value-bias", "examples"])
def test_every_context_composes_with_a_prompt_on_either_side(model: Model, method: str) -> None:
    own, other = trained(method, model), prompt(model, SECOND)
    seen = []
    for parts in ([own], [other], [own, other], [other, own]):
        with el.use(model, parts):
            together = logits(model)
            for row in range(2):  # and what holds for one context holds for two
                padded = torch.cat([torch.zeros(1, 3, dtype=torch.long), IDS[row][None]], dim=1)
                mask = (torch.arange(9) >= 3).long()[None]
                alone = logits(model, padded, attention_mask=mask)[0, 3:]
                assert far(alone, together[row]) < NOISE[model.name]
        seen.append(together)
    if model.name == "mistral":
        return  # every layer's window is 4 tokens: what stands further back does not reach the content at all
    for one in range(4):
        for another in range(one):
            assert far(seen[one], seen[another]) > 1e-3


@every_model
@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_prompt_is_read_by_the_changed_weights(model: Model, method: str) -> None:
    context, weights = prompt(model, FIRST), trained(method, model)
    with torch.no_grad(), el.use(model, context):  # once with the base weights: nothing of it may be kept
        plain = model(input_ids=IDS).logits
    with el.use(model, weights):
        wanted = concatenated(model, FIRST)
    for parts in ([weights, context], [context, weights]):
        assert far(used(model, *parts), wanted) < tolerance(model)
    assert far(used(model, context), plain) < NOISE[model.name]


@every_model
def test_weight_methods_compose(model: Model) -> None:
    lora, other, full = trained("lora", model, 0), trained("lora", model, 1), trained("full", model)
    seen = {}
    for names, parts in {
        "lora": [lora],
        "other": [other],
        "full": [full],
        "lora+other": [lora, other],
        "other+lora": [other, lora],
        "lora+full": [lora, full],
        "full+lora": [full, lora],
    }.items():
        with el.use(model, parts):
            seen[names] = logits(model)
    # W + ΔW₁ + ΔW₂ either way round; float64 sums in another order, through two layers
    assert far(seen["lora+other"], seen["other+lora"]) < 1e-6
    assert far(seen["lora+full"], seen["full+lora"]) < 1e-6
    names = ["lora", "other", "full", "lora+other", "lora+full"]
    for i, one in enumerate(names):
        for another in names[:i]:
            assert far(seen[one], seen[another]) > 1e-3, (one, another)


def test_the_same_lora_twice_is_refused(shared: Shared) -> None:
    lora = trained("lora", shared("llama"))
    with pytest.raises(InputError, match="already in use"), el.use(shared("llama"), [lora, lora]):
        pass
    with el.use(shared("llama"), lora):
        assert logits(shared("llama")).isfinite().all()


def test_a_nested_context_of_another_strength_is_refused_not_ignored(shared: Shared) -> None:
    model = shared("llama")
    one, two = prompt(model, FIRST), prompt(model, SECOND)
    with el.use(model, one, strength=0.5):
        half = logits(model)
        with pytest.raises(InputError, match=r"strength 0\.5"), el.use(model, two):
            pass
        assert torch.equal(logits(model), half)


# --- positions ------------------------------------------------------------------------------------------------------


@every_model
@pytest.mark.parametrize("offset", [-11, -3, 5, 20])
def test_context_and_content_moved_together_change_nothing_on_rotary_models(model: Model, offset: int) -> None:
    if not model.anatomy.has_relative_positions:
        return
    with torch.no_grad():
        here, there = capture_tokens(model, FIRST), capture_tokens(model, FIRST, end=-offset)
    with el.use(model, here):
        plain = logits(model)
    positions = torch.arange(6)[None] + offset
    if any(layer.sliding_window is not None for layer in model.anatomy.layers):
        here, there = copy.copy(here), copy.copy(there)  # windows count from the content's first token
        for prefix in (here, there):
            object.__setattr__(prefix, "pinned", True)
        with el.use(model, here):
            plain = logits(model)
    with el.use(model, there):
        assert far(logits(model, position_ids=positions), plain) < MOVED
        assert far(logits(model), plain) > 1e-3  # the content alone moved


@every_model
def test_a_sliding_window_cuts_the_context_off_unless_pinned(model: Model) -> None:
    with torch.no_grad():
        prefix = capture_tokens(model, FIRST)
    has_window = any(layer.sliding_window is not None for layer in model.anatomy.layers)
    pinned = copy.copy(prefix)
    object.__setattr__(pinned, "pinned", True)
    with el.use(model, prefix):
        cut = logits(model)
    with el.use(model, pinned):
        assert (far(logits(model), cut) > 1e-3) == has_window


# --- a context a row ------------------------------------------------------------------------------------------------


@every_model
@pytest.mark.parametrize("lengths", [(5, 5), (5, 2), (1, 5)])
def test_a_context_a_row_is_each_row_with_its_own(model: Model, lengths: tuple[int, int]) -> None:
    prompts = [torch.arange(3 + 10 * i, 3 + 10 * i + n)[None] for i, n in enumerate(lengths)]
    with torch.no_grad():
        captured = [capture_tokens(model, ids) for ids in prompts]
    if len(set(lengths)) > 1 and not model.anatomy.has_relative_positions:
        with pytest.raises(InputError, match=r"equal length, got \[\d, \d\]"):
            stack_rows(captured)
        return
    rows = stack_rows(captured)
    with el.use(model, rows):
        together = logits(model)
        written = model.generate(IDS, max_new_tokens=4, do_sample=False, attention_mask=torch.ones_like(IDS))
    for row, ids in enumerate(prompts):
        with el.use(model, captured[row]):
            assert far(logits(model, IDS[row][None])[0], together[row]) < NOISE[model.name]
            alone = model.generate(
                IDS[row][None], max_new_tokens=4, do_sample=False, attention_mask=torch.ones(1, 6, dtype=torch.long)
            )
        assert torch.equal(alone[0], written[row])
        assert far(together[row], concatenated(model, ids, ids=IDS[row][None])[0]) < tolerance(model)


@every_model
def test_rows_compose_with_a_shared_prompt(model: Model) -> None:
    prompts = [FIRST, FIRST + 20]
    with torch.no_grad():
        captured = [capture_tokens(model, ids) for ids in prompts]
    rows, shared = stack_rows(captured), prompt(model, SECOND)
    for both in ((shared, rows), (rows, shared)):
        together = used(model, *both)
        for row in range(2):
            parts = [captured[row] if part is rows else part for part in both]
            with el.use(model, parts):
                assert far(together[row], logits(model, IDS[row][None])[0]) < NOISE[model.name]


def test_rows_that_do_not_fit_the_batch_are_refused(shared: Shared) -> None:
    model = shared("llama")
    with torch.no_grad():
        rows = stack_rows([capture_tokens(model, FIRST), capture_tokens(model, FIRST + 1)])
    with el.use(model, rows):
        for batch in (1, 3):
            with pytest.raises(InputError, match=f"2 rows.* batch of {batch}"):
                logits(model, IDS[0].expand(batch, -1))
        assert logits(model, IDS.repeat_interleave(2, dim=0)).shape[0] == 4  # beams and samples


@every_model
def test_beams_see_the_context(model: Model) -> None:
    def beams(ids: Tensor) -> Tensor:
        written = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=4, num_beams=3, do_sample=False
        )
        return written[:, -4:]

    with el.use(model, prompt(model, FIRST)):
        injected = beams(IDS)
    assert torch.equal(injected, beams(torch.cat([FIRST.expand(2, -1), IDS], dim=1)))
    prompts = [FIRST, FIRST + 20]
    with torch.no_grad():
        rows = stack_rows([capture_tokens(model, ids) for ids in prompts])
    with el.use(model, rows):
        own = beams(IDS)
    for row, ids in enumerate(prompts):
        assert torch.equal(own[row], beams(torch.cat([ids, IDS[row][None]], dim=1))[0])


# --- the control ----------------------------------------------------------------------------------------------------


@every_model
def test_a_value_bias_adds_exactly_itself_to_every_heads_output(model: Model) -> None:
    bias = trained("value-bias", model)
    out = {"c_proj", "o_proj", "dense", "out_proj"}
    (projection,) = (m for n, m in model.anatomy.attentions[0].named_modules() if n in out)
    seen: list[Tensor] = []
    hook = projection.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    for strength in (0.0, 0.25, 1.0):
        with el.use(model, bias, strength):
            logits(model)
    hook.remove()
    layer = model.anatomy.layers[0]
    b = bias.parameters()[0].detach().repeat_interleave(layer.heads // layer.kv_heads, dim=0).flatten()
    for strength, one in ((0.25, seen[1]), (1.0, seen[2])):
        assert (one - seen[0] - strength * b).abs().max() < 1e-12  # rows of a softmax sum to one in float64


# --- what does not fit ----------------------------------------------------------------------------------------------


def test_a_context_of_another_model_is_refused_with_both_shapes(shared: Shared) -> None:
    with torch.no_grad():
        prefix = capture_tokens(shared("llama"), FIRST)
    with (
        pytest.raises(InputError, match=r"\(1, 2, 5, 8\).*\(row, 2, prefix, 16\)"),
        el.use(shared("qwen3"), prefix),
    ):
        pass


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("prompt", {}, "either text= or token_ids="),
        ("prompt", {"token_ids": []}, "empty"),
        ("prompt", {"token_ids": [64]}, "between 0 and 63"),
        ("prompt", {"token_ids": [-1]}, "between 0 and 63"),
        ("prompt", {"text": "hello"}, "no tokenizer"),
        ("prompts", {}, "did you mean 'prompt'"),
        ("lora", {}, "unknown context 'lora'"),
        ("soft-prompt", {"lenght": 3}, "did you mean 'length'"),
        ("soft-prompt", {"length": 0}, "at least 1"),
        ("kv-prefix", {"length": -2}, "at least 1"),
        ("kv-prefix", {"length": 2.5}, "whole number"),
        ("layer-prefix", {"length": True}, "whole number"),
        ("layer-prefix", {"init": "vocab"}, "did you mean 'vocabulary'"),
        ("soft-prompt", {"init": "text"}, "needs text="),
        ("soft-prompt", {"text": "here"}, "the start is 'vocabulary'; give both or neither"),
        ("kv-prefix", {"text": "here"}, "give both or neither"),
        ("layer-prefix", {"init": "sink", "text": "here"}, "the start is 'sink'; give both or neither"),
        ("examples", {}, "task= .* or items="),
        ("examples", {"task": "ascending", "k": 0}, "k of at least 1"),
        ("examples", {"task": "ascendin"}, "did you mean 'ascending'"),
        ("examples", {"items": []}, "at least one"),
    ],
)
def test_bad_options_are_named(kind: str, options: dict[str, object], message: str, shared: Shared) -> None:
    with pytest.raises(InputError, match=message):
        el.context(kind, shared("llama"), **options)


@pytest.mark.parametrize("name", ["gpt2", "opt"])
def test_a_context_longer_than_the_models_positions_is_refused(name: str, shared: Shared) -> None:
    context = el.context("prompt", shared(name), token_ids=[3] * 65)
    with pytest.raises(InputError, match=r"65 .* 64 positions"), el.use(shared(name), context):
        pass


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(InputError, match="got str"):
        el.context("prompt", "toy", token_ids=[1])


@pytest.mark.parametrize("name", ["gpt2", "opt"])
def test_a_context_that_leaves_the_content_too_few_positions_is_refused(name: str, shared: Shared) -> None:
    context = el.context("kv-prefix", shared(name), length=60)
    with el.use(shared(name), context):
        assert logits(shared(name), IDS[:, :4]).isfinite().all()
        with pytest.raises(InputError, match=r"takes 60 positions and the content needs 6, .* only 64"):
            logits(shared(name))


def test_what_a_joined_context_lacks_is_made_on_the_device_of_the_other() -> None:
    """A value bias has no positions; they were made on the CPU, beside those of a context on a GPU."""
    bias = PrefixKV((None,), (None,))
    there = {"positions": torch.zeros(1, 2, device="meta"), "visible": torch.ones(1, 2, device="meta")}
    other = PrefixKV((None,), (None,), **there)
    for first, second in ((bias, other), (other, bias)):
        assert prefixes._place(first, second, 0, 1).device.type == "meta"
        joined = prefixes._join_visible(first, second, 1)
        assert joined is not None
        assert joined.device.type == "meta"


def test_a_start_is_made_without_dropout_in_whatever_mode_the_model_is() -> None:
    torch.manual_seed(0)
    hf = GPT2LMHeadModel(GPT2Config(vocab_size=16, n_positions=32, n_embd=16, n_layer=2, n_head=2)).double()
    made = []
    for mode in (False, True, True):
        hf.train(mode)
        made.append(residuals(Model(hf), torch.tensor([[1, 2, 3]])))
        assert hf.training is mode
    assert torch.equal(made[0], made[1])
    assert torch.equal(made[1], made[2])
