"""Compress a context into a few keys and values a head that attend as it does.

What content sees of a context, in one head, is two things per query q: the log-sum-exp L(q) of its logits and the mean
o(q) of its values under their softmax. Keys K′ and values V′ that give the same two stand in for the context, whatever
the content (attention matching, arXiv 2602.16284). Blocks are matched from below: keys start at those that get the most
attention and go down the gradient; values are solved for at the end, as attention's output is linear in them.

The result stands before the content as a kv-prefix does and moves it up. On a rotary model its keys must say so too:
each starts as the k′ whose logits for the moved queries q̃ come closest to those of k for q, which is least squares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from elicitable.attention.float64 import doubled, with_float64
from elicitable.attention.odds import prefix_lse
from elicitable.attention.operands import Operands, prefix_logits, weighted
from elicitable.attention.split import attend_content, recombine, split
from elicitable.compiling.pairs import PairBatch
from elicitable.compiling.streams import Streams
from elicitable.errors import InputError
from elicitable.methods.kv_prefix import KVPrefixContext
from elicitable.models.attend import Call
from elicitable.models.prefixes import prefix_length
from elicitable.models.replay import Replayer, replaying
from elicitable.rng import generator
from elicitable.values import PrefixKV

if TYPE_CHECKING:
    import numpy as np

    from elicitable.models.model import Model

STEPS, RATE = 200, 0.02  # a block; the rate is in units of the keys' own spread
LOCAL = 0.1  # weight of matching L and o beside that of matching the head's output
RIDGE = 1e-4  # of both least squares, over the mean diagonal


def fit_short_prefix(
    model: Model, prefix: PrefixKV, batches: Sequence[PairBatch], keys: int, steps: int = STEPS, seed: int = 0
) -> KVPrefixContext:
    """Fit ``keys`` keys and values a head that do on ``batches`` what ``prefix`` does.

    Raises:
        InputError: the context has no more keys than that, or has none.
        UnsupportedModelError: the model's blocks cannot be run one at a time.
    """
    if prefix_length(prefix) <= keys:
        raise InputError(f"the context has {prefix_length(prefix)} keys a head; ask for fewer than that, not {keys}.")
    made, order = _empty(model, keys), generator(seed, "matching")
    with replaying(model) as player:
        with torch.no_grad():
            both = [_Both.of(player, batch, prefix, made.prefix(model)) for batch in batches]
        for layer in range(model.anatomy.depth):
            told = [one.lesson(player, layer) for one in both]
            key, value = _matched(model, layer, told, keys, steps, order)
            with torch.no_grad():
                made.keys[layer].copy_(key)
                made.values[layer].copy_(value)
                for one in both:
                    one.move_on(player, layer, made.prefix(model))
    return made


def _empty(model: Model, keys: int) -> KVPrefixContext:
    def zeros(heads: int, width: int) -> Tensor:
        return torch.zeros(heads, keys, width, device=model.device, dtype=model.trainable_dtype)

    layers = model.anatomy.layers
    own = [zeros(at.kv_heads, at.d_head) for at in layers], [zeros(at.kv_heads, at.d_value) for at in layers]
    return KVPrefixContext(*own, length=keys)


@dataclass(frozen=True, eq=False)
class _Lesson:
    """Hold one call of the run with the short prefix, and what it should give at its last ``rows``.

    ``logits`` (batch, head, query, prefix) are the whole context's; ``lse`` and ``mass`` (batch, head, query),
    ``inside`` and ``output`` (batch, head, query, d_value); ``content``, ``content_lse`` are the call's own.
    """

    call: Operands
    rows: slice
    where: Tensor
    logits: Tensor | None
    lse: Tensor
    mass: Tensor
    inside: Tensor
    output: Tensor
    content: Tensor
    content_lse: Tensor

    def given(self, keys: Tensor, values: Tensor) -> tuple[Operands, Tensor, Tensor]:
        """Return the call with a prefix of ``keys`` and ``values``, its L, and its softmax within the prefix."""
        batch = self.call.query.shape[0]
        key, value = (x[None].expand(batch, *x.shape).to(self.call.dtype) for x in (keys, values))
        own = replace(self.call, prefix_key=key, prefix_value=value)
        logits = prefix_logits(own, self.rows)
        lse = torch.logsumexp(logits, dim=-1)
        blind = lse.isneginf()
        share = torch.exp(logits - torch.where(blind, 0.0, lse)[..., None])
        return own, lse, share

    def loss(self, keys: Tensor, values: Tensor) -> Tensor:
        """Return how far output, L and o are from the context's: squares over those of the context's own."""
        own, lse, share = self.given(keys, values)
        assert own.prefix_value is not None
        inside = weighted(share, own.prefix_value)
        mass = torch.sigmoid(lse - self.content_lse)[..., None]
        where = self.where[:, None, :, None]
        off = (mass * inside + (1 - mass) * self.content - self.output)[where.expand_as(self.output)]
        scale = self.output[where.expand_as(self.output)].square().mean()
        weight = torch.where(self.where[:, None], self.mass, 0.0)
        seen = weight > 0
        apart = torch.where(seen, lse - torch.where(seen, self.lse, 0.0), 0.0)
        beside = ((inside - self.inside).square().mean(-1) * weight).sum() / weight.sum().clamp(min=1e-12)
        size = (self.inside.square().mean(-1) * weight).sum() / weight.sum().clamp(min=1e-12)
        local = (apart.square() * weight).sum() / weight.sum().clamp(min=1e-12) + beside / size.clamp(min=1e-12)
        return off.square().mean() / scale.clamp(min=1e-12) + LOCAL * local


class _Both(Streams):
    """Hold one batch on its way up, with the context and with the short prefix in its place."""

    @torch.no_grad()
    def lesson(self, player: Replayer, layer: int) -> _Lesson:
        """Run the block on both sides; the context's stream moves on."""
        seen: list[Operands] = []

        def see(call: Call) -> None:
            seen.append(call.detached())

        self.taught = player.run(self.taught_tape, layer, self.taught, see)
        player.run(self.read_tape, layer, self.read, see)
        taught, read = seen
        parts, tokens = split(taught), self.batch.shared.shape[1]
        content, content_lse = attend_content(read)
        logits = None if taught.prefix_key is None else prefix_logits(taught)[:, :, -tokens:]
        return _Lesson(
            call=read,
            rows=slice(read.query.shape[2] - tokens, read.query.shape[2]),
            where=self.batch.shared,
            logits=logits,
            lse=prefix_lse(taught)[:, :, -tokens:],
            mass=parts.mass[:, :, -tokens:],
            inside=parts.inside[:, :, -tokens:],
            output=recombine(parts)[:, :, -tokens:],
            content=content[:, :, -tokens:],
            content_lse=content_lse[:, :, -tokens:],
        )

    def move_on(self, player: Replayer, layer: int, short: PrefixKV) -> None:
        """Run the block again with the short prefix as it has become."""
        self.read_tape = replace(self.read_tape, prefix=short)
        self.read = player.run(self.read_tape, layer, self.read)


