"""See every attention call that a model makes, and the window of the mask that comes with it.

Modelling code tells a window in three ways: as an argument of the attention, in the mask alone, or both. A mask that is
made while somebody looks is always made in full, and carries the window that it was made with.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.nn import Module
from transformers.masking_utils import sdpa_mask

Probed = tuple[Module, Tensor, Tensor, Tensor, dict[str, Any]]


class _Here(threading.local):
    """Who looks, in this thread: another one may run another model meanwhile."""

    def __init__(self) -> None:
        self.probes: list[list[Probed]] = []


_here = _Here()


@contextmanager
def probing() -> Iterator[list[Probed]]:
    """Record every attention call made inside, in order: (module, query, key, value, keyword arguments)."""
    calls: list[Probed] = []
    _here.probes.append(calls)
    try:
        yield calls
    finally:
        _here.probes = [one for one in _here.probes if one is not calls]


def note(*call: Any) -> None:
    """Tell everybody who looks of one call."""
    for calls in _here.probes:
        calls.append(call)


def mask_of(*args: Any, **kwargs: Any) -> Tensor | None:
    """Make the mask of some layers, as transformers asks for it; None where they are no more than causal."""
    if not _here.probes:
        plain: Tensor | None = sdpa_mask(*args, **kwargs)
        return plain
    mask: Any = sdpa_mask(*args, **{**kwargs, "allow_is_causal_skip": False})
    if mask is not None:
        mask.window = kwargs.get("local_size")
    made: Tensor | None = mask
    return made


def window_of(call: Probed) -> int | None:
    """Tell how many tokens back a layer sees, itself included; None where it sees all."""
    module, kwargs = call[0], call[4]
    given = kwargs.get("sliding_window", getattr(module, "sliding_window", None))
    window: int | None = getattr(kwargs.get("attention_mask"), "window", given)
    return window


def is_causal(module: Module, kwargs: Mapping[str, Any]) -> bool:
    """Tell whether a call, or else the module that makes it, leaves out the tokens that come later."""
    given = kwargs.get("is_causal")
    return bool(getattr(module, "is_causal", True) if given is None else given)
