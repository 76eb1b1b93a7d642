"""Find the two places at which a decoder block writes to its residual stream, by running it.

They are the attention's output projection and the feed-forward's down projection. A block's output moves by gain · δ
when the output of such a module moves by δ: gain is 1 in most models and a constant of the configuration in some
(Granite, MiniCPM). Where a norm stands between the module and the stream (Gemma 2, OLMo 2) there is no such constant.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from elicitable.attention.float64 import doubled
from elicitable.models.dispatch import ends_of
from elicitable.models.model import Model
from elicitable.models.projections import output_projections
from elicitable.models.replay import Replayer, Tape, changing, replaying

CONSTANT = 1e-2  # a gain is called constant if what it does not explain is less than that; 16-bit types keep 2 digits


@dataclass(frozen=True, eq=False)
class Site:
    """Name one module that writes to the residual stream.

    ``gain``: the block's output moves by gain · δ when the module's moves by δ; None where that is no constant.
    """

    name: str
    module: nn.Module
    gain: float | None

    @property
    def shape(self) -> tuple[int, int]:
        """Return (outputs, inputs)."""
        inputs, outputs = ends_of(self.module)
        return outputs, inputs


@dataclass(frozen=True, eq=False)
class Sites:
    """Hold one block's two sites; None where there is no such module (a mixture of experts has many)."""

    attention: Site | None
    down: Site | None

    def all(self) -> tuple[Site, ...]:
        """Return those that there are."""
        return tuple(site for site in (self.attention, self.down) if site is not None)


@torch.no_grad()
def sites_of(model: Model) -> tuple[Sites, ...]:
    """Find the sites of every block by running five tokens."""
    ids = torch.arange(5, device=model.device)[None] % model.anatomy.vocab
    names = {id(module): name for name, module in model.hf.named_modules()}
    projections = output_projections(model)
    found = []
    with replaying(model) as player:
        tape = player.record(ids, torch.ones_like(ids))
        hidden = tape.first
        for layer, projection in enumerate(projections):
            down = _down_projection(model, player, tape, layer, hidden)
            found.append(_measured(player, tape, layer, hidden, projection, down, names))
            hidden = player.run(tape, layer, hidden)
    return tuple(found)


def _down_projection(model: Model, player: Replayer, tape: Tape, layer: int, hidden: Tensor) -> nn.Module | None:
    """Return the last matrix outside attention that is run once, on every token, and gives d_model numbers for each."""
    block, attention = model.anatomy.blocks[layer], model.anatomy.attentions[layer]
    inside = set(map(id, attention.modules()))
    calls: list[tuple[nn.Module, Any]] = []

    def note(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        calls.append((module, output))

    with ExitStack() as stack:
        for module in block.modules():
            if id(module) not in inside and is_matrix(module):
                stack.enter_context(module.register_forward_hook(note))
        player.run(tape, layer, hidden)
    counts = [sum(other is module for other, _ in calls) for module, _ in calls]
    fitting = [m for (m, out), n in zip(calls, counts, strict=True) if n == 1 and _is_like(out, hidden)]
    return fitting[-1] if fitting else None


def _is_like(output: Any, hidden: Tensor) -> bool:
    """Say whether a module gave d_model numbers for every token, whether or not it keeps rows and tokens apart."""
    same_width = isinstance(output, Tensor) and output.shape[-1] == hidden.shape[-1]
    return same_width and output.numel() == hidden.numel()


def is_matrix(module: nn.Module) -> bool:
    """Say whether a module multiplies by a matrix, packed or not: torch's Linear, or GPT-2's Conv1D."""
    if not (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"):
        return False
    weight = module._parameters.get("weight")
    return weight is not None and weight.ndim == 2


def _measured(
    player: Replayer,
    tape: Tape,
    layer: int,
    hidden: Tensor,
    projection: nn.Module | None,
    down: nn.Module | None,
    names: dict[int, str],
) -> Sites:
    """Measure both gains; attention's with the feed-forward's output at zero, as what it reads would change as well."""
    generator = torch.Generator().manual_seed(0)
    scale = hidden.float().pow(2).mean().sqrt()
    delta = (torch.randn(hidden.shape, generator=generator).to(hidden.device) * scale).to(hidden.dtype)

    def gain(module: nn.Module, silent: nn.Module | None) -> float | None:
        with ExitStack() as stack:
            if silent is not None:
                stack.enter_context(changing(silent, lambda _, output: torch.zeros_like(output)))
            before = player.run(tape, layer, hidden)
            stack.enter_context(changing(module, lambda _, output: output + delta.view_as(output)))
            return _constant(player.run(tape, layer, hidden) - before, delta)

    at_down = None if down is None else Site(names[id(down)], down, gain(down, None))
    if projection is None or not is_matrix(projection):
        return Sites(None, at_down)
    own = gain(projection, down) if down is not None else None
    return Sites(Site(names[id(projection)], projection, own), at_down)


def _constant(moved: Tensor, delta: Tensor) -> float | None:
    """Return c where ``moved`` is c · ``delta``, to :data:`CONSTANT` of its length; None where it is not."""
    moved, delta = doubled(moved), doubled(delta)
    c = float((moved * delta).sum() / (delta * delta).sum())
    off = float((moved - c * delta).norm())
    if off > CONSTANT * abs(c) * float(delta.norm()):
        return None
    return 1.0 if abs(c - 1) < 1e-3 else c
