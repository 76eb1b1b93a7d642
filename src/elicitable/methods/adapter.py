"""Adapter folders in PEFT's layout: ``adapter_config.json`` and ``adapter_model.safetensors``.

    soft-prompt   PROMPT_TUNING   prompt_embeddings (prefix, d_model)
    kv-prefix     PREFIX_TUNING   prompt_embeddings (prefix, layer · 2 · kv_head · d_head), keys before values
    layer-prefix  PREFIX_TUNING   its keys and values, computed with the prefix at positions 0 … n−1 as PEFT has it
    lora          LORA            base_model.model.<layer>.lora_{A,B}.weight

Value biases and pruned prefixes have no PEFT type and are written in the same layout under ``ELICITABLE_VALUE_BIAS``
and ``ELICITABLE_PRUNED_PREFIX``; full fine-tuning is written as a model folder. Nothing but safetensors is ever read.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from elicitable.cache import replace_file
from elicitable.errors import InputError, StoreError
from elicitable.methods.base import Adaptation
from elicitable.methods.full import FullWeights
from elicitable.methods.kv_prefix import KVPrefixContext
from elicitable.methods.layer_prefix import LayerPrefixContext
from elicitable.methods.lora import LoRAWeights
from elicitable.methods.pruned_prefix import PrunedPrefixContext
from elicitable.methods.soft_prompt import SoftPromptContext
from elicitable.methods.value_bias import ValueBiasAdaptation
from elicitable.models.capture import capture_residuals

if TYPE_CHECKING:
    from elicitable.models.model import Model

CONFIG, WEIGHTS, BIN = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
PREFIX_TYPES = ("PREFIX_TUNING", "CARTRIDGE")
PROMPT_TYPES = ("PROMPT_TUNING", "P_TUNING", "MULTITASK_PROMPT_TUNING")


def write_adapter(model: Model, adaptation: Adaptation, folder: Path) -> Path:
    """Write ``adaptation`` so that PEFT loads it on the same base model; the configuration is written last.

    Raises:
        InputError: a context that is chosen, not trained, has nothing to write; or the layers of the model have
            different shapes, which PEFT's prefix layout cannot hold.
        StoreError: the folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(adaptation, FullWeights):
        return _write_model(model, adaptation, folder)
    config, tensors = _peft_form(model, adaptation)
    config |= {"base_model_name_or_path": model.source or model.name, "task_type": "CAUSAL_LM", "inference_mode": True}
    try:
        save_file({k: v.detach().contiguous().cpu() for k, v in tensors.items()}, folder / WEIGHTS, {"format": "pt"})
    except (OSError, SafetensorError) as error:
        raise StoreError(f"cannot write {folder / WEIGHTS}: {error}.") from error
    replace_file(folder / CONFIG, (json.dumps(config, indent=2) + "\n").encode())
    return folder


def _write_model(model: Model, adaptation: FullWeights, folder: Path) -> Path:
    with adaptation.weights(model):
        model.hf.save_pretrained(folder)
    if model.tokenizer is not None:
        model.tokenizer.save_pretrained(folder)
    return folder


def _peft_form(model: Model, adaptation: Adaptation) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if isinstance(adaptation, SoftPromptContext):
        shape = {"token_dim": adaptation.vectors.shape[1], "num_layers": model.anatomy.depth}
        config = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": adaptation.keys_per_layer(), **shape}
        config |= {"num_attention_heads": model.anatomy.layers[0].heads, "num_transformer_submodules": 1}
        return config, {"prompt_embeddings": adaptation.vectors}
    if isinstance(adaptation, KVPrefixContext):
        return _prefix_form(model, list(adaptation.keys), list(adaptation.values))
    if isinstance(adaptation, LayerPrefixContext):
        length = adaptation.keys_per_layer()
        with torch.no_grad():
            prefix = capture_residuals(model, adaptation.vectors, end=-length)
        keys = [key[0] for key in prefix.keys if key is not None]
        return _prefix_form(model, keys, [value[0] for value in prefix.values if value is not None])
    if isinstance(adaptation, LoRAWeights):
        return _lora_form(model, adaptation)
    if isinstance(adaptation, ValueBiasAdaptation):
        biases: dict[str, Tensor] = {f"layers.{i}": bias for i, bias in enumerate(adaptation.biases)}
        return {"peft_type": "ELICITABLE_VALUE_BIAS"}, biases
    if isinstance(adaptation, PrunedPrefixContext):
        return {"peft_type": "ELICITABLE_PRUNED_PREFIX"}, adaptation.tensors()
    raise InputError(f"{adaptation.kind} is chosen, not trained: there are no tensors to write.")


