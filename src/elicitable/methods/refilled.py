"""Build an adaptation again and fill it with the tensors that were kept of it, each compared by name and shape."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elicitable.errors import InputError
from elicitable.models.layout import PLAIN

if TYPE_CHECKING:
    from torch import Tensor

    from elicitable.methods.base import Adaptation, Method
    from elicitable.models.layout import Layout
    from elicitable.models.model import Model


def read_own(
    method: Method, model: Model, folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]
) -> Adaptation:
    """Build an adaptation from the setting in ``config`` and take over ``tensors``, each compared by name and shape."""
    setting = dict(config.get("setting") or {})
    given = {name: value for name, value in setting.items() if name in method.options}
    size = config.get("size", 1)
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise InputError(f"{folder}: size must be a whole number of at least 1, found {size!r}.")
    held = sum(tensor.numel() for tensor in tensors.values())
    if method.numbers(model, size) > held:  # said before anything of that size is made
        raise InputError(
            f"{folder}: {method.name} of size {size} on {model.name} has more numbers than the {held:,} there."
        )
    return filled(method, model, method.build(model, size, seed=0, **given), tensors, str(folder))


def built_again(
    method: Method,
    model: Model,
    size: int,
    seed: int,
    setting: Mapping[str, Any],
    layout: Layout | None,
    state: dict[str, Tensor],
) -> Adaptation:
    """Build what was chosen from its ``setting``; what was trained by the options in it, to take over ``state``."""
    if not method.is_trained:
        chosen = method.from_setting(model, setting, layout or PLAIN)
        if state:
            chosen.load(state)
        return chosen
    given = {name: value for name, value in setting.items() if name in method.options}
    return filled(method, model, method.build(model, size, seed=seed, **given), state)


def filled(
    method: Method, model: Model, adaptation: Adaptation, tensors: dict[str, Tensor], where: str = "the artefact"
) -> Adaptation:
    """Let ``adaptation`` take over ``tensors``; raise InputError, which names ``where``, unless they are its own."""
    wanted = {name: tuple(tensor.shape) for name, tensor in adaptation.state().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if wanted != found:
        raise InputError(f"{where}: {method.name} on {model.name} has the tensors {wanted}, found are {found}.")
    adaptation.load(tensors)
    return adaptation
