"""Put a context into a model, and take it out again.

While a slot is installed, the model attends with the package's attention function, which puts the context's keys and
values in front of the content's; and a hook on the decoder gives the content the positions that it has without padding.
No weight and no cache is written to. Function and hook are gone after the ``with``, also after an exception.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import update_wrapper
from inspect import signature
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from elicitable.errors import InputError
from elicitable.models.adapters import attending
from elicitable.models.anatomy import Anatomy
from elicitable.models.angles import check_angles
from elicitable.models.attend import OF_A_CALL, Seat, Slot
from elicitable.models.caches import check_cache, past_length
from elicitable.models.in_place import Place, Together, changed, entered
from elicitable.models.model import Model, as_model
from elicitable.models.prefixes import join, prefix_length
from elicitable.models.restoring import swapped, without_gradients
from elicitable.models.speed.memory import keep_freed_memory
from elicitable.values import PrefixKV

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


class Adaptation(Protocol):
    """What ``use`` can put into a model: a context, changed weights, or both (the contract of the methods room)."""

    moves_content: bool

    def prefix(self, model: Model, before: PrefixKV | None = None, end: int = 0) -> PrefixKV | None:
        """The keys and values of the context, given what stands before it; None without a context."""

    def keys_per_layer(self) -> int:
        """Keys that the content pays for in every layer."""

    def weights(self, model: Model) -> AbstractContextManager[None]:
        """Install changed weights; nothing to do for a context."""

    def parameters(self) -> Sequence[nn.Parameter]:
        """The numbers that training changes."""


class _OnlyHere:
    """What stands in a model for the length of a ``with``, and in no copy of it: there it would refer to the model."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise InputError(
            "something is in place in this model (`use`, `watch`, or a training), and a copy would be neither with nor "
            "without it: copy it outside of the `with`."
        )


class _TakenSeat(_OnlyHere, Seat):
    """A seat in a model."""


@contextmanager
def installed(model: Model) -> Iterator[Slot]:
    """Install an empty slot: the model attends through it until the end of the ``with``.

    Nested use of one model shares the outer slot, so that contexts compose; whoever leaves last takes it away.

    Raises:
        InputError: another thread has something in place in this model.
    """
    with entered(model.hf) as place:
        slot: Together[Slot] = place.shared.setdefault("slot", Together(_install))
        with slot.held(model) as held:
            yield held


@contextmanager
def _install(model: Model) -> Iterator[Slot]:
    anatomy = model.anatomy
    if model.device.type == "cpu":
        keep_freed_memory()
    slot = Slot()
    with ExitStack() as stack:
        stack.enter_context(attending(model.hf, anatomy.configs))
        own = _attention_of(anatomy.decoder)
        asked = _Asked(slot, model.hf.forward)
        if anatomy.decoder is not model.hf:
            stack.enter_context(swapped(model.hf, forward=asked))
        fix = _FixPositions(slot, anatomy, own, asked)
        stack.enter_context(anatomy.decoder.register_forward_pre_hook(fix, with_kwargs=True))
        # beside a static cache on a GPU generate would compile the forward pass, and anew for every text and context
        stack.enter_context(swapped(model.hf, _valid_auto_compile_criteria=lambda *given: False))
        for layer, attention in enumerate(anatomy.attentions):
            seat = _TakenSeat(slot, layer, anatomy.layers[layer].sliding_window)
            stack.enter_context(swapped(attention, _elicitable_seat=seat))
        yield slot


