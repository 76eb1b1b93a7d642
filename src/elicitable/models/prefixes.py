"""The algebra of contexts: measure a PrefixKV, join two, stack several into a batch, and keep a part of one.

Every context is keys and values, so what a prompt, a trained prefix and a pruned one can do with each other is said
here once, without a model. Shapes as in the glossary of :mod:`elicitable.values`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from elicitable.errors import InputError
from elicitable.values import PrefixKV

Layers = tuple[Tensor | None, ...]


def prefix_length(prefix: PrefixKV) -> int:
    """Count the keys per layer: the most over layers, as a layer may be skipped; 0 for value biases alone."""
    return max((key.shape[2] for key in prefix.keys if key is not None), default=0)


def row_count(prefix: PrefixKV) -> int:
    """Count the rows: 1 for a context that all rows of a batch share."""
    return next((key.shape[0] for key in prefix.keys if key is not None), 1)


def kept_places(prefix: PrefixKV, layer: int) -> Tensor:
    """Say which keys a layer's heads see: (kv_head or 1, prefix) bool, on the CPU; none where the layer is skipped."""
    kept, key = None if prefix.kept is None else prefix.kept[layer], prefix.keys[layer]
    if kept is not None:
        return kept.cpu()
    return torch.full((1, prefix_length(prefix)), key is not None)


def join(first: PrefixKV | None, second: PrefixKV) -> PrefixKV:
    """Place ``second`` right before the content and ``first`` before it.

    Softmax weights over the two together are those of one context: a head's odds for them add. Value biases add as
    well, and the content moves up by what both ask for.
    """
    if first is None:
        return second
    rows = max(row_count(first), row_count(second))
    back = prefix_length(second)
    return PrefixKV(
        keys=_cat_layers(first, second, "keys", rows),
        values=_cat_layers(first, second, "values", rows),
        positions=_join_positions(first, second, back, rows),
        visible=_join_visible(first, second, rows),
        shift=first.shift + second.shift,
        value_bias=_add_biases(first.value_bias, second.value_bias),
        pinned=first.pinned or second.pinned,
        kept=_join_kept(first, second),
    )


def _cat_layers(first: PrefixKV, second: PrefixKV, name: str, rows: int) -> Layers:
    """Put keys or values in a row; zeros, which :func:`_join_kept` hides, where one of the two skips a layer."""
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


def _join_kept(first: PrefixKV, second: PrefixKV) -> Layers | None:
    """Say which keys each layer's heads see: all of both, less what either was pruned of and the layers it skips."""
    layers = range(len(first.keys))
    parts = [[kept_places(prefix, layer) for prefix in (first, second)] for layer in layers]
    if all(bool(kept.all()) for pair in parts for kept in pair):
        return None
    heads = [max(kept.shape[0] for kept in pair) for pair in parts]
    return tuple(torch.cat([kept.expand(n, -1) for kept in pair], 1) for pair, n in zip(parts, heads, strict=True))


def _expand(x: Tensor, rows: int) -> Tensor:
    return x if x.shape[0] == rows else x.expand(rows, *x.shape[1:])


def _join_positions(first: PrefixKV, second: PrefixKV, back: int, rows: int) -> Tensor | None:
    if first.positions is None or second.positions is None:
        return None if first.positions is second.positions else _place(first, second, back, rows)
    return torch.cat([_expand(first.positions - back, rows), _expand(second.positions, rows)], dim=1)


def _place(first: PrefixKV, second: PrefixKV, back: int, rows: int) -> Tensor:
    """Let the one of the two that has no positions lie right before what follows it."""
    parts = []
    (device,) = {prefix.positions.device for prefix in (first, second) if prefix.positions is not None}
    for prefix, offset in ((first, back), (second, 0)):
        before = torch.arange(-prefix_length(prefix), 0, device=device)[None]
        own = before if prefix.positions is None else prefix.positions
        parts.append(_expand(own - offset, rows))
    return torch.cat(parts, dim=1)


def _join_visible(first: PrefixKV, second: PrefixKV, rows: int) -> Tensor | None:
    if first.visible is None and second.visible is None:
        return None
    parts = []
    device = next(prefix.visible.device for prefix in (first, second) if prefix.visible is not None)
    for prefix in (first, second):
        whole = torch.ones(1, prefix_length(prefix), dtype=torch.bool, device=device)
        own = whole if prefix.visible is None else prefix.visible
        parts.append(_expand(own, rows))
    return torch.cat(parts, dim=1)


def _add_biases(a: Layers | None, b: Layers | None) -> Layers | None:
    if a is None or b is None:
        return a if b is None else b
    return tuple(x if y is None else y if x is None else x + y for x, y in zip(a, b, strict=True))


def stack_rows(prefixes: Sequence[PrefixKV]) -> PrefixKV:
    """Give every row of a batch a context of its own: shorter ones are padded at their far end, and that is hidden.

    Raises:
        InputError: the contexts shift the content by different amounts (models with learned positions need contexts
            of equal length), skip layers or were pruned, or carry value biases, which a whole batch shares.
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


def keep_pairs(prefix: PrefixKV, kept: Tensor, *, moves: bool = False) -> PrefixKV:
    """Keep the (layer, kv_head, prefix) pairs where ``kept`` is True; tokens that no head keeps are left out.

    ``moves``: the content's positions move up by the tokens that are gone; otherwise nothing moves.
    """
    tokens = kept.any(dim=(0, 1)).nonzero()[:, 0]
    smaller = keep_tokens(prefix, tokens.tolist(), moves=moves)
    masks = [kept[i, : 0 if key is None else key.shape[1]][:, tokens] for i, key in enumerate(smaller.keys)]
    return replace(smaller, kept=None if all(bool(mask.all()) for mask in masks) else tuple(masks))


def keep_tokens(prefix: PrefixKV, kept: Sequence[int], *, moves: bool = False) -> PrefixKV:
    """Keep the tokens ``kept`` alone, each where it was.

    ``moves``: tokens and content move up by the tokens that are gone, as PEFT would have it.
    """
    index = torch.tensor(list(kept), dtype=torch.long)
    gone = prefix_length(prefix) - len(kept) if moves else 0

    def chosen(x: Tensor | None, axis: int) -> Tensor | None:
        return None if x is None else x.index_select(axis, index.to(x.device))

    positions = prefix.positions
    if positions is not None:
        positions = positions[:, gone:] if moves else chosen(positions, 1)
    return replace(
        prefix,
        keys=tuple(chosen(x, 2) for x in prefix.keys),
        values=tuple(chosen(x, 2) for x in prefix.values),
        positions=positions,
        visible=chosen(prefix.visible, 1),
        shift=max(prefix.shift - gone, 0),
        kept=None if prefix.kept is None else tuple(chosen(x, 1) for x in prefix.kept),
    )


def drop_layers(prefix: PrefixKV, layers: Sequence[int]) -> PrefixKV:
    """Leave ``layers`` without any keys; the others keep theirs."""
    gone = set(layers)
    return replace(
        prefix,
        keys=tuple(None if i in gone else key for i, key in enumerate(prefix.keys)),
        values=tuple(None if i in gone else value for i, value in enumerate(prefix.values)),
    )
