"""Score the labels behind every content, at about the price of reading the content once.

The content is read once, and the keys and values of each layer are kept. Behind them the labels' inner nodes (see
:mod:`elicitable.training.label_trie`) run as one sequence. Every node sees the content and the nodes above it, and
stands where its token would stand. So each number is what the plain computation gives, whatever context is in use. The
content is put before the nodes at the place where the package's own attention sees it (a watcher), so the context stays
what it was: its strength, its rows, and what was pruned of it.

Where only a decision is asked for, the nodes run in rounds, each behind those before it, and only as long as their
labels can still win (:mod:`elicitable.training.label_search`). Items run together, each its own nodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from elicitable.errors import InputError
from elicitable.models.attend import Call, Slot, Watcher, combine
from elicitable.models.inject import installed
from elicitable.models.prefixes import row_count
from elicitable.models.restoring import swapped
from elicitable.models.speed.read import reading_last
from elicitable.training.label_search import Search, Wanted
from elicitable.training.label_trie import ROOT, LabelIds, Numbers, Trie
from elicitable.values import PrefixKV

if TYPE_CHECKING:
    from elicitable.models.model import Model

CONTENT_TOKENS = 4096  # of the contents that are read at once, padding included: their keys and values are kept
NODE_TOKENS = 4096  # of the nodes that are kept at once behind them, padding included (or those of one item)
LOGITS = 2**26  # numbers of a forward pass over nodes (256 MiB in float32): nodes · vocabulary
ACCELERATED = 8  # times as much of all three on an accelerator
NODES = 256  # of one item in one forward pass at most

Pairs = tuple[tuple[Tensor, Tensor], ...]  # keys and values of each layer


@dataclass(frozen=True, eq=False)
class _Content:
    """Hold the contents that were read: keys and values of each layer, and those of the nodes that were run behind.

    ``items`` are their numbers, ``visible`` (row, content) is False on the padding, ``lengths`` (row,) are the
    contents' own, and ``depths`` (row, node) say how far behind its content each node stands.
    """

    items: Numbers
    layers: Pairs
    visible: Tensor
    lengths: Tensor
    depths: Tensor
    nodes: Pairs = ()

    def rows(self, chosen: slice | list[int]) -> _Content:
        """Select some rows."""
        return _Content(
            self.items[chosen],
            tuple((key[chosen], value[chosen]) for key, value in self.layers),
            self.visible[chosen],
            self.lengths[chosen],
            self.depths[chosen],
            tuple((key[chosen], value[chosen]) for key, value in self.nodes),
        )

    def followed_by(self, nodes: Pairs, depths: Tensor) -> _Content:
        """Put more nodes behind the contents."""
        pairs = zip(self.nodes, nodes, strict=True) if self.nodes else ()
        both = tuple((torch.cat([k, key], 2), torch.cat([v, value], 2)) for (k, v), (key, value) in pairs)
        return replace(self, nodes=both or nodes, depths=torch.cat([self.depths, depths], dim=1))


@dataclass(frozen=True, eq=False)
class _Reader:
    """Hold what reads: the model, with the slot in which its context is, and how many items that context is for."""

    model: Model
    slot: Slot
    items: int
    times: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "times", 1 if self.model.device.type == "cpu" else ACCELERATED)

    @property
    def nodes(self) -> int:
        """Count the nodes of a forward pass at most."""
        return max(1, self.times * LOGITS // self.model.anatomy.vocab)


@torch.no_grad()
def label_costs(
    model: Model,
    contents: Sequence[Sequence[int]],
    labels: Sequence[Sequence[LabelIds]],
    wanted: Sequence[Wanted] | None = None,
) -> Tensor:
    """Return (item, label) −Σ_i log p(t_i | content, t_1 … t_{i−1}) in nats, float64, on the CPU.

    Args:
        model: with whatever context or weights are installed in it right now.
        contents: the token ids of each item's content, at least one.
        labels: each item's labels as they stand behind its content. Where an item has fewer than others, the rest of
            its row is infinity.
        wanted: what is asked of each item. A label that can be least by none of its rules may then be infinity, at the
            price of the tokens that it takes to know that; by default every label is priced.

    Memory is bounded by :data:`CONTENT_TOKENS`, :data:`NODE_TOKENS` and :data:`LOGITS`, whatever the number of items
    and labels.

    Raises:
        InputError: an empty content or label, a context with rows of its own for another number of items, or positions
            beyond the model's.
    """
    _check(contents, labels)
    costs = torch.full((len(contents), max(map(len, labels), default=0)), torch.inf, dtype=torch.float64)
    tries: dict[tuple[LabelIds, ...], Trie] = {}
    searches = []
    for item, behind in enumerate(labels):
        trie = tries.setdefault(tuple(behind), tries.get(tuple(behind)) or Trie(behind))
        searches.append(Search(trie, wanted[item] if wanted is not None else None))
    with installed(model) as slot:
        reader = _Reader(model, slot, len(contents))
        for items in _together(contents, CONTENT_TOKENS * reader.times):
            _search(reader, [searches[item] for item in items], *_read(reader, contents, items))
            for item in items:
                costs[item, : len(labels[item])] = torch.from_numpy(searches[item].result())
    return costs


def _check(contents: Sequence[Sequence[int]], labels: Sequence[Sequence[LabelIds]]) -> None:
    if not all(len(content) for content in contents):
        raise InputError("nothing stands before the labels: every item needs a prompt of at least one token.")
    for behind in {tuple(behind): None for behind in labels}:
        for label in behind:
            if not 0 <= label.given < len(label.ids):
                raise InputError(
                    f"a label has no tokens of its own (ids {label.ids}, of which {label.given} are given)."
                )


def _together(contents: Sequence[Sequence[int]], most: int) -> Iterator[list[int]]:
    """Group items of similar length, at most ``most`` tokens with their padding (or one item)."""
    group: list[int] = []
    for item in sorted(range(len(contents)), key=lambda i: len(contents[i])):
        if group and len(contents[item]) * (len(group) + 1) > most:
            yield group
            group = []
        group.append(item)
    if group:
        yield group


@contextmanager
def _context_of(reader: _Reader, items: Numbers) -> Iterator[None]:
    """Let a context that differs from item to item be, inside, that of ``items``."""
    slot = reader.slot
    whole = slot.prefix
    if whole is not None and row_count(whole) > 1:
        if row_count(whole) != reader.items:
            raise InputError(
                f"the context has {row_count(whole)} rows for {reader.items} items; give one row for each item."
            )
        whole = _rows_of(whole, items.tolist())
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


def _read(reader: _Reader, contents: Sequence[Sequence[int]], items: list[int]) -> tuple[_Content, Tensor]:
    """Read the contents of ``items``, padded on the left: what is needed behind them, and (row, 1, vocab) logits."""
    model, rows = reader.model, [contents[item] for item in items]
    lengths = torch.tensor([len(row) for row in rows])
    width = int(lengths.max())
    ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows])
    visible = torch.arange(width)[None] >= width - lengths[:, None]
    given = {} if bool(visible.all()) else {"attention_mask": visible.long().to(model.device)}
    kept: dict[int, tuple[Tensor, Tensor]] = {}
    numbers = np.array(items)
    with _context_of(reader, numbers), swapped(reader.slot, capture=kept), reading_last(model, 1):
        ids = ids.to(model.device)
        logits = model.hf(input_ids=ids, use_cache=False, logits_to_keep=1, **given).logits[:, -1:]
    layers = tuple(kept[layer] for layer in range(model.anatomy.depth))
    lengths = lengths.to(model.device)
    return _Content(numbers, layers, visible.to(model.device), lengths, lengths.new_zeros(len(items), 0)), logits


def _search(reader: _Reader, searches: list[Search], content: _Content, logits: Tensor) -> None:
    """Price the labels behind the contents that were just read, as far as each item asks for it."""
    _price(searches, logits, [np.array([ROOT])] * len(searches))
    _go_on(reader, searches, content)


def _go_on(reader: _Reader, searches: list[Search], content: _Content) -> None:
    """Run the next nodes of every item that has some, in as many parts as memory asks for, each to its end."""
    following = [search.next(min(NODES, reader.nodes)) for search in searches]
    live = [row for row, nodes in enumerate(following) if len(nodes)]
    if not live:
        return
    content = content if len(live) == len(searches) else content.rows(live)
    width = max(len(following[row]) for row in live)
    kept = reader.times * NODE_TOKENS // (content.depths.shape[1] + width)
    parts = -(-len(live) // max(1, min(reader.nodes // width, kept)))
    at_once = -(-len(live) // parts)  # parts of one size: a pass over a few items alone costs almost as much
    for first in range(0, len(live), at_once):
        part = live[first : first + at_once]
        some, nodes = [searches[row] for row in part], [following[row] for row in part]
        rows = content if len(part) == len(live) else content.rows(slice(first, first + at_once))
        _go_on(reader, some, _run(reader, some, nodes, rows))


def _run(reader: _Reader, searches: list[Search], nodes: list[Numbers], content: _Content) -> _Content:
    """Run every item's ``nodes`` behind its content, price what they predict, and return what stands there then."""
    model, width = reader.model, max(map(len, nodes))
    tokens, depths = np.zeros((2, len(nodes), width), dtype=np.int64)
    for row, (search, own) in enumerate(zip(searches, nodes, strict=True)):
        tokens[row, : len(own)], depths[row, : len(own)] = search.trie.tokens[own], search.trie.depths[own]
        search.stand(own, width)
    seen = torch.from_numpy(_seen(searches, nodes, width)).to(model.device)
    ids, deep = (torch.from_numpy(x).to(model.device) for x in (tokens, depths))
    positions = content.lengths[:, None] + deep
    given = {"position_ids": positions} if model.anatomy.takes_position_ids else {}
    given["attention_mask"] = torch.ones_like(ids)
    kept: dict[int, tuple[Tensor, Tensor]] = {}
    with _context_of(reader, content.items), _standing_behind(reader, content, seen, positions, kept):
        logits = model.hf(input_ids=ids, use_cache=False, **given).logits
    _price(searches, logits, nodes)
    return content.followed_by(tuple(kept[layer] for layer in range(model.anatomy.depth)), deep)


