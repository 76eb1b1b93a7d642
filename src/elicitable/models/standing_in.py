"""Hold a context to what it stands in for: behind it a text has the logits that it has behind the tokens themselves.

The rest of the anatomy looks at the attention calls. This looks at what comes of them, and so finds whatever else tells
a token of those before it: a state space beside the attention, a convolution over keys or over the stream.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from elicitable.attention.float64 import doubled
from elicitable.errors import UnsupportedModelError
from elicitable.models.anatomy import Anatomy
from elicitable.models.capture import capture_tokens
from elicitable.models.inject import installed
from elicitable.models.model import Model
from elicitable.models.restoring import evaluating, swapped
from elicitable.models.rounding import rounding

CONTEXT, CONTENT = 4, 8  # tokens: more than the convolutions of such layers reach
NEAR = 64  # a window up to this many tokens is passed
# Up to where a difference is rounding for certain, and up to where it may be. Exact architectures are off by 1e-6 in
# float32 and 0.015 in bfloat16, those with something beside attention by 1e-3 to 1 and 0.14 to 0.5.
EXACT, ROUNDED = (2e-4, 2e-4), (0.02, 0.1)


def settled(model: Model, anatomy: Anatomy) -> Anatomy:
    """Return ``anatomy`` as a context stands in for its tokens; ``model`` has none of its own yet.

    Rotary angles are not always relative: HunYuan norms queries and keys after it has turned them. Then the context
    stands at 0 … n−1, as on a model with learned positions.

    Raises:
        UnsupportedModelError: wherever they stand, a few tokens as a context are not what they are before the text; the
            text cannot be moved to stand behind one; or without a context it is read otherwise than by the model alone.
    """
    near, bound = EXACT if _is_exact(model) else ROUNDED
    model.__dict__["anatomy"] = anatomy
    if _off_alone(model) > bound:
        raise UnsupportedModelError(
            f"{type(model.hf).__name__}: its first token does not stand at position 0 (RoBERTa's do not), or its "
            "attention does more than is seen of it, so a text is read otherwise as soon as anything is in use."
        )
    off = _off(model)
    if off > near and anatomy.has_relative_positions and anatomy.takes_position_ids:
        model.__dict__["anatomy"] = at_zero = replace(anatomy, has_relative_positions=False)
        if (off_at_zero := _off(model)) < 0.5 * off:  # not by the luck of rounding
            anatomy, off = at_zero, off_at_zero
    if off > bound and not (anatomy.has_relative_positions or anatomy.takes_position_ids):
        raise UnsupportedModelError(
            f"{type(model.hf).__name__} counts the positions of its tokens itself and takes none, so a text cannot be "
            "moved up to stand behind a context."
        )
    if off > bound:
        raise UnsupportedModelError(
            f"{type(model.hf).__name__}: a part of it sees earlier tokens outside of attention (a state space or a "
            "convolution, for example), so a context cannot stand in for them."
        )
    return anatomy


@torch.no_grad()
def _off(model: Model) -> float:
    """Return how far the logits behind a context are from those behind its tokens, over the largest of them.

    That is the worst token's. In rounded types it is the median's, as a router of experts may choose otherwise on a
    token whose scores are as good as equal.
    """
    ids = _tokens(model)
    content = ids[:, CONTEXT:]
    if not content.shape[1]:
        return 0.0
    with evaluating(model.hf), installed(model) as slot:
        together = _logits(model, ids)[CONTEXT:]
        with swapped(slot, prefix=capture_tokens(model, ids[:, :CONTEXT])):
            behind = _logits(model, content)
    return _distance(model, behind, together)


@torch.no_grad()
def _off_alone(model: Model) -> float:
    """Return the same of a text without any context: how far its logits are from the bare model's."""
    ids = _tokens(model)
    with evaluating(model.hf):
        alone = _logits(model, ids)
        with installed(model):
            return _distance(model, _logits(model, ids), alone)


def _distance(model: Model, found: Tensor, wanted: Tensor) -> float:
    wrong = (found - wanted).abs().amax(dim=-1) / wanted.abs().max().clamp(min=1e-30)
    return float(wrong.max() if _is_exact(model) else wrong.median())


def _is_exact(model: Model) -> bool:
    """Whether all is computed in float32 or better."""
    types = {weight.dtype for weight in model.hf.parameters()}
    return types <= {torch.float32, torch.float64} and rounding(model) <= torch.finfo(torch.float32).eps


def _tokens(model: Model) -> Tensor:
    """Return a few ids (1, token), and as many as pass the model's windows, where those are near."""
    windows = [layer.sliding_window or 0 for layer in model.anatomy.layers]
    count = CONTEXT + CONTENT + max((window for window in windows if window <= NEAR), default=0)
    ids = 1 + torch.arange(
        min(count, model.anatomy.position_limit or count)
    )  # a text that begins with 0 may be padding
    return model.ids(ids % model.anatomy.vocab)


def _logits(model: Model, ids: Tensor) -> Tensor:
    """(token, vocabulary)."""
    logits: Tensor = model.hf(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
    return doubled(logits[0])
