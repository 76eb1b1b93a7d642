"""Caches of earlier keys and values: which kinds a context stands beside, and the two stand-ins that a rerun needs.

A context is never written into a cache; attention puts it in front of what the cache gives back. So all that has to
be known is how many of the keys that come back are the content's: a static cache allocates places for the whole text
at once and returns the empty ones too.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import BaseQuantizedLayer, DummyLayer, DynamicLayer, StaticLayer
from transformers.generation.configuration_utils import ALL_CACHE_IMPLEMENTATIONS

from elicitable.errors import InputError
from elicitable.models.restoring import swapped

IMPLEMENTATIONS: tuple[str, ...] = tuple(ALL_CACHE_IMPLEMENTATIONS)  # every value of ``cache_implementation``
_CHANGES = ("reorder_cache", "crop", "batch_repeat_interleave", "batch_select_indices", "reset")


def past_length(cache: Any) -> int:
    """Count the tokens that ``cache`` holds of the text so far; 0 without a cache."""
    return 0 if cache is None else int(cache.get_seq_length())


def check_cache(cache: Any) -> None:
    """Raise InputError, which names the cache, where it does not give back the keys that the model computed.

    Dynamic, sliding-window, static and offloaded caches do. A quantized one rounds them, and a paged one keeps them
    elsewhere: a context's share of attention would then be measured against other keys than the model's own. A layer
    that stores nothing stands for one that takes the keys of another layer.
    """
    if cache is None:
        return
    layers = getattr(cache, "layers", None)
    odd = [type(one).__name__ for one in layers or () if not _is_exact(one)]
    if not isinstance(cache, Cache) or odd:
        inside = f" (layers: {', '.join(sorted(set(odd)))})" if odd else ""
        raise InputError(
            f"{type(cache).__name__}{inside} does not keep the model's own keys and values, so a context cannot be put "
            "before them exactly; use a dynamic, static or offloaded cache (cache_implementation=…), or none."
        )


def _is_exact(layer: Any) -> bool:
    return isinstance(layer, DynamicLayer | StaticLayer | DummyLayer) and not isinstance(layer, BaseQuantizedLayer)


def cache_of(config: Any, pairs: Iterable[tuple[Tensor, Tensor]]) -> Cache:
    """Return an ordinary cache of keys and values (row, kv_head, token, d_head), a pair for every layer."""
    cache = DynamicCache(config=config)
    for layer, (key, value) in enumerate(pairs):
        cache.update(key, value, layer)
    return cache


def with_replay(inputs: Any, key: Tensor, value: Tensor) -> Any:
    """Replace each cache among ``inputs`` (a tuple or a dict) by a :class:`Replay` of ``key`` and ``value``."""

    def one(x: Any) -> Any:
        return Replay(x, key, value) if isinstance(x, Cache) else x

    return {name: one(x) for name, x in inputs.items()} if isinstance(inputs, dict) else tuple(map(one, inputs))


class Replay:
    """Stands in for a cache while one layer runs again: gives back the earlier keys and values, and stores nothing.

    Args:
        cache: the cache that the run itself was given; it has been updated since.
        key: (batch, kv_head, key, d_head), what that run attended to, the new tokens last.
        value: (batch, kv_head, key, d_value).
    """

    def __init__(self, cache: Cache, key: Tensor, value: Tensor) -> None:
        self._cache, self._key, self._value = cache, key, value

    def update(self, key: Tensor, value: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Return what the run had, with the new keys and values in the last places."""
        past = self._key.shape[2] - key.shape[2]
        if past == 0:
            return key, value
        if self._key.shape[1] == key.shape[1] and self._key.shape[3] == key.shape[3]:
            earlier = self._key[:, :, :past], self._value[:, :, :past]
        else:  # the model caches something its keys are made from (a latent), so take it from the cache itself
            stored: Any = self._cache.layers[layer]
            earlier = stored.keys[:, :, :past], stored.values[:, :, :past]
        return torch.cat([earlier[0].to(key), key], dim=2), torch.cat([earlier[1].to(value), value], dim=2)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)


class Shadow:
    """The cache of a second run that accompanies a first one, and goes through whatever happens to the first's.

    Beam search reorders a cache and assisted generation cuts it; the second run's cache has to follow.
    """

    def __init__(self) -> None:
        self._first: Any = None
        self._second: Any = None
        self._following = ExitStack()

    def knows(self, cache: Any) -> bool:
        """Say whether the second run has seen all that ``cache`` holds."""
        return cache is None or cache is self._first or past_length(cache) == 0

    def of(self, cache: Any) -> Any:
        """Return the second run's cache beside ``cache``: the one that has followed it, else a fresh copy."""
        if cache is not self._first or past_length(cache) == 0:
            self.release()
            self._first, self._second = cache, copy.deepcopy(cache)
            for name in _CHANGES:
                self._second.__dict__.pop(name, None)  # what another watch has put there
                self._follow(name)
        return self._second

    def _follow(self, name: str) -> None:
        theirs, own = getattr(self._first, name, None), getattr(self._second, name, None)
        if theirs is None or own is None:
            return

        def both(*args: Any, **kwargs: Any) -> Any:
            own(*args, **kwargs)
            return theirs(*args, **kwargs)

        self._following.enter_context(swapped(self._first, **{name: both}))

    def release(self) -> None:
        """Let go of the first run's cache and leave it as it was."""
        self._following.close()
        self._first = self._second = None
