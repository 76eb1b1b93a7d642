"""Put into a model, or watch, whatever a person names: an adaptation, a context, an artefact, or a folder of one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from elicitable.deploy.artefact import Artefact, read
from elicitable.microscope import watch as microscope
from elicitable.models import inject
from elicitable.models.model import Model, as_model

if TYPE_CHECKING:
    from elicitable.microscope.scope import Scope


def parts_of(model: Model, context: Any) -> list[Any]:
    """Return the parts of ``context`` as adaptations of ``model``: folders and artefacts are read.

    Raises:
        InputError: a folder that there is not, or that holds none; or an artefact of another base model.
    """
    parts: Sequence[Any] = context if isinstance(context, list | tuple) else [context]
    return [_part(model, part) for part in parts]


def _part(model: Model, part: Any) -> Any:
    if isinstance(part, str | os.PathLike):
        part = read(part)
    return part.adaptation(model) if isinstance(part, Artefact) else part


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
        InputError: the strength is outside [0, 1], the context does not fit the model, there is no such folder, or
            another thread uses the model.

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
    return microscope.watch(model, None if context is None else parts_of(model, context), **options)
