"""A stand-in for Apple's GPU: tensors that say they are on ``mps``, computed here, of which none may be float64."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

CHANGING = ("__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__", "__iand__", "__ior__")
APPLE, HERE = torch.device("mps", 0), torch.device("cpu")


class OnApple(Tensor):
    """A tensor that says it is on ``mps``, around what it holds here."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> OnApple:
        """Return ``held`` as a tensor on ``mps``."""
        about = {"dtype": held.dtype, "device": APPLE, "strides": held.stride()}
        made: OnApple = Tensor._make_wrapper_subclass(cls, held.shape, **about)  # type: ignore[attr-defined]
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run here what is asked beneath Python's functions."""
        return _run(func, args, kwargs or {}, bool(func._schema.is_mutable))


class _Apple(TorchFunctionMode):
    """Run every function here, before it looks for a place that this machine does not have."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run ``func`` here; what a tensor says of itself it says of the one on ``mps``."""
        name = getattr(func, "__name__", "")
        if name in ("__get__", "__set__", "device") or isinstance(func, type):
            return func(*args, **(kwargs or {}))
        changes = name in CHANGING or (name.endswith("_") and not name.endswith("__"))
        return _run(func, args, kwargs or {}, changes)


def _run(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], changes: bool) -> Any:
    """Run a function here; what comes of a tensor on ``mps`` is there too, unless it is asked for elsewhere."""
    seen: list[OnApple] = []
    asked: list[torch.device] = []

    def held(one: OnApple) -> Tensor:
        seen.append(one)
        return one.held

    def here(place: torch.device) -> torch.device:
        asked.append(place)
        return HERE

    if getattr(func, "__name__", "") == "cpu":
        asked.append(HERE)
    given = tree_map_only(torch.device, here, tree_map_only(OnApple, held, (args, dict(kwargs))))
    result = func(*given[0], **given[1])
    is_there = asked[0].type == APPLE.type if asked else bool(seen)
    made = result if isinstance(result, tuple | list) else [result]
    if (seen or is_there) and any(isinstance(one, Tensor) and one.dtype == torch.float64 for one in made):
        raise TypeError(f"{func}: Cannot convert a MPS Tensor to float64 dtype: the MPS framework has none.")
    if changes:
        return args[0]
    return tree_map_only(Tensor, OnApple, result) if is_there else result


@contextmanager
def on_apple(hf: nn.Module) -> Iterator[None]:
    """Let ``hf`` stand on ``mps`` inside."""
    kept: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for module in hf.modules():
        for own in (module._parameters, module._buffers):
            kept.append((own, dict(own)))
            for name, x in own.items():
                if x is not None:
                    there = OnApple(x.detach())
                    own[name] = nn.Parameter(there, requires_grad=False) if isinstance(x, nn.Parameter) else there
    try:
        with _Apple():
            yield
    finally:
        for own, before in kept:
            own.update(before)
