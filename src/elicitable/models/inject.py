"""Put a context into a model, and take it out again.

Nothing is patched and no cache is touched: while a slot is installed the model attends with the package's attention
function, and one hook on its decoder fixes the positions. Both are gone after the ``with``, also after an exception.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from elicitable.errors import InputError
from elicitable.models.adapters import attending
from elicitable.models.attend import Seat, Slot
from elicitable.models.model import Model, as_model
from elicitable.values import PrefixKV

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


class Adaptation(Protocol):
    """What ``use`` can put into a model: a context, changed weights, or both (the contract of the methods room)."""

    moves_content: bool

    def prefix(self, model: Model, before: PrefixKV | None = None, end: int = 0) -> PrefixKV | None:
        """The keys and values of the context, given what stands before it; None without a context."""

    def keys_per_layer(self) -> int:
        """Keys that the content pays for in every layer."""

    def weights(self, model: Model) -> AbstractContextManager[None]:
        """Install changed weights; nothing to do for a context."""


@contextmanager
def installed(model: Model) -> Iterator[Slot]:
    """Install an empty slot: the model attends through it until the end of the ``with``.

    Nested use of one model shares the outer slot, so that contexts compose.
    """
    anatomy = model.anatomy
    current: Seat | None = getattr(anatomy.attentions[0], "_elicitable_seat", None)
    if current is not None:
        yield current.slot
        return
    slot = Slot()
    fix = _fix_positions(slot, anatomy.takes_position_ids, reach_of(model))
    hook = anatomy.decoder.register_forward_pre_hook(fix, with_kwargs=True)
    try:
        with attending(model.hf):
            for layer, attention in enumerate(anatomy.attentions):
                attention.__dict__["_elicitable_seat"] = Seat(slot, layer)
            yield slot
    finally:
        hook.remove()
        for attention in anatomy.attentions:
            attention.__dict__.pop("_elicitable_seat", None)


@contextmanager
def use(
    model: Any, context: Adaptation | PrefixKV | Sequence[Adaptation | PrefixKV], strength: float = 1.0
) -> Iterator[Model]:
    """Every forward pass and ``generate`` of ``model`` inside the ``with`` sees ``context``.

    Args:
        model: what :func:`elicitable.load` returns, or a transformers model.
        context: a context, an adaptation (LoRA, full), a :class:`PrefixKV`, or several: the first stands first and
            the later ones see the earlier ones.
        strength: g in [0, 1]: the prefix's softmax weight is multiplied by g. At 0 nothing is installed, so the
            outputs are bit-equal to the base model's; changed weights are then not installed either.

    Raises:
        InputError: the strength is outside [0, 1], or the context does not fit the model.

    Example:
        >>> import elicitable as el
        >>> model = el.load("toy:ascending")
        >>> context = el.context("prompt", model, token_ids=[7, 0])
        >>> with el.use(model, context):
        ...     logits = model(input_ids=model.ids([3, 1, 2])).logits
        >>> tuple(logits.shape)
        (1, 3, 10)
    """
    model = as_model(model)
    if not 0.0 <= strength <= 1.0:
        raise InputError(f"strength must be between 0 (the base model) and 1 (the whole context), got {strength!r}.")
    parts: list[Any] = list(context) if isinstance(context, list | tuple) else [context]
    with ExitStack() as stack:
        if strength > 0:
            for part in parts:
                if not isinstance(part, PrefixKV):
                    stack.enter_context(part.weights(model))
            slot = stack.enter_context(installed(model))
            stack.callback(_restore, slot, slot.prefix, slot.strength, slot.parts)
            if slot.parts and strength != slot.strength:
                raise InputError(
                    f"a context of strength {slot.strength:g} is in use; one inside it cannot have strength "
                    f"{strength:g}."
                )
            slot.parts = (*slot.parts, *parts)
            set_prefix(model, slot, prefix_of(model, slot.parts), strength)
        yield model


def prefix_of(model: Model, parts: Sequence[Any], before: PrefixKV | None = None) -> PrefixKV | None:
    """The keys and values of ``parts`` one after another, each computed with the earlier ones in place.

    On a rotary model a context stands at negative positions, so those of the parts that follow it are kept free.
    """
    joined = before
    for nth, part in enumerate(parts):
        end = sum(_positions_taken(model, later) for later in parts[nth + 1 :])
        own = part if isinstance(part, PrefixKV) else part.prefix(model, joined, end)
        if own is not None:
            check_fits(model, own)
            joined = join(joined, own)
    return joined


def _positions_taken(model: Model, part: Any) -> int:
    """Negative positions that a context takes: its length, unless it moves the content up instead."""
    if not model.anatomy.has_rotary:
        return 0
    if isinstance(part, PrefixKV):
        return max(prefix_length(part) - part.shift, 0)
    return 0 if part.moves_content else int(part.keys_per_layer())


def set_prefix(model: Model, slot: Slot, prefix: PrefixKV | None, strength: float = 1.0) -> None:
    """Make ``prefix`` the slot's; the next forward pass sees it."""
    slot.prefix, slot.strength = prefix, strength