def _prefix_form(model: Model, keys: list[Tensor], values: list[Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    shapes = {tuple(t.shape) for t in (*keys, *values)}
    if len(shapes) != 1:
        raise InputError(f"PEFT's prefix layout needs one shape for all layers, {model.name} has {sorted(shapes)}.")
    kv_heads, length, d_head = next(iter(shapes))
    pairs = torch.stack([t for pair in zip(keys, values, strict=True) for t in pair])  # (2·layer, kv_head, prefix, d)
    flat = pairs.permute(2, 0, 1, 3).reshape(length, -1)
    return {
        "peft_type": "PREFIX_TUNING",
        "num_virtual_tokens": length,
        "token_dim": kv_heads * d_head,
        "num_attention_heads": kv_heads,
        "num_layers": len(keys),
        "num_transformer_submodules": 1,
        "prefix_projection": False,
        "encoder_hidden_size": kv_heads * d_head,
    }, {"prompt_embeddings": flat}


def _lora_form(model: Model, adaptation: LoRAWeights) -> tuple[dict[str, Any], dict[str, Tensor]]:
    names = {id(module): name for name, module in model.hf.named_modules()}
    tensors: dict[str, Tensor] = {}
    for _, _, layer, base in adaptation.layers:
        place = f"base_model.model.{names[id(base)]}"
        tensors[f"{place}.lora_A.weight"] = layer.lora_A["default"].weight
        tensors[f"{place}.lora_B.weight"] = layer.lora_B["default"].weight
    setting = adaptation.setting
    is_conv = any(type(base).__name__ == "Conv1D" for _, _, _, base in adaptation.layers)
    return {
        "peft_type": "LORA",
        "r": setting["rank"],
        "lora_alpha": setting["alpha"],
        "target_modules": list(setting["modules"]),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": is_conv,
    }, tensors


def read_adapter(model: Model, folder: str | Path) -> Adaptation:
    """A PEFT adapter folder as an adaptation of ``model``.

    Prefix adapters (and cartridges) keep PEFT's behaviour: keys as stored, the content n positions further on.

    Raises:
        InputError: no adapter folder, a pickle, a type that is not known, or shapes of another model; each named.
    """
    folder = Path(folder)
    config = _read_config(folder)
    tensors = _read_tensors(folder)
    kind = str(config.get("peft_type", ""))
    if kind in PREFIX_TYPES:
        return _read_prefix(model, folder, tensors)
    if kind in PROMPT_TYPES:
        return _read_soft_prompt(model, folder, tensors)
    if kind == "LORA":
        return _read_lora(model, folder, config, tensors)
    if kind == "ELICITABLE_VALUE_BIAS":
        biases = [tensors[f"layers.{i}"] for i in range(len(tensors))]
        return ValueBiasAdaptation([bias.to(model.device, model.trainable_dtype) for bias in biases])
    if kind == "ELICITABLE_PRUNED_PREFIX":
        return _read_pruned_prefix(model, folder, tensors)
    known = ", ".join((*PREFIX_TYPES, *PROMPT_TYPES, "LORA"))
    raise InputError(f"{folder} is an adapter of type {kind or 'unknown'}; elicitable reads {known}.")


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        raise InputError(f"{folder} is no adapter folder: it has no {CONFIG}.")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error
    if not isinstance(config, dict):
        raise InputError(f"{path} is not a JSON object.")
    return config


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    path = folder / WEIGHTS
    if not path.is_file():
        pickled = (
            f" ({BIN} is a pickle and is never read; save it again as safetensors)" if (folder / BIN).exists() else ""
        )
        raise InputError(f"{folder} has no {WEIGHTS}{pickled}.")
    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error


def _embeddings(folder: Path, tensors: dict[str, Tensor], width: int, model: Model) -> Tensor:
    table = tensors.get("prompt_embeddings")
    if table is None or table.ndim != 2 or table.shape[1] != width:
        found = "none" if table is None else str(tuple(table.shape))
        raise InputError(f"{folder}: prompt_embeddings must be (prefix, {width}) for {model.name}, found {found}.")
    return table.to(model.device, model.trainable_dtype)


def _read_pruned_prefix(model: Model, folder: Path, tensors: dict[str, Tensor]) -> PrunedPrefixContext:
    kept = [tuple(x.shape) for name, x in sorted(tensors.items()) if name.endswith(".kept")]
    if [heads for heads, _ in kept] != [layer.kv_heads for layer in model.anatomy.layers]:
        raise InputError(f"{folder}: kept is (kv_head, prefix) a layer, found {kept}; it was made for another model.")
    own = {k: x.to(model.device, model.trainable_dtype) if x.is_floating_point() else x for k, x in tensors.items()}
    return PrunedPrefixContext.from_tensors(own, adapter=str(folder))


def _read_prefix(model: Model, folder: Path, tensors: dict[str, Tensor]) -> KVPrefixContext:
    layers = model.anatomy.layers
    facts = layers[0]
    table = _embeddings(folder, tensors, 2 * len(layers) * facts.kv_heads * facts.d_head, model)
    pairs = table.view(len(table), 2 * len(layers), facts.kv_heads, facts.d_head).permute(1, 2, 0, 3)
    keys, values = (
        [pairs[2 * i].clone() for i in range(len(layers))],
        [pairs[2 * i + 1].clone() for i in range(len(layers))],
    )
    return KVPrefixContext(keys, values, length=len(table), adapter=str(folder))


def _read_soft_prompt(model: Model, folder: Path, tensors: dict[str, Tensor]) -> SoftPromptContext:
    table = _embeddings(folder, tensors, model.anatomy.d_model, model)
    return SoftPromptContext(table.clone(), length=len(table), adapter=str(folder))


def _read_lora(model: Model, folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> LoRAWeights:
    for unsupported in ("use_dora", "rank_pattern", "alpha_pattern", "modules_to_save", "use_rslora"):
        if config.get(unsupported):
            raise InputError(f"{folder}: LoRA with {unsupported} is not supported; merge it into the model first.")
    modules = config.get("target_modules") or []
    wanted = [modules] if isinstance(modules, str) else sorted(modules)
    lora = LoRAWeights(model, int(config["r"]), wanted, 0, float(config["lora_alpha"]), adapter=str(folder))
    names = {id(module): name for name, module in model.hf.named_modules()}
    with torch.no_grad():
        for _, _, layer, base in lora.layers:
            for part in ("lora_A", "lora_B"):
                key = f"base_model.model.{names[id(base)]}.{part}.weight"
                weight = getattr(layer, part)["default"].weight
                if key not in tensors or tensors[key].shape != weight.shape:
                    raise InputError(f"{folder}: {key} is missing or not {tuple(weight.shape)}, as {model.name} needs.")
                weight.copy_(tensors[key])
    return lora