@contextmanager
def use(
    model: Any, context: Adaptation | PrefixKV | Sequence[Adaptation | PrefixKV], strength: float = 1.0
) -> Iterator[Model]:
    """Let every forward pass and ``generate`` of ``model`` inside the ``with`` see ``context``.

    Only one thread can have something in place in a model. A ``with`` that is left before one inside it takes out what
    it put in and nothing else, and raises an InputError.
    A context's keys and values are computed at the start. Gradients go back to the context's own numbers through them,
    and not to the model's.

    Args:
        model: what :func:`elicitable.load` returns, or a transformers model.
        context: a context, an adaptation (LoRA, full), a :class:`PrefixKV`, or several: the first stands first and
            the later ones see the earlier ones.
        strength: g in [0, 1]: the prefix's softmax weight is multiplied by g. At 0 nothing is installed, so the
            outputs are bit-equal to the base model's; changed weights are then not installed either.

    Raises:
        InputError: the strength is outside [0, 1], the context does not fit the model, or another thread uses it.

    Example:
        >>> import elicitable as el
        >>> model = el.load("toy:ascending")
        >>> context = el.context("prompt", model, token_ids=[7, 0])
        >>> with el.use(model, context):
        ...     logits = model(input_ids=model.ids([3, 1, 2])).logits
        >>> tuple(logits.shape)
        (1, 3, 10)
    """
    model = as_model(model)
    if not 0.0 <= strength <= 1.0:
        raise InputError(f"strength must be between 0 (the base model) and 1 (the whole context), got {strength!r}.")
    parts: list[Any] = list(context) if isinstance(context, list | tuple) else [context]
    if any(map(differs_by_item, parts)):
        raise InputError(
            "this context differs from item to item, so it cannot be put before whatever is read, nor looked at: take "
            "one that is the same for all. In Python, use() takes what its before(model, items) returns."
        )
    with ExitStack() as stack:
        if strength > 0:
            slot = stack.enter_context(installed(model))
            if slot.parts and strength != slot.strength:
                raise InputError(
                    f"a context of strength {slot.strength:g} is in use; one inside it cannot have strength "
                    f"{strength:g}."
                )
            place, own = stack.enter_context(entered(model.hf)), _Standing(parts, strength)
            stack.callback(_leave, model, slot, place, own)
            for part in parts:
                if not isinstance(part, PrefixKV):
                    stack.enter_context(weights_in(model, part))
            _stand(model, slot, place, own)
        yield model


def weights_in(model: Model, part: Adaptation) -> AbstractContextManager[None]:
    """Have the weights that ``part`` changes in place, on top of what is (see :mod:`elicitable.models.in_place`)."""
    return changed(model.hf, lambda: part.weights(model))


@dataclass(eq=False)
class _Standing:
    """What one ``with`` has put into a slot, and what stood there before."""

    parts: Sequence[Any]
    strength: float
    before: dict[str, Any] = field(default_factory=dict)


def _stand(model: Model, slot: Slot, place: Place, own: _Standing) -> None:
    """Put ``own`` into the slot, behind what stands there."""
    joined = (*slot.parts, *own.parts)
    trained = [number for part in joined if not isinstance(part, PrefixKV) for number in part.parameters()]
    with without_gradients(model.hf, but=trained):  # it is computed once, so a second step could not go back through it
        prefix = prefix_of(model, joined)
    own.before = {"parts": slot.parts, "prefix": slot.prefix, "strength": slot.strength}
    vars(slot).update(parts=joined, prefix=prefix, strength=own.strength)
    place.contexts.append(own)


def _leave(model: Model, slot: Slot, place: Place, own: _Standing) -> None:
    """Take ``own`` out of the slot; what was put in behind it is computed again without it, and that is said."""
    if own not in place.contexts:  # it was never put in
        return
    at = place.contexts.index(own)
    later = place.contexts[at + 1 :]
    del place.contexts[at:]
    vars(slot).update(own.before)
    for other in later:
        _stand(model, slot, place, other)
    if later:
        raise InputError(
            "what is in use was left in another order than it was put in: an outer `with` ended before one inside it. "
            "What is still in use stands alone from now on; leave the inner `with` first."
        )


def differs_by_item(part: Any) -> bool:
    """Say whether a context is another one for each item, so that it stands in the items' own rows."""
    return bool(getattr(part, "asks_otherwise", False)) and not part.keys_per_layer()


