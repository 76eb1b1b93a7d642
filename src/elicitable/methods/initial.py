"""Where a trained context starts: it matters more than most choices of method, so it is a setting and is recorded.

``random``  Gaussian, with the spread of the model's own embeddings.
``vocabulary``  the embeddings of tokens drawn from the vocabulary.
``text``  the embeddings of a text or of token ids: the last ones, next to the content, repeated where they are few.
``sink``  the model's own first token, over and over, with a little noise so that the positions can part ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from elicitable.attention.float64 import doubled
from elicitable.errors import InputError, UnknownNameError
from elicitable.models.capture import sink_token
from elicitable.models.dispatch import brought_in
from elicitable.rng import torch_generator

if TYPE_CHECKING:
    from elicitable.models.model import Model

INITS = ("random", "sink", "text", "vocabulary")


def other_starts(own: str) -> tuple[dict[str, str], ...]:
    """Return the starts that need no text, but for ``own``, as options.

    >>> other_starts("random")
    ({'init': 'sink'}, {'init': 'vocabulary'})
    """
    return tuple({"init": init} for init in INITS if init not in ("text", own))


def check_init(init: str, text: str | Sequence[int] | None = None) -> None:
    """Check a start by its name, and that a text is given where it is one, and nowhere else.

    Raises:
        UnknownNameError: the name is none of :data:`INITS`.
        InputError: a text is given and not started from, or the other way round.
    """
    if init not in INITS:
        raise UnknownNameError("init", init, INITS)
    if init == "text" and not text:
        raise InputError("init='text' (--init text) needs text= (--init-text).")
    if init != "text" and text is not None:
        raise InputError(
            f"text= (--init-text) is what init='text' (--init text) starts from, and here the start is {init!r}; give "
            "both or neither."
        )


def initial_ids(model: Model, length: int, init: str, seed: int, text: str | Sequence[int] | None) -> Tensor:
    """(1, length) token ids to start from; not defined for ``random``."""
    if init == "text" and text is not None:
        ids = model.ids(text).flatten().tolist()
        return model.ids((ids * length)[-length:])
    if init == "sink":
        return model.ids([sink_token(model)] * length)
    drawn = torch.randint(model.anatomy.vocab, (length,), generator=torch_generator(seed, "init", init))
    return model.ids(drawn)


def initial_embeddings(
    model: Model, length: int, init: str, seed: int, text: str | Sequence[int] | None = None
) -> Tensor:
    """(length, d_embedding) input embeddings in the trainable dtype, as the model's embedding module gives them."""
    check_init(init, text)
    generator = torch_generator(seed, "noise", init)
    noise = torch.randn(length, model.anatomy.d_embedding, generator=generator, dtype=torch.float64)
    if init == "random":
        return (embedding_spread(model) * noise).to(model.device, model.trainable_dtype)
    start = model.embed(initial_ids(model, length, init, seed, text))[0].to(model.trainable_dtype)
    jitter = 0.1 * embedding_spread(model) if init == "sink" else 0.0
    return start + (jitter * noise).to(start)


@torch.no_grad()
def embedding_spread(model: Model) -> float:
    """The standard deviation of the model's input embeddings: its table's, times what its module scales by.

    The scale is read off the first tokens: ‖embedded‖ / ‖their rows of the table‖, which is exactly 1 where the module
    only looks up.
    """
    embeddings = model.hf.get_input_embeddings()
    with brought_in(embeddings):
        table: Tensor = embeddings.weight.detach()
    rows = table[:256]
    embedded = model.embed(torch.arange(len(rows), device=table.device)[None])[0]
    scale = float(doubled(embedded).norm() / doubled(rows).norm()) if not torch.equal(embedded, rows) else 1.0
    return float(table.float().std()) * scale


def check_length(length: int) -> None:
    """Raise InputError for a context of no positions."""
    if length < 1:
        raise InputError(f"length must be at least 1 virtual token, got {length}.")
