"""Train some of the weights: which ones does a task need?

Of an attention module's weights, those that move queries or keys and no value are *queries and keys*; all others are
*values and output*. Which is which is found by a backward pass and not guessed from names, so a matrix that holds all
three is divided by its rows. The *feed-forward* is every module with a matrix in a block outside its attention.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from elicitable.errors import InputError
from elicitable.methods import rungs
from elicitable.methods.base import Adaptation, Method, Schedule
from elicitable.methods.full import places_of
from elicitable.models.attend import Call
from elicitable.models.dispatch import check_whole
from elicitable.models.inject import installed
from elicitable.models.restoring import evaluating
from elicitable.rng import torch_generator

if TYPE_CHECKING:
    from elicitable.models.model import Model

Mask = Tensor | None  # bool, of the weight's shape; None for the whole weight
Chosen = dict[str, Mask]  # by the weight's name


class SomeWeights(Adaptation):
    """A trained copy of the chosen numbers; the others are the model's own. Nothing of the model is written to."""

    def __init__(self, model: Model, kind: str, chosen: Chosen, **setting: Any) -> None:
        super().__init__(**setting)
        check_whole(model.hf, kind)
        if not chosen:
            raise InputError(f"{kind}: {model.name} has no weights of this kind.")
        self.kind = kind  # type: ignore[misc]
        self.chosen, own = chosen, dict(model.hf.named_parameters())
        self.copies = {
            name: nn.Parameter(
                (own[name] if mask is None else own[name][mask]).detach().clone().to(model.trainable_dtype)
            )
            for name, mask in chosen.items()
        }

    @contextmanager
    def weights(self, model: Model) -> Iterator[None]:
        """Put the copies in the place of the chosen numbers; tied weights stay tied."""
        places = places_of(model.hf)
        with ExitStack() as stack:
            for name, copied in self.copies.items():
                mask = self.chosen[name]
                for module, attribute in places[name][1]:
                    changed = _replaced if mask is None else _partly
                    stack.enter_context(changed(module, attribute, copied, mask))
            yield

    def parameters(self) -> list[nn.Parameter]:
        """The chosen numbers, one tensor for each weight."""
        return list(self.copies.values())

    def state(self) -> dict[str, Tensor]:
        """The chosen numbers by their weight's name."""
        return {name: own.detach().clone() for name, own in self.copies.items()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over what :meth:`state` gave."""
        with torch.no_grad():
            for name, own in self.copies.items():
                own.copy_(state[name])


@contextmanager
def _replaced(module: nn.Module, attribute: str, own: nn.Parameter, mask: Mask) -> Iterator[None]:
    before = module._parameters[attribute]
    module._parameters[attribute] = own
    try:
        yield
    finally:
        module._parameters[attribute] = before


@contextmanager
def _partly(module: nn.Module, attribute: str, own: nn.Parameter, mask: Mask) -> Iterator[None]:
    before = dict(module._parameters)
    assert mask is not None
    parametrize.register_parametrization(module, attribute, _Scattered(own, mask))
    try:
        yield
    finally:
        parametrize.remove_parametrizations(module, attribute, leave_parametrized=False)
        module._parameters.clear()  # in the order that they had
        module._parameters.update(before)


class _Scattered(nn.Module):
    """A weight with the chosen numbers in their places."""

    def __init__(self, own: nn.Parameter, mask: Tensor) -> None:
        super().__init__()
        self.own, self.mask = own, mask

    def forward(self, weight: Tensor) -> Tensor:
        """(…) to the same shape."""
        return weight.masked_scatter(self.mask, self.own.to(weight.dtype))


def queries_and_keys(model: Model, layers: Iterable[int] | None = None) -> Chosen:
    """Choose what moves queries or keys and no value, in ``layers`` (all by default)."""
    found: Chosen = {}
    names = {id(p): name for name, p in model.hf.named_parameters()}
    for layer, (moves_match, moves_value) in _reach(model).items():
        if layers is not None and layer not in set(layers):
            continue
        for parameter, matched in moves_match.items():
            mask = matched & ~moves_value[parameter]
            if bool(mask.any()):
                found[names[id(parameter)]] = None if bool(mask.all()) else mask
    return found


def values_and_output(model: Model) -> Chosen:
    """Choose the rest of every attention module."""
    return _without(model, _named(model, model.anatomy.attentions), queries_and_keys(model))


def feed_forward(model: Model) -> Chosen:
    """Choose all of each module with a matrix (or a stack of them) in a block outside its attention."""
    attention = {id(inner) for module in model.anatomy.attentions for inner in module.modules()}
    inside = [inner for block in model.anatomy.blocks for inner in block.modules() if id(inner) not in attention]
    return dict.fromkeys(
        _named(model, [one for one in inside if any(p.ndim > 1 for p in one.parameters(recurse=False))])
    )


def all_but(model: Model, left_out: Chosen) -> Chosen:
    """Choose every number that ``left_out`` does not."""
    return _without(model, [name for name, _ in model.hf.named_parameters()], left_out)


def _without(model: Model, names: Iterable[str], left_out: Chosen) -> Chosen:
    found: Chosen = {}
    for name in names:
        if name not in left_out:
            found[name] = None
        elif (mask := left_out[name]) is not None:
            found[name] = ~mask
    return found


def _named(model: Model, modules: Iterable[nn.Module]) -> list[str]:
    inside = {id(p) for module in modules for p in module.parameters()}
    return [name for name, p in model.hf.named_parameters() if id(p) in inside]


Reached = dict[nn.Parameter, Tensor]  # a mask of the weight's shape


def _reach(model: Model) -> dict[int, tuple[Reached, Reached]]:
    """For each layer, which of its attention's weights move queries or keys, and which values; by one backward pass."""
    check_whole(model.hf, "a choice among the weights")
    calls: list[Call] = []
    ids = torch.arange(6, device=model.device)[None] % model.anatomy.vocab
    with ExitStack() as stack:
        for parameter in model.hf.parameters():
            stack.callback(parameter.requires_grad_, parameter.requires_grad)
            parameter.requires_grad_(parameter.is_floating_point())
        slot = stack.enter_context(installed(model))
        stack.enter_context(slot.watched_by(calls.append))  # type: ignore[arg-type]
        stack.enter_context(evaluating(model.hf))
        with torch.enable_grad():
            model.hf(input_ids=ids, use_cache=False)
            modules = [list(one.named_modules()) for one in model.anatomy.attentions]
            owners = [[(p, m) for _, m in inside for p in m.parameters(recurse=False)] for inside in modules]
            return {
                call.layer: (
                    _moving((call.query, call.key), owners[call.layer]),
                    _moving((call.value,), owners[call.layer]),
                )
                for call in calls
            }


def _moving(outputs: tuple[Tensor, ...], owners: list[tuple[nn.Parameter, nn.Module]]) -> Reached:
    generator = torch_generator(0, "reach")
    drawn = [torch.randn(x.shape, generator=generator).to(x) for x in outputs]
    found = torch.autograd.grad(outputs, [p for p, _ in owners], drawn, retain_graph=True, allow_unused=True)
    return {p: _rows_moved(p, m, gradient) for (p, m), gradient in zip(owners, found, strict=True)}


def _rows_moved(parameter: nn.Parameter, module: nn.Module, gradient: Tensor | None) -> Tensor:
    """Whole rows (what one output is made of): a single input may happen to be zero."""
    if gradient is None:
        return torch.zeros_like(parameter, dtype=torch.bool)
    axis = parameter.ndim - 1 if type(module).__name__ == "Conv1D" else 0
    others = tuple(i for i in range(parameter.ndim) if i != axis)
    moved = gradient != 0
    moved = moved.any(dim=others, keepdim=True) if others else moved
    return moved.expand(parameter.shape).clone()


class _Subset(Method):
    rung = rungs.WEIGHTS
    deployment = "Any server, with a whole copy of the model for every task."
    turn, is_bound, has_size, keeps_state, probe = 85, False, False, False, "weights"
    schedule = Schedule(learning_rates=(3e-5, 1e-4, 3e-4, 1e-3, 3e-3))

    def chosen(self, model: Model) -> Chosen:
        """Which weights are trained."""
        raise NotImplementedError

    def numbers(self, model: Model, size: int = 1) -> int:
        """Count the chosen numbers."""
        own = dict(model.hf.named_parameters())
        return sum(own[name].numel() if mask is None else int(mask.sum()) for name, mask in self.chosen(model).items())

    def build(self, model: Model, size: int = 1, seed: int = 0, **options: Any) -> SomeWeights:
        """Copies that start at the pretrained weights."""
        return SomeWeights(model, self.name, self.chosen(model))


class QueriesAndKeys(_Subset):
    """Only where attention looks."""

    name = "queries-and-keys"
    summary = "only the weights of queries and keys"

    def chosen(self, model: Model) -> Chosen:
        """See :func:`queries_and_keys`."""
        return queries_and_keys(model)


class ValuesAndOutput(_Subset):
    """Only what attention carries."""

    name = "values-and-output"
    summary = "only the weights of values and of attention's output"

    def chosen(self, model: Model) -> Chosen:
        """See :func:`values_and_output`."""
        return values_and_output(model)


class FeedForward(_Subset):
    """Only what is computed at each position by itself."""

    name = "feed-forward"
    summary = "only the weights of the feed-forward blocks"

    def chosen(self, model: Model) -> Chosen:
        """See :func:`feed_forward`."""
        return feed_forward(model)
