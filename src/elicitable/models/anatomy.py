"""Read the facts of an architecture off the live model: three tokens are run, and nothing is guessed.

Whether a context then stands in for its tokens is checked with a few more (see :mod:`elicitable.models.standing_in`).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from elicitable.attention.float64 import doubled
from elicitable.errors import UnsupportedModelError
from elicitable.models.adapters import attending, configurations, has_adapter, has_alibi
from elicitable.models.angles import angles_change_at
from elicitable.models.dispatch import runs_on
from elicitable.models.probes import Probed, is_causal, probing, window_of
from elicitable.models.restoring import evaluating
from elicitable.untrusted import in_one_line, is_out_of_memory

FAR = 1_024  # the most tokens back that a query is looked at again
SCALED = 1e-3  # of its length, from which that is no rounding of angles; in bfloat16 they round by up to 2.6e-3


@dataclass(frozen=True)
class LayerShape:
    """Tell the shapes of one attention layer, as its own keys and values have them."""

    heads: int
    kv_heads: int
    d_head: int
    d_value: int
    sliding_window: int | None


@dataclass(frozen=True, eq=False)
class Anatomy:
    """Tell where things are in one decoder.

    ``attentions`` are the modules that call the attention function, one per layer, in order; ``blocks`` the decoder
    layers around them; ``decoder`` the module whose forward takes token ids and positions. ``d_model`` is the width of
    the stream between the blocks, ``d_embedding`` that of a token's embedding (OPT-350m projects one to the other).

    With ``has_relative_positions`` (rotary angles, or ALiBi) a context can stand at −n … −1, and the content stays
    where it was; without them (learned positions, tables) the content is shifted by n instead. ``trained_positions``
    is how many positions the configuration speaks of, None where it says nothing; ``angles_change_at`` the longest text
    whose rotary angles a context's keys have, None where they do not hang on the length.
    """

    decoder: nn.Module
    blocks: tuple[nn.Module, ...]
    attentions: tuple[nn.Module, ...]
    layers: tuple[LayerShape, ...]
    d_model: int
    d_embedding: int
    vocab: int
    has_relative_positions: bool
    takes_position_ids: bool
    trained_positions: int | None
    angles_change_at: int | None

    @property
    def depth(self) -> int:
        """Count the layers."""
        return len(self.layers)

    @cached_property
    def configs(self) -> tuple[Any, ...]:
        """The configurations that the decoder and its attention modules read their attention function from."""
        return configurations((self.decoder, *self.attentions))

    @property
    def position_limit(self) -> int | None:
        """Tell how many positions there are at all; None where positions are relative, so that there is no end."""
        return None if self.has_relative_positions else self.trained_positions


def anatomy_of(hf: PreTrainedModel) -> Anatomy:
    """Run three tokens through ``hf`` and read its anatomy.

    Raises:
        UnsupportedModelError: the model is no causal decoder, does not run on a text alone, mixes attention with other
            kinds of layers, or does not hand its attention to transformers' attention interface; the message names the
            architecture and reason.
    """
    name = type(hf).__name__
    if getattr(hf.config, "is_encoder_decoder", False):
        raise UnsupportedModelError(f"{name} is an encoder-decoder; elicitable needs a causal decoder.")
    if not hasattr(hf, "lm_head") and hf.get_output_embeddings() is None:
        raise UnsupportedModelError(
            f"{name} has no language-model head; elicitable needs a causal decoder "
            "(a model that AutoModelForCausalLM loads)."
        )
    if not has_adapter(hf) and not hf._can_set_attn_implementation():
        raise UnsupportedModelError(
            f"{name} ({hf.config.model_type}) does not use transformers' attention interface, "
            "so a context cannot be injected exactly."
        )
    calls = _probe(hf, name)
    modules = [call[0] for call in calls]
    depth = getattr(hf.config.get_text_config(), "num_hidden_layers", len(modules))
    _check_every_layer_attends(name, modules, depth)
    _check_kinds(name, getattr(hf.config.get_text_config(), "layer_types", None) or ())
    _check_scale(name, modules)
    decoder = _decoder(hf, modules)
    takes_position_ids = "position_ids" in inspect.signature(decoder.forward).parameters
    trained = getattr(hf.config.get_text_config(), "max_position_embeddings", None)
    border = angles_change_at(decoder)
    far = min(filter(None, (FAR, trained, border)))
    is_relative = _has_relative_positions(hf) and not (takes_position_ids and _is_scaled_by_position(hf, far))
    blocks = _blocks(hf, modules)
    return Anatomy(
        decoder=decoder,
        blocks=blocks,
        attentions=tuple(modules),
        layers=tuple(_shape(call) for call in calls),
        d_model=_stream_width(hf, blocks[0]),
        d_embedding=hf.get_input_embeddings().weight.shape[1],
        vocab=hf.get_input_embeddings().weight.shape[0],
        has_relative_positions=is_relative,
        takes_position_ids=takes_position_ids,
        trained_positions=trained,
        angles_change_at=border,
    )


def _check_every_layer_attends(name: str, modules: list[nn.Module], depth: int) -> None:
    distinct = len(set(map(id, modules)))
    if distinct == depth and len(modules) > depth:
        raise UnsupportedModelError(
            f"{name} attends {len(modules) // depth} times in one layer (differential attention); the parts of its "
            "difference would each need a context of their own."
        )
    if distinct != depth or len(modules) != depth:
        raise UnsupportedModelError(
            f"{name} has {depth} layers but {distinct} of them attend through the attention interface; layers of "
            "another kind (state space, linear or custom attention) would not see a context."
        )


def _check_kinds(name: str, kinds: Iterable[Any]) -> None:
    """What only a longer text than the probe's would show."""
    for kind in map(str, kinds):
        if "chunked" in kind:
            raise UnsupportedModelError(
                f"{name} attends in chunks; which chunk a context belongs to is not defined, so it is refused."
            )
        if "compressed" in kind:
            raise UnsupportedModelError(
                f"{name} attends to earlier tokens in compressed groups outside of attention's keys; which group a "
                "context's tokens belong to is not defined, so it is refused."
            )