def _seen(searches: list[Search], nodes: list[Numbers], width: int) -> np.ndarray:
    """Return (row, width, node) bool: which of all nodes up to now each of the new ones sees; padding sees itself."""
    total = searches[0].run
    seen = np.zeros((len(nodes), width, total), dtype=np.bool_)
    seen[:, range(width), range(total - width, total)] = True
    for row, (search, own) in enumerate(zip(searches, nodes, strict=True)):
        found = search.trie.seen(own, search.places)
        seen[row, : len(own), : found.shape[1]] = found
    return seen


def _price(searches: list[Search], logits: Tensor, nodes: list[Numbers]) -> None:
    """Add what the ``nodes`` of every item predict to its labels' costs; ``logits`` are (row, node, vocab)."""
    steps = [search.trie.steps(own) for search, own in zip(searches, nodes, strict=True)]
    rows = np.repeat(np.arange(len(steps)), [len(one.labels) for one in steps])
    places = np.concatenate([np.searchsorted(own, one.nodes) for one, own in zip(steps, nodes, strict=True)])
    tokens = np.concatenate([one.tokens for one in steps])
    at = [torch.from_numpy(index).to(logits.device) for index in (rows, places, tokens)]
    total = torch.logsumexp(_exact(logits), dim=-1)
    nats = (total[at[0], at[1]].cpu().double() - logits[at[0], at[1], at[2]].cpu().double()).numpy()
    ends = np.cumsum([len(one.labels) for one in steps])
    for search, one, own in zip(searches, steps, np.split(nats, ends[:-1]), strict=True):
        search.take(one.labels, own)


