"""See what a context does while a model runs, exactly.

A model's attention offers every call as the operands of section 4, and the attention room turns them into numbers.
Three runs are compared, layer by layer:

* the *watched* run, with the context, as the user calls it;
* the *reference* of each layer: the same decoder layer run again from the same input at the same positions, without
  the context (and, where an adaptation changes weights, with the base model's). The identities of section 4 are
  statements about these two;
* the *plain* run: the whole model without the context. How far its content attention is away is the drift.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from elicitable.attention.crossing import drift as drift_between
from elicitable.attention.crossing import first_key
from elicitable.attention.operands import Operands
from elicitable.attention.residuals import residuals as residuals_between
from elicitable.attention.split import recombine, split
from elicitable.errors import InputError
from elicitable.microscope.scope import Scope
from elicitable.models.attend import Call, Slot, Watcher, combine
from elicitable.models.caches import Shadow, cache_of, with_replay
from elicitable.models.inject import Adaptation, installed, use
from elicitable.models.model import Model, as_model
from elicitable.models.restoring import evaluating, swapped
from elicitable.values import PrefixKV


@contextmanager
def watch(
    model: Any,
    context: Adaptation | PrefixKV | Sequence[Adaptation | PrefixKV] | None = None,
    *,
    strength: float = 1.0,
    residuals: bool = True,
    drift: bool = True,
    spectra: bool = True,
    reference: Any = None,
    keep: Sequence[int] = (),
) -> Iterator[Scope]:
    """Put ``context`` into ``model`` and measure what it does in every call and ``generate`` inside the ``with``.

    No query × key matrix is ever stored: statistics add up over calls, computed for a block of queries at a time. Of
    each query the prefix mass is kept, a number a head, so memory grows with what is run.
    The prefix mass alone costs little more than the forward pass. ``residuals`` run each layer's projections a second
    time, ``drift`` the whole model, so both may be left out.

    Args:
        model: what :func:`elicitable.load` returns, or a transformers model.
        context: as :func:`elicitable.use` takes it; None observes the model as it is (also inside ``use``).
        strength: the dial g, as in ``use``.
        residuals: measure the deviation from both identities of section 4.
        drift: measure how content attention moves through depth, against a run without the context.
        spectra: accumulate the second moments that the bias subspace is read from.
        reference: the model to hold the run against. By default ``model`` without the context; where an adaptation
            changes weights, a copy of the base model, made before they are installed. It must have the layers of
            ``model``.
        keep: layers whose raw queries, keys and values are kept, in ``scope.raw[layer]``.

    Yields:
        A :class:`~elicitable.microscope.scope.Scope`; it can be read inside the ``with`` and after it.

    Raises:
        InputError: the context does not fit, or the reference has another depth.

    Source: sections 4 and 6 of the paper.

    Example:
        >>> import elicitable as el
        >>> model = el.load("toy:ascending")
        >>> context = el.context("prompt", model, token_ids=[7, 0])
        >>> with el.watch(model, context) as scope:
        ...     _ = model(input_ids=model.ids([3, 1, 2]))
        >>> bool(scope.attention_residual.max() < 1e-5)
        True
    """
    model = as_model(model)
    parts = _parts(context)
    for layer in keep:
        if not 0 <= layer < model.anatomy.depth:
            raise InputError(f"keep: {model.name} has layers 0 to {model.anatomy.depth - 1}, got {layer}.")
    with ExitStack() as stack:
        needs_base = residuals or drift
        base = as_model(reference) if reference is not None else _base(model, parts) if needs_base else model
        if base.anatomy.depth != model.anatomy.depth:
            raise InputError(f"the reference has {base.anatomy.depth} layers, {model.name} {model.anatomy.depth}.")
        slot = stack.enter_context(installed(model))
        base_slot = slot if base is model else stack.enter_context(installed(base))
        if parts:
            stack.enter_context(use(model, parts, strength))
        scope = Scope(model.anatomy.depth, keep, spectra)
        observer = _Observer(scope, model, slot, _Reference(base, base_slot), residuals, drift)
        stack.enter_context(observer.attached())
        yield scope


def _parts(context: Any) -> list[Any]:
    if context is None:
        return []
    return list(context) if isinstance(context, list | tuple) else [context]


def _base(model: Model, parts: Sequence[Any]) -> Model:
    """Return ``model`` itself, or a copy of it where installing ``parts`` changes more than the context."""
    if not changes_weights(model, parts):
        return model
    if "_elicitable_seat" in model.anatomy.attentions[0].__dict__:
        raise InputError(
            "watching changed weights inside another `use` or `watch`: give the base model as reference=…, or leave "
            "the outer `with`."
        )
    hf = copy.deepcopy(model.hf)
    hf.__dict__.pop("_elicitable_model", None)
    return Model(hf, model.tokenizer, f"{model.name} (base)")


def changes_weights(model: Model, parts: Sequence[Any]) -> bool:
    """Say whether installing ``parts`` changes more than the context."""
    before = _weights_seen(model)
    with ExitStack() as stack:
        for part in parts:
            if not isinstance(part, PrefixKV):
                stack.enter_context(part.weights(model))
        return _weights_seen(model) != before


def _weights_seen(model: Model) -> list[Any]:
    """Return the names, identities and versions of all weights, and the hooks around them."""
    weights = [(name, id(p), p.data_ptr(), p._version) for name, p in model.hf.named_parameters()]
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + ("forward" in vars(m)) for m in model.hf.modules())
    return [weights, hooks]


class _Seen(Exception):
    """End a layer's rerun once its attention was reached; caught right outside it, so it is not an error."""