def prefix_of(model: Model, parts: Sequence[Any], before: PrefixKV | None = None) -> PrefixKV | None:
    """Compute the keys and values of ``parts`` one after another, each with the earlier ones in place.

    Where positions are relative, a context stands at negative ones, so those of the parts that follow it are kept free.
    """
    joined = before
    for nth, part in enumerate(parts):
        end = sum(_positions_taken(model, later) for later in parts[nth + 1 :])
        own = part if isinstance(part, PrefixKV) else part.prefix(model, joined, end)
        if own is not None:
            check_fits(model, own)
            joined = join(joined, own)
    return joined


def _positions_taken(model: Model, part: Any) -> int:
    """Count the negative positions that a context takes: its length, unless it moves the content up instead."""
    if not model.anatomy.has_relative_positions:
        return 0
    if isinstance(part, PrefixKV):
        return max(prefix_length(part) - part.shift, 0)
    return 0 if part.moves_content else int(part.keys_per_layer())


def check_fits(model: Model, prefix: PrefixKV) -> None:
    """Raise InputError, with both shapes, where a prefix was made for another model."""
    if len(prefix.keys) != model.anatomy.depth:
        raise InputError(
            f"the context has {len(prefix.keys)} layers, {model.name} has {model.anatomy.depth}: "
            "it was made for another model."
        )
    for layer, (key, value, facts) in enumerate(zip(prefix.keys, prefix.values, model.anatomy.layers, strict=True)):
        if key is None or value is None:
            continue
        if (key.shape[1], key.shape[3], value.shape[3]) != (facts.kv_heads, facts.d_head, facts.d_value):
            raise InputError(
                f"layer {layer}: the context's keys are {tuple(key.shape)} and values {tuple(value.shape)}; "
                f"{model.name} needs (row, {facts.kv_heads}, prefix, {facts.d_head}) and "
                f"(row, {facts.kv_heads}, prefix, {facts.d_value})."
            )


def room_in(model: Model, max_tokens: int | None = None, taken: int | None = None) -> int | None:
    """Return how many tokens a text may have: the model's positions less those ``taken`` by a context, or fewer.

    ``taken`` is by default the length of the context that is in use; None means that nothing bounds a text.
    """
    if taken is None:
        seat: Seat | None = getattr(model.anatomy.attentions[0], "_elicitable_seat", None)
        taken = prefix_length(seat.slot.prefix) if seat is not None and seat.slot.prefix is not None else 0
    reach = model.anatomy.angles_change_at if taken else None
    reach = model.anatomy.trained_positions if reach is None else reach
    bounds = [bound for bound in (max_tokens, reach - taken if reach else None) if bound is not None]
    return max(0, min(bounds)) if bounds else None


class _Asked(_OnlyHere):
    """Stands in for the forward of the whole model: one around a decoder may count positions itself, padding with them.

    ``mask`` is the (row, token) mask of a call that brought no positions, ``None`` of any other and outside of one. A
    hook may call the model within a call of it, which then goes on as it began.
    """

    def __init__(self, slot: Slot, forward: Callable[..., Any]) -> None:
        update_wrapper(self, forward)  # ``generate`` asks which arguments a model takes
        self.slot, self.forward, self.named = slot, forward, tuple(signature(forward).parameters)
        self.mask: Tensor | None = None
        self.is_asked = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        given = {**dict(zip(self.named, args, strict=False)), **kwargs}
        mask = given.get("attention_mask")
        is_plain = isinstance(mask, Tensor) and mask.ndim == 2 and given.get("position_ids") is None
        # on the way back layers may run again, which then read what the outermost call has left
        kept = {name: getattr(self.slot, name) for name in OF_A_CALL} if self.is_asked else {}
        with swapped(self.slot, **kept), swapped(self, mask=mask if is_plain else None, is_asked=True):
            return self.forward(*args, **kwargs)