def _exact(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


@contextmanager
def _standing_behind(
    reader: _Reader, content: _Content, seen: Tensor, positions: Tensor, kept: dict[int, tuple[Tensor, Tensor]]
) -> Iterator[None]:
    """Let the model's tokens be, inside, nodes behind ``content``; their keys and values come into ``kept``."""
    slot = reader.slot

    def place(module: Any, args: Any) -> None:  # runs after the slot's own hook, which counts tokens from 0
        slot.query_positions = positions

    watcher = _watcher(reader, content, seen, positions, slot.watchers)
    decoder = reader.model.anatomy.decoder
    with swapped(slot, watchers=[watcher], capture=kept), decoder.register_forward_pre_hook(place):
        yield


def _watcher(reader: _Reader, content: _Content, seen: Tensor, positions: Tensor, others: list[Watcher]) -> Watcher:
    """Make what attends for nodes: ``seen`` (row, node, all nodes) bool, ``positions`` (row, node)."""
    masks: dict[int | None, Tensor] = {}
    facts, width = reader.model.anatomy.layers, content.visible.shape[1]
    places = torch.arange(width, device=positions.device)[None] - (width - content.lengths[:, None])
    places = torch.cat([places, content.lengths[:, None] + content.depths, positions], dim=1)
    seen = torch.cat([content.visible[:, None].expand(-1, seen.shape[1], -1), seen], dim=2)

    def visible(window: int | None) -> Tensor:
        if window not in masks:
            inside = seen if window is None else seen & (places[:, None] > positions[:, :, None] - window)
            masks[window] = inside[:, None]
        return masks[window]

    def attend_behind(call: Call) -> Tensor:
        call = _after_content(call, content, visible(facts[call.layer].sliding_window), places)
        output: Tensor | None = None
        for watcher in others:
            output = watcher(call) if output is None else output
        return combine(call, reader.slot, call.dropout) if output is None else output

    return attend_behind


def _after_content(call: Call, content: _Content, mask: Tensor, places: Tensor) -> Call:
    """Put the keys and values of content and earlier nodes before the call's own."""
    pairs = [part[call.layer] for part in (content.layers, content.nodes) if part]
    added = 0 if call.value_bias is None else call.value_bias[None, :, None, :]
    bias = call.content_bias
    if call.position_slopes is not None:
        bias = call.position_slopes[None, :, None, None] * places.to(call.position_slopes)[:, None, None, :]
    return replace(
        call,
        key=torch.cat([*(key.to(call.key) for key, _ in pairs), call.key], dim=2),
        value=torch.cat([*((value + added).to(call.value) for _, value in pairs), call.value], dim=2),
        content_mask=mask.to(call.query.device),  # a model may stand on several devices
        content_bias=bias,
    )
