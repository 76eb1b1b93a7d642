"""Ask how far one change of weights does what a context does, and check the two identities behind it.

**One token.** Given a block's input, a context is an exact change of rank 1 in each matrix of its feed-forward: with z
and z_C what a matrix W reads without and with the context, v and v_C the stream before the down projection, and m the
hidden vector once those that read z are changed,

    ΔW = W(z_C − z)zᵀ/‖z‖²  (gate, up),        ΔW_down = (v_C − v)mᵀ/‖m‖².

**Many tokens.** Each token has a change of its own. Shareability is the share of what the context changes that the
best single change gives back on texts it was not fitted to: R² = 1 − ‖T − HΔWᵀ‖²/‖T‖², for the down projection of a
block and for each head, whose output without the context is h. It says beforehand where compiling a context must lose.

Sources: arXiv 2507.16003 (one token), 2511.17864 (gated blocks), 2510.08734 (one change for many tokens).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from elicitable.attention.float64 import doubled
from elicitable.attention.odds import odds_residual
from elicitable.attention.operands import valid_queries
from elicitable.attention.split import recombine, split
from elicitable.microscope.ridge import Moments, rank_for
from elicitable.models.attend import Call
from elicitable.models.model import Model
from elicitable.models.replay import Replayer, Tape, changing, replaying, seeing
from elicitable.models.sites import Site, Sites, is_matrix, sites_of
from elicitable.values import PrefixKV

STRENGTH = 1e-2  # λ over the mean diagonal of HᵀH
ENERGY = 0.9  # the rank is how many directions hold this share of what the change writes


@dataclass(frozen=True, slots=True)
class Shared:
    """Hold one layer.

    ``shareability`` is R² of the best single change of the down projection, on texts that it was not fitted to, 1 at
    most, and ``rank`` how many directions hold 90 % of what it writes; ``heads`` the same R² for each head.
    ``token_residual`` is the largest deviation of the rank-1 identity at the last token of the first text, in the
    stream's own units; ``odds_residual`` (head) that of added odds, relative. None where the block has no such place.
    Where there was one text alone, R² is ``by_token``: it was fitted to every other token, and is measured on the rest.
    """

    layer: int
    shareability: float | None
    rank: int | None
    heads: tuple[float, ...]
    token_residual: float | None
    odds_residual: tuple[float, ...]
    by_token: bool = False


@torch.no_grad()
def shareability(
    model: Model, prefix: PrefixKV, batches: Sequence[tuple[Tensor, Tensor]], sites: Sequence[Sites] | None = None
) -> tuple[Shared, ...]:
    """Measure every layer, given the input that it has behind the context.

    Args:
        model: the model.
        prefix: the context's keys and values, one row.
        batches: ids and mask (batch, token) each, padded on the left; every other row of them all is fitted to, the
            rest measured. Of a single row it is every other token.
        sites: those of the model, if they are known.

    Raises:
        UnsupportedModelError: the model's blocks cannot be run one at a time.
    """
    sites = sites_of(model) if sites is None else sites
    fitted = _fitted([mask for _, mask in batches])
    by_token = sum(len(mask) for _, mask in batches) == 1
    found = []
    with replaying(model) as player:
        both = [(player.record(*batch, prefix), player.record(*batch), batch[1].bool()) for batch in batches]
        hidden = [with_context.first for with_context, _, _ in both]
        for layer, block in enumerate(sites):
            looked = _Layer(model, player, layer, block.down)
            for nth, (with_context, without, mask) in enumerate(both):
                residual = (
                    None if nth else token_residual(model, player, with_context, without, layer, hidden[0], block)
                )
                looked.token = residual if not nth else looked.token
                hidden[nth] = looked.add(with_context, without, (mask & fitted[nth], mask & ~fitted[nth]), hidden[nth])
            found.append(looked.facts(by_token))
    return tuple(found)


class _Layer:
    """Sum up one layer: two sets of moments each, of tokens that are fitted to and of the others."""

    def __init__(self, model: Model, player: Replayer, layer: int, down: Site | None) -> None:
        facts, device = model.anatomy.layers[layer], model.device
        self.player, self.layer = player, layer
        self.down = down if down is not None and down.gain is not None else None
        shape = self.down.shape if self.down is not None else (1, 1)
        self.block = [Moments(shape[1], shape[0], device) for _ in range(2)]
        self.heads = [[Moments(facts.d_value, facts.d_value, device) for _ in range(2)] for _ in range(facts.heads)]
        self.odds = torch.zeros(facts.heads, dtype=torch.float64)
        self.token: float | None = None

    def add(self, with_context: Tape, without: Tape, halves: tuple[Tensor, Tensor], hidden: Tensor) -> Tensor:
        """Take in one batch; return the block's output behind the context, which the next block reads."""

        def see(call: Call) -> None:
            self._add_heads(call, halves)

        output = self.player.run(with_context, self.layer, hidden, see)
        if self.down is not None and self.down.gain is not None:
            with seeing(self.down.module) as seen:
                plain = self.player.run(without, self.layer, hidden)
            read = seen.input.reshape(*hidden.shape[:2], -1)
            lacking = (output - plain) / self.down.gain
            for where, moments in zip(halves, self.block, strict=True):
                moments.add(read[where], lacking[where])
        return output

    def _add_heads(self, call: Call, halves: tuple[Tensor, Tensor]) -> None:
        operands = call.detached()
        parts = split(operands)
        moved = recombine(parts) - parts.content
        self.odds = torch.maximum(self.odds, odds_residual(operands).cpu().double())
        valid = valid_queries(operands)
        for half, tokens in enumerate(halves):
            where = valid & tokens
            for head, moments in enumerate(self.heads):
                moments[half].add(parts.content[:, head][where], moved[:, head][where])

    def facts(self, by_token: bool) -> Shared:
        """Return what was found."""
        shared, rank = None, None
        if self.down is not None:
            change = self.block[0].ridge(STRENGTH)
            shared, rank = 1 - self.block[1].unexplained(change), rank_for(self.block[0].spectrum(change), ENERGY)
        heads = [1 - other.unexplained(fitted.ridge(STRENGTH, has_bias=True)) for fitted, other in self.heads]
        return Shared(self.layer, shared, rank, tuple(heads), self.token, tuple(self.odds.tolist()), by_token)