def _check_scale(name: str, attentions: list[nn.Module]) -> None:
    """Llama 4 counts the tokens of a text itself in layers without positions, as late as after thousands of them."""
    if any(getattr(one, "attn_temperature_tuning", False) and not one.use_rope for one in attentions):
        raise UnsupportedModelError(
            f"{name} scales queries by how many tokens it has counted itself (attn_temperature_tuning), which are not "
            "those of a context, so behind one a long text would be read otherwise."
        )


def _has_relative_positions(hf: PreTrainedModel) -> bool:
    """Rotary angles or ALiBi, unless queries are also scaled by their absolute position."""
    rope = getattr(hf.config.get_text_config(), "rope_parameters", None) or {}
    if rope.get("llama_4_scaling_beta") is not None:
        return False
    return has_alibi(hf) or any(key.endswith("inv_freq") for key, _ in hf.named_buffers())


@torch.no_grad()
def _is_scaled_by_position(hf: PreTrainedModel, far: int) -> bool:
    """Whether a query is longer or shorter at position ``far`` − 1 than at 0, which angles alone do not make it."""
    ids = torch.zeros(1, 1, dtype=torch.long, device=runs_on(hf.get_input_embeddings()))
    lengths = []
    for place in (far - 1, 0):
        given = {"position_ids": ids + place, "attention_mask": ids + 1, "use_cache": False}
        with evaluating(hf), attending(hf, configurations(hf.modules())), probing() as calls:
            hf(input_ids=ids, **given)
        lengths.append(torch.stack([doubled(query).norm() for _, query, *_ in calls]))
    rounded = torch.finfo(hf.get_input_embeddings().weight.dtype).eps
    return bool(((lengths[0] - lengths[1]).abs() > max(SCALED, rounded) * lengths[1]).any())


