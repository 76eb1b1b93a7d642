"""Use, watch or inspect in a model what a person names: an adaptation, a context, an artefact, or a folder of one."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from elicitable.deploy.artefact import Artefact, read
from elicitable.errors import InputError
from elicitable.microscope import inspect as inspecting
from elicitable.microscope import watch as watching
from elicitable.models import inject
from elicitable.models.model import Model, as_model
from elicitable.untrusted import in_one_line
from elicitable.values import PrefixKV

if TYPE_CHECKING:
    from elicitable.microscope.inspect import Inspection
    from elicitable.microscope.scope import Scope
    from elicitable.values import Item


def parts_of(model: Model, context: Any) -> list[Any]:
    """Return the parts of ``context`` as adaptations of ``model``: folders and artefacts are read.

    Raises:
        InputError: a folder that there is not, or that holds none; an artefact of another base model; or a part that
            is no context at all, such as None.
    """
    parts: Sequence[Any] = context if isinstance(context, list | tuple) else [context]
    return [_part(model, part) for part in parts]


def _part(model: Model, part: Any) -> Any:
    if isinstance(part, str | os.PathLike):
        part = read(part)
    if isinstance(part, Artefact):
        return part.adaptation(model)
    if not isinstance(part, PrefixKV) and not (hasattr(part, "prefix") and hasattr(part, "weights")):
        raise InputError(
            f"context: {in_one_line(reprlib.repr(part))} is none; give what `elicitable.context` or `elicitable.read` "
            "returns, a PrefixKV, or the folder of a run, an artefact or an adapter."
        )
    return part


def use(model: Any, context: Any, strength: float = 1.0) -> AbstractContextManager[Model]:
    """Let every forward pass and ``generate`` of ``model`` inside the ``with`` see ``context``.

    Only one thread can have something in place in a model. A ``with`` that is left before one inside it takes out what
    it put in and nothing else, and raises an InputError.
    A context's keys and values are computed at the start. Gradients go back to the context's own numbers through them,
    and not to the model's.

    Args:
        model: what :func:`elicitable.load` returns, or a transformers model.
        context: a context, an adaptation (LoRA, full), a :class:`~elicitable.values.PrefixKV`, an artefact
            (:func:`elicitable.read`), the folder of an artefact, of a run or of an adapter of PEFT's; or several of
            these: the first stands first and the later ones see the earlier ones.
        strength: g in [0, 1]: the prefix's softmax weight is multiplied by g. At 0 nothing is installed, so the
            outputs are bit-equal to the base model's; changed weights are then not installed either.

    Raises:
        InputError: the strength is outside [0, 1], the context does not fit the model or is none, there is no such
            folder, or another thread uses the model.

    Example:
        >>> import elicitable as el
        >>> model = el.load("toy:ascending")
        >>> with el.use(model, el.context("prompt", model, token_ids=[7, 0])):
        ...     logits = model(input_ids=model.ids([3, 1, 2])).logits
        >>> tuple(logits.shape)
        (1, 3, 10)
    """
    model = as_model(model)
    return inject.use(model, parts_of(model, context), strength)


def watch(model: Any, context: Any = None, **options: Any) -> AbstractContextManager[Scope]:
    """Put ``context`` into ``model`` as :func:`use` does, and measure what it does.

    ``options`` are those of :func:`elicitable.microscope.watch.watch`, where what is measured is explained.
    """
    model = as_model(model)
    return watching.watch(model, None if context is None else parts_of(model, context), **options)


def inspect(model: Any, context: Any, texts: Sequence[str | Sequence[int] | Item], **options: Any) -> Inspection:
    """Run ``texts`` through ``model`` with ``context``, as :func:`use` takes it, and say what it does in every head.

    ``options`` are those of :func:`elicitable.microscope.inspect.inspect`, where what is found is explained.

    Raises:
        InputError: the context is none (None too: :func:`watch` observes a model as it is), there is no such folder,
            there is no text, or no such layer or head.

    Example:
        >>> import elicitable as el
        >>> model = el.load("toy:ascending")
        >>> el.inspect(model, el.context("prompt", model, token_ids=[7, 0]), [[3, 1, 2], [5, 6]]).prefix
        2
    """
    model = as_model(model)
    return inspecting.inspect(model, parts_of(model, context), texts, **options)
