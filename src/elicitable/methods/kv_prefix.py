"""Prefix-tuning as Li and Liang and PEFT have it: n free keys and values a layer.

The content stands n positions further on, as in PEFT, so that an adapter written here acts the same there. The keys
are used as they are: nothing rotates them.

Source: Li, Liang, ACL 2021 (arXiv 2101.00190).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from elicitable.methods.base import Adaptation, Schedule, Trained
from elicitable.methods.initial import check_init, check_length, initial_ids
from elicitable.models.capture import capture_tokens
from elicitable.rng import torch_generator
from elicitable.values import PrefixKV

if TYPE_CHECKING:
    from elicitable.models.model import Model


class KVPrefixContext(Adaptation):
    """A key (kv_head, prefix, d_head) and a value (kv_head, prefix, d_value) a layer, trained."""

    kind = "kv-prefix"
    moves_content = True

    def __init__(self, keys: list[Tensor], values: list[Tensor], **setting: Any) -> None:
        super().__init__(**setting)
        self.keys = [nn.Parameter(key) for key in keys]
        self.values = [nn.Parameter(value) for value in values]

    def prefix(self, model: Model, before: PrefixKV | None = None, end: int = 0) -> PrefixKV:
        """The keys and values themselves."""
        length = self.keys_per_layer()
        return PrefixKV(
            keys=tuple(key[None] for key in self.keys),
            values=tuple(value[None] for value in self.values),
            positions=torch.arange(-length, 0, device=self.keys[0].device)[None],
            shift=length,
        )

    def parameters(self) -> list[nn.Parameter]:
        """All keys, then all values."""
        return [*self.keys, *self.values]

    def keys_per_layer(self) -> int:
        """One key a virtual token."""
        return self.keys[0].shape[1]


class KVPrefix(Trained):
    """n·Σ_layers kv_heads·(d_head + d_value) numbers."""

    name = "kv-prefix"
    label = "prefix"
    summary = "n free keys and values a layer (Li and Liang, PEFT)"
    schedule = Schedule(learning_rates=(1e-2, 3e-2, 1e-1, 3e-1))

    def numbers(self, model: Model, size: int) -> int:
        """size · Σ_layers kv_heads · (d_head + d_value)."""
        return size * sum(layer.kv_heads * (layer.d_head + layer.d_value) for layer in model.anatomy.layers)

    def build(
        self,
        model: Model,
        size: int,
        seed: int = 0,
        init: str = "vocabulary",
        text: str | None = None,
        **options: Any,
    ) -> KVPrefixContext:
        """``size`` virtual tokens; a start other than ``random`` is the keys and values of its tokens, run alone."""
        check_length(size)
        check_init(init)
        keys, values = _random(model, size, seed) if init == "random" else _of_tokens(model, size, init, seed, text)
        return KVPrefixContext(keys, values, length=size, init=init, text=text, seed=seed)


def _random(model: Model, size: int, seed: int) -> tuple[list[Tensor], list[Tensor]]:
    generator = torch_generator(seed, "kv-prefix")

    def drawn(heads: int, width: int) -> Tensor:
        return torch.randn(heads, size, width, generator=generator).to(model.device, model.trainable_dtype)

    layers = model.anatomy.layers
    return [drawn(at.kv_heads, at.d_head) for at in layers], [drawn(at.kv_heads, at.d_value) for at in layers]


@torch.no_grad()
def _of_tokens(model: Model, size: int, init: str, seed: int, text: str | None) -> tuple[list[Tensor], list[Tensor]]:
    # the content stands at position ``size`` and after it, so the tokens before it stand at 0 and after
    captured = capture_tokens(model, initial_ids(model, size, init, seed, text), end=-size)
    as_trained = model.trainable_dtype
    keys = [key[0].to(as_trained).clone() for key in captured.keys if key is not None]
    return keys, [value[0].to(as_trained).clone() for value in captured.values if value is not None]
