"""Attend over context and content: the one function that injects a context and, when watched, shows each call.

Registered with transformers as ``"elicitable"``. It receives the queries and keys a model would attend with (after
rotary angles and norms, before grouped heads are repeated), puts the context's keys and values in front, and attends:

    o_i = Σ_{j∈prefix} A^pt_ij v_j + Σ_{j≤i} A^pt_ij v_j,    A^pt = softmax([q_i·K_prefix, q_i·K_content] · scaling)

A strength g adds log g to every prefix logit, so the prefix's weight in the softmax is scaled by g.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from elicitable.attention.operands import Operands
from elicitable.errors import InputError, UnsupportedModelError
from elicitable.models.probes import is_causal, mask_of, note
from elicitable.models.speed.two_calls import in_two_calls
from elicitable.models.speed.written_out import additive, is_short_training, joined, written_out
from elicitable.values import PrefixKV

NAME = "elicitable"
KEPT = 2**24  # bytes of masks that are kept for the next call of their shape; a larger one is kept alone
_KNOWN = {
    "softcap",
    "s_aux",
    "sliding_window",
    "position_bias",
    "position_slopes",
    "is_causal",
}
OF_A_CALL = ("query_positions", "key_count")  # what in a slot is of one call of the model
# Keyword arguments that modelling code passes along and that do not change attention.
_HARMLESS = {
    "position_ids",
    "use_cache",
    "cache_position",
    "position_embeddings",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "logits_to_keep",
    "num_items_in_batch",
    "return_dict",
    "labels",
    "shift_labels",
    "past_key_values",
    "layer_idx",
    "token_type_ids",
    "is_first_iteration",
    "query_length",
    "deterministic",
}


@dataclass(frozen=True, eq=False, kw_only=True)
class Call(Operands):
    """One attention call as a model made it, which is what a watcher sees: the operands and where they come from.

    ``key`` and ``value`` are the content's alone, in the model's own types; ``dropout`` is what the model asked for.
    """

    layer: int
    module: Module
    dropout: float = 0.0
    position_slopes: Tensor | None = None  # (head,): ALiBi's, of which ``content_bias`` is made
    prefix_kept: Tensor | None = None  # what ``prefix_visible`` would be without a sliding window


Watcher = Callable[[Call], Tensor | None]


@dataclass(eq=False)
class Slot:
    """Hold what is active in one model right now; its attention modules refer to it while it is installed."""

    prefix: PrefixKV | None = None
    strength: float = 1.0
    parts: tuple[Any, ...] = ()  # what the prefix was made of, so that a nested context can be placed after them
    capture: dict[int, tuple[Tensor, Tensor]] | None = None
    watchers: list[Watcher] = field(default_factory=list)
    query_positions: Tensor | None = None
    key_count: int | None = None  # beside a cache: content keys up to now, as a static one returns empty places too
    _masks: dict[tuple[int, ...], Tensor] = field(default_factory=dict)

    @contextmanager
    def watched_by(self, watcher: Watcher, first: bool = False) -> Iterator[None]:
        """Offer every call to ``watcher`` inside; of several watchers, the first one's output is the model's."""
        self.watchers.insert(0 if first else len(self.watchers), watcher)
        try:
            yield
        finally:
            self.watchers[:] = [one for one in self.watchers if one is not watcher]

    def causal(self, queries: int, keys: int, prefix: int, device: torch.device) -> Tensor:
        """(1, 1, query, prefix + key) bool: all of the prefix, and content key j ≤ i (aligned at the end)."""
        shape = (queries, keys, prefix)
        mask = self._masks.get(shape)
        if mask is None or mask.device != device:
            mask = torch.ones(queries, prefix + keys, dtype=torch.bool, device=device)
            mask = mask.tril(diagonal=prefix + keys - queries)[None, None]
            if mask.numel() + sum(one.numel() for one in self._masks.values()) > KEPT:
                self._masks.clear()
            self._masks[shape] = mask
        return mask


@dataclass(frozen=True)
class Seat:
    """Tell an attention module which slot it listens to, which layer it is, and how many tokens back that sees."""

    slot: Slot
    layer: int
    window: int | None = None


def attend(
    module: Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend over context and content, in the form in which transformers calls it.

    Args:
        module: the calling attention module; its seat says which context is active.
        query: (batch, head, query, d_head).
        key: (batch, kv_head, key, d_head).
        value: (batch, kv_head, key, d_value).
        attention_mask: None (causal), bool (True is visible) or additive, (batch, 1 or head, query, key).
        scaling: multiplies q·k; 1/√d_head when None.

    Returns:
        The output (batch, query, head, d_value), and None in place of attention weights.

    Raises:
        UnsupportedModelError: the model passes an argument that changes attention and is not known here.
    """
    note(module, query, key, value, {**kwargs, "attention_mask": attention_mask})
    seat: Seat | None = getattr(module, "_elicitable_seat", None)
    if seat is None and not is_causal(module, kwargs):  # of an encoder that shares the decoder's configuration
        attended, _ = sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
        return attended, None
    _refuse_unknown(module, kwargs)
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    seat = Seat(Slot(), -1) if seat is None else seat
    key, value, attention_mask = _filled(seat.slot.key_count, key, value, attention_mask)
    call = _call(seat, module, query, key, value, attention_mask, scaling, dropout, kwargs)
    output: Tensor | None = None
    for watcher in seat.slot.watchers:
        output = watcher(call) if output is None else output
    if output is None:
        output = combine(call, seat.slot, dropout)
    return output.transpose(1, 2).contiguous(), None


