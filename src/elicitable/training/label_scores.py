"""Score every label behind every content, at about the price of reading the content once.

The content is read once, and the keys and values of each layer are kept. Behind them the labels' inner nodes (see
:mod:`elicitable.training.label_trie`) run as one sequence. Every node sees the content and the nodes above it, and
stands where its token would stand. So each number is what the plain computation gives, whatever context is in use. The
content is put before the nodes at the place where the package's own attention sees it (a watcher), so the context stays
what it was: its strength, its rows, and what was pruned of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from elicitable.errors import InputError
from elicitable.models.attend import Call, Slot, Watcher, combine
from elicitable.models.inject import installed
from elicitable.models.prefixes import row_count
from elicitable.models.restoring import swapped
from elicitable.models.speed.read import reading_last
from elicitable.training.label_trie import LabelIds, Step, Trie, first_steps, tries
from elicitable.values import PrefixKV

if TYPE_CHECKING:
    from elicitable.models.model import Model

CONTENT_TOKENS = 4096  # of the contents that are read at once, padding included: their keys and values are kept
LOGITS = 2**25  # numbers of a forward pass over nodes (128 MiB in float32): nodes · vocabulary
NODES = 256  # of one trie at most


@dataclass(frozen=True, eq=False)
class _Content:
    """Hold the contents that were read: keys and values of each layer, and what the last token of each predicts.

    ``visible`` (row, content) is False on the padding, ``lengths`` (row,) are the contents' own.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    visible: Tensor
    lengths: Tensor
    logits: Tensor  # (row, 1, vocab)

    def rows(self, first: int, last: int) -> _Content:
        """Select some rows."""
        cut = slice(first, last)
        return _Content(
            tuple(key[cut] for key in self.keys),
            tuple(value[cut] for value in self.values),
            self.visible[cut],
            self.lengths[cut],
            self.logits[cut],
        )


@torch.no_grad()
def label_costs(model: Model, contents: Sequence[Sequence[int]], labels: Sequence[Sequence[LabelIds]]) -> Tensor:
    """Return (item, label) −Σ_i log p(t_i | content, t_1 … t_{i−1}) in nats, float64, on the CPU.

    Args:
        model: with whatever context or weights are installed in it right now.
        contents: the token ids of each item's content, at least one.
        labels: each item's labels as they stand behind its content, as many for every item. Items whose labels have
            the same ids (nearly always all of them) are read together.

    Memory is bounded by :data:`CONTENT_TOKENS`, :data:`LOGITS` and :data:`NODES`, whatever the number of items and
    labels.

    Raises:
        InputError: an empty content or label, an item with another number of labels, a context with rows of its own
            for another number of items, or positions beyond the model's.
    """
    _check(contents, labels)
    costs = torch.zeros(len(contents), len(labels[0]) if labels else 0, dtype=torch.float64)
    alike: dict[tuple[LabelIds, ...], list[int]] = {}
    for item, behind in enumerate(labels):
        alike.setdefault(tuple(behind), []).append(item)
    with installed(model) as slot:
        for behind, items in alike.items():
            for rows in _together(contents, items):
                with _context_of(slot, rows, len(contents)):
                    costs[rows] = _costs(model, slot, [contents[row] for row in rows], behind)
    return costs


def _check(contents: Sequence[Sequence[int]], labels: Sequence[Sequence[LabelIds]]) -> None:
    if not all(len(content) for content in contents):
        raise InputError("nothing stands before the labels: every item needs a prompt of at least one token.")
    for behind in labels:
        if len(behind) != len(labels[0]):
            raise InputError(f"an item has {len(behind)} labels and another {len(labels[0])}; give as many to all.")
        for label in behind:
            if not 0 <= label.given < len(label.ids):
                raise InputError(
                    f"a label has no tokens of its own (ids {label.ids}, of which {label.given} are given)."
                )


def _together(contents: Sequence[Sequence[int]], items: list[int]) -> Iterator[list[int]]:
    """Group items of similar length, at most :data:`CONTENT_TOKENS` tokens with their padding (or one item)."""
    group: list[int] = []
    for item in sorted(items, key=lambda i: len(contents[i])):
        if group and len(contents[item]) * (len(group) + 1) > CONTENT_TOKENS:
            yield group
            group = []
        group.append(item)
    if group:
        yield group


@contextmanager
def _context_of(slot: Slot, rows: list[int], items: int) -> Iterator[None]:
    """Let a context that differs from item to item be, inside, that of the items ``rows``."""
    whole = slot.prefix
    if whole is not None and row_count(whole) > 1:
        if row_count(whole) != items:
            raise InputError(f"the context has {row_count(whole)} rows for {items} items; give one row for each item.")
        whole = _rows_of(whole, rows)
    with swapped(slot, prefix=whole):
        yield


def _rows_of(prefix: PrefixKV, rows: list[int]) -> PrefixKV:
    def cut(x: Tensor | None) -> Tensor | None:
        return x if x is None or x.shape[0] == 1 else x[rows]

    return replace(
        prefix,
        keys=tuple(map(cut, prefix.keys)),
        values=tuple(map(cut, prefix.values)),
        positions=cut(prefix.positions),
        visible=cut(prefix.visible),
    )


