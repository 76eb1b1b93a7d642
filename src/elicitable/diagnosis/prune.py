"""Which virtual tokens, layers and heads of a context do anything: measured by leaving them out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from elicitable.errors import InputError
from elicitable.models.attend import Call, combine
from elicitable.models.inject import installed, prefix_length
from elicitable.models.model import Model, as_model
from elicitable.models.watch import watch
from elicitable.values import PrefixKV

Scorer = Callable[[PrefixKV], float]


@dataclass(frozen=True, slots=True)
class Ablation:
    """What was left out (position, layer or head), the score without it, and what that lost (negative: gained)."""

    what: str
    score: float
    lost: float


@dataclass(frozen=True, slots=True)
class Pruned:
    """What pruning kept and what it cost. ``numbers`` count keys and values of all layers; ``tried`` are
    (tokens kept, score) in the order they were measured."""

    kept: tuple[int, ...]
    dropped: tuple[int, ...]
    score_before: float
    score_after: float
    margin: float
    numbers_before: int
    numbers_after: int
    tried: tuple[tuple[int, float], ...]

    @property
    def saved(self) -> float:
        """Share of the numbers that were saved, in [0, 1)."""
        return 1 - self.numbers_after / self.numbers_before


def prune(
    model: Any,
    prefix: PrefixKV,
    score: Scorer,
    batches: Sequence[dict[str, Tensor]],
    *,
    margin: float = 0.01,
) -> tuple[PrefixKV, Pruned]:
    """Drop the context tokens that do nothing, keeping the score within ``margin``.

    Tokens are ranked by the norm of what they add to the heads' outputs, Σ A^pt_ij ‖v_j‖, over ``batches``; the
    largest number of the weakest that can be left out is found by halving, then single tokens are tried once more.
    The content keeps its distance to the context: positions and shift shrink with it.

    Args:
        model: what :func:`elicitable.load` returns, or a transformers model.
        prefix: the context's keys and values.
        score: of a context, higher is better, on the scale that ``margin`` is on (a share right, in [0, 1]).
        batches: keyword arguments of the model's forward, to rank tokens on.
        margin: the most the score may lose; not negative.

    Returns:
        The smaller context and the record of what was done.

    Raises:
        InputError: a negative margin, no batch, or a context of one token.

    Example:
        >>> import elicitable as el
        >>> model = el.load("toy:ascending")
        >>> prefix = el.context("prompt", model, token_ids=[7, 0, 1]).prefix(model)
        >>> smaller, done = prune(model, prefix, lambda context: 1.0, [{"input_ids": model.ids([3, 1])}])
        >>> len(done.kept), len(done.dropped)
        (1, 2)
    """
    model = as_model(model)
    length = prefix_length(prefix)
    if margin < 0 or not batches or length < 2:
        raise InputError(
            f"prune needs a margin of 0 or more (got {margin}), at least one batch (got {len(batches)}) and a context "
            f"of at least two tokens (got {length})."
        )
    weakest = [int(i) for i in token_use(model, prefix, batches).argsort()]
    before = score(prefix)
    tried = [(length, before)]

    def holds(dropped: Sequence[int]) -> bool:
        tried.append((length - len(dropped), score(keep_tokens(prefix, _others(length, dropped)))))
        return tried[-1][1] >= before - margin

    dropped = weakest[: _largest_that_holds(length - 1, lambda count: holds(weakest[:count]))]
    for token in weakest[len(dropped) + 1 :]:  # the one at the border has just failed
        if len(dropped) < length - 1 and holds([*dropped, token]):
            dropped.append(token)
    kept = _others(length, dropped)
    smaller = keep_tokens(prefix, kept)
    after = next(value for count, value in reversed(tried) if count == len(kept) and value >= before - margin)
    return smaller, Pruned(
        kept=tuple(kept),
        dropped=tuple(sorted(dropped)),
        score_before=before,
        score_after=after,
        margin=margin,
        numbers_before=_numbers(prefix),
        numbers_after=_numbers(smaller),
        tried=tuple(tried),
    )


def _largest_that_holds(most: int, holds: Callable[[int], bool]) -> int:
    """The largest count found by halving, 0 where none holds; assumes that fewer is easier."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if holds(middle):
            low = middle
        else:
            high = middle - 1
    return low


def _others(length: int, dropped: Sequence[int]) -> list[int]:
    return [i for i in range(length) if i not in set(dropped)]


