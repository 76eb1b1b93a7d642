"""Train everything while attention's patterns are those of the base model: does a task need new ones, and where?

Before every pass, the base weights read the same input. In each replayed layer the trained run then attends with the
queries and keys of that reference run, and carries its own values:

    o_i = Σ_j softmax_j(q⁰_i·k⁰_j · scaling + mask) v_j,

so the pattern is the base model's, number for number, by the same operation. What can no longer have an effect, the
weights of queries and keys in those layers, is not trained. With nothing trained the values are the base model's too,
and so is every bit of the output.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from elicitable.errors import InputError
from elicitable.methods import rungs
from elicitable.methods.base import Method, Schedule
from elicitable.methods.some_weights import SomeWeights, all_but, queries_and_keys
from elicitable.models.attend import Call, Slot, combine
from elicitable.models.caches import Shadow, cache_of
from elicitable.models.inject import installed
from elicitable.models.restoring import swapped

if TYPE_CHECKING:
    from elicitable.models.model import Model

_INPUTS = ("input_ids", "inputs_embeds", "attention_mask", "position_ids", "cache_position", "token_type_ids")


class ReplayedAttention(SomeWeights):
    """Copies of all weights but those of queries and keys in the ``replayed`` layers, where the base model's count."""

    def __init__(self, model: Model, kind: str, replayed: tuple[int, ...], **setting: Any) -> None:
        super().__init__(model, kind, all_but(model, queries_and_keys(model, replayed)), **setting)
        self.replayed = replayed

    @contextmanager
    def weights(self, model: Model) -> Iterator[None]:
        """Put the copies in place, and let the base model read every input first."""
        base = _Base(model)
        with ExitStack() as stack:
            slot = stack.enter_context(installed(model))
            stack.enter_context(super().weights(model))
            replay = _Replay(base, slot, frozenset(self.replayed))
            watcher = replay.see
            stack.enter_context(slot.watched_by(watcher, first=True))
            stack.enter_context(model.hf.register_forward_pre_hook(replay.read, with_kwargs=True))
            stack.callback(replay.shadow.release)
            yield


class _Base:
    """The model with the weights that it has now, whatever is in their place later."""

    def __init__(self, model: Model) -> None:
        self.hf = model.hf
        self.held = [(module._parameters, dict(module._parameters), module) for module in model.hf.modules()]
        self.classes = {module: type(module) for _, _, module in self.held}

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the model computes with those weights."""
        after = [(own, dict(own), type(module)) for own, _, module in self.held]
        try:
            for own, before, module in self.held:
                own.clear()
                own.update(before)
                module.__class__ = self.classes[module]
            yield
        finally:
            for (own, changed, kind), (_, _, module) in zip(after, self.held, strict=True):
                own.clear()
                own.update(changed)
                module.__class__ = kind


class _Replay:
    """Runs the base model before each pass, and hands its queries and keys to the pass."""

    def __init__(self, base: _Base, slot: Slot, layers: frozenset[int]) -> None:
        self.base, self.slot, self.layers, self.shadow = base, slot, layers, Shadow()
        self.seen: dict[int, tuple[Tensor, Tensor]] = {}
        self.is_reading = False

    def read(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Let the base model read what ``module`` is about to; a cache that it would begin is begun here."""
        if self.is_reading:
            return None
        inputs = inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments
        inputs = {**inputs.pop("kwargs", {}), **inputs}
        given = {name: inputs[name] for name in _INPUTS if inputs.get(name) is not None}
        cache = inputs.get("past_key_values")
        if cache is None and inputs.get("use_cache"):  # what the model makes itself could not be followed
            cache = cache_of(self.base.hf.config, ())
            kwargs = {**kwargs, "past_key_values": cache}
        if not self.shadow.knows(cache):
            raise InputError(
                "attention cannot be replayed beside a cache that was filled before: start with an empty one."
            )
        if cache is not None:
            given["past_key_values"] = self.shadow.of(cache)
        self.seen.clear()
        reading = swapped(self, is_reading=True), swapped(self.slot, watchers=[self.keep])
        with reading[0], reading[1], self.base.in_place(), torch.no_grad():
            self.base.hf(**given, use_cache=cache is not None, logits_to_keep=1)
        return args, kwargs

    def keep(self, call: Call) -> None:
        """Keep what the base model attends with."""
        self.seen[call.layer] = call.query.detach(), call.key.detach()

    def see(self, call: Call) -> Tensor | None:
        """Attend as the base model did, to the values of now."""
        if call.layer not in self.layers:
            return None
        query, key = self.seen[call.layer]
        return combine(replace(call, query=query, key=key), self.slot, call.dropout)


class FrozenAttention(Method):
    """Every weight but those of queries and keys in the replayed layers."""

    name = "frozen-attention"
    rung = rungs.CONTROL
    summary = "control: everything is trained, attention's patterns stay the base model's"
    deployment = "A control: it shows whether a task needs new attention patterns. It runs two models at once."
    turn, is_bound, has_size, keeps_state, probe = 96, False, False, False, "frozen-patterns"
    options = ("layers",)
    schedule = Schedule(learning_rates=(3e-5, 1e-4, 3e-4, 1e-3), weight_decay=0.1)

    def numbers(self, model: Model, size: int = 1) -> int:
        """Count all numbers less those of queries and keys."""
        own, left = dict(model.hf.named_parameters()), all_but(model, queries_and_keys(model))
        return sum(own[name].numel() if mask is None else int(mask.sum()) for name, mask in left.items())

    def build(
        self, model: Model, size: int = 1, seed: int = 0, layers: Sequence[int] | None = None, **options: Any
    ) -> ReplayedAttention:
        """Copies that start at the pretrained weights; ``layers`` are replayed, all by default.

        Raises:
            InputError: the model has no such layer.
        """
        depth = model.anatomy.depth
        replayed = tuple(range(depth)) if layers is None else tuple(sorted(set(layers)))
        if not replayed or not all(0 <= layer < depth for layer in replayed):
            raise InputError(f"layers: {model.name} has layers 0 to {depth - 1}, got {list(replayed)}.")
        return ReplayedAttention(model, self.name, replayed, layers=None if layers is None else list(replayed))
