"""No work for outputs that nobody reads: the last layer's feed-forward runs where its output is read, and no further.

A feed-forward block maps every position by itself, and above the last one nothing looks at another position. Where
only the logits of the last ``k`` positions are asked for, the others' feed-forward is left out, exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from elicitable.models.model import Model
from elicitable.models.speed.frozen_decoder import FrozenDecoder


@contextmanager
def reading_last(model: Model, positions: int) -> Iterator[None]:
    """Inside, the last layer's feed-forward computes the last ``positions`` tokens of every row, where it can.

    Logits of those positions are the same; elsewhere hidden states above the last layer are zeros, or left out. A
    model whose last block has no feed-forward of its own under the name ``mlp`` computes everything, as ever.
    """
    decoder = model.anatomy.decoder.forward
    if isinstance(decoder, FrozenDecoder) and decoder.last is not None:
        with decoder.reading(positions):
            yield
        return
    mlp = _own_mlp(model)
    if mlp is None:
        yield
        return
    cut = _Cut(positions)
    hooks = mlp.register_forward_pre_hook(cut.before), mlp.register_forward_hook(cut.after)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Cut:
    """What the two hooks of one module share: how many positions were cut off its input."""

    def __init__(self, positions: int) -> None:
        self.positions, self.left_out = positions, 0

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden, self.left_out = args[0] if args else None, 0
        if not isinstance(hidden, Tensor) or hidden.ndim != 3 or len(args) > 1:
            return args
        self.left_out = max(0, hidden.shape[1] - self.positions)
        return (hidden[:, self.left_out :].contiguous(),)

    def after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if not self.left_out:
            return output
        if isinstance(output, tuple):
            return (nn.functional.pad(output[0], (0, 0, self.left_out, 0)), *output[1:])
        return nn.functional.pad(output, (0, 0, self.left_out, 0))


def _own_mlp(model: Model) -> nn.Module | None:
    *others, last = model.anatomy.blocks
    mlp = getattr(last, "mlp", None)
    is_shared = any(getattr(block, "mlp", None) is mlp for block in others)
    return mlp if isinstance(mlp, nn.Module) and not is_shared else None