def _restore(slot: Slot, prefix: PrefixKV | None, strength: float, parts: tuple[Any, ...]) -> None:
    slot.prefix, slot.strength, slot.parts = prefix, strength, parts


def join(first: PrefixKV | None, second: PrefixKV) -> PrefixKV:
    """``second`` placed right before the content, ``first`` before it."""
    if first is None:
        return second
    rows = max(row_count(first), row_count(second))
    shift_back = max((k.shape[2] for k in second.keys if k is not None), default=0)
    return PrefixKV(
        keys=_cat_layers(first, second, "keys", rows),
        values=_cat_layers(first, second, "values", rows),
        positions=_join_positions(first, second, shift_back, rows),
        visible=_join_visible(first, second, rows),
        shift=first.shift + second.shift,
        value_bias=_add_biases(first.value_bias, second.value_bias),
        pinned=first.pinned or second.pinned,
        kept=_join_kept(first, second),
    )


def row_count(prefix: PrefixKV) -> int:
    """1 for a context that all rows of the batch share."""
    return next((k.shape[0] for k in prefix.keys if k is not None), 1)


def prefix_length(prefix: PrefixKV) -> int:
    return max((k.shape[2] for k in prefix.keys if k is not None), default=0)


def _cat_layers(first: PrefixKV, second: PrefixKV, name: str, rows: int) -> tuple[Tensor | None, ...]:
    """Keys or values one after another; zeros, which :func:`_join_kept` hides, where one of the two skips a layer."""
    lengths = prefix_length(first), prefix_length(second)
    return tuple(_cat(pair, lengths, rows) for pair in zip(getattr(first, name), getattr(second, name), strict=True))


def _cat(pair: tuple[Tensor | None, Tensor | None], lengths: tuple[int, int], rows: int) -> Tensor | None:
    like = next((x for x in pair if x is not None), None)
    if like is None:
        return None
    pieces = [
        _expand(like.new_zeros(1, like.shape[1], length, like.shape[3]) if x is None else x.to(like), rows)
        for x, length in zip(pair, lengths, strict=True)
    ]
    return torch.cat(pieces, dim=2)


def _join_kept(first: PrefixKV, second: PrefixKV) -> tuple[Tensor | None, ...] | None:
    """Which keys each layer's heads see: all of both, less what either was pruned of and the layers it skips."""
    layers = range(len(first.keys))
    parts = [[_kept(prefix, layer) for prefix in (first, second)] for layer in layers]
    if all(bool(kept.all()) for pair in parts for kept in pair):
        return None
    heads = [max(kept.shape[0] for kept in pair) for pair in parts]
    return tuple(torch.cat([kept.expand(n, -1) for kept in pair], 1) for pair, n in zip(parts, heads, strict=True))


def _kept(prefix: PrefixKV, layer: int) -> Tensor:
    kept, key = None if prefix.kept is None else prefix.kept[layer], prefix.keys[layer]
    if kept is not None:
        return kept.cpu()
    return torch.full((1, prefix_length(prefix)), key is not None)


def _expand(x: Tensor, rows: int) -> Tensor:
    return x if x.shape[0] == rows else x.expand(rows, *x.shape[1:])


def _join_positions(first: PrefixKV, second: PrefixKV, back: int, rows: int) -> Tensor | None:
    if first.positions is None or second.positions is None:
        return None if first.positions is second.positions else _place(first, second, back, rows)
    return torch.cat([_expand(first.positions - back, rows), _expand(second.positions, rows)], dim=1)


def _place(first: PrefixKV, second: PrefixKV, back: int, rows: int) -> Tensor:
    """One of the two has no positions: it counts as lying right before what follows it."""
    parts = []
    for prefix, offset in ((first, back), (second, 0)):
        own = prefix.positions if prefix.positions is not None else torch.arange(-prefix_length(prefix), 0)[None]
        parts.append(_expand(own - offset, rows))
    return torch.cat(parts, dim=1)


def _join_visible(first: PrefixKV, second: PrefixKV, rows: int) -> Tensor | None:
    if first.visible is None and second.visible is None:
        return None
    parts = []
    for prefix in (first, second):
        own = prefix.visible if prefix.visible is not None else torch.ones(1, prefix_length(prefix), dtype=torch.bool)
        parts.append(_expand(own, rows))
    return torch.cat(parts, dim=1)


def _add_biases(
    a: tuple[Tensor | None, ...] | None, b: tuple[Tensor | None, ...] | None
) -> tuple[Tensor | None, ...] | None:
    if a is None or b is None:
        return a if b is None else b
    return tuple(x if y is None else y if x is None else x + y for x, y in zip(a, b, strict=True))


