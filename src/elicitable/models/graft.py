"""What another library's code does to a model: taken back at once, and put in again for the length of a ``with``.

A library like PEFT changes a model in its own ways: it wraps modules, replaces parameters, writes into weights, adds
hooks and attributes, and edits the configuration. A :class:`Graft` lets it do so once, notes what is different
afterwards, and takes all of it back. What it noted can then be put in and out again quickly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import GenerationConfig, PreTrainedConfig

from elicitable.errors import InputError
from elicitable.models.following import Followers

_ABSENT = object()
_LEFT_OUT = {"training", "peft_config", "_elicitable_model"}  # attributes that a graft does not carry
_PLAIN = (int, float, complex, str, bytes, bool)
_MAKERS = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.randint, torch.randperm)
_FACTORIES = {one.__name__ for one in (*_MAKERS, torch.eye, torch.arange)}
_LEAST_ROOM = 2**24  # numbers in one tensor that are allowed however small the model is


@dataclass(frozen=True, eq=False)
class _Still:
    """A module or configuration as it was: its class, its attributes, and what the containers among them held."""

    thing: Any
    kind: type
    own: dict[str, Any]
    held: dict[str, Any]

    @classmethod
    def of(cls, thing: Any) -> _Still:
        own = dict(vars(thing))
        return cls(thing, type(thing), own, {n: x.copy() for n, x in own.items() if isinstance(x, dict | list | set)})

    def restore(self) -> None:
        if type(self.thing) is not self.kind:
            self.thing.__class__ = self.kind
        for name, content in self.held.items():
            _refill(self.own[name], content)
        _refill(vars(self.thing), self.own)


@dataclass(frozen=True, eq=False)
class _Value:
    """A parameter or buffer as it was: the memory it stood in, and whether it wanted a gradient."""

    tensor: Tensor
    data: Tensor
    wants_gradient: bool
    gradient: Tensor | None

    @classmethod
    def of(cls, tensor: Tensor) -> _Value:
        return cls(tensor, tensor.data, tensor.requires_grad, tensor.grad)

    def has_moved(self) -> bool:
        """Whether the tensor now stands in other memory."""
        now = self.tensor.data
        return (now.data_ptr(), now.shape, now.dtype) != (self.data.data_ptr(), self.data.shape, self.data.dtype)

    def restore(self) -> None:
        if self.has_moved():
            self.tensor.data = self.data
        self.tensor.requires_grad_(self.wants_gradient)
        self.tensor.grad = self.gradient


@dataclass(frozen=True, eq=False)
class _Entry:
    """One place of a dictionary of the model (its modules, its parameters, its attributes), before and after."""

    place: dict[Any, Any]
    key: Any
    before: Any
    after: Any


class _Watch(TorchDispatchMode):
    """Copy the model's memory before it is written to, and refuse to allocate what no adapter of it can need.

    Args:
        values: the model's tensors.
        room: the most numbers that one new tensor may have.
        left: and all of them together.
    """

    def __init__(self, values: list[_Value], room: int, left: int) -> None:
        super().__init__()
        self.storages = {_address(value.data): value.data.untyped_storage() for value in values}
        self.storages.pop(0, None)
        self.saved: dict[int, torch.UntypedStorage] = {}
        self.room, self.left = room, left

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        schema = func._schema
        if schema.is_mutable:
            named = {**dict(zip((one.name for one in schema.arguments), args, strict=False)), **kwargs}
            for one in schema.arguments:
                if one.alias_info is not None and one.alias_info.is_write:
                    self._save(named.get(one.name))
        elif schema.name.split("::")[1].removeprefix("new_") in _FACTORIES:
            self._check_room(args)
        return func(*args, **kwargs)

    def _save(self, written: Any) -> None:
        for one in written if isinstance(written, list | tuple) else [written]:
            address = _address(one) if isinstance(one, Tensor) else 0
            if address in self.storages and address not in self.saved:
                self.saved[address] = self.storages[address].clone()

    def _check_room(self, args: Any) -> None:
        sizes = next((one for one in args if isinstance(one, list | tuple)), args)
        whole = [int(size) for size in sizes if isinstance(size, int)]
        numbers = torch.Size(whole).numel()
        if numbers > self.room:
            raise InputError(f"it asks for a tensor of {numbers:,} numbers; {self.room:,} are the most that can be")
        self.left -= numbers
        if self.left < 0:
            raise InputError(f"it asks for {-self.left:,} numbers more than an adapter of this model can need")

    def is_written(self, value: _Value) -> bool:
        """Whether the memory that a tensor stood in has other bytes now."""
        saved = self.saved.get(_address(value.data))
        return saved is not None and not torch.equal(_bytes(saved), _bytes(value.data.untyped_storage()))

    def restore(self) -> None:
        for address, saved in self.saved.items():
            self.storages[address].copy_(saved)


class Graft:
    """What ``change`` does to ``hf``, taken back.

    Args:
        hf: the model. It is as before when this returns and when it raises: the same modules in the same order, the
            same parameters and bytes, hooks, modes, gradients and configurations.
        change: what is done to it; ``torch``'s global generators may be drawn from and stand as before afterwards.
        numbers: those of every tensor that an adapter brings along. No new tensor may have more than 8 times as many as
            the largest of them or of the model's own (and 16 million are always allowed), and all together no more than
            8 times as many as both have (or 32 million).

    Attributes:
        parameters: what wants a gradient after the change: the adapter's own, and copies of those parameters of the
            model that the change trains or has written to. The model's own never stand in here.

    Raises:
        InputError: the change asks for more than that.
    """

    def __init__(self, hf: nn.Module, change: Callable[[nn.Module], None], numbers: Sequence[int] = ()) -> None:
        stills = [_Still.of(thing) for thing in _things_of(hf)]
        values = [_Value.of(tensor) for tensor in (*hf.parameters(), *hf.buffers())]
        sizes = [*numbers, *(value.data.numel() for value in values)]
        room, whole = 8 * max(sizes, default=0), 8 * sum(sizes)
        watch = _Watch(values, max(room, _LEAST_ROOM), max(whole, 2 * _LEAST_ROOM))
        devices = {value.data.device for value in values if value.data.device.type == "cuda"}
        self.hf, self.is_in = hf, False
        try:
            with torch.random.fork_rng(devices=list(devices)):
                with watch:
                    change(hf)
                self._note(stills, values, watch)
        finally:
            watch.restore()
            for still in stills:
                still.restore()
            for value in values:
                value.restore()
        model = next((value.tensor for value in values if value.tensor.is_floating_point()), torch.empty(0))
        self.followers = Followers(model, self.copies, self.new, self.displaced)

    def _note(self, stills: list[_Still], values: list[_Value], watch: _Watch) -> None:
        known = {id(still.thing) for still in stills}
        self.new = [module for module in self.hf.modules() if id(module) not in known]
        self._copy_changed_tensors(values, watch)
        self.entries = [entry for still in stills for entry in _differences(still)]
        self.lists = [
            (still.own[name], still.own[name].copy())
            for still in stills
            for name, content in still.held.items()
            if not isinstance(content, dict) and still.own[name] != content
        ]
        self.parameters = [parameter for parameter in self.hf.parameters() if parameter.requires_grad]
        self.displaced = [entry.before for entry in self.entries if isinstance(entry.before, nn.Module)]
        displaced = set(map(id, self.displaced))
        self.slots = [
            (cast("dict[str, Any]", module._modules), name, child)
            for module in self.new
            for name, child in module.named_children()
            if id(child) in displaced
        ]

    def _copy_changed_tensors(self, values: list[_Value], watch: _Watch) -> None:
        """Let copies stand for the model's tensors that were written to or are to be trained."""
        self.copies: dict[int, tuple[Tensor, Tensor]] = {}
        for value in values:
            is_trained = isinstance(value.tensor, nn.Parameter) and value.tensor.requires_grad
            if is_trained or value.has_moved() or watch.is_written(value):
                copy = value.tensor.data.clone()
                own = nn.Parameter(copy, is_trained) if isinstance(value.tensor, nn.Parameter) else copy
                self.copies[id(value.tensor)] = value.tensor, own
        for module in self.hf.modules():
            for held in (cast("dict[str, Any]", module._parameters), cast("dict[str, Any]", module._buffers)):
                held.update({name: self.copies[id(one)][1] for name, one in held.items() if id(one) in self.copies})

    @contextmanager
    def grown(self, name: str = "it") -> Iterator[None]:
        """Put the change in; the model is as it was found afterwards, also after an exception.

        Where another graft is in use around it, this one wraps the modules of that one. ``name`` is what messages
        call it.

        Raises:
            InputError: it is in use already, another change in use has replaced what this one replaces, or the model
                is not as it was when it was made.
        """
        if self.is_in:
            raise InputError(f"{name} is already in use; the same one cannot be put in twice.")
        self.followers.follow(name)
        chained = self._chained(name)
        # PEFT's layers for single parameters take those out of their module and put them back last
        ordered = [child._parameters for _, _, child in self.slots]
        places = {id(place): place for place in (*(one for one, _, _ in (*self._written(), *chained)), *ordered)}
        before = {key: place.copy() for key, place in places.items()}
        lists = [(place, place.copy()) for place, _ in self.lists]
        try:
            self.is_in = True
            for place, key, after in (*self._written(), *chained):
                place.pop(key, None) if after is _ABSENT else place.update({key: after})
            for place, content in self.lists:
                _refill(place, content)
            for module in self.new:
                module.training = self.hf.training
            yield
        finally:
            for place, content in lists:
                _refill(place, content)
            touched = [(id(place), key) for place, key, _ in (*self._written(), *chained)]
            for key, place in places.items():
                _put_back(place, before[key], {name for at, name in touched if at == key})
            self.is_in = False

    def _written(self) -> list[tuple[dict[Any, Any], Any, Any]]:
        return [(entry.place, entry.key, entry.after) for entry in self.entries]

    def _chained(self, name: str) -> list[tuple[dict[Any, Any], Any, Any]]:
        """What stands in the slots of this graft's modules while another graft's stand in the model."""
        found = []
        for entry in self.entries:
            now = entry.place.get(entry.key, _ABSENT)
            if _is_same(now, entry.before):
                continue
            slots = [(place, key, now) for place, key, child in self.slots if child is entry.before]
            if not isinstance(now, nn.Module) or not slots:
                raise InputError(
                    f"{name} replaces {entry.key!r} of the model, which an adaptation in use has replaced already; use "
                    f"one of them, or merge the other first. If none is in use, read {name} again."
                )
            found += slots
        return found