def _costs(model: Model, slot: Slot, contents: list[Sequence[int]], labels: tuple[LabelIds, ...]) -> Tensor:
    content = _read(model, slot, contents)
    costs = torch.zeros(len(contents), len(labels), dtype=torch.float64, device=model.device)
    _add(costs, content.logits, first_steps(labels))
    nodes_at_once = max(1, LOGITS // model.anatomy.vocab)
    for trie in tries(labels, min(NODES, nodes_at_once)):
        rows = max(1, nodes_at_once // len(trie))
        for first in range(0, len(contents), rows):
            some = list(range(first, min(first + rows, len(contents))))
            with _context_of(slot, some, len(contents)):
                logits = _behind(model, slot, content.rows(first, first + rows), trie)
            _add(costs[first : first + rows], logits, trie.steps)
    return costs.cpu()


def _add(costs: Tensor, logits: Tensor, steps: Sequence[Step]) -> None:
    """Add −log p of each step's token to its label's column; ``logits`` are (row, node, vocab)."""
    if not steps:
        return
    labels, nodes, tokens = (
        torch.tensor([getattr(step, name) for step in steps], device=costs.device)
        for name in ("label", "node", "token")
    )
    total = torch.logsumexp(logits, dim=-1)
    costs.index_add_(1, labels, (total[:, nodes] - logits[:, nodes, tokens]).to(costs.dtype))


def _read(model: Model, slot: Slot, contents: list[Sequence[int]]) -> _Content:
    """Read the contents, padded on the left, and keep what is needed behind them."""
    lengths = torch.tensor([len(content) for content in contents])
    width = int(lengths.max())
    ids = torch.tensor([[0] * (width - len(content)) + list(content) for content in contents])
    visible = torch.arange(width)[None] >= width - lengths[:, None]
    given = {} if bool(visible.all()) else {"attention_mask": visible.long().to(model.device)}
    kept: dict[int, tuple[Tensor, Tensor]] = {}
    with swapped(slot, capture=kept), reading_last(model, 1):
        ids = ids.to(model.device)
        logits = model.hf(input_ids=ids, use_cache=False, logits_to_keep=1, **given).logits[:, -1:]
    layers = range(model.anatomy.depth)
    return _Content(
        keys=tuple(kept[layer][0] for layer in layers),
        values=tuple(kept[layer][1] for layer in layers),
        visible=visible.to(model.device),
        lengths=lengths.to(model.device),
        logits=_exact(logits),
    )


def _exact(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


def _behind(model: Model, slot: Slot, content: _Content, trie: Trie) -> Tensor:
    """Return (row, node, vocab) logits of every node of the trie behind every content."""
    rows = len(content.lengths)
    ids = torch.tensor(trie.tokens, device=model.device)[None].expand(rows, -1)
    positions = content.lengths[:, None] + torch.tensor(trie.depths, device=model.device)[None]
    given = {"position_ids": positions} if model.anatomy.takes_position_ids else {}
    given["attention_mask"] = torch.ones_like(ids)
    with _standing_behind(model, slot, content, trie, positions):
        return _exact(model.hf(input_ids=ids, use_cache=False, **given).logits)


@contextmanager
def _standing_behind(model: Model, slot: Slot, content: _Content, trie: Trie, positions: Tensor) -> Iterator[None]:
    """Let the model's tokens be, inside, the nodes of a trie that stands behind ``content``."""

    def place(module: Any, args: Any) -> None:  # runs after the slot's own hook, which counts tokens from 0
        slot.query_positions = positions

    watcher = _watcher(model, slot, content, trie, positions, slot.watchers)
    with swapped(slot, watchers=[watcher], capture=None), model.anatomy.decoder.register_forward_pre_hook(place):
        yield


def _watcher(
    model: Model, slot: Slot, content: _Content, trie: Trie, positions: Tensor, others: list[Watcher]
) -> Watcher:
    masks: dict[int | None, Tensor] = {}
    padding = content.visible.shape[1] - content.lengths
    places = torch.arange(content.visible.shape[1], device=positions.device)[None] - padding[:, None]
    places = torch.cat([places, positions], dim=1)  # (row, content + node)
    seen = trie.seen().to(positions.device)[None].expand(len(positions), -1, -1)
    seen = torch.cat([content.visible[:, None].expand(-1, len(trie), -1), seen], dim=2)

    def visible(window: int | None) -> Tensor:
        if window not in masks:
            inside = seen if window is None else seen & (places[:, None] > positions[:, :, None] - window)
            masks[window] = inside[:, None]
        return masks[window]

    def attend_behind(call: Call) -> Tensor:
        call = _after_content(call, content, visible(model.anatomy.layers[call.layer].sliding_window), places)
        output: Tensor | None = None
        for watcher in others:
            output = watcher(call) if output is None else output
        return combine(call, slot, call.dropout) if output is None else output

    return attend_behind


def _after_content(call: Call, content: _Content, mask: Tensor, places: Tensor) -> Call:
    """Put the content's keys and values before the call's own."""
    value = content.values[call.layer]
    if call.value_bias is not None:
        value = value + call.value_bias[None, :, None, :]
    bias = call.content_bias
    if call.position_slopes is not None:
        bias = call.position_slopes[None, :, None, None] * places.to(call.position_slopes)[:, None, None, :]
    return replace(
        call,
        key=torch.cat([content.keys[call.layer].to(call.key), call.key], dim=2),
        value=torch.cat([value.to(call.value), call.value], dim=2),
        content_mask=mask,
        content_bias=bias,
    )
