"""Run a model's decoder blocks one at a time, with a context or without, on hidden states that anybody gives.

One forward pass records what each block was given beside its hidden states (masks, positions, rotary angles). After
that a block can be run again from any input, as often as one likes, without the blocks below it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from elicitable.errors import UnsupportedModelError
from elicitable.models.attend import Slot, Watcher
from elicitable.models.inject import installed
from elicitable.models.model import Model
from elicitable.models.restoring import evaluating, swapped
from elicitable.values import PrefixKV


@dataclass(frozen=True, eq=False)
class Tape:
    """Hold what the blocks were given on one batch: ``first`` is the first block's input, (batch, token, d_model).

    ``given[layer]`` are the other arguments by place and by name; ``prefix`` is the context that was in place.
    """

    first: Tensor
    given: tuple[tuple[tuple[Any, ...], Mapping[str, Any]], ...]
    prefix: PrefixKV | None
    query_positions: Tensor | None


class Replayer:
    """Record tapes and run single blocks on them; made by :func:`replaying`."""

    def __init__(self, model: Model, slot: Slot) -> None:
        self.model, self.slot = model, slot

    @contextmanager
    def _alone(self, prefix: PrefixKV | None, watchers: list[Watcher], **more: Any) -> Iterator[None]:
        own = {"prefix": prefix, "strength": 1.0, "watchers": watchers, "capture": None, **more}
        with swapped(self.slot, **own):
            yield

    def record(self, ids: Tensor, mask: Tensor, prefix: PrefixKV | None = None) -> Tape:
        """Run ``ids`` (batch, token), padded on the left where ``mask`` is 0, behind ``prefix`` and keep the tape.

        Raises:
            UnsupportedModelError: something other than the blocks changes the residual stream between them.
        """
        chain = _Chain(type(self.model.hf).__name__)
        with ExitStack() as stack:
            stack.enter_context(self._alone(prefix, []))
            for block in self.model.anatomy.blocks:
                stack.enter_context(block.register_forward_pre_hook(chain.before, with_kwargs=True))
                stack.enter_context(block.register_forward_hook(chain.after))
            self.model.hf(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=1)
            positions = self.slot.query_positions
        assert chain.first is not None
        return Tape(chain.first, tuple(chain.given), prefix, positions)

    def run(self, tape: Tape, layer: int, hidden: Tensor, watcher: Watcher | None = None) -> Tensor:
        """Run block ``layer`` from ``hidden`` (batch, token, d_model); its output, of the same shape.

        ``watcher`` sees the block's attention call.
        """
        args, kwargs = tape.given[layer]
        watchers = [] if watcher is None else [watcher]
        with self._alone(tape.prefix, watchers, query_positions=tape.query_positions, key_count=None):
            if "hidden_states" in kwargs:
                return _stream(self.model.anatomy.blocks[layer](**{**kwargs, "hidden_states": hidden}))
            return _stream(self.model.anatomy.blocks[layer](hidden, *args, **kwargs))


@contextmanager
def replaying(model: Model) -> Iterator[Replayer]:
    """Let blocks be run one at a time inside the ``with``, in evaluation mode."""
    with evaluating(model.hf), installed(model) as slot:
        yield Replayer(model, slot)


class _Chain:
    """Check that every block is given what the one below it returned, and keep the rest of what it is given."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.first: Tensor | None = None
        self.given: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self.last: Tensor | None = None

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        check_stream(self.name, hidden)
        if self.last is not None and (hidden.shape != self.last.shape or not torch.equal(hidden, self.last)):
            raise UnsupportedModelError(
                f"{self.name} changes its residual stream between its blocks (at block {len(self.given)}), so one "
                "block cannot be run without the others."
            )
        self.first = hidden if self.first is None else self.first
        self.given.append(((), dict(kwargs)) if "hidden_states" in kwargs else (tuple(args[1:]), dict(kwargs)))

    def after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self.last = _stream(output)


def check_stream(name: str, hidden: Tensor) -> None:
    """Raise UnsupportedModelError where ``hidden``, which a block is given, is not (batch, token, d_model)."""
    if hidden.ndim != 3:
        raise UnsupportedModelError(
            f"{name} gives its blocks several residual streams at once, {tuple(hidden.shape)} and not (batch, token, "
            "d_model), so a block cannot be given vectors of its own, nor be run without the others."
        )


def _stream(output: Any) -> Tensor:
    """Take the residual stream from what a block returns: a tensor, or a tuple that begins with it."""
    stream: Tensor = output[0] if isinstance(output, tuple | list) else output
    return stream


@contextmanager
def changing(module: nn.Module, change: Callable[[Tensor, Tensor], Tensor]) -> Iterator[None]:
    """Put ``change(input, output)`` in the place of ``module``'s output inside the ``with``."""

    def hook(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        return change(args[0], output)

    with module.register_forward_hook(hook):
        yield


@dataclass(eq=False)
class Seen:
    """Hold the last input and output of a module, each (batch, token, width)."""

    input: Tensor
    output: Tensor


NOT_SEEN = Seen(torch.empty(0), torch.empty(0))


@contextmanager
def seeing(module: nn.Module) -> Iterator[Seen]:
    """Keep what ``module`` is given and what it returns inside the ``with``, of its last call."""
    seen = Seen(NOT_SEEN.input, NOT_SEEN.output)

    def hook(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        seen.input, seen.output = args[0], output

    with module.register_forward_hook(hook):
        yield seen
