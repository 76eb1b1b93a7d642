"""Fit the best static patch to a context, block by block, without training.

A context changes what a block writes to the residual stream at every position. With h and h′ the hidden vectors that
the down projection W reads with and without the context, and z, z′ the stream before it,

    t = W(h − h′) + (z − z′)

is what the block's output lacks without the context, and ΔW = TᵀH′(H′ᵀH′ + λI)⁻¹ gives it back as well as one matrix
can. The same is done first for attention's output projection, whose t is z − z′ alone. Blocks are patched from below:
h′ and z′ come from the model that is patched up to here, so a block also makes up for what those below it left.

Sources: arXiv 2510.08734, 2507.16003.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from elicitable.attention.float64 import doubled
from elicitable.compiling.pairs import PairBatch
from elicitable.compiling.patch import Patch
from elicitable.compiling.streams import Streams
from elicitable.errors import UnsupportedModelError
from elicitable.microscope.ridge import Moments
from elicitable.models.dispatch import check_all_here, packed_in
from elicitable.models.replay import NOT_SEEN, Replayer, Seen, Tape, replaying, seeing
from elicitable.models.sites import Site, Sites, sites_of
from elicitable.values import PrefixKV

if TYPE_CHECKING:
    from elicitable.models.model import Model


@dataclass(frozen=True)
class Fitting:
    """Say how a patch is fitted.

    Attributes:
        strength: λ over the mean diagonal of H′ᵀH′.
        rank: of every change; None is full rank.
        has_biases: fit a bias too where the module has one of its own.
        asked: how often a token at which the model is asked counts; any other counts once.
        is_forced: give every block the input that it has behind the context, not that of the model patched so far (for
            comparison).
        is_cut_late: let the blocks above see changes of full rank while they are fitted, and keep those of ``rank``
            (for comparison).
        shuffle: a seed by which the targets of a batch are dealt to other tokens: the control that must fail.
    """

    strength: float
    rank: int | None = None
    has_biases: bool = False
    asked: float = 1.0
    is_forced: bool = False
    is_cut_late: bool = False
    shuffle: int | None = None


@torch.no_grad()
def fit_patch(
    model: Model, prefix: PrefixKV, batches: Sequence[PairBatch], fitting: Fitting, sites: Sequence[Sites] | None = None
) -> Patch:
    """Fit a patch that does on ``batches`` what ``prefix`` does.

    Args:
        model: the model without the context.
        prefix: the context's keys and values.
        batches: texts as they stand behind the context and without it.
        fitting: the ridge, the rank, and whether there are biases.
        sites: those of the model, if they are known.

    Raises:
        UnsupportedModelError: the model's blocks cannot be run one at a time; or its weights are packed or offloaded,
            and a patch of full rank would be written into them.
    """
    if fitting.rank is None:
        check_all_here(model.hf, "a patch of full rank")
    if fitting.rank is None and packed_in(model.hf):
        raise UnsupportedModelError(
            f"the matrices of {model.name} are packed into few bits, to which changed weights would be rounded. "
            "Compile to lora or short-prefix, or load it without --load-in."
        )
    sites = sites_of(model) if sites is None else sites
    places = [site for block in sites for site in block.all()]
    patch = Patch(places, fitting.rank, ridge=fitting.strength)
    seen = Patch(places, None) if fitting.is_cut_late else patch
    with replaying(model) as player:
        both = [_Both.of(player, batch, prefix) for batch in batches]
        for layer, block in enumerate(sites):
            _fit_block(model, player, both, layer, block, (patch, seen), fitting)
    return patch


class _Both(Streams):
    """Hold one batch on its way up: the streams with the context and in the patched model, before the current block."""

    def shared(self, x: Tensor, like: Tensor) -> Tensor:
        """Take the tokens that both sides share: (batch, token, ·), or the same flattened, to (token, ·)."""
        rows, tokens = like.shape[:2]
        return x.reshape(rows, tokens, -1)[:, -self.batch.shared.shape[1] :][self.batch.shared]

    def counts(self, asked: float) -> Tensor:
        """Return how often each shared token counts, (token,)."""
        return 1.0 + (asked - 1.0) * doubled(self.batch.asked[self.batch.shared])


@dataclass(frozen=True, eq=False)
class _Run:
    """Hold one run of a block: its output, and what each site was given and returned."""

    output: Tensor
    attention: Seen
    down: Seen


def _run(player: Replayer, tape: Tape, layer: int, hidden: Tensor, block: Sites) -> _Run:
    seen: list[Seen] = []
    with ExitStack() as stack:
        for site in (block.attention, block.down):
            seen.append(NOT_SEEN if site is None else stack.enter_context(seeing(site.module)))
        output = player.run(tape, layer, hidden)
    return _Run(output, *seen)


def _fit_block(
    model: Model,
    player: Replayer,
    both: Sequence[_Both],
    layer: int,
    block: Sites,
    patches: tuple[Patch, Patch],
    fitting: Fitting,
) -> None:
    """Patch attention's projection, then the down projection; and move both streams on.

    ``patches`` are that which is kept and that which later fits see, most often the same.
    """
    patch, seen = patches
    taught = [_run(player, one.taught_tape, layer, one.taught, block) for one in both]
    for site in (block.attention, block.down):
        if site is None:
            continue
        outputs, inputs = site.shape
        moments = Moments(inputs, outputs, model.device)
        for nth, (one, with_context) in enumerate(zip(both, taught, strict=True)):
            with seen.weights(model):
                without = _run(player, one.read_tape, layer, one.read, block)
            pair = _lacking(one, with_context, without, block, site)
            moments.add(*_dealt(*pair, fitting.shuffle, (layer, nth)), one.counts(fitting.asked))
        has_bias = fitting.has_biases and site.module._parameters.get("bias") is not None
        patch.put(model, site, moments.ridge(fitting.strength, fitting.rank, has_bias))
        if seen is not patch:
            seen.put(model, site, moments.ridge(fitting.strength, None, has_bias))
    for one, with_context in zip(both, taught, strict=True):
        one.taught = with_context.output
        with seen.weights(model):
            one.read = player.run(one.read_tape, layer, one.read)
        if fitting.is_forced:
            own = one.batch.shared.shape[1]
            one.read[:, -own:][one.batch.shared] = one.shared(one.taught, one.taught)


def _lacking(one: _Both, taught: _Run, read: _Run, block: Sites, site: Site) -> tuple[Tensor, Tensor]:
    """What ``site`` reads in the patched model, and what its output lacks: (token, inputs), (token, outputs).

    Where a norm stands between a site and the stream, what it lacks is taken from its own output with the context.
    """
    is_down = site is block.down
    own, wanted = (run.down if is_down else run.attention for run in (read, taught))
    given = one.shared(own.input, read.output)
    if block.down is None or block.down.gain is None or site.gain is None:
        return given, one.shared(wanted.output, taught.output) - one.shared(own.output, read.output)
    behind = one.shared(taught.output, taught.output) - one.shared(read.output, read.output)
    if not is_down:  # z − z′: without what the feed-forward adds
        fed = one.shared(taught.down.output, taught.output) - one.shared(read.down.output, read.output)
        behind = behind - block.down.gain * fed
    return given, behind / site.gain


def _dealt(given: Tensor, lacking: Tensor, seed: int | None, place: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Deal the targets to other tokens, for the control; as they are without a seed."""
    if seed is None:
        return given, lacking
    from elicitable.rng import torch_generator

    order = torch.randperm(len(lacking), generator=torch_generator(seed, "control", *place))
    return given, lacking[order.to(lacking.device)]
