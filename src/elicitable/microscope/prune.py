"""Measure which virtual tokens, layers and heads of a context do anything, by leaving them out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from elicitable.errors import InputError
from elicitable.microscope.watch import watch
from elicitable.models.attend import Call, combine
from elicitable.models.inject import installed
from elicitable.models.model import Model, as_model
from elicitable.models.prefixes import drop_layers, keep_pairs, keep_tokens, prefix_length, row_count
from elicitable.values import PrefixKV

Scorer = Callable[[PrefixKV], float]


@dataclass(frozen=True, slots=True)
class Ablation:
    """Record what was left out (position, layer or head), the score without it, and the loss (negative: a gain)."""

    what: str
    score: float
    lost: float


@dataclass(frozen=True, slots=True)
class Pruned:
    """Record what pruning kept and what it cost.

    ``kept`` and ``dropped`` are virtual tokens: dropped are those that no head of any layer needs. ``silent`` are the
    (layer, kv_head) pairs that keep no token. A *pair* is one token's key and value in one such head; ``numbers``
    count both. ``tried`` are (pairs kept, score) in the order they were measured.
    """

    kept: tuple[int, ...]
    dropped: tuple[int, ...]
    silent: tuple[tuple[int, int], ...]
    heads: int
    pairs_before: int
    pairs_after: int
    score_before: float
    score_after: float
    margin: float
    numbers_before: int
    numbers_after: int
    tried: tuple[tuple[int, float], ...]

    @property
    def saved(self) -> float:
        """Return the share of the numbers that were saved, in [0, 1)."""
        return 1 - self.numbers_after / self.numbers_before


PATIENCE = 4  # heads, and pairs, that may turn out to be needed before a search through them ends


def prune(
    model: Any,
    prefix: PrefixKV,
    score: Scorer,
    batches: Sequence[dict[str, Tensor]],
    *,
    confirm: Scorer | None = None,
    margin: float = 0.01,
    whole_tokens: bool = False,
) -> tuple[PrefixKV, Pruned]:
    """Drop what does nothing in a context, keeping the score within ``margin``.

    Three searches follow each other: whole virtual tokens, whole heads (one layer's key-value head no longer sees the
    context), then single pairs of a head and a token. Each drops the weakest first, by the norm of what they add to
    the heads' outputs, Σ A^pt_ij ‖v_j‖ over ``batches``; as many at once as the score allows, found by doubling and
    halving. Every step is scored; nothing is estimated. A search over many candidates fits itself to the items it is
    scored on, so that what it found may be confirmed on others: the last steps are taken back until that holds.

    Nothing moves: neither the tokens that are left, nor the content. PEFT counts the content's positions from the
    number of virtual tokens; ``whole_tokens`` prunes as PEFT can have it: tokens alone, and the content moves up.

    Args:
        model: what :func:`elicitable.load` returns, or a transformers model.
        prefix: the context's keys and values, one row.
        score: of a context, higher is better, on the scale that ``margin`` is on (a share right, in [0, 1]).
        batches: keyword arguments of the model's forward, to rank on.
        confirm: the score on items that the search has not seen.
        margin: the most each score may lose; not negative.
        whole_tokens: drop tokens alone and let the content move up by as many.

    Returns:
        The smaller context (``kept`` says which head sees which of its tokens) and the record of what was done.

    Raises:
        InputError: a negative margin, no batch, or a context of one token or of several rows.

    Example:
        >>> import elicitable as el
        >>> model = el.load("toy:ascending")
        >>> prefix = el.context("prompt", model, token_ids=[7, 0, 1]).prefix(model)
        >>> smaller, done = prune(model, prefix, lambda context: 1.0, [{"input_ids": model.ids([3, 1])}])
        >>> len(done.kept), len(done.dropped), done.pairs_after
        (1, 2, 1)
    """
    model = as_model(model)
    length = prefix_length(prefix)
    wanted = [
        (margin >= 0, f"a margin of 0 or more, got {margin}"),
        (bool(batches), "at least one batch"),
        (row_count(prefix) == 1, f"a context of one row, got {row_count(prefix)}"),
        (length >= 2, f"a context of at least two tokens, got {length}: of one there is nothing to leave out"),
    ]
    if lacking := [what for is_there, what in wanted if not is_there]:
        raise InputError(f"prune needs {lacking[0]}.")
    use = pair_use(model, prefix, batches)
    there = use.isfinite()
    search = _Search(lambda kept: score(keep_pairs(prefix, kept, moves=whole_tokens)), use, there, margin)
    layer, head, token = (torch.arange(n).reshape(shape) for n, shape in zip(use.shape, _AXES, strict=True))
    search.drop_weakest((0 * layer + 0 * head + token).expand(use.shape), length)
    if not whole_tokens:
        search.drop_weakest((layer * use.shape[1] + head + 0 * token).expand(use.shape), PATIENCE)
        search.drop_weakest(torch.arange(use.numel()).reshape(use.shape), PATIENCE)
    if confirm is not None:
        search.confirm(lambda kept: confirm(keep_pairs(prefix, kept, moves=whole_tokens)))
    smaller = keep_pairs(prefix, search.kept, moves=whole_tokens)
    return smaller, _record(model, search, there)


_AXES = ((-1, 1, 1), (1, -1, 1), (1, 1, -1))


class _Search:
    """Hold the (layer, kv_head, token) pairs kept so far, and the way to fewer."""

    def __init__(self, score: Callable[[Tensor], float], use: Tensor, there: Tensor, margin: float) -> None:
        self.score, self.use, self.margin = score, use, margin
        self.path = [there]  # every choice that held, each smaller than the one before
        self.before = self.after = score(there)
        self.tried = [(int(there.sum()), self.before)]

    @property
    def kept(self) -> Tensor:
        """Return the smallest choice so far that held."""
        return self.path[-1]

    def confirm(self, score: Callable[[Tensor], float]) -> None:
        """Take steps back until ``score`` holds as well; it becomes the score that is reported."""
        self.before = self.after = score(self.path[0])
        while len(self.path) > 1:
            self.after = score(self.kept)
            if self.after >= self.before - self.margin:
                return
            self.path.pop()
        self.after = self.before

    def drop_weakest(self, label: Tensor, patience: int) -> None:
        """Drop groups of pairs that share a label, weakest first, until ``patience`` of them turn out to be needed."""
        strength = torch.zeros(int(label.max()) + 1, dtype=torch.float64)
        strength.index_add_(0, label[self.kept], self.use[self.kept])
        present = torch.zeros(len(strength), dtype=torch.bool).index_fill_(0, label[self.kept], True)
        groups = [int(i) for i in strength.argsort() if present[i]]
        for _ in range(patience):
            count = self._most_that_holds(label, groups)
            groups = groups[count + 1 :]  # the one at the border is needed
            if not groups:
                return

    def _without(self, label: Tensor, groups: Sequence[int]) -> Tensor:
        return self.kept & ~torch.isin(label, torch.tensor(groups, dtype=torch.long))

    def _most_that_holds(self, label: Tensor, groups: Sequence[int]) -> int:
        """Count how many of the weakest can go: 1, 2, 4, … while the score holds, then halving between."""
        low, high, step = 0, len(groups), 1
        while low < high:
            count = min(low + step, high)
            if self._holds(self._without(label, groups[:count])):
                low, step = count, 2 * step
            else:
                high, step = count - 1, max((count - 1 - low + 1) // 2, 1)
        return low

    def _holds(self, kept: Tensor) -> bool:
        if not bool(kept.any()):
            return False
        found = self.score(kept)
        self.tried.append((int(kept.sum()), found))
        holds = found >= self.before - self.margin
        if holds:
            self.after = found
            self.path.append(kept)
        return holds


def _record(model: Model, search: _Search, there: Tensor) -> Pruned:
    kept = search.kept
    widths = torch.tensor([[at.d_head + at.d_value] for at in model.anatomy.layers])[:, :, None]
    silent = (there.any(dim=2) & ~kept.any(dim=2)).nonzero().tolist()
    return Pruned(
        kept=tuple(kept.any(dim=(0, 1)).nonzero()[:, 0].tolist()),
        dropped=tuple((~kept.any(dim=(0, 1))).nonzero()[:, 0].tolist()),
        silent=tuple((layer, head) for layer, head in silent),
        heads=int(there.any(dim=2).sum()),
        pairs_before=int(there.sum()),
        pairs_after=int(kept.sum()),
        score_before=search.before,
        score_after=search.after,
        margin=search.margin,
        numbers_before=int((there * widths).sum()),
        numbers_after=int((kept * widths).sum()),
        tried=tuple(search.tried),
    )


@torch.no_grad()
def pair_use(model: Any, prefix: PrefixKV, batches: Sequence[dict[str, Tensor]]) -> Tensor:
    """Average A^pt_ij · ‖v_j‖ over queries and grouped heads: (layer, kv_head, prefix); −∞ where there is no key."""
    model = as_model(model)
    with watch(model, prefix, residuals=False, drift=False, spectra=False) as scope:
        for batch in batches:
            model.hf(**batch)
    widest = max(at.kv_heads for at in model.anatomy.layers)
    use = torch.full((model.anatomy.depth, widest, prefix_length(prefix)), -torch.inf, dtype=torch.float64)
    for layer, (value, at) in enumerate(zip(prefix.values, model.anatomy.layers, strict=True)):
        if value is not None:
            mass = scope.position_mass[layer, : at.heads].reshape(at.kv_heads, -1, use.shape[2]).mean(dim=1)
            use[layer, : at.kv_heads] = mass * value[0].detach().cpu().double().norm(dim=-1)
        if prefix.kept is not None and (kept := prefix.kept[layer]) is not None:
            use[layer, : at.kv_heads].masked_fill_(~kept.cpu().expand(at.kv_heads, -1), -torch.inf)
    return use


@contextmanager
def without_heads(model: Any, heads: Sequence[tuple[int, int]]) -> Iterator[None]:
    """Let the (layer, head) pairs in ``heads`` attend to the content alone inside, whatever the context."""
    model = as_model(model)
    chosen: dict[int, list[int]] = {}
    for layer, head in heads:
        chosen.setdefault(layer, []).append(head)

    def leave_out(call: Call) -> Tensor | None:
        if call.layer not in chosen or call.prefix_key is None:
            return None
        output = combine(call, slot, call.dropout).clone()
        output[:, chosen[call.layer]] = combine(call.without_context(), slot, call.dropout)[:, chosen[call.layer]]
        return output

    with installed(model) as slot, slot.watched_by(leave_out, first=True):
        yield


def ablate(
    model: Any,
    prefix: PrefixKV,
    score: Scorer,
    *,
    tokens: Sequence[tuple[int, int]] = (),
    layers: Sequence[tuple[int, int]] = (),
    heads: Sequence[tuple[int, int]] = (),
) -> tuple[Ablation, ...]:
    """Measure what the score loses without ranges of tokens or layers (first, last), and without single (layer, head).

    Example:
        >>> import elicitable as el
        >>> model = el.load("toy:ascending")
        >>> prefix = el.context("prompt", model, token_ids=[7, 0]).prefix(model)
        >>> ablate(model, prefix, lambda context: 1.0, tokens=[(0, 0)])
        (Ablation(what='token 0', score=1.0, lost=0.0),)
    """
    whole, found = score(prefix), []

    def note(what: str, value: float) -> None:
        found.append(Ablation(what, value, whole - value))

    for first, last in tokens:
        others = [i for i in range(prefix_length(prefix)) if not first <= i <= last]
        note(_range("token", first, last), score(keep_tokens(prefix, others)))
    for first, last in layers:
        note(_range("layer", first, last), score(drop_layers(prefix, range(first, last + 1))))
    for layer, head in heads:
        with without_heads(model, [(layer, head)]):
            note(f"layer {layer} head {head}", score(prefix))
    return tuple(found)


def _range(name: str, first: int, last: int) -> str:
    return f"{name} {first}" if first == last else f"{name}s {first}–{last}"
