"""Both sides of one batch on their way up, block by block: with the context, and with what takes its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from torch import Tensor

    from elicitable.compiling.pairs import PairBatch
    from elicitable.models.replay import Replayer, Tape
    from elicitable.values import PrefixKV


@dataclass(eq=False)
class Streams:
    """Hold the two streams of one batch before the current block, and the tapes that their blocks are run from.

    ``taught`` is the run with the context; ``read`` that of the patched model, or of the model behind another prefix.
    """

    batch: PairBatch
    taught_tape: Tape
    read_tape: Tape
    taught: Tensor
    read: Tensor

    @classmethod
    def of(cls, player: Replayer, batch: PairBatch, prefix: PrefixKV, instead: PrefixKV | None = None) -> Self:
        """Start both: behind ``prefix``, and behind ``instead`` or nothing."""
        taught = player.record(batch.taught.ids, batch.taught.mask, prefix)
        read = player.record(batch.read.ids, batch.read.mask, instead)
        return cls(batch, taught, read, taught.first, read.first)
