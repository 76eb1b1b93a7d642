"""Prefix-tuning as Li and Liang and PEFT have it: n free keys and values a layer.

The content stands n positions further on, as in PEFT, so that an adapter written here acts the same there. The keys
are used as they are: nothing rotates them.

Source: Li, Liang, ACL 2021 (arXiv 2101.00190).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from elicitable.errors import InputError
from elicitable.methods import folders, rungs
from elicitable.methods.base import Adaptation, Method, Schedule
from elicitable.methods.initial import check_init, check_length, initial_ids, other_starts
from elicitable.methods.started import START, StartedContext, start_at
from elicitable.models.capture import capture_tokens
from elicitable.rng import torch_generator
from elicitable.values import PrefixKV

if TYPE_CHECKING:
    from elicitable.methods.examples import Pair
    from elicitable.models.model import Model


class KVPrefixContext(StartedContext):
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

    def folder_form(self, model: Model) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return PEFT's PREFIX_TUNING."""
        return peft_prefix_form(model, list(self.keys), list(self.values))


class KVPrefix(Method):
    """n·Σ_layers kv_heads·(d_head + d_value) numbers."""

    name = "kv-prefix"
    rung = rungs.PREFIX
    summary = "n free keys and values a layer (Li and Liang, PEFT)"
    deployment = "Few servers can load a prefix, and it cannot be merged into the weights."
    turn = 50
    options = START
    peft_types = ("PREFIX_TUNING", "CARTRIDGE")
    schedule = Schedule(learning_rates=(1e-2, 3e-2, 1e-1, 3e-1))

    def numbers(self, model: Model, size: int) -> int:
        """size · Σ_layers kv_heads · (d_head + d_value)."""
        return size * sum(layer.kv_heads * (layer.d_head + layer.d_value) for layer in model.anatomy.layers)

    def start(self, model: Model) -> dict[str, Any]:
        """Start from the vocabulary; on a toy, whose few tokens say little, from random numbers."""
        return {"init": "random" if model.tokenizer is None else "vocabulary"}

    def starts(self, model: Model) -> tuple[dict[str, Any], ...]:
        """Start from the others that need no text."""
        return other_starts(self.start(model)["init"])

    def start_at(self, model: Model, size: int, chosen: Adaptation) -> dict[str, Any]:
        """Start at the last tokens of a prompt or of worked examples."""
        return start_at(model, size, chosen)

    def build(
        self,
        model: Model,
        size: int,
        seed: int = 0,
        init: str = "vocabulary",
        origin: str | None = None,
        text: str | Sequence[int] | None = None,
        items: Sequence[Pair] | None = None,
        **options: Any,
    ) -> KVPrefixContext:
        """``size`` virtual tokens; a start other than ``random`` is the keys and values of its tokens, run alone.

        ``items`` are worked examples that stand in its text; training leaves them out.
        """
        check_length(size)
        check_init(init, text)
        keys, values = _random(model, size, seed) if init == "random" else _of_tokens(model, size, init, seed, text)
        return KVPrefixContext(keys, values, length=size, init=init, origin=origin, text=text, items=items, seed=seed)

    def read(self, model: Model, folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> KVPrefixContext:
        """Read PEFT's table: keys as stored, and the content n positions further on, as there."""
        layers = model.anatomy.layers
        facts, depth = layers[0], len(layers)
        table = folders.prompt_embeddings(folder, tensors, 2 * depth * facts.kv_heads * facts.d_head, model)
        pairs = table.view(len(table), 2 * depth, facts.kv_heads, facts.d_head).permute(1, 2, 0, 3)
        keys, values = ([pairs[2 * i + part].clone() for i in range(depth)] for part in (0, 1))
        return KVPrefixContext(keys, values, length=len(table), adapter=str(folder))


def peft_prefix_form(
    model: Model, keys: list[Tensor], values: list[Tensor]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return PEFT's PREFIX_TUNING configuration and table of keys and values (kv_head, prefix, d_head) per layer.

    Raises:
        InputError: the layers have different shapes, which that table cannot hold.
    """
    shapes = {tuple(t.shape) for t in (*keys, *values)}
    if len(shapes) != 1:
        raise InputError(f"PEFT's prefix layout needs one shape for all layers, {model.name} has {sorted(shapes)}.")
    kv_heads, length, d_head = next(iter(shapes))
    pairs = torch.stack([t for pair in zip(keys, values, strict=True) for t in pair])  # (2·layer, kv_head, prefix, d)
    return {
        "peft_type": "PREFIX_TUNING",
        "num_virtual_tokens": length,
        "token_dim": kv_heads * d_head,
        "num_attention_heads": kv_heads,
        "num_layers": len(keys),
        "num_transformer_submodules": 1,
        "prefix_projection": False,
        "encoder_hidden_size": kv_heads * d_head,
    }, {"prompt_embeddings": pairs.permute(2, 0, 1, 3).reshape(length, -1)}


def _random(model: Model, size: int, seed: int) -> tuple[list[Tensor], list[Tensor]]:
    generator = torch_generator(seed, "kv-prefix")

    def drawn(heads: int, width: int) -> Tensor:
        return torch.randn(heads, size, width, generator=generator).to(model.device, model.trainable_dtype)

    layers = model.anatomy.layers
    return [drawn(at.kv_heads, at.d_head) for at in layers], [drawn(at.kv_heads, at.d_value) for at in layers]


@torch.no_grad()
def _of_tokens(
    model: Model, size: int, init: str, seed: int, text: str | Sequence[int] | None
) -> tuple[list[Tensor], list[Tensor]]:
    # the content stands at position ``size`` and after it, so the tokens before it stand at 0 and after
    captured = capture_tokens(model, initial_ids(model, size, init, seed, text), end=-size)
    as_trained = model.trainable_dtype
    keys = [key[0].to(as_trained).clone() for key in captured.keys if key is not None]
    return keys, [value[0].to(as_trained).clone() for value in captured.values if value is not None]
