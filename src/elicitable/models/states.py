"""What a layer makes of texts: one vector each, by which texts can be compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from elicitable.models.inject import installed
from elicitable.models.model import Model
from elicitable.models.replay import check_stream
from elicitable.models.restoring import evaluating, swapped
from elicitable.models.speed.precision import autocast

TOKENS = 4096  # of texts that are read together, with padding


class _EnoughError(Exception):
    """The layer has been reached; nothing above it has to run."""


@torch.no_grad()
def text_states(model: Model, rows: Sequence[Sequence[int]], layer: int) -> Tensor:
    """Return (row, d_model) float32 on the CPU: the mean over a row's tokens of what decoder layer ``layer`` receives.

    Each row is read alone, without whatever context is in use, and no layer from ``layer`` on is run.
    """
    found = torch.zeros(len(rows), model.anatomy.d_model)
    with installed(model) as slot, swapped(slot, prefix=None, watchers=[], capture=None), evaluating(model.hf):
        for part in _together(rows):
            found[part] = _read(model, [rows[place] for place in part], layer)
    return found


def _together(rows: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Group rows of similar length, at most :data:`TOKENS` tokens with their padding (or one row)."""
    group: list[int] = []
    for place in sorted(range(len(rows)), key=lambda place: len(rows[place])):
        if group and len(rows[place]) * (len(group) + 1) > TOKENS:
            yield group
            group = []
        group.append(place)
    if group:
        yield group


def _read(model: Model, rows: Sequence[Sequence[int]], layer: int) -> Tensor:
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows], device=model.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=model.device)
    kept: list[Tensor] = []

    def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        kept.append(args[0] if args else kwargs["hidden_states"])
        check_stream(type(model.hf).__name__, kept[0])
        raise _EnoughError

    hook = model.anatomy.blocks[layer].register_forward_pre_hook(keep, with_kwargs=True)
    try:
        with autocast(model):
            model.hf(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=1)
    except _EnoughError:
        pass
    finally:
        hook.remove()
    weights = mask.to(kept[0].device, torch.float32)[:, :, None]
    return ((kept[0].float() * weights).sum(1) / weights.sum(1)).cpu()
