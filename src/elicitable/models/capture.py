"""Run something as a context and keep what the content would attend to: its keys and values, as a PrefixKV.

In a causal model the context never sees the content, so its keys and values do not depend on the input: they are
computed once, at batch size 1, and shared by every row. Gradients flow through them to what they were computed from.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from elicitable.errors import InputError, UnsupportedModelError
from elicitable.models.angles import before_a_text
from elicitable.models.inject import installed
from elicitable.models.model import Model
from elicitable.models.prefixes import row_count
from elicitable.models.replay import check_stream
from elicitable.models.restoring import evaluating, swapped
from elicitable.values import PrefixKV


def capture_tokens(model: Model, ids: Tensor, before: PrefixKV | None = None, end: int = 0) -> PrefixKV:
    """Run hard tokens ``ids`` (row, prefix); the last one stands ``end`` + 1 positions before the content.

    ``before`` is what stands before it (and is seen by it), ``end`` the positions that later contexts take.

    Raises:
        InputError: there are none, more than the model has positions, or ids outside the vocabulary.
    """
    model.ids(ids)
    return _capture(model, {"input_ids": ids}, ids.shape[0], ids.shape[1], before, end)


def capture_embeddings(model: Model, embeddings: Tensor, before: PrefixKV | None = None, end: int = 0) -> PrefixKV:
    """Run input embeddings (row, prefix, d_embedding) through all layers: a soft prompt.

    Raises:
        UnsupportedModelError: the model looks at token ids again after it has embedded them.
    """
    if not model.runs_on_embeddings:
        raise UnsupportedModelError(
            f"{type(model.hf).__name__} does not run on embeddings that are no tokens' own: it looks at the token ids "
            "again further up, so it cannot have a soft prompt."
        )
    embeddings = embeddings.to(model.dtype, copy=True)  # a model may scale what it reads in place, as CTRL does
    return _capture(model, {"inputs_embeds": embeddings}, embeddings.shape[0], embeddings.shape[1], before, end)


def capture_residuals(model: Model, vectors: Tensor, before: PrefixKV | None = None, end: int = 0) -> PrefixKV:
    """Give each layer residual-stream vectors (layer, prefix, d_model) of its own: the paper's prefix-tuning.

    Placeholder tokens are run at batch size 1 while every decoder layer's input is replaced by that layer's vectors,
    so each layer's own norm, W_K and W_V see them; no other fact of the architecture is needed.
    """
    prefix = vectors.shape[1]
    ids = torch.zeros(1, prefix, dtype=torch.long, device=model.device)
    with _layer_inputs(model, vectors.to(model.dtype)):
        return _capture(model, {"input_ids": ids}, 1, prefix, before, end)


def _capture(
    model: Model, inputs: dict[str, Tensor], rows: int, length: int, before: PrefixKV | None, end: int
) -> PrefixKV:
    if length == 0:
        raise InputError("a context needs at least one token or vector, got none.")
    anatomy = model.anatomy
    if anatomy.position_limit is not None and length > anatomy.position_limit:
        raise InputError(
            f"the context has {length} tokens, but {model.name} has only {anatomy.position_limit} positions."
        )
    if before is not None and rows == 1 and (rows := row_count(before)) > 1:  # rows that stand before it make it differ
        inputs = {name: x.expand(rows, *x.shape[1:]) for name, x in inputs.items()}
    relative = torch.arange(-length, 0, device=model.device)[None]
    positions = (relative - end if anatomy.has_relative_positions else relative + length).expand(rows, -1)
    given = {"position_ids": positions} if anatomy.takes_position_ids else {}
    given["attention_mask"] = torch.ones(rows, length, dtype=torch.long, device=model.device)
    captured: dict[int, tuple[Tensor, Tensor]] = {}
    alone: dict[str, Any] = {"prefix": before, "strength": 1.0, "watchers": [], "capture": captured}
    with installed(model) as slot, swapped(slot, **alone), evaluating(model.hf), before_a_text(anatomy.decoder):
        model.hf(**inputs, **given, use_cache=False, logits_to_keep=1)
    return PrefixKV(
        keys=tuple(captured[layer][0] for layer in range(anatomy.depth)),
        values=tuple(captured[layer][1] for layer in range(anatomy.depth)),
        positions=relative,
        shift=0 if anatomy.has_relative_positions else length,
    )


@contextmanager
def _layer_inputs(model: Model, vectors: Tensor) -> Iterator[None]:
    with ExitStack() as stack:
        for block, own in zip(model.anatomy.blocks, vectors, strict=True):
            hook = _replace_input(own, type(model.hf).__name__)
            stack.enter_context(block.register_forward_pre_hook(hook, with_kwargs=True))
        yield


def _replace_input(vectors: Tensor, name: str) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        check_stream(name, args[0] if args else kwargs["hidden_states"])
        if args:
            return (vectors[None].to(args[0].dtype), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": vectors[None].to(kwargs["hidden_states"].dtype)}

    return hook


def sink_token(model: Model) -> int:
    """Find the token that stands first in the model's own texts: its tokenizer's, its beginning of sequence, or 0."""
    return next(iter(model.start_ids()), None) or start_token(model) or 0


def start_token(model: Model) -> int | None:
    """Find the beginning-of-sequence token, in the tokenizer or the configuration; None where neither has one."""
    config = model.hf.config.get_text_config()
    for candidate in (getattr(model.tokenizer, "bos_token_id", None), getattr(config, "bos_token_id", None)):
        if isinstance(candidate, int) and 0 <= candidate < model.anatomy.vocab:
            return candidate
    return None
