"""Hold a context to what it stands in for: behind it a text has the logits that it has behind the tokens themselves.

The rest of the anatomy looks at the attention calls. This looks at what comes of them, and so finds whatever else tells
a token of those before it: a state space beside the attention, a convolution over keys or over the stream.
"""

from __future__ import annotations

import torch
from torch import Tensor

from elicitable.errors import UnsupportedModelError
from elicitable.models.capture import capture_tokens
from elicitable.models.inject import installed
from elicitable.models.model import Model
from elicitable.models.restoring import evaluating, swapped

CONTEXT, CONTENT = 4, 8  # tokens: more than the convolutions of such layers reach
NEAR = 64  # a window up to this many tokens is passed


@torch.no_grad()
def check_stands_in(model: Model) -> None:
    """Raise UnsupportedModelError where a few tokens as a context are not what they are in front of the text."""
    ids = _tokens(model)
    content = ids[:, CONTEXT:]
    if not content.shape[1]:
        return
    with evaluating(model.hf), installed(model) as slot:
        together = _logits(model, ids)[CONTEXT:]
        with swapped(slot, prefix=capture_tokens(model, ids[:, :CONTEXT])):
            behind = _logits(model, content)
    wrong, scale = (behind - together).abs().amax(dim=-1), float(together.abs().max())
    # In rounded types a router of experts may choose otherwise on a token whose scores are as good as equal, so the
    # median decides there. Exact architectures are off by 1e-6 of the scale (float32) or 0.015 (bfloat16), others by
    # 1e-3 to 1 or 0.14 to 0.5.
    if float(wrong.max()) > 2e-4 * scale if _is_exact(model) else float(wrong.median()) > 0.1 * scale:
        raise UnsupportedModelError(
            f"{type(model.hf).__name__}: a part of it sees earlier tokens outside of attention (a state space or a "
            "convolution, for example), so a context cannot stand in for them."
        )


def _is_exact(model: Model) -> bool:
    """Whether all is computed in float32 or better."""
    types = {weight.dtype for weight in model.hf.parameters()}
    is_lowered = torch.is_autocast_enabled(model.device.type) or torch.get_float32_matmul_precision() != "highest"
    return types <= {torch.float32, torch.float64} and not is_lowered


def _tokens(model: Model) -> Tensor:
    """Return a few ids (1, token), and as many as pass the model's windows, where those are near."""
    windows = [layer.sliding_window or 0 for layer in model.anatomy.layers]
    count = CONTEXT + CONTENT + max((window for window in windows if window <= NEAR), default=0)
    return model.ids(torch.arange(min(count, model.anatomy.position_limit or count)) % model.anatomy.vocab)


def _logits(model: Model, ids: Tensor) -> Tensor:
    """(token, vocabulary)."""
    logits: Tensor = model.hf(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
    return logits[0].double()