@torch.no_grad()
def token_use(model: Model, prefix: PrefixKV, batches: Sequence[dict[str, Tensor]]) -> Tensor:
    """Mean over layers and heads of A^pt_j · ‖v_j‖, relative to each layer's largest; (prefix,) in [0, 1]."""
    with watch(model, prefix, residuals=False, drift=False, spectra=False) as scope:
        for batch in batches:
            model.hf(**batch)
    mass, uses = scope.position_mass, []
    for layer, value in enumerate(prefix.values):
        if value is None:
            continue
        norms = value.detach().double().norm(dim=-1).mean(dim=0)  # (kv_head, prefix)
        heads = model.anatomy.layers[layer].heads
        use = mass[layer, :heads] * norms.repeat_interleave(heads // norms.shape[0], dim=0).cpu()
        uses.append(use.mean(dim=0) / use.mean(dim=0).max().clamp(min=torch.finfo(torch.float64).tiny))
    return torch.stack(uses).mean(dim=0)


def keep_tokens(prefix: PrefixKV, kept: Sequence[int]) -> PrefixKV:
    """The context with the tokens ``kept`` alone, moved together."""
    index = torch.tensor(list(kept), dtype=torch.long)
    gone = prefix_length(prefix) - len(kept)

    def chosen(x: Tensor | None) -> Tensor | None:
        return None if x is None else x.index_select(2, index.to(x.device))

    return replace(
        prefix,
        keys=tuple(map(chosen, prefix.keys)),
        values=tuple(map(chosen, prefix.values)),
        positions=None if prefix.positions is None else prefix.positions[:, gone:],
        visible=None if prefix.visible is None else prefix.visible[:, index.to(prefix.visible.device)],
        shift=max(prefix.shift - gone, 0),
    )


def drop_layers(prefix: PrefixKV, layers: Sequence[int]) -> PrefixKV:
    """The context without any keys in ``layers``."""
    gone = set(layers)
    return replace(
        prefix,
        keys=tuple(None if i in gone else key for i, key in enumerate(prefix.keys)),
        values=tuple(None if i in gone else value for i, value in enumerate(prefix.values)),
    )


@contextmanager
def without_heads(model: Any, heads: Sequence[tuple[int, int]]) -> Iterator[None]:
    """Inside the ``with`` the (layer, head) pairs in ``heads`` attend to the content alone, whatever the context."""
    model = as_model(model)
    chosen: dict[int, list[int]] = {}
    for layer, head in heads:
        chosen.setdefault(layer, []).append(head)

    def leave_out(call: Call, _: Tensor | None) -> Tensor | None:
        if call.layer not in chosen or call.prefix_key is None:
            return None
        alone = replace(call, prefix_key=None, prefix_value=None, prefix_visible=None, prefix_bias=None)
        output = combine(call, slot, call.dropout).clone()
        output[:, chosen[call.layer]] = combine(alone, slot, call.dropout)[:, chosen[call.layer]]
        return output

    with installed(model) as slot:
        slot.watchers.insert(0, leave_out)  # the first watcher's output is the model's
        try:
            yield
        finally:
            slot.watchers.remove(leave_out)


def ablate(
    model: Any,
    prefix: PrefixKV,
    score: Scorer,
    *,
    tokens: Sequence[int] = (),
    layers: Sequence[tuple[int, int]] = (),
    heads: Sequence[tuple[int, int]] = (),
) -> tuple[Ablation, ...]:
    """What the score loses without single tokens, ranges of layers (first, last) and single heads (layer, head).

    Example:
        >>> import elicitable as el
        >>> model = el.load("toy:ascending")
        >>> prefix = el.context("prompt", model, token_ids=[7, 0]).prefix(model)
        >>> ablate(model, prefix, lambda context: 1.0, tokens=[0])
        (Ablation(what='token 0', score=1.0, lost=0.0),)
    """
    whole, found = score(prefix), []

    def note(what: str, value: float) -> None:
        found.append(Ablation(what, value, whole - value))

    for token in tokens:
        note(f"token {token}", score(keep_tokens(prefix, _others(prefix_length(prefix), [token]))))
    for first, last in layers:
        name = f"layer {first}" if first == last else f"layers {first}–{last}"
        note(name, score(drop_layers(prefix, range(first, last + 1))))
    for layer, head in heads:
        with without_heads(model, [(layer, head)]):
            note(f"layer {layer} head {head}", score(prefix))
    return tuple(found)


def _numbers(prefix: PrefixKV) -> int:
    return sum(x.numel() for x in (*prefix.keys, *prefix.values) if x is not None)