def _matched(
    model: Model, layer: int, lessons: Sequence[_Lesson], count: int, steps: int, order: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Return keys (kv_head, count, d_head) and values (kv_head, count, d_value) for one block."""
    facts = model.anatomy.layers[layer]
    start = _first_keys(lessons, facts.kv_heads, count)
    keys = nn.Parameter(start.to(lessons[0].call.query.device, model.trainable_dtype))
    with torch.no_grad():
        values = nn.Parameter(_solved_values(lessons, keys, facts.d_value).to(keys))
    spread = [float(x.detach().square().mean().sqrt().clamp(min=1e-6)) for x in (keys, values)]
    groups = [{"params": [x], "lr": RATE * size} for x, size in zip((keys, values), spread, strict=True)]
    optimizer = torch.optim.Adam(groups)
    with torch.enable_grad():
        for step in range(steps):
            for group, size in zip(optimizer.param_groups, spread, strict=True):
                group["lr"] = RATE * size * (1 - step / steps)
            loss = lessons[int(order.integers(len(lessons)))].loss(keys, values)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    with torch.no_grad():
        return keys.detach(), _solved_values(lessons, keys, facts.d_value)


@torch.no_grad()
def _first_keys(lessons: Sequence[_Lesson], kv_heads: int, count: int) -> Tensor:
    """Take the context's keys with the most attention, each as the k′ of least squared distance of logits over q̃."""
    width = lessons[0].call.query.shape[3]
    device = with_float64(lessons[0].call.query.device)
    gram = torch.zeros(kv_heads, width, width, dtype=torch.float64, device=device)
    cross: Tensor | None = None
    used: Tensor | None = None
    for one in lessons:
        if one.logits is None:
            continue
        asked, logits = _by_kv_head(one, kv_heads)
        share = logits.softmax(dim=-1).nan_to_num(0.0) * _by_group(one.mass, one.where, kv_heads)[..., None]
        finite = torch.where(logits.isfinite(), logits, 0.0)
        gram += asked.transpose(1, 2) @ asked
        cross = (0 if cross is None else cross) + asked.transpose(1, 2) @ finite
        used = (0 if used is None else used) + share.sum(dim=1)
    if cross is None or used is None:
        return torch.zeros(kv_heads, count, width, dtype=torch.float64, device=device)
    eye = torch.eye(width, dtype=gram.dtype, device=gram.device)
    ridge = RIDGE * gram.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None] + torch.finfo(torch.float64).tiny
    best = used.topk(count, dim=1).indices[:, None, :].expand(-1, width, -1)
    keys: Tensor = torch.linalg.solve(gram + ridge * eye, cross.gather(2, best))
    return keys.transpose(1, 2)


