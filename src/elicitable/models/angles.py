"""Rotary angles that hang on how long a text is: those of longrope, and of a dynamic scale.

Up to some length such a model turns its keys by one set of angles, and beyond it by another. A context's keys are
turned once, before anybody knows how long a text will be, so they are right for the first set alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from elicitable.errors import InputError
from elicitable.models.prefixes import prefix_length
from elicitable.values import PrefixKV


def angles_change_at(decoder: nn.Module) -> int | None:
    """Return the longest text that is turned by the first set of angles; None where there is only one set."""
    return min((border for one in decoder.modules() for border in _borders(one)), default=None)


def _borders(rotary: Any) -> Iterator[int]:
    """One for each kind of layer, where a rotary module keeps them apart."""
    kinds = getattr(rotary, "rope_type", None) or {}
    for layers, kind in {None: kinds}.items() if isinstance(kinds, str) else kinds.items():
        if "dynamic" in kind:
            yield int(rotary.original_max_seq_len)
        elif kind == "longrope":
            parameters = rotary.config.rope_parameters
            yield int((parameters if layers is None else parameters[layers])["original_max_position_embeddings"])


def check_angles(prefix: PrefixKV | None, end: int, border: int | None) -> None:
    """Raise InputError where a text of ``end`` tokens and the context before it are longer than ``border``.

    A trained kv-prefix has no angles: it stands nowhere, and the content moves up by its length.
    """
    if prefix is None or border is None or prefix.positions is None or not prefix_length(prefix):
        return
    before = -int(prefix.positions.min())
    if before > prefix.shift and end + before > border:
        raise InputError(
            f"the text has {end} tokens and the context in front of it {before}: together more than the {border} up to "
            "which this model turns keys by the same rotary angles (longrope or a dynamic scale). The context's keys "
            "have the angles of shorter texts, so it would not be exact: give a shorter text."
        )


@contextmanager
def before_a_text(decoder: nn.Module) -> Iterator[None]:
    """Let such modules count a text's first token behind the positions that they are given, and leave it out again.

    A text that ends at position −1 has no length, and Phi-MoE scales one of no length otherwise.
    """
    with ExitStack() as stack:
        for module in decoder.modules():
            if any(_borders(module)):
                stack.enter_context(module.register_forward_pre_hook(_with_one_more, with_kwargs=True))
                stack.enter_context(module.register_forward_hook(_without_it))
        yield


def _with_one_more(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    def longer(positions: Any) -> Any:
        return nn.functional.pad(positions, (0, 1))  # position 0

    if "position_ids" in kwargs:
        return args, {**kwargs, "position_ids": longer(kwargs["position_ids"])}
    return (args[0], longer(args[1]), *args[2:]), kwargs


def _without_it(module: nn.Module, args: tuple[Any, ...], angles: Any) -> Any:
    return tuple(one[:, :-1] for one in angles) if isinstance(angles, tuple) else angles[:, :-1]