def _refuse_unknown(module: Module, kwargs: dict[str, Any]) -> None:
    for name, given in kwargs.items():
        if given is None or name in _KNOWN or name in _HARMLESS:
            continue
        raise UnsupportedModelError(
            f"{type(module).__name__} passes {name!r} to its attention, which elicitable does not know; "
            "a context would be injected wrongly. Please report the architecture."
        )
    if kwargs.get("is_causal") is False:
        raise UnsupportedModelError(
            f"{type(module).__name__} attends in both directions; elicitable needs a causal decoder."
        )


def _filled(count: int | None, key: Tensor, value: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Leave out the places that a static cache has not filled yet: they lie after the ``count`` keys of the content."""
    if count is not None and key.shape[2] > count:
        key, value = key[:, :, :count], value[:, :, :count]
    if mask is not None and mask.shape[-1] > key.shape[2]:  # a rerun is given the filled places alone
        mask = mask[..., : key.shape[2]]
    return key, value, mask


def _call(
    seat: Seat,
    module: Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float,
    dropout: float,
    kwargs: dict[str, Any],
) -> Call:
    slot, layer = seat.slot, seat.layer
    if slot.capture is not None:
        slot.capture[layer] = (key, value)
    prefix_key = prefix_value = kept = visible = prefix_bias = value_bias = None
    prefix = slot.prefix
    bias = kwargs.get("position_bias")
    if prefix is not None and slot.strength > 0:
        added = prefix.value_bias[layer] if prefix.value_bias is not None else None
        if added is not None:
            value_bias = slot.strength * added.to(value)
            value = value + value_bias[None, :, None, :]
        if prefix.keys[layer] is not None:
            prefix_key = _to_batch(prefix.keys[layer], query)
            prefix_value = _to_batch(prefix.values[layer], query)
            kept = _kept(prefix, layer, query)
            visible = _in_window(kept, prefix, slot, query, seat.window)
            prefix_bias = _prefix_bias(prefix, prefix_key.shape[2], kwargs.get("position_slopes"))
    return Call(
        layer=layer,
        module=module,
        query=query,
        key=key,
        value=value,
        prefix_key=prefix_key,
        prefix_value=prefix_value,
        prefix_visible=visible,
        content_mask=mask,
        scaling=scaling,
        softcap=kwargs.get("softcap"),
        sink=kwargs.get("s_aux"),
        content_bias=None if bias is None else bias[..., : key.shape[2]],
        log_strength=math.log(slot.strength) if slot.strength > 0 else -math.inf,
        prefix_bias=prefix_bias,
        value_bias=value_bias,
        dropout=dropout,
        position_slopes=kwargs.get("position_slopes"),
        prefix_kept=kept,
    )


def _prefix_bias(prefix: PrefixKV, keys: int, slopes: Tensor | None) -> Tensor | None:
    """slope · position (row, head, 1, prefix) for models with ALiBi, whose content starts at position 0."""
    if slopes is None:
        return None
    positions = prefix.positions if prefix.positions is not None else torch.arange(-keys, 0)[None]
    return slopes[None, :, None, None] * positions.to(slopes)[:, None, None, :]


def _to_batch(rows: Tensor | None, query: Tensor) -> Tensor:
    """Bring (row, …) to the batch: one row is shared, several are repeated for beams and samples.

    What is trained is lowered last, so that its gradient is summed over the batch in its own type.
    """
    assert rows is not None
    if rows.requires_grad:
        return _spread(rows.to(query.device), query.shape[0]).to(query.dtype)
    return _spread(rows.to(device=query.device, dtype=query.dtype), query.shape[0])


def _spread(rows: Tensor, batch: int) -> Tensor:
    if rows.shape[0] == batch:
        return rows
    if rows.shape[0] == 1:
        return rows.expand(batch, *rows.shape[1:])
    if batch % rows.shape[0]:
        raise InputError(
            f"the context has {rows.shape[0]} rows, which do not fit a batch of {batch}: give one row for all, or one "
            "for each (beams and samples of a row share its context)."
        )
    return rows.repeat_interleave(batch // rows.shape[0], dim=0)


def _kept(prefix: PrefixKV, layer: int, query: Tensor) -> Tensor | None:
    """(batch or 1, head or 1, 1, prefix) bool: used places, without the keys that this layer's heads were pruned of."""
    used: Tensor | None = None
    if prefix.visible is not None:
        rows = prefix.visible.to(query.device)
        used = (rows if rows.shape[0] == 1 else _spread(rows, query.shape[0]))[:, None, None, :]
    heads = None if prefix.kept is None else prefix.kept[layer]
    if heads is None:
        return used
    heads = heads.to(query.device)
    heads = heads if heads.shape[0] == 1 else heads.repeat_interleave(query.shape[1] // heads.shape[0], dim=0)
    return heads[None, :, None, :] if used is None else used & heads[None, :, None, :]


def _in_window(kept: Tensor | None, prefix: PrefixKV, slot: Slot, query: Tensor, window: int | None) -> Tensor | None:
    """``kept`` inside the layer's sliding window: (batch or 1, head or 1, query or 1, prefix) bool."""
    if window is None or prefix.pinned or prefix.positions is None or slot.query_positions is None:
        return kept
    keys = prefix.positions.to(query.device)
    keys = (keys if keys.shape[0] == 1 else _spread(keys, query.shape[0]))[:, None, None, :]
    at = slot.query_positions.to(query.device)  # a model may stand on several devices
    inside = keys > at[:, None, -query.shape[2] :, None] - window
    if bool(inside.all()):
        return kept
    return inside if kept is None else kept & inside


def combine(call: Call, slot: Slot, dropout: float = 0.0) -> Tensor:
    """Take one softmax over the context's and the content's keys together: (batch, head, query, d_value)."""
    key, value, mask = call.key, call.value, call.content_mask
    if call.prefix_key is not None and call.prefix_value is not None:
        separate = in_two_calls(call, slot) if dropout == 0.0 else None
        if separate is not None:
            return separate
        mask = joint_mask(call, slot)
        is_laid_out = is_short_training(call.query, call.prefix_key, key)
        if is_laid_out and dropout == 0.0 and not _is_special(call):
            before = call.prefix_key, call.prefix_value
            return written_out(call.query, key, value, mask, call.scaling, before)
        key, value = joined(call.prefix_key, key, is_laid_out), joined(call.prefix_value, value, is_laid_out)
    if _is_special(call):
        return _eager(call, key, value, mask, slot, dropout)
    is_written_out = dropout == 0.0 and is_short_training(call.query, key)
    causal = mask is None and call.query.shape[2] > 1
    if causal and (is_written_out or key.shape[2] != call.query.shape[2]):
        mask, causal = slot.causal(call.query.shape[2], key.shape[2], 0, key.device), False
    if is_written_out:
        return written_out(call.query, key, value, mask, call.scaling)
    groups = call.query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    return torch.nn.functional.scaled_dot_product_attention(
        call.query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=causal, scale=call.scaling
    )


def _is_special(call: Call) -> bool:
    """Whether logits are capped, added to, or have a sink beside them."""
    return call.softcap is not None or call.sink is not None or call.content_bias is not None


def joint_mask(call: Call, slot: Slot) -> Tensor | None:
    """The mask over prefix and content keys: bool, or additive when a strength or the model asks for it."""
    assert call.prefix_key is not None
    queries, keys, prefix = call.query.shape[2], call.key.shape[2], call.prefix_key.shape[2]
    soft = call.log_strength != 0.0
    content = call.content_mask
    if content is None and call.prefix_visible is None and not soft:
        return None if queries == 1 else slot.causal(queries, keys, prefix, call.key.device)
    if content is None:
        content = slot.causal(queries, keys, 0, call.key.device)
    if call.prefix_visible is None:
        before = torch.ones(1, 1, 1, prefix, dtype=torch.bool, device=content.device)
    else:
        before = call.prefix_visible
    batch, heads = (max(content.shape[axis], before.shape[axis]) for axis in (0, 1))
    if soft or content.dtype != torch.bool:
        before, content = additive(before, call.query.dtype), additive(content, call.query.dtype)
        before = before + call.log_strength
    return torch.cat(
        [before.expand(batch, heads, queries, prefix), content.expand(batch, heads, queries, keys)], dim=-1
    )


def logits_of(call: Call, key: Tensor) -> Tensor:
    """scaling·q·k with the model's soft cap; (batch, head, query, key), before any mask or strength."""
    groups = call.query.shape[1] // key.shape[1]
    logits = torch.matmul(call.query, key.repeat_interleave(groups, dim=1).transpose(-1, -2)) * call.scaling
    if call.softcap is not None:
        logits = call.softcap * torch.tanh(logits / call.softcap)
    return logits


def _eager(call: Call, key: Tensor, value: Tensor, mask: Tensor | None, slot: Slot, dropout: float) -> Tensor:
    """Attention written out, for soft-capped logits, learned sinks and position biases."""
    logits = logits_of(call, key)
    if call.content_bias is not None:
        pad = logits.shape[-1] - call.content_bias.shape[-1]
        bias = torch.nn.functional.pad(call.content_bias, (pad, 0))
        if call.prefix_bias is not None:
            before = _spread(call.prefix_bias.to(bias.device), call.query.shape[0])
            bias = bias + torch.nn.functional.pad(before, (0, call.key.shape[2]))
        logits = logits + bias
    if mask is None and call.query.shape[2] > 1:
        mask = slot.causal(call.query.shape[2], key.shape[2], 0, key.device)
    if mask is not None:
        logits = logits + additive(mask, logits.dtype)
    if call.sink is not None:
        sink = call.sink.to(logits).reshape(1, -1, 1, 1).expand(*logits.shape[:3], 1)
        logits = torch.cat([logits, sink], dim=-1)
    weights = torch.softmax(logits, dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))
    if call.sink is not None:
        weights = weights[..., :-1]
    weights = torch.nn.functional.dropout(weights.to(value.dtype), p=dropout, training=call.module.training)
    return torch.matmul(weights, value.repeat_interleave(call.query.shape[1] // value.shape[1], dim=1))


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, mask_of)
