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
def without_gradients(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Compute no gradients for ``parameters`` inside; afterwards those that wanted one want it again."""
    wanted = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)
