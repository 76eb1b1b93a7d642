"""Bring architectures that do not follow transformers' attention interface to it.

Each adapter is the architecture's own attention forward with its softmax replaced by a call of
:func:`elicitable.models.attend.attend`. It stands in for the module's forward only while :func:`attending` is open.

ALiBi adds slope·(j − i) to the logit of key j for query i. The softmax does not see what is added to a whole row, so
slope·j is the same; the content's first token has j = 0 and a context's keys have j = −n … −1.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from elicitable.models.attend import NAME, attend
from elicitable.models.in_place import Together
from elicitable.models.restoring import swapped

Forward = Callable[..., tuple[Tensor, None]]


def _mpt(self: Any, hidden_states: Tensor, **given: Any) -> tuple[Tensor, None]:
    """``MptAttention.forward``; its mask is True where a key is hidden."""
    batch, queries = hidden_states.shape[:2]
    mixed = self.Wqkv(hidden_states)
    if self.clip_qkv:
        mixed = mixed.clamp(min=-self.clip_qkv, max=self.clip_qkv)
    query, key, value = (
        part.reshape(batch, queries, self.n_heads, self.head_dim).transpose(1, 2) for part in mixed.chunk(3, dim=2)
    )
    if given.get("past_key_values") is not None:
        key, value = given["past_key_values"].update(key, value, self.layer_idx)
    hidden = given.get("attention_mask")
    mask = None if hidden is None else ~hidden
    # added to the logits in float32 at least, as MPT does: bfloat16 tells no neighbours beyond position 256 apart
    slopes = given["position_bias"][:, -1, -1] - given["position_bias"][:, -1, -2]
    slopes = slopes.to(torch.promote_types(query.dtype, torch.float32))
    output, _ = attend(
        self,
        query,
        key,
        value,
        mask,
        scaling=self.softmax_scale,
        dropout=self.attn_dropout_p if self.training else 0.0,
        position_bias=_alibi(slopes, mask, key),
        position_slopes=slopes,
    )
    return self.out_proj(output.reshape(batch, queries, -1)), None


def _bloom(
    self: Any, hidden_states: Tensor, residual: Tensor, alibi: Tensor, attention_mask: Any = None, **given: Any
) -> tuple[Tensor, None]:
    """``BloomAttention.forward``."""
    batch, queries = hidden_states.shape[:2]
    query, key, value = self._reshape(self.query_key_value(hidden_states))
    if given.get("layer_past") is not None:
        key, value = given["layer_past"].update(key, value, self.layer_idx)
    slopes = _bloom_slopes(self.num_heads, query)
    output, _ = attend(
        self,
        query,
        key,
        value,
        attention_mask,
        scaling=self.inv_norm_factor,
        dropout=self.attention_dropout.p if self.training else 0.0,
        position_bias=_alibi(slopes, attention_mask, key),
        position_slopes=slopes,
    )
    output = self.dense(output.reshape(batch, queries, -1))
    dropped = nn.functional.dropout(output, p=self.hidden_dropout, training=self.training)
    return residual + dropped, None


def _falcon(
    self: Any, hidden_states: Tensor, alibi: Tensor | None, attention_mask: Any = None, **given: Any
) -> tuple[Tensor, None]:
    """``FalconAttention.forward`` with rotary positions."""
    from transformers.models.falcon.modeling_falcon import apply_rotary_pos_emb

    batch, queries = hidden_states.shape[:2]
    query, key, value = (x.transpose(1, 2) for x in self._split_heads(self.query_key_value(hidden_states)))
    query, key = apply_rotary_pos_emb(query, key, *given["position_embeddings"])
    if given.get("layer_past") is not None:
        key, value = given["layer_past"].update(key, value, self.layer_idx)
    output, _ = attend(self, query, key, value, attention_mask, scaling=1 / math.sqrt(self.head_dim))
    return self.dense(output.reshape(batch, queries, -1)), None


def _bloom_slopes(heads: int, like: Tensor) -> Tensor:
    from transformers.models.bloom.modeling_bloom import _get_alibi_slopes

    slopes: Tensor = _get_alibi_slopes(heads, like.device)
    return slopes.to(like.dtype)


def _alibi(slopes: Tensor, mask: Tensor | None, key: Tensor) -> Tensor:
    """(batch or 1, head, 1, key): slope · position, where position 0 is each row's first visible key."""
    positions = torch.arange(key.shape[2], device=key.device)[None]
    if mask is not None:
        seen = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
        positions = positions - seen[:, 0].any(dim=1).long().argmax(dim=-1, keepdim=True)
    return slopes[None, :, None, None] * positions.to(slopes)[:, None, None, :]


# model_type -> (name of the attention class, its forward, whether positions are ALiBi)
ADAPTERS: dict[str, tuple[str, Forward, bool]] = {
    "bloom": ("BloomAttention", _bloom, True),
    "falcon": ("FalconAttention", _falcon, False),
    "mpt": ("MptAttention", _mpt, True),
}


def has_adapter(hf: PreTrainedModel) -> bool:
    """Say whether the model's attention is brought to the interface by an adapter of this file."""
    return hf.config.model_type in ADAPTERS and not getattr(hf.config, "alibi", False)


def has_alibi(hf: PreTrainedModel) -> bool:
    """Say whether positions are biases on logits, so that a context can stand at −n … −1 without rotary angles."""
    return has_adapter(hf) and ADAPTERS[hf.config.model_type][2]


def configurations(modules: Iterable[nn.Module]) -> tuple[Any, ...]:
    """Return the distinct configurations that ``modules`` read their attention function from."""
    held = [getattr(module, "config", None) for module in modules]
    return tuple({id(one): one for one in held if hasattr(one, "_attn_implementation_internal")}.values())


@contextmanager
def attending(hf: PreTrainedModel, configs: Iterable[Any]) -> Iterator[None]:
    """Let the attention modules of ``hf`` that read ``configs`` attend through :func:`attend`; restored afterwards.

    Other parts of the model, such as a tower that reads images, keep their own attention.
    """
    with ExitStack() as stack:
        stack.enter_context(_CUDNN_LEFT_OUT.held())
        if has_adapter(hf):
            class_name, forward, _ = ADAPTERS[hf.config.model_type]
            for module in hf.modules():
                if type(module).__name__ == class_name:
                    stack.enter_context(swapped(module, forward=types.MethodType(forward, module)))
        else:
            for config in configs:
                stack.enter_context(swapped(config, _attn_implementation_internal=NAME))
        yield


@contextmanager
def _without_cudnn() -> Iterator[None]:
    """Leave cuDNN out of the kernels that PyTorch may choose for attention on a GPU.

    Behind a mask its backward pass gives gradients that are no numbers where the keys are 64 more than a multiple of
    128 and a row's log-sum-exp is below −88.7, as that of padding is (pytorch/pytorch#196678, seen with torch 2.11).
    """
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


_CUDNN_LEFT_OUT = Together(_without_cudnn)  # the switch is one for all models
