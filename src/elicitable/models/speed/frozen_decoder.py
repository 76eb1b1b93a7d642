"""The toys' decoder around its frozen blocks: the same bits, without what its arguments leave out.

Below the first block a token at a position is always the same, so where there are few of both, the residuals and the
first block's queries, keys and values are looked up. Above the last block nothing is computed where nobody reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from elicitable.models.model import Model
from elicitable.models.restoring import swapped
from elicitable.models.speed.checkpointing import is_checkpointed
from elicitable.models.speed.frozen import FrozenBlock, is_frozen_block
from elicitable.models.speed.frozen_parts import kept_of

LARGEST_TABLE = 4096  # rows: tokens times positions
_PLAIN = {"position_ids", "attention_mask", "use_cache"}  # what may be given


@contextmanager
def frozen_blocks(model: Model, dtype: torch.dtype) -> Iterator[None]:
    """Inside, GPT-2 blocks with a ReLU and no weight that is trained compute as :class:`FrozenBlock` does.

    The decoder around them computes as :class:`FrozenDecoder` does. For a float32 model on a CPU; elsewhere nothing
    changes. ``dtype`` is the type of its products: bfloat16 under autocast, float32 without. Results and gradients are
    those of the plain blocks, bit for bit but where float32 is laid out (:func:`processor.lays_out`). Weights that
    change meanwhile are not seen.
    """
    with ExitStack() as stack:
        if model.device.type == "cpu" and model.dtype == torch.float32:
            decoder, blocks = model.anatomy.decoder, model.anatomy.blocks
            frozen = [block for block in blocks if is_frozen_block(block) and not is_checkpointed(block)]
            kept, make = kept_of(model), _maker(dtype)
            put_together = [(block, kept.made(make, block)) for block in frozen]
            for block, forward in put_together:
                stack.enter_context(swapped(block, forward=forward))
            if put_together and type(decoder).__name__ == "GPT2Model" and "forward" not in vars(decoder):
                stack.enter_context(swapped(decoder, forward=FrozenDecoder(decoder, blocks)))
        yield


class FrozenDecoder:
    """Stands in for the forward of a GPT-2 decoder some of whose blocks are frozen.

    Where anything asks for more than the last residuals of token ids at positions (a cache, embeddings that are given,
    token types, residuals of every layer), the decoder's own forward runs.
    """

    def __init__(self, decoder: Any, blocks: Sequence[nn.Module]) -> None:
        self.decoder, self.blocks = decoder, blocks
        self.first, self.last = (_put_together(blocks[place]) for place in (0, -1))
        self.read: int | None = None

    @contextmanager
    def reading(self, positions: int) -> Iterator[None]:
        """Inside, only residuals of the last ``positions`` are asked for, and no others need be returned."""
        before, self.read = self.read, positions
        try:
            yield
        finally:
            self.read = before

    def __call__(self, input_ids: Tensor | None = None, *others: Any, **given: Any) -> Any:
        """(batch, token) ids to residuals (batch, token, d_model), or to those that are read."""
        positions, mask = given.get("position_ids"), given.get("attention_mask")
        if input_ids is None or input_ids.ndim != 2 or positions is None or others or self._is_more_asked(given):
            with self._reading_last(pads=True):
                return type(self.decoder).forward(self.decoder, input_ids, *others, **given)
        hidden = self._embedded(input_ids, positions)
        seen = self._mask(hidden, mask, positions)
        for block in self.blocks[:-1]:
            hidden = block(hidden, None, seen, None, use_cache=False, position_ids=positions)
        with self._reading_last(pads=self._is_more_read()):
            hidden = self.blocks[-1](hidden, None, seen, None, use_cache=False, position_ids=positions)
        hidden = self.decoder.ln_f(hidden)
        if hidden.shape[1] < input_ids.shape[1]:
            hidden = _Spaced.apply(hidden, input_ids.shape[1])
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=hidden)

    def _is_more_asked(self, given: dict[str, Any]) -> bool:
        decoder, config = self.decoder, self.decoder.config
        return (
            given.get("use_cache") is not False
            or (given.get("attention_mask") is not None and given["attention_mask"].ndim != 2)
            or any(value is not None for name, value in given.items() if name not in _PLAIN)
            or decoder.training
            or config.output_attentions
            or config.output_hidden_states
            or not hasattr(decoder.h[0].attn, "_elicitable_seat")
        )

    def _embedded(self, ids: Tensor, positions: Tensor) -> Tensor:
        decoder, vocabulary = self.decoder, self.decoder.wte.num_embeddings
        if not self._is_in_table(ids, positions):
            summed: Tensor = decoder.drop(decoder.wte(ids) + decoder.wpe(positions))
            return summed
        rows = positions * vocabulary + ids
        hidden = nn.functional.embedding(rows, self._sums)
        if self.first is not None and self.first.joined.keeps_bits(len(self._sums), rows.numel()):
            heads = torch.arange(3 * self.first.heads, device=rows.device).view(3, 1, -1, 1)
            places = rows[:, None] * heads.numel() + heads  # (3, batch, head, token)
            self.first.known = hidden, [nn.functional.embedding(part, self._projected) for part in places]
        return hidden

    def _is_in_table(self, ids: Tensor, positions: Tensor) -> bool:
        tables = self.decoder.wte, self.decoder.wpe
        return (
            tables[0].num_embeddings * tables[1].num_embeddings <= LARGEST_TABLE
            and not any(table.weight.requires_grad for table in tables)
            and not any(part._forward_hooks or part._forward_pre_hooks for part in (*tables, self.decoder.drop))
            and all(_are_within(x, table) for x, table in zip((ids, positions), tables, strict=True))
        )

    @cached_property
    def _sums(self) -> Tensor:
        """(position · token, d_model) residuals below the first block."""
        tokens, positions = (table.weight.detach() for table in (self.decoder.wte, self.decoder.wpe))
        sums: Tensor = tokens[None] + positions[:, None]
        return sums.flatten(0, 1)

    @cached_property
    @torch.no_grad()
    def _projected(self) -> Tensor:
        """(position · token · 3·head, d_head) queries, keys and values of the first block."""
        assert self.first is not None
        normed, _, _ = self.first.norm_1(self._sums)
        projected = torch.cat(tuple(self.first.project(normed[None])), dim=-1)
        return projected.view(len(self._sums) * 3 * self.first.heads, -1)

    def _mask(self, hidden: Tensor, mask: Tensor | None, positions: Tensor) -> Tensor | None:
        """What the decoder makes of a mask of (batch, token); None is causal."""
        if mask is None and bool((positions.diff() == 1).all()):  # else positions tell packed rows apart
            return None
        made: Tensor | None = create_causal_mask(
            config=self.decoder.config,
            inputs_embeds=hidden,
            attention_mask=mask,
            past_key_values=None,
            position_ids=positions,
        )
        return made

    def _reading_last(self, pads: bool) -> AbstractContextManager[None]:
        """Let the last block leave out what is not read."""
        return nullcontext() if self.last is None else self.last.reading(self.read, pads)

    def _is_more_read(self) -> bool:
        """Whether anything but a frozen norm without hooks stands above the last block."""
        norm = self.decoder.ln_f
        return (
            not isinstance(norm, nn.LayerNorm)
            or any(part._forward_hooks or part._forward_pre_hooks for part in (self.blocks[-1], norm))
            or any(weight.requires_grad for weight in norm.parameters())
        )


class _Spaced(torch.autograd.Function):
    """The last tokens of rows, apart in memory as those of whole rows are: products of them are the very same calls."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, tokens: int) -> Tensor:
        whole = hidden.new_empty(hidden.shape[0], tokens, hidden.shape[2])
        return whole[:, tokens - hidden.shape[1] :].copy_(hidden)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


@cache
def _maker(dtype: torch.dtype) -> Callable[[nn.Module], FrozenBlock]:
    """Return what makes a frozen block in ``dtype``: the same function every time, by which the blocks are kept."""
    return lambda block: FrozenBlock(block, dtype)


def _put_together(block: nn.Module) -> FrozenBlock | None:
    forward = vars(block).get("forward")
    return forward if isinstance(forward, FrozenBlock) else None


def _are_within(ids: Tensor, table: nn.Embedding) -> bool:
    least, most = ids.aminmax()
    return int(least) >= 0 and int(most) < table.num_embeddings
