"""Change something for the length of a ``with``, and leave it afterwards as it was found, also after an exception.

Everything that this package changes in a model or in its own state for a while goes through one of these three, or
through the handle that torch returns for a hook, which is a ``with`` of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

_ABSENT = object()


@contextmanager
def swapped(thing: object, **attributes: Any) -> Iterator[None]:
    """Give ``thing`` these attributes inside the ``with``; afterwards it has its own again.

    An attribute that ``thing`` did not have itself (it may come from its class) is taken away again. Values go past
    ``__setattr__``, so that a function can stand in for a module's forward.

    >>> from types import SimpleNamespace
    >>> thing = SimpleNamespace(size=1)
    >>> with swapped(thing, size=2, name="other"):
    ...     print(thing.size, thing.name)
    2 other
    >>> thing
    namespace(size=1)
    """
    own = vars(thing)
    before = {name: own.get(name, _ABSENT) for name in attributes}
    own.update(attributes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is _ABSENT:
                own.pop(name, None)
            else:
                own[name] = value


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put ``module`` into evaluation mode inside; afterwards every submodule has its own mode again.

    Some submodules may be in another mode than the whole, so each is remembered by itself.
    """
    training = [m for m in module.modules() if m.training]
    for m in training:
        m.training = False
    try:
        yield
    finally:
        for m in training:
            m.training = True


@contextmanager
def without_gradients(module: nn.Module, but: Iterable[nn.Parameter] = ()) -> Iterator[None]:
    """Compute no gradients for the parameters of ``module`` inside, ``but`` these; afterwards those that wanted one do.

    They are remembered by their places: where weights are offloaded, other parameters stand there after a run.
    """
    trained = {id(parameter) for parameter in but}
    places = [(one, name) for one in module.modules() for name in one._parameters]
    wanted = [
        (one, name)
        for one, name in places
        if (own := one._parameters[name]) is not None and own.requires_grad and id(own) not in trained
    ]
    _want(wanted, False)
    try:
        yield
    finally:
        _want(wanted, True)


def _want(places: Iterable[tuple[nn.Module, str]], gradient: bool) -> None:
    for module, name in places:
        if (parameter := module._parameters[name]) is not None:
            parameter.requires_grad_(gradient)