class _Reference:
    """Hold the model that a watched run is held against, and the two ways to run it."""

    def __init__(self, base: Model, slot: Slot) -> None:
        self.base, self.slot, self.shadow = base, slot, Shadow()

    @contextmanager
    def _alone(self, watcher: Watcher, shift: int) -> Iterator[None]:
        """Run without the context and without other watchers; the content stays at its positions."""
        nothing = (None,) * self.base.anatomy.depth
        prefix = PrefixKV(nothing, nothing, shift=shift) if shift else None
        counted = {"query_positions": self.slot.query_positions, "key_count": self.slot.key_count}
        alone = swapped(self.slot, watchers=[watcher], prefix=prefix, strength=1.0, capture=None, **counted)
        with alone, torch.no_grad():
            yield

    def run_layer(self, layer: int, watched: Operands, args: Any, kwargs: Any) -> tuple[Operands, Tensor]:
        """Run one decoder layer again, from the input it was given, up to its attention: operands and output."""
        seen: list[tuple[Operands, Tensor]] = []

        def stop(call: Call) -> None:
            seen.append((call.detached(), combine(call, self.slot).detach()))
            raise _Seen

        block, key, value = self.base.anatomy.blocks[layer], watched.key, _plain_value(watched)
        with self._alone(stop, 0), evaluating(block), suppress(_Seen):
            block.forward(*with_replay(args, key, value), **with_replay(kwargs, key, value))
        return seen[0]

    def run(self, inputs: dict[str, Any], shift: int) -> dict[int, Operands]:
        """Run the whole model on the same inputs: each layer's operands."""
        seen: dict[int, Operands] = {}

        def record(call: Call) -> None:
            seen[call.layer] = call.detached()

        given = {name: x for name, x in inputs.items() if name in _INPUTS and x is not None}
        cache = inputs.get("past_key_values")
        given["use_cache"] = cache is not None
        if cache is not None:
            given["past_key_values"] = self.shadow.of(cache)
        with self._alone(record, shift), evaluating(self.base.hf):
            self.base.hf(**given, logits_to_keep=1)
        return seen


_INPUTS = frozenset(
    ["input_ids", "inputs_embeds", "attention_mask", "position_ids", "cache_position", "token_type_ids"]
)


def _makes_cache(module: nn.Module, inputs: dict[str, Any]) -> bool:
    """Say whether a model that is called without a cache makes one to go on from; in training nobody does."""
    asked = inputs.get("use_cache")
    is_on = getattr(module.config, "use_cache", False) if asked is None else asked
    return bool(is_on) and not module.training and "past_key_values" in inspect.signature(module.forward).parameters


def _plain_value(watched: Operands) -> Tensor:
    if watched.value_bias is None:
        return watched.value
    return watched.value - watched.value_bias[None, :, None, :]


