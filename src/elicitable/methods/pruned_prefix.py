"""What pruning leaves of a prefix: every head of every layer keeps the virtual tokens that it needs.

PEFT's layout has one length for all heads and counts the content's positions from it, so it cannot hold this one:
the content stands where it stood before, however few tokens are left.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from elicitable.errors import InputError
from elicitable.methods import folders, rungs
from elicitable.methods.base import Adaptation
from elicitable.models.prefixes import kept_places
from elicitable.values import PrefixKV

if TYPE_CHECKING:
    from elicitable.models.model import Model


class PrunedPrefixContext(Adaptation):
    """The keys and values that are left, packed head by head.

    Args:
        keys: of each layer, (pair, d_head), in the order of ``kept``'s true places.
        values: of each layer, (pair, d_value).
        kept: of each layer, (kv_head, prefix) bool.
        positions: (prefix,) where each token stands, relative to the content (what a sliding window counts).
        content_at: the position of the content's first token.
    """

    kind = "pruned-prefix"
    moves_content = True

    def __init__(
        self,
        keys: list[Tensor],
        values: list[Tensor],
        kept: list[Tensor],
        positions: Tensor,
        content_at: int,
        **setting: Any,
    ) -> None:
        super().__init__(**setting)
        self.keys, self.values = [nn.Parameter(key) for key in keys], [nn.Parameter(value) for value in values]
        self.kept = kept
        self.positions, self.content_at = positions, content_at

    @classmethod
    def of(cls, prefix: PrefixKV, **setting: Any) -> PrunedPrefixContext:
        """Pack a context of one row with keys in every layer."""
        kept = [
            kept_places(prefix, layer).expand(key.shape[1:3])
            for layer, key in enumerate(prefix.keys)
            if key is not None
        ]
        keys, values = (
            [x[0].detach()[mask].clone() for x, mask in zip(part, kept, strict=True) if x is not None]
            for part in (prefix.keys, prefix.values)
        )
        assert prefix.positions is not None
        return cls(keys, values, kept, prefix.positions[0], prefix.shift, **setting)

    def prefix(self, model: Model, before: PrefixKV | None = None, end: int = 0) -> PrefixKV:
        """The keys and values in their places; places that a head does without are zero and hidden from it."""
        pairs = zip(self.keys, self.values, self.kept, strict=True)
        dense = [(_unpacked(key, mask), _unpacked(value, mask)) for key, value, mask in pairs]
        return PrefixKV(
            keys=tuple(key for key, _ in dense),
            values=tuple(value for _, value in dense),
            positions=self.positions[None],
            shift=self.content_at,
            kept=tuple(self.kept),
        )

    def parameters(self) -> list[nn.Parameter]:
        """What is left: all keys, then all values."""
        return [*self.keys, *self.values]

    def keys_per_layer(self) -> int:
        """Keys of the layer's head that kept the most."""
        return max(int(mask.sum(dim=1).max()) for mask in self.kept)

    def folder_form(self, model: Model) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return a form of elicitable's own: PEFT's layout has one length for all heads."""
        return {"peft_type": folders.OWN_TYPE, "method": self.kind}, self.tensors()

    def tensors(self) -> dict[str, Tensor]:
        """What an adapter folder holds."""
        named: dict[str, Sequence[Tensor]] = {"keys": self.keys, "values": self.values, "kept": self.kept}
        layers = {f"layers.{i}.{name}": x.detach() for name, each in named.items() for i, x in enumerate(each)}
        return {**layers, "positions": self.positions, "content_at": torch.tensor(self.content_at)}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], **setting: Any) -> PrunedPrefixContext:
        """Back from :meth:`tensors`."""
        depth = sum(name.endswith(".kept") for name in tensors)
        keys, values, kept = (
            [tensors[f"layers.{i}.{name}"] for i in range(depth)] for name in ("keys", "values", "kept")
        )
        return cls(keys, values, kept, tensors["positions"], int(tensors["content_at"]), **setting)


class PrunedPrefix:
    """Reads the folder of a pruned prefix. It is no method: pruning makes it, and no race does."""

    name = PrunedPrefixContext.kind
    rung = rungs.PREFIX
    deployment = "This package alone: its heads keep different tokens, which no other layout can hold."
    peft_types: tuple[str, ...] = ()

    def read(self, model: Model, folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> Adaptation:
        """Build the pruned prefix again.

        Raises:
            InputError: it was made for a model of other heads, or its parts do not fit one another.
        """
        _check(model, folder, tensors)
        own = {k: x.to(model.device, model.trainable_dtype) if x.is_floating_point() else x for k, x in tensors.items()}
        return PrunedPrefixContext.from_tensors(own, adapter=str(folder))


def _check(model: Model, folder: Path, tensors: dict[str, Tensor]) -> None:
    """Compare every tensor's name, type and shape with those of the model and of what was kept."""
    places = tensors.get("positions", torch.empty(0)).numel()
    wanted: dict[str, tuple[tuple[int, ...], str]] = {"positions": ((places,), "whole"), "content_at": ((), "whole")}
    for i, layer in enumerate(model.anatomy.layers):
        kept = tensors.get(f"layers.{i}.kept", torch.empty(0)).bool()
        pairs = int(kept.sum())
        wanted[f"layers.{i}.kept"] = ((layer.kv_heads, places), "bool")
        wanted[f"layers.{i}.keys"] = ((pairs, layer.d_head), "real")
        wanted[f"layers.{i}.values"] = ((pairs, layer.d_value), "real")
    found = {name: (tuple(x.shape), _kind(x)) for name, x in tensors.items()}
    if found != wanted or int(tensors["content_at"]) < 0:
        differing = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name)) or ["content_at"]
        raise InputError(
            f"{folder}: {', '.join(differing[:5])} do not fit {model.name} or one another; it was made for another "
            "model, or is damaged."
        )


def _kind(tensor: Tensor) -> str:
    return "bool" if tensor.dtype == torch.bool else "real" if tensor.is_floating_point() else "whole"


def _unpacked(packed: Tensor, kept: Tensor) -> Tensor:
    place = kept.flatten().nonzero()[:, 0].to(packed.device)
    dense = packed.new_zeros(kept.numel(), packed.shape[1]).index_copy(0, place, packed)
    return dense.reshape(1, *kept.shape, packed.shape[1])
