"""What is in place in a model right now: a record beside each model and never in it.

Several ``with``s may be open on one model, in one thread. Most are left in the order of a stack. Generators, fixtures
and ``ExitStack``s can be left in another; then what was put in on top of what is left comes out first, and is put in
again without it. So a model is always what those ``with``s say that are still open, and as it was after the last one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from torch import nn

from elicitable.errors import InputError

Held = TypeVar("Held")


class Together(Generic[Held]):
    """Something that all who hold it share: whoever comes first puts it in, and whoever leaves last takes it out."""

    def __init__(self, enter: Callable[..., AbstractContextManager[Held]]) -> None:
        self._enter, self._inside, self._holders = enter, ExitStack(), 0
        self._counting = threading.RLock()

    @contextmanager
    def held(self, *given: Any) -> Iterator[Held]:
        """Hold it inside the ``with``; ``given`` goes to ``enter`` where it is not there yet."""
        with self._counting:
            if self._holders == 0:
                self._value = self._inside.enter_context(self._enter(*given))
            self._holders += 1
        try:
            yield self._value
        finally:
            with self._counting:
                self._holders -= 1
                if self._holders == 0:
                    self._inside.close()


class _Change:
    """One change of weights, which can be taken out and put in again while its ``with`` is open."""

    def __init__(self, enter: Callable[[], AbstractContextManager[None]]) -> None:
        self._enter, self._inside, self.is_in = enter, ExitStack(), False

    def put_in(self) -> None:
        self._inside.enter_context(self._enter())
        self.is_in = True

    def take_out(self, *raised: Any) -> bool | None:
        """Leave its ``with``; ``raised`` is how an exception is told to one."""
        self.is_in = False
        return self._inside.__exit__(*(raised or (None, None, None)))


@dataclass(eq=False)
class Place:
    """What is in place in one model: the thread that put it there, changes of weights, and what the slots hold."""

    thread: int = 0
    holders: int = 0
    changes: list[_Change] = field(default_factory=list)
    shared: dict[str, Together[Any]] = field(default_factory=dict)
    contexts: list[Any] = field(default_factory=list)

    @contextmanager
    def without(self, changes: Sequence[_Change]) -> Iterator[None]:
        """Take these out, the last one first; afterwards those that were in are in again, in their order."""
        taken = [change for change in changes if change.is_in]
        for change in reversed(taken):
            change.take_out()
        try:
            yield
        finally:
            for change in taken:
                change.put_in()

    def leave(self, change: _Change, *raised: Any) -> bool | None:
        """Take one out from wherever it is."""
        with self.without(self.changes[self.changes.index(change) + 1 :]):
            self.changes.remove(change)
            return change.take_out(*raised)


_places: WeakKeyDictionary[nn.Module, Place] = WeakKeyDictionary()
_counting = threading.RLock()  # collected garbage may leave a `with` while this thread counts


@contextmanager
def entered(hf: nn.Module) -> Iterator[Place]:
    """Keep ``hf`` for this thread inside the ``with``; it may be left in any order, and in any thread.

    Raises:
        InputError: another thread has something in place in this model, which would see what is put in here.
    """
    me = threading.get_ident()
    with _counting:
        place = _places.setdefault(hf, Place())
        if place.holders and place.thread != me:
            raise InputError(
                f"this {type(hf).__name__} is in use in another thread, where every forward pass would see what is put "
                "in here. Give each thread a copy of the model, or let one wait for the other (threading.Lock)."
            )
        place.thread, place.holders = me, place.holders + 1
    try:
        yield place
    finally:
        with _counting:
            place.holders -= 1


@contextmanager
def changed(hf: nn.Module, enter: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
    """Have a change of weights in place inside the ``with``, on top of those that are.

    Args:
        hf: the model.
        enter: makes the ``with`` that changes it; called again where the change has to be put in once more.

    Raises:
        InputError: another thread has something in place in this model.
    """
    with entered(hf) as place, ExitStack() as stack:
        change = _Change(enter)
        change.put_in()
        place.changes.append(change)
        stack.push(lambda *raised: place.leave(change, *raised))
        yield


@contextmanager
def base_weights(hf: nn.Module) -> Iterator[None]:
    """Have ``hf``'s own weights in place inside the ``with``; whatever changes them is taken out for so long.

    Raises:
        InputError: another thread has something in place in this model.
    """
    with entered(hf) as place, place.without(place.changes):
        yield


def check_bare(hf: nn.Module, what: str) -> None:
    """Raise InputError where ``what``, which changes the weights, would find layers that PEFT has put around some.

    Another adapter would switch theirs off, and the weights within them have other names than in the model's files.
    """
    with base_weights(hf):
        for name, module in hf.named_modules():
            if type(module).__module__.split(".")[0] == "peft":
                raise InputError(
                    f"the model holds an adapter of PEFT's already ({name}: PEFT's {type(module).__name__}), which "
                    f"{what} cannot train beside. Merge or unload it first (merge_and_unload, unload), or load the "
                    "base model anew."
                )
