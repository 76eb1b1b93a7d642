"""Beside every cache that transformers offers, a context gives the tokens that it gives beside the dynamic one."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Cache, DynamicCache, StaticCache, cache_utils
from transformers.cache_utils import BaseQuantizedLayer, DynamicLayer
from transformers.generation.configuration_utils import ALL_CACHE_IMPLEMENTATIONS

import elicitable as el
from elicitable.errors import InputError
from elicitable.models.architectures import tiny_model
from elicitable.models.caches import check_cache
from elicitable.models.model import Model

# learned positions, rotary, sliding windows (alone and beside full layers), latent keys, ALiBi, sinks
NAMES = ("gpt2", "llama", "qwen2", "mistral", "gemma3_text", "deepseek_v3", "bloom", "gpt_oss", "cohere2")
CONTEXTS = ("prompt", "soft-prompt", "kv-prefix")
# offloaded caches move layers off an accelerator, on a stream of its own; without one transformers cannot make them
EXACT = [
    name
    for name in ALL_CACHE_IMPLEMENTATIONS
    if name not in ("dynamic", "quantized") and ("offloaded" not in name or torch.cuda.is_available())
]
# short enough for windows of 4 to let the context through at first, and generated to where they no longer do
IDS = torch.tensor([[0, 0, 12, 40, 5], [8, 17, 3, 44, 20]])
MASK = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
NEW = 7


@cache
def model_of(name: str) -> Model:
    hf = tiny_model(name)
    hf.generation_config.pad_token_id, hf.generation_config.eos_token_id = 0, None
    return el.load(hf)


def context_of(kind: str, model: Model) -> Any:
    return el.context(kind, model, **({"token_ids": [7, 9, 4]} if kind == "prompt" else {"length": 3}))


def written(model: Model, mask: Tensor = MASK, **given: Any) -> tuple[Tensor, Tensor]:
    """The tokens generated, and the logits they were chosen by."""
    out = model.generate(
        input_ids=IDS,
        attention_mask=mask,
        max_new_tokens=NEW,
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
        **given,
    )
    return out.sequences, torch.stack(out.logits)


def same(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    assert torch.equal(found[0], expected[0])
    # norms and rotary angles are computed in float32 in the float64 models; masked sums take another order
    torch.testing.assert_close(found[1], expected[1], rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("mask", [MASK, torch.ones_like(MASK)], ids=["padded", "whole"])
@pytest.mark.parametrize("kind", CONTEXTS)
@pytest.mark.parametrize("name", NAMES)
def test_every_cache_gives_the_tokens_of_the_dynamic_one(name: str, kind: str, mask: Tensor) -> None:
    model = model_of(name)
    plain = written(model, mask)
    with el.use(model, context_of(kind, model)):
        expected = written(model, mask, cache_implementation="dynamic")
        same(written(model, mask, use_cache=False), expected)
        for implementation in EXACT:
            same(written(model, mask, cache_implementation=implementation), expected)
        config = model.hf.config
        same(written(model, mask, past_key_values=DynamicCache(config=config)), expected)
        same(written(model, mask, past_key_values=StaticCache(config=config, max_cache_len=40)), expected)
    assert not torch.equal(plain[1], expected[1])  # the context does something, so that losing it would show


@torch.no_grad()
def by_hand(model: Model, is_whole: bool) -> Tensor:
    """The logits of a loop as people write it; the mask is as long as the static cache, or as what is in it."""
    begun = IDS.shape[1]
    cache = StaticCache(config=model.hf.config, max_cache_len=begun + NEW)
    mask = torch.zeros(len(IDS), begun + NEW, dtype=torch.long)
    mask[:, :begun] = MASK
    ids, found = IDS, []
    for now in range(begun, begun + NEW):
        given = mask if is_whole else mask[:, :now]
        found.append(model(input_ids=ids, attention_mask=given, past_key_values=cache).logits[:, -1])
        ids = found[-1].argmax(dim=-1, keepdim=True)
        mask[:, now] = 1
    return torch.stack(found)


@pytest.mark.parametrize("name", NAMES)
def test_a_mask_as_long_as_a_static_cache_says_where_the_padding_is(name: str) -> None:
    model = model_of(name)
    with el.use(model, context_of("prompt", model)):
        expected = written(model, cache_implementation="dynamic")[1]
        for is_whole in (True, False):
            torch.testing.assert_close(by_hand(model, is_whole).to(expected), expected, rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "deepseek_v3"])
def test_a_watch_sees_the_same_beside_a_static_cache(name: str) -> None:
    model = model_of(name)
    seen = []
    for implementation in ("dynamic", "static"):
        with el.watch(model, context_of("prompt", model)) as scope:
            written(model, cache_implementation=implementation)
        assert bool((scope.attention_residual < 1e-5).all())
        assert bool((scope.output_residual < 1e-5).all())
        seen.append(torch.stack([scope.mean_mass, scope.drift]))
    torch.testing.assert_close(*seen, rtol=0.0, atol=1e-6)


def test_empty_places_that_were_not_left_out_would_be_seen() -> None:
    """Without leaving out the empty places of a static cache, the tokens are others: the test above can fail."""
    from elicitable.models import attend

    model = model_of("llama")
    with el.use(model, context_of("prompt", model)), pytest.MonkeyPatch.context() as patch:
        expected = written(model, torch.ones_like(MASK))
        patch.setattr(attend, "_filled", lambda count, *operands: operands)
        found = written(model, torch.ones_like(MASK), cache_implementation="static")
    assert float((found[1] - expected[1]).abs().max()) > 1e-3


# Every layer that a cache of transformers can be made of, and whether a context stands beside it.
LAYERS = {
    "DynamicLayer": True,
    "DynamicSlidingWindowLayer": True,
    "DynamicIndexedLayer": True,
    "StaticLayer": True,
    "StaticSlidingWindowLayer": True,
    "StaticIndexedLayer": True,
    "BaseQuantizedLayer": False,
    "QuantizedLayer": False,
    "QuantoQuantizedLayer": False,
    "HQQQuantizedLayer": False,
    "Fp8QuantizedLayer": False,
}


def layers_of_transformers() -> dict[str, type]:
    kept = {name: one for name, one in vars(cache_utils).items() if isinstance(one, type)}
    layers = {name: one for name, one in kept.items() if issubclass(one, cache_utils.CacheLayerMixin)}
    # models with linear attention keep a state beside their keys; el.load refuses those models by name
    return {name: one for name, one in layers.items() if name != "CacheLayerMixin" and "LinearAttention" not in name}


def test_every_layer_of_a_cache_is_known_to_be_exact_or_is_refused() -> None:
    found = layers_of_transformers()
    assert set(found) == set(LAYERS)
    for name, made in found.items():
        concrete = type(name, (made,), {})
        concrete.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]
        cache_of_it = Cache(layers=[object.__new__(concrete)])
        if LAYERS[name]:
            check_cache(cache_of_it)
        else:
            with pytest.raises(InputError, match=re.escape(name)):
                check_cache(cache_of_it)


@pytest.mark.parametrize("kind", CONTEXTS)
@pytest.mark.parametrize("name", NAMES[:8])
def test_a_cache_in_fewer_bits_is_refused_by_name(name: str, kind: str) -> None:
    model = model_of(name)
    given = {"cache_implementation": "quantized", "cache_config": {"backend": "fp8"}}
    try:
        written(model, **given)
    except ValueError:  # transformers itself cannot: it has no such cache for sliding windows
        said: Any = ValueError
    else:
        said = InputError
    with el.use(model, context_of(kind, model)), pytest.raises(said, match=r"Quantized|sliding"):
        written(model, **given)


class Rounded(BaseQuantizedLayer):
    """A layer of a quantized cache, as far as it can be without a package that quantizes."""

    def __init__(self) -> None:
        DynamicLayer.__init__(self)

    def update(self, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        return DynamicLayer.update(self, key, value)

    def get_seq_length(self) -> int:
        return DynamicLayer.get_seq_length(self)


Rounded.__abstractmethods__ = frozenset()


def test_a_quantized_cache_is_refused_by_name() -> None:
    model = model_of("llama")
    quantized = Cache(layers=[Rounded() for _ in range(model.anatomy.depth)])
    with el.use(model, context_of("prompt", model)), pytest.raises(InputError, match=re.escape("Rounded")):
        written(model, past_key_values=quantized)