def _by_kv_head(one: _Lesson, kv_heads: int) -> tuple[Tensor, Tensor]:
    """q̃ · scaling (kv_head, query, d_head) and the whole context's logits (kv_head, query, prefix), in float64."""
    assert one.logits is not None
    asked = one.call.query[:, :, one.rows] * one.call.scaling
    own = one.call.prefix_bias
    logits = one.logits if own is None else one.logits - own.mean(dim=-1, keepdim=True)
    return _by_group(asked, one.where, kv_heads), _by_group(logits, one.where, kv_heads)


def _by_group(x: Tensor, where: Tensor, kv_heads: int) -> Tensor:
    """(batch, head, query, …) to (kv_head, query, …): the queries of all of a group's heads and rows, unpadded."""
    heads = x.shape[1]
    rows = doubled(x.transpose(1, 2)[where])  # (token, head, …)
    return rows.reshape(len(rows), kv_heads, heads // kv_heads, *rows.shape[2:]).transpose(0, 1).flatten(1, 2)


def _solved_values(lessons: Sequence[_Lesson], keys: Tensor, width: int) -> Tensor:
    """Solve for the values: output − (1 − α)·content = Σ_j α·share_j·v_j, ridge over all queries of a group's heads."""
    kv_heads, count = keys.shape[:2]
    device = with_float64(keys.device)
    gram = torch.zeros(kv_heads, count, count, dtype=torch.float64, device=device)
    cross = torch.zeros(kv_heads, count, width, dtype=torch.float64, device=device)
    for one in lessons:
        _, lse, share = one.given(keys, keys.new_zeros(kv_heads, count, width))
        mass = torch.sigmoid(lse - one.content_lse)[..., None]
        used = _by_group(mass * share, one.where, kv_heads)
        wanted = _by_group(one.output - (1 - mass) * one.content, one.where, kv_heads)
        gram += used.transpose(1, 2) @ used
        cross += used.transpose(1, 2) @ wanted
    ridge = RIDGE * gram.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None] + torch.finfo(torch.float64).tiny
    eye = torch.eye(count, dtype=gram.dtype, device=gram.device)
    values: Tensor = torch.linalg.solve(gram + ridge * eye, cross)
    return values
