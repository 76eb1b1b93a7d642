"""Run something as a context and keep what the content would attend to: context -> PrefixKV.

A causal model never lets the context see the content, so its keys and values are computed once, at batch size 1.
Gradients flow through them to whatever they were computed from.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from elicitable.errors import InputError
from elicitable.models.inject import installed, reach_of, row_count, set_prefix
from elicitable.models.mode import evaluating
from elicitable.models.model import Model
from elicitable.values import PrefixKV


def capture_tokens(model: Model, ids: Tensor, before: PrefixKV | None = None, end: int = 0) -> PrefixKV:
    """The context of hard tokens ``ids`` (row, prefix), whose last one stands ``end`` + 1 positions before the content.

    ``before`` is what stands before it (and is seen by it), ``end`` the positions that later contexts take.
    """
    return _capture(model, {"input_ids": ids}, ids.shape[0], ids.shape[1], before, end)


def capture_embeddings(model: Model, embeddings: Tensor, before: PrefixKV | None = None, end: int = 0) -> PrefixKV:
    """The context of input embeddings (row, prefix, d_model) that flow through all layers: a soft prompt."""
    embeddings = embeddings.to(model.dtype)
    return _capture(model, {"inputs_embeds": embeddings}, embeddings.shape[0], embeddings.shape[1], before, end)


def capture_residuals(model: Model, vectors: Tensor, before: PrefixKV | None = None, end: int = 0) -> PrefixKV:
    """The context of residual-stream vectors (layer, prefix, d_model): the paper's prefix-tuning.

    Placeholder tokens are run at batch size 1 while every decoder layer's input is replaced by that layer's vectors,
    so each layer's own norm, W_K and W_V see them; no other fact of the architecture is needed.
    """
    prefix = vectors.shape[1]
    ids = torch.zeros(1, prefix, dtype=torch.long, device=model.device)
    with _layer_inputs(model, vectors.to(model.dtype)):
        return _capture(model, {"input_ids": ids}, 1, prefix, before, end)


def _capture(
    model: Model, inputs: dict[str, Tensor], rows: int, prefix: int, before: PrefixKV | None, end: int
) -> PrefixKV:
    if prefix == 0:
        raise InputError("a context needs at least one token or vector, got none.")
    anatomy = model.anatomy
    _check_reach(model, prefix)
    if before is not None and rows == 1 and (rows := row_count(before)) > 1:  # rows that stand before it make it differ
        inputs = {name: x.expand(rows, *x.shape[1:]) for name, x in inputs.items()}
    relative = torch.arange(-prefix, 0, device=model.device)[None]
    positions = (relative - end if anatomy.has_rotary else relative + prefix).expand(rows, -1)
    given = {"position_ids": positions} if anatomy.takes_position_ids else {}
    few_logits = {"logits_to_keep": 1} if anatomy.takes_logits_to_keep else {}
    given["attention_mask"] = torch.ones(rows, prefix, dtype=torch.long, device=model.device)
    with installed(model) as slot, _without_watchers(slot):
        outer, strength, seen = slot.prefix, slot.strength, slot.capture
        set_prefix(model, slot, before)
        slot.capture = {}
        try:
            with evaluating(model.hf):
                model.hf(**inputs, **given, use_cache=False, **few_logits)
            captured = slot.capture
        finally:
            set_prefix(model, slot, outer, strength)
            slot.capture = seen
    return PrefixKV(
        keys=tuple(captured[layer][0] for layer in range(anatomy.depth)),
        values=tuple(captured[layer][1] for layer in range(anatomy.depth)),
        positions=relative,
        shift=0 if anatomy.has_rotary else prefix,
    )


def _check_reach(model: Model, prefix: int) -> None:
    longest = reach_of(model)
    if longest is not None and prefix > longest:
        raise InputError(f"the context has {prefix} tokens, but {model.name} has only {longest} positions.")


@contextmanager
def _without_watchers(slot: Any) -> Any:
    watchers, slot.watchers = slot.watchers, []
    try:
        yield
    finally:
        slot.watchers = watchers


@contextmanager
def _layer_inputs(model: Model, vectors: Tensor) -> Any:
    hooks = [
        block.register_forward_pre_hook(_replace_input(vectors[layer]), with_kwargs=True)
        for layer, block in enumerate(model.anatomy.blocks)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _replace_input(vectors: Tensor) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        if args:
            return (vectors[None].to(args[0].dtype), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": vectors[None].to(kwargs["hidden_states"].dtype)}

    return hook


def sink_token(model: Model) -> int:
    """The token that stands first in the model's own texts: its tokenizer's first, its beginning of sequence, or 0."""
    return next(iter(model.start_ids()), None) or start_token(model) or 0


def start_token(model: Model) -> int | None:
    """The model's beginning-of-sequence token, by its tokenizer or its configuration; None where neither has one."""
    config = model.hf.config.get_text_config()
    for candidate in (getattr(model.tokenizer, "bos_token_id", None), getattr(config, "bos_token_id", None)):
        if isinstance(candidate, int) and 0 <= candidate < model.anatomy.vocab:
            return candidate
    return None