def _fitted(masks: Sequence[Tensor]) -> list[Tensor]:
    """Return what is fitted to, bool for each of ``masks``: every other row of them all; of one row, every other token.

    >>> [one.tolist() for one in _fitted([torch.ones(1, 2), torch.ones(2, 2)])]
    [[[True, True]], [[False, False], [True, True]]]
    """
    rows = torch.arange(sum(map(len, masks))) % 2 == 0
    if len(rows) == 1:
        return [(torch.arange(mask.shape[1], device=mask.device) % 2 == 0)[None] for mask in masks]
    parts = rows.split([len(mask) for mask in masks])
    return [part[:, None].to(mask.device).expand(mask.shape) for part, mask in zip(parts, masks, strict=True)]


@torch.no_grad()
def token_residual(
    model: Model, player: Replayer, with_context: Tape, without: Tape, layer: int, hidden: Tensor, block: Sites
) -> float | None:
    """Install the rank-1 changes of the first row's last token and hold that token's output against the context's.

    Returns:
        The largest deviation of the block's output; None where a norm or a choice of experts stands between.
    """
    down = block.down
    if down is None or down.gain is None:
        return None
    reading = _reading(model, player, without, layer, hidden, down.module)
    seen_with, wanted = _seen(player, with_context, layer, hidden, [*reading, down.module])
    seen_without, plain = _seen(player, without, layer, hidden, [*reading, down.module])
    with ExitStack() as stack:
        for module, one, other in zip(reading, seen_with, seen_without, strict=False):
            # W(z_C − z), with the module's own bias taken off
            moved = module(one[0][None]) - module(other[0][None])
            stack.enter_context(changing(module, _rank_one(moved[0], other[0])))
        hidden_now, _ = _seen(player, without, layer, hidden, [down.module])
        stream = (wanted - down.gain * seen_with[-1][1]) - (plain - down.gain * seen_without[-1][1])
        stack.enter_context(changing(down.module, _rank_one(stream / down.gain, hidden_now[0][0])))
        patched = player.run(without, layer, hidden)[0, -1]
    return float((patched - wanted).abs().max())


def _rank_one(moved: Tensor, read: Tensor) -> Any:
    """Make the change of a module's output by ΔW = moved · readᵀ/‖read‖²."""
    direction = read / doubled(read).square().sum().to(read)

    def change(x: Tensor, output: Tensor) -> Tensor:
        return output + (x @ direction)[..., None] * moved

    return change


def _seen(
    player: Replayer, tape: Tape, layer: int, hidden: Tensor, modules: Sequence[nn.Module]
) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
    """Run a block; what each module read and wrote at the first row's last token, and the block's output there."""
    rows, tokens = hidden.shape[:2]
    with ExitStack() as stack:
        seen = [stack.enter_context(seeing(module)) for module in modules]
        output = player.run(tape, layer, hidden)
    at = [(one.input.reshape(rows, tokens, -1)[0, -1], one.output.reshape(rows, tokens, -1)[0, -1]) for one in seen]
    return at, output[0, -1]


def _reading(
    model: Model, player: Replayer, tape: Tape, layer: int, hidden: Tensor, down: nn.Module
) -> list[nn.Module]:
    """Return the matrices outside attention that read d_model numbers a token before the down projection runs."""
    inside = set(map(id, model.anatomy.attentions[layer].modules()))
    found: list[nn.Module] = []

    def note(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if down not in found and (module is down or args[0].shape[-1] == hidden.shape[-1]):
            found.append(module)

    with ExitStack() as stack:
        for module in model.anatomy.blocks[layer].modules():
            if is_matrix(module) and id(module) not in inside:
                stack.enter_context(module.register_forward_hook(note))
        player.run(tape, layer, hidden)
    return [module for module in found if module is not down]
