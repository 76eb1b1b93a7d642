"""Draw what virtual tokens are trained to make a model write.

A target is random in one of two ways, which a result says: its tokens are drawn uniformly from the vocabulary, or the
model itself writes it at temperature 1 after a token drawn uniformly. The second kind is text that the model might
write anyway, so reaching it shows what one token can elicit; the first kind is far harder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from elicitable.models.restoring import evaluating

if TYPE_CHECKING:
    from elicitable.models.model import Model

TARGETS = ("model", "random")


def drawn_targets(
    model: Model, kind: str, rows: int, length: int, generator: torch.Generator, after: tuple[int, ...] = ()
) -> Tensor:
    """Draw (row, length) token ids of one of the kinds in :data:`TARGETS`, on the model's device.

    >>> import elicitable as el
    >>> from elicitable.rng import torch_generator
    >>> tuple(drawn_targets(el.load("toy:ascending"), "random", 3, 4, torch_generator(0, "example")).shape)
    (3, 4)
    """
    if kind == "random":
        return torch.randint(model.anatomy.vocab, (rows, length), generator=generator).to(model.device)
    return sampled_targets(model, rows, length, generator, after)


@torch.no_grad()
def sampled_targets(
    model: Model, rows: int, length: int, generator: torch.Generator, after: tuple[int, ...] = ()
) -> Tensor:
    """Let the model write (row, length) ids at temperature 1 after ``after`` and a token drawn uniformly.

    >>> import elicitable as el
    >>> from elicitable.rng import torch_generator
    >>> tuple(sampled_targets(el.load("toy:ascending"), 3, 4, torch_generator(0, "example")).shape)
    (3, 4)
    """
    drawn = torch.randint(model.anatomy.vocab, (rows, 1), generator=generator)
    given = torch.cat([torch.tensor(after, dtype=torch.long).expand(rows, -1), drawn], dim=1).to(model.device)
    written, cache = [], None
    with evaluating(model.hf):
        for _ in range(length):
            out = model.hf(input_ids=given, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            shares = out.logits[:, -1].float().softmax(dim=-1).cpu()  # drawn on the CPU: the same on every device
            given = torch.multinomial(shares, 1, generator=generator).to(model.device)
            written.append(given)
    return torch.cat(written, dim=1)