class _Observer:
    """Connect one model's calls to a scope while it is attached."""

    def __init__(
        self, scope: Scope, model: Model, slot: Slot, reference: _Reference, residuals: bool, drift: bool
    ) -> None:
        self.scope, self.model, self.slot, self.reference = scope, model, slot, reference
        self.residuals, self.drift = residuals, drift
        self.first: Tensor | None = None  # (batch,) place of the first token in the text that is read or written
        self.plain: dict[int, Operands] = {}
        self.pending: dict[int, tuple[Operands, Tensor]] = {}
        self.watcher = self.see  # one object, so that it is found again in the slot's list

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Watch the model's calls; everything is taken away again at the end, also after an exception."""
        with ExitStack() as stack:
            stack.enter_context(self.slot.watched_by(self.watcher))
            stack.enter_context(self.model.hf.register_forward_pre_hook(self.before_forward, with_kwargs=True))
            stack.callback(self.reference.shadow.release)
            if self.residuals:
                for layer, block in enumerate(self.model.anatomy.blocks):
                    after = self._after_layer(layer)
                    stack.enter_context(block.register_forward_hook(after, with_kwargs=True))
            yield

    def _is_off(self) -> bool:
        """Say whether another run is under way (of a context, of a reference), or checkpoints are recomputed."""
        listening = any(watcher is self.watcher for watcher in self.slot.watchers)
        return not listening or torch._C._current_graph_task_id() != -1

    def _is_changed(self) -> bool:
        """Say whether there is anything to compare: a context, or another model as the reference."""
        active = self.slot.prefix is not None and self.slot.strength > 0
        return active or self.reference.base is not self.model

    def before_forward(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the plain model first, so that each watched layer can be compared as it happens.

        A cache that the model would make is made here, so that the plain run's can follow it to the next call.
        """
        if self._is_off():
            return None
        self.pending.clear()
        self.plain.clear()
        if not self.drift or not self._is_changed():
            return None
        bound = inspect.signature(module.forward).bind_partial(*args, **kwargs)
        inputs = {**bound.arguments.get("kwargs", {}), **bound.arguments}
        is_made = inputs.get("past_key_values") is None and _makes_cache(module, inputs)
        if is_made:
            bound.arguments["past_key_values"] = inputs["past_key_values"] = cache_of(self.model.hf.config, ())
        if not self.reference.shadow.knows(inputs.get("past_key_values")):
            self.scope.note("Drift was not measured where a cache was filled before the watch began.")
            return None
        shift = self.slot.prefix.shift if self.slot.prefix is not None else 0
        self.plain = self.reference.run(inputs, shift)
        return (bound.args, bound.kwargs) if is_made else None

    def see(self, call: Call) -> Tensor | None:
        """Take in one call of the watched run; return its output where that is what the model would compute."""
        if self._is_off():
            return None
        operands = call.detached()
        with torch.no_grad(), torch.autocast(operands.query.device.type, enabled=False):
            parts = split(operands)
            self.scope.add_split(call.layer, operands, parts, call.prefix_kept)
            first = self._first_key(operands)
            without = self.plain.pop(call.layer, None)
            self.scope.keep(call.layer, operands, without)
            if without is not None:
                self.scope.add_drift(call.layer, drift_between(operands, without, first=first))
        if self.drift and without is None and not self._is_changed():
            self._nothing_drifts(call.layer, operands, first)
        if self.residuals:
            output = combine(call, self.slot)
            self.pending[call.layer] = (operands, output.detach())
            return None if call.dropout else output
        if call.dropout or torch.is_grad_enabled() or torch.is_autocast_enabled(operands.query.device.type):
            return None
        return recombine(parts).to(call.query.dtype)

    def _first_key(self, operands: Operands) -> Tensor:
        """Return (batch,) place of the content's first token among the keys, of which a sliding window drops some."""
        queries, keys = operands.query.shape[2], operands.key.shape[2]
        whole = self.slot.key_count or keys
        if whole == queries:
            self.first = first_key(operands)
        if self.first is None or len(self.first) != len(operands.query):  # what stands in the cache was not seen
            return first_key(operands)
        return self.first.to(operands.key.device) + keys - whole

    def _nothing_drifts(self, layer: int, operands: Operands, first: Tensor) -> None:
        with torch.no_grad(), torch.autocast(operands.query.device.type, enabled=False):
            self.scope.add_drift(layer, drift_between(operands, operands, first=first))

    def _after_layer(self, layer: int) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            if layer not in self.pending or self._is_off():
                return
            operands, attended = self.pending.pop(layer)
            if self._cannot_replay(operands):
                self.scope.note("Residuals were not measured at cached steps of a run whose weights were changed.")
                return
            reference, reference_output = self.reference.run_layer(layer, operands, args, kwargs)
            with torch.no_grad(), torch.autocast(operands.query.device.type, enabled=False):
                found = residuals_between(operands, attended, reference, reference_output)
            self.scope.add_residuals(layer, found)

        return hook

    def _cannot_replay(self, operands: Operands) -> bool:
        """Note that earlier keys in the cache come from the changed weights; the reference would need its own."""
        return self.reference.base is not self.model and operands.key.shape[2] > operands.query.shape[2]