def stack_rows(prefixes: Sequence[PrefixKV]) -> PrefixKV:
    """One context a row: shorter ones are padded at their far end and the padding is hidden.

    Raises:
        InputError: the contexts shift the content by different amounts (models with learned positions need contexts
            of equal length), or carry value biases, which are shared by the whole batch.
    """
    if any(p.kept is not None for p in prefixes):
        raise InputError("pruned contexts cannot be stacked into one batch: use one for all rows.")
    if any(p.value_bias is not None for p in prefixes):
        raise InputError("a value bias is shared by the whole batch and cannot differ from row to row.")
    if len({p.shift for p in prefixes}) > 1:
        raise InputError(
            "on a model with learned absolute positions the contexts of one batch must have equal length, got "
            f"{[prefix_length(p) for p in prefixes]}."
        )
    longest = max(prefix_length(p) for p in prefixes)

    def padded(x: Tensor) -> Tensor:
        return nn.functional.pad(x, (0, 0, longest - x.shape[2], 0))

    depth = range(len(prefixes[0].keys))
    device = next(k for k in prefixes[0].keys if k is not None).device
    visible = torch.stack(
        [
            torch.arange(longest, device=device) >= longest - prefix_length(p)
            for p in prefixes
            for _ in range(row_count(p))
        ]
    )
    return PrefixKV(
        keys=tuple(torch.cat([padded(_present(p.keys[i])) for p in prefixes]) for i in depth),
        values=tuple(torch.cat([padded(_present(p.values[i])) for p in prefixes]) for i in depth),
        positions=torch.arange(-longest, 0, device=device)[None].expand(len(visible), -1),
        visible=visible,
        shift=prefixes[0].shift,
    )


def _present(x: Tensor | None) -> Tensor:
    if x is None:
        raise InputError("contexts that skip layers cannot be stacked into one batch.")
    return x


def check_fits(model: Model, prefix: PrefixKV) -> None:
    """Raise InputError, with both shapes, where a prefix was made for another model."""
    if len(prefix.keys) != model.anatomy.depth:
        raise InputError(
            f"the context has {len(prefix.keys)} layers, {model.name} has {model.anatomy.depth}: "
            "it was made for another model."
        )
    for layer, (key, value, facts) in enumerate(zip(prefix.keys, prefix.values, model.anatomy.layers, strict=True)):
        if key is None or value is None:
            continue
        if (key.shape[1], key.shape[3], value.shape[3]) != (facts.kv_heads, facts.d_head, facts.d_value):
            raise InputError(
                f"layer {layer}: the context's keys are {tuple(key.shape)} and values {tuple(value.shape)}; "
                f"{model.name} needs (row, {facts.kv_heads}, prefix, {facts.d_head}) and "
                f"(row, {facts.kv_heads}, prefix, {facts.d_value})."
            )


def reach_of(model: Model) -> int | None:
    """How many positions the model has; None where they are not learned one by one."""
    if model.anatomy.has_rotary:
        return None
    return getattr(model.hf.config.get_text_config(), "max_position_embeddings", None)


def room_in(model: Model, max_tokens: int | None = None, taken: int | None = None) -> int | None:
    """Return how many tokens a text may have: the model's positions less those ``taken`` by a context, or fewer.

    ``taken`` is by default the length of the context that is in use; None means that nothing bounds a text.
    """
    reach = getattr(model.hf.config.get_text_config(), "max_position_embeddings", None)
    if taken is None:
        seat: Seat | None = getattr(model.anatomy.attentions[0], "_elicitable_seat", None)
        taken = prefix_length(seat.slot.prefix) if seat is not None and seat.slot.prefix is not None else 0
    bounds = [bound for bound in (max_tokens, reach - taken if reach else None) if bound is not None]
    return max(0, min(bounds)) if bounds else None


def _fix_positions(slot: Slot, takes_position_ids: bool, reach: int | None) -> Any:
    """A decoder pre-hook: the content starts at position 0 (or ``shift``) in every row, wherever its padding is."""

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        ids = kwargs.get("input_ids", args[0] if args else None)
        ids = kwargs.get("inputs_embeds") if ids is None else ids
        if ids is None:
            return args, kwargs
        # sliding windows count tokens, wherever the caller's own position ids may start
        slot.query_positions = _positions(ids.shape[:2], kwargs, ids.device)
        positions = kwargs.get("position_ids")
        positions = slot.query_positions if positions is None else positions
        shift = slot.prefix.shift if slot.prefix is not None and slot.strength > 0 else 0
        if takes_position_ids:
            kwargs["position_ids"] = positions + shift if shift else positions
            if shift and reach is not None and int(positions.max()) + shift >= reach:
                raise InputError(
                    f"the context takes {shift} positions and the content needs {int(positions.max()) + 1}, "
                    f"but the model has only {reach}."
                )
        return args, kwargs

    return hook


def _positions(shape: torch.Size, kwargs: dict[str, Any], device: torch.device) -> Tensor:
    batch, queries = shape
    mask, cache = kwargs.get("attention_mask"), kwargs.get("past_key_values")
    past = int(cache.get_seq_length()) if cache is not None else 0
    if mask is not None and mask.ndim == 2 and mask.shape[1] == past + queries:
        positions: Tensor = (mask.long().cumsum(-1) - 1).clamp(min=0)[:, -queries:]
        return positions.to(device)
    return torch.arange(past, past + queries, device=device)[None].expand(batch, -1)