@torch.no_grad()
def _stream_width(hf: PreTrainedModel, block: nn.Module) -> int:
    widths: list[int] = []

    def note_width(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        widths.append((args[0] if args else kwargs["hidden_states"]).shape[-1])

    with evaluating(hf), block.register_forward_pre_hook(note_width, with_kwargs=True):
        _logits(hf, torch.zeros(1, 1, dtype=torch.long, device=runs_on(hf.get_input_embeddings())))
    return widths[0]


_BOTH_DIRECTIONS = "attends in both directions; elicitable needs a causal decoder."


@torch.no_grad()
def _probe(hf: PreTrainedModel, name: str) -> list[Probed]:
    ids = torch.arange(3, device=runs_on(hf.get_input_embeddings()))[None]
    with evaluating(hf):
        own = _logits_of_its_own(hf, ids, name)
        with attending(hf, configurations(hf.modules())), probing() as calls:
            ours = _logits(hf, ids)
        for call in calls:
            _check_mask(name, call)
        changed = _logits(hf, ids % 2)
    _check_same(name, ours, own, changed)
    return calls


def _logits_of_its_own(hf: PreTrainedModel, ids: torch.Tensor, name: str) -> torch.Tensor:
    try:
        return _logits(hf, ids)
    except Exception as error:  # whatever a model's own code says of what it misses
        if is_out_of_memory(error):
            raise
        where = f" of {hf.name_or_path}" if hf.name_or_path else ""
        raise UnsupportedModelError(
            f"{name}{where} does not run on {ids.shape[1]} tokens of text ({in_one_line(error)}): it needs more than a "
            "text, an image say, or its configuration is at odds with itself."
        ) from error


def _logits(hf: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = hf(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
    return doubled(logits)


def _check_mask(name: str, call: Probed) -> None:
    """The attention is causal; the probe's mask shows and hides, and nothing else; keys are one a token."""
    module, query, key, _, kwargs = call
    tokens, mask = query.shape[2], kwargs.get("attention_mask")
    if not is_causal(module, kwargs):
        raise UnsupportedModelError(f"{name} {_BOTH_DIRECTIONS}")
    if key.shape[2] != tokens:
        raise UnsupportedModelError(
            f"{name}: {type(module).__name__} attends to {key.shape[2]} keys for {tokens} tokens "
            "(compressed, cross or memory attention), which a context cannot be split from exactly."
        )
    if mask is not None and mask.dtype != torch.bool:
        shows = mask == 0
        if not bool((shows | (mask <= torch.finfo(mask.dtype).min / 2)).all()):
            raise UnsupportedModelError(
                f"{name}: {type(module).__name__} computes its attention mask from the input; a context's part of "
                "it is not known to elicitable."
            )


def _check_same(name: str, ours: torch.Tensor, own: torch.Tensor, changed: torch.Tensor) -> None:
    """Through our attention the model gives its own logits, and early ones do not see the last token."""
    scale = max(float(own.abs().max()), 1e-30)
    if float((own - changed)[:, :2].abs().max()) > 1e-3 * scale:
        raise UnsupportedModelError(f"{name} {_BOTH_DIRECTIONS} (A changed last token changes earlier logits.)")
    # attention in the model's own type against ours: 16-bit types keep 2 to 3 digits, float32 models 6
    if float((own - ours).abs().max()) > 0.1 * scale:
        raise UnsupportedModelError(
            f"{name}: through transformers' attention interface it does not give its own logits, so its attention has "
            "a part that elicitable does not see."
        )


def _shape(call: Probed) -> LayerShape:
    _, query, key, value, _ = call
    return LayerShape(
        heads=query.shape[1],
        kv_heads=key.shape[1],
        d_head=key.shape[3],
        d_value=value.shape[3],
        sliding_window=window_of(call),
    )


def _decoder(hf: PreTrainedModel, attentions: list[nn.Module]) -> nn.Module:
    """Find the innermost module that takes token ids or embeddings, no stream, and holds all attention modules."""
    within = set(map(id, attentions))
    found: nn.Module = hf
    for module in hf.modules():
        takes = set(inspect.signature(module.forward).parameters)
        takes_text = takes & {"input_ids", "inputs_embeds"} and "hidden_states" not in takes
        if takes_text and within <= set(map(id, module.modules())):
            found = module
    return found


def _blocks(hf: PreTrainedModel, attentions: list[nn.Module]) -> tuple[nn.Module, ...]:
    """The decoder layers: the outermost list of modules with one attention module inside each entry."""
    for module in hf.modules():
        if isinstance(module, nn.ModuleList) and len(module) == len(attentions):
            inside = [set(map(id, block.modules())) for block in module]
            if all(id(attention) in block for attention, block in zip(attentions, inside, strict=True)):
                return tuple(module)
    raise UnsupportedModelError(f"{type(hf).__name__}: its decoder layers are not one list of modules.")