def _things_of(hf: nn.Module) -> Iterator[Any]:
    """Every module once, and the configurations that they refer to."""
    seen: set[int] = set()
    waiting: list[Any] = list(hf.modules())
    while waiting:
        thing = waiting.pop(0)
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        yield thing
        waiting += [x for x in vars(thing).values() if isinstance(x, PreTrainedConfig | GenerationConfig)]


def _differences(still: _Still) -> Iterator[_Entry]:
    """Every place where an attribute, or an entry of a dictionary that is one, is another than before."""
    own = vars(still.thing)
    for name in dict.fromkeys((*still.own, *own)):
        before, after = still.own.get(name, _ABSENT), own.get(name, _ABSENT)
        if name not in _LEFT_OUT and not _is_same(before, after):
            yield _Entry(own, name, before, after)
        elif isinstance(before, dict):
            earlier = still.held[name]
            for key in dict.fromkeys((*earlier, *before)):
                was, now = earlier.get(key, _ABSENT), before.get(key, _ABSENT)
                if not _is_same(was, now):
                    yield _Entry(before, key, was, now)


def _is_same(one: Any, other: Any) -> bool:
    return one is other or (type(one) is type(other) and isinstance(one, _PLAIN) and bool(one == other))


def _refill(container: Any, content: Any) -> None:
    container.clear()
    container.extend(content) if isinstance(container, list) else container.update(content)


def _put_back(place: dict[Any, Any], before: dict[Any, Any], touched: set[Any]) -> None:
    """Give the ``touched`` keys what they had, in the order of before; what others have changed meanwhile stays."""
    now = dict(place)
    place.clear()
    for key, value in before.items():
        if key in touched:
            place[key] = value
        elif key in now:
            place[key] = now[key]
    place.update({key: value for key, value in now.items() if key not in before and key not in touched})


def _address(tensor: Tensor) -> int:
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):  # a tensor of another kind, without memory of its own
        return 0


def _bytes(storage: torch.UntypedStorage) -> Tensor:
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)  # type: ignore[call-overload,no-any-return]