@dataclass(frozen=True, eq=False)
class _FixPositions(_OnlyHere):
    """The decoder's pre-hook: the content starts at position 0 (or ``shift``) in every row, padded or not."""

    slot: Slot
    anatomy: Anatomy
    attention: str | None
    asked: _Asked

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        slot, anatomy, ids = self.slot, self.anatomy, kwargs.get("input_ids", args[0] if args else None)
        ids = kwargs.get("inputs_embeds") if ids is None else ids
        if ids is None:
            return args, kwargs
        self._check_attention(module, kwargs)
        kwargs.pop("logits_to_keep", None)  # a decoder that is told leaves the other tokens out of its upper layers
        cache = kwargs.get("past_key_values")
        check_cache(cache)
        past = past_length(cache)
        slot.key_count = None if cache is None else past + ids.shape[1]
        mask = kwargs.get("attention_mask") if self.asked.mask is None else self.asked.mask
        counted = _count(ids.shape[:2], past, mask, ids.device)
        # sliding windows count tokens, wherever the caller's own position ids may start
        slot.query_positions = _counted_in_windows(kwargs.get("attention_mask"), counted)
        positions = kwargs.get("position_ids")
        if positions is None or (self.asked.mask is not None and positions.ndim == 2):
            positions = counted
        prefix = slot.prefix if slot.strength > 0 else None
        shift = 0 if prefix is None else prefix.shift
        if anatomy.angles_change_at is not None:
            check_angles(prefix, int(positions.max()) + 1, anatomy.angles_change_at)
        if anatomy.takes_position_ids:
            kwargs["position_ids"] = positions + shift if shift else positions
            if shift and anatomy.position_limit is not None and int(positions.max()) + shift >= anatomy.position_limit:
                raise InputError(
                    f"the context takes {shift} positions and the content needs {int(positions.max()) + 1}, "
                    f"but the model has only {anatomy.position_limit}."
                )
        return args, kwargs

    def _check_attention(self, module: nn.Module, kwargs: dict[str, Any]) -> None:
        if _attention_of(module) != self.attention:
            raise InputError(
                f"the model's attention was set to {_attention_of(module)!r} while something is in use, which it would "
                "not see any more. Set it before the `with`; it has it again afterwards."
            )
        if kwargs.get("output_attentions"):
            raise InputError(
                "output_attentions: a model returns no attention weights while something is in use. `elicitable.watch` "
                "measures attention, and its keep=(layer, …) keeps queries and keys."
            )


def _attention_of(decoder: nn.Module) -> str | None:
    return getattr(getattr(decoder, "config", None), "_attn_implementation", None)


def _count(shape: torch.Size, past: int, mask: Any, device: torch.device) -> Tensor:
    """Count each row's tokens from 0, padding left out: (batch, query)."""
    batch, queries = shape
    if isinstance(mask, Tensor) and mask.ndim == 2 and mask.shape[1] >= past + queries:
        # beside a static cache a mask may be as long as the cache, with places that nothing fills yet
        positions: Tensor = (mask[:, : past + queries].long().cumsum(-1) - 1).clamp(min=0)[:, -queries:]
        return positions.to(device)
    return torch.arange(past, past + queries, device=device)[None].expand(batch, -1)


def _counted_in_windows(mask: Any, counted: Tensor) -> Tensor:
    """Read positions off masks that ``generate`` has prepared per kind of layer (it does for static caches).

    A query at position p sees p + 1 keys, or as many as the widest window holds; and once a window is full, no key of
    a context lies in it, whatever p is. So the most keys that any of the masks shows it say all that a window asks.
    """
    prepared = [one for one in (mask.values() if isinstance(mask, Mapping) else [mask]) if isinstance(one, Tensor)]
    prepared = [one for one in prepared if one.ndim == 4]
    if not prepared or any(one is None for one in (mask.values() if isinstance(mask, Mapping) else ())):
        return counted
    shown = [one if one.dtype == torch.bool else one > torch.finfo(one.dtype).min / 2 for one in prepared]
    most = torch.stack([one[:, 0].sum(dim=-1).expand(counted.shape) for one in shown]).amax(dim=0)
    return (most - 1).clamp(min=0)
