"""Any weight adapter of PEFT, put in by PEFT's own code and taken out again.

PEFT builds its layers into the model once; what it changed is noted and taken back (:mod:`elicitable.models.graft`),
and is put in for the length of a ``with``. So an adapter acts here exactly as it does there, whatever its type.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from elicitable.errors import ElicitableError, InputError, UnsupportedModelError
from elicitable.methods.base import Adaptation
from elicitable.methods.folders import read_config, read_tensors
from elicitable.methods.peft_config import peft_config, peft_types
from elicitable.models.dispatch import check_all_here, packed_in
from elicitable.models.graft import Graft
from elicitable.models.in_place import base_weights, check_bare
from elicitable.models.restoring import evaluating, swapped
from elicitable.untrusted import is_out_of_memory

if TYPE_CHECKING:
    from elicitable.models.model import Model

ADAPTER = "default"  # what PEFT calls an adapter that has no name
_PREFIX = "base_model.model."
_INSIDE = ("", "base_layer.", "token_adapter.base_layer.", "original_module.")  # where PEFT keeps a wrapped weight
# What acts on matrices that are packed into few bits as on the numbers that they hold. Other types of PEFT read the
# weight itself, and so take its codes for numbers, or fail.
_ON_PACKED = (
    *("ADALORA", "ADAPTION_PROMPT", "BEFT", "BOFT", "C3A", "FOURIERFT", "GRALORA", "HIRA", "IA3", "LN_TUNING"),
    *("LORA", "MISS", "OFT", "RANDLORA", "ROAD", "SHIRA", "TRAINABLE_TOKENS", "VBLORA", "VERA", "WAVEFT"),
)
_STARTS_ON_PACKED = (True, False, "gaussian", "orthogonal")  # other starts of LoRA decompose the weight
_OF_THE_BASE = ("base_model_name_or_path", "task_type", "inference_mode", "auto_mapping", "revision", "runtime_config")


class PeftWeights(Adaptation):
    """PEFT's model around the caller's own, as a graft.

    Args:
        model: the model that it is for; it fits no copy of it.
        config: PEFT's configuration object.
        tensors: what the adapter's file holds, under PEFT's names; None for a fresh adapter as PEFT starts it.

    Raises:
        InputError: PEFT cannot put this configuration or these tensors into the model, or its own layers stand there
            already; the model is as it was.
        UnsupportedModelError: the model's weights are offloaded, or packed and this type reads them.
    """

    kind = "peft"

    def __init__(self, model: Model, config: Any, tensors: Mapping[str, Tensor] | None = None, **setting: Any) -> None:
        super().__init__(**setting)
        check_all_here(model.hf, self.kind)
        _check_packed(model, config)
        self.home, self.config = model.hf, config
        self.keeps_embeddings = tensors is not None and bool(_tables(model.hf, tensors))
        numbers = [tensor.numel() for tensor in (tensors or {}).values()]
        check_bare(model.hf, self.kind)
        with base_weights(model.hf):
            self.graft = Graft(model.hf, lambda hf: self._change(model, tensors), numbers)
        self._parameters = self.graft.parameters

    def _change(self, model: Model, tensors: Mapping[str, Tensor] | None) -> None:
        from peft import PeftModelForCausalLM

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what matters among PEFT's warnings is checked below and refused
            _resize(model.hf, tensors or {})
            # under gradient checkpointing PEFT has embeddings want a gradient, which no checkpoint here needs
            with swapped(model.hf, enable_input_require_grads=lambda: None):
                self.peft = PeftModelForCausalLM(model.hf, self.config, ADAPTER)
            if tensors is not None:
                _load(self.peft, tensors)
                cast = getattr(self.peft.base_model, "_cast_adapter_dtype", None)  # as PEFT does after loading
                if cast is not None:
                    cast(adapter_name=ADAPTER)
            _freeze_what_is_not_saved(self.peft)

    @contextmanager
    def weights(self, model: Model) -> Iterator[None]:
        """Put PEFT's layers in the place of the modules that they wrap; a second adapter wraps the first."""
        if model.hf is not self.home:
            raise InputError(
                f"{self} was made for another model than {model.name}, or for a copy of it; build or read it again "
                "for this one."
            )
        with self.graft.grown(str(self)):
            yield

    def parameters(self) -> list[nn.Parameter]:
        """Return the adapter's own numbers, and those of the model that it trains, in PEFT's order."""
        return self._parameters

    def folder_form(self, model: Model) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return PEFT's configuration and the tensors that PEFT saves."""
        from peft import get_peft_model_state_dict

        with warnings.catch_warnings(), self.weights(model):
            warnings.simplefilter("ignore")
            tensors = get_peft_model_state_dict(
                self.peft, adapter_name=ADAPTER, save_embedding_layers=self.keeps_embeddings
            )
            tensors = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        config = {key: value for key, value in _as_json(self.config.to_dict()).items() if key not in _OF_THE_BASE}
        return config, tensors


def read_weights(model: Model, folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> PeftWeights:
    """Read an adapter that PEFT saved, of any type that changes weights.

    Raises:
        InputError: a key, value or tensor that is missing, unknown or does not fit; what PEFT itself says where it
            cannot load it; or an adapter whose effect is not all in the model's modules.
    """
    made = peft_config(folder, config)
    kind = str(config["peft_type"]).lower()
    try:
        with base_weights(model.hf):
            read = PeftWeights(model, made, tensors, type=kind, adapter=str(folder))
            _check_it_is_all_there(model, read)
    except InputError as error:
        raise InputError(f"{folder}: {error}") from error
    except Exception as error:  # whatever PEFT raises, at building or at loading
        if isinstance(error, ElicitableError) or is_out_of_memory(error):
            raise
        said = " ".join(str(error).split())
        raise InputError(f"{folder}: PEFT cannot put this {kind} adapter into {model.name}: {said}") from error
    return read


@torch.no_grad()
def peft_logits(model: Model, folder: Path, ids: Tensor) -> Tensor | None:
    """Return the logits of PEFT's own reloaded model for ``ids`` (row, token); None where PEFT has no such type.

    The model is a copy, and a vocabulary that has grown is grown there too.
    """
    from peft import PeftModel

    config, tensors = read_config(folder), read_tensors(folder)
    if config.get("peft_type") not in peft_types():
        return None
    copied = copy.deepcopy(model.hf)
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        _resize(copied, tensors)
        theirs = PeftModel.from_pretrained(copied, folder, torch_device=str(model.device)).eval()
        given = {"task_ids": ids.new_zeros(len(ids))} if config["peft_type"] == "MULTITASK_PROMPT_TUNING" else {}
        logits: Tensor = theirs(input_ids=ids, attention_mask=torch.ones_like(ids), **given).logits
    return logits[:, -ids.shape[1] :]


def _check_packed(model: Model, config: Any) -> None:
    """Raise UnsupportedModelError where an adapter reads matrices that the model has packed into few bits."""
    kind = str(getattr(config.peft_type, "value", config.peft_type))
    reads = [kind.lower()] if kind not in _ON_PACKED else ["dora"] if getattr(config, "use_dora", False) else []
    if (start := getattr(config, "init_lora_weights", True)) not in _STARTS_ON_PACKED:
        reads.append(f"lora that starts by {start}")
    if reads and packed_in(model.hf):
        raise UnsupportedModelError(
            f"{reads[0]} reads the weights that it changes, and those of {model.name} are packed into few bits, whose "
            "codes PEFT would take for the numbers. Load it without --load-in, or take a type that leaves them unread, "
            "such as lora."
        )


def _load(peft: Any, tensors: Mapping[str, Tensor]) -> None:
    """Load every tensor of the file, each into a place of its own, and leave none of the adapter's without one."""
    from peft import set_peft_model_state_dict

    base = {id(parameter) for parameter in peft.parameters() if not parameter.requires_grad}
    result = set_peft_model_state_dict(peft, dict(tensors), adapter_name=ADAPTER)
    extra = [key for key in result.unexpected_keys if not _is_repeated(peft.get_base_model(), key, tensors)]
    if extra:
        raise InputError(f"the file has tensors that belong nowhere in this model: {_some(extra)}.")
    places, saved = peft.state_dict(keep_vars=True), _saved(peft)
    loaded = {id(places[name]) for name in places if name not in set(result.missing_keys)}
    missing = [name for name, one in peft.named_parameters() if id(one) in saved - loaded]
    if missing:
        raise InputError(f"the file lacks tensors of the adapter: {_some(missing)}.")
    embeddings = {id(p) for p in _embeddings(peft.get_base_model())}
    foreign = [n for n in places if id(places[n]) in loaded & base - embeddings and isinstance(places[n], nn.Parameter)]
    if foreign:
        raise InputError(f"the file replaces weights of the model that this adapter does not train: {_some(foreign)}.")


def _saved(peft: Any) -> set[int]:
    """Which of the adapter's parameters PEFT writes into its file, by identity."""
    from peft import get_peft_model_state_dict

    named = get_peft_model_state_dict(
        peft, peft.state_dict(keep_vars=True), adapter_name=ADAPTER, save_embedding_layers=False
    )
    return {id(tensor) for tensor in named.values()}


def _freeze_what_is_not_saved(peft: Any) -> None:
    """Train no number that would be lost in the file (AdaLoRA counts its ranks in a parameter)."""
    saved = _saved(peft)
    for parameter in peft.parameters():
        if parameter.requires_grad and id(parameter) not in saved:
            parameter.requires_grad_(False)


def _embeddings(hf: Any) -> list[nn.Parameter]:
    modules = [hf.get_input_embeddings(), hf.get_output_embeddings()]
    return [parameter for module in modules if module is not None for parameter in module.parameters()]


def _some(names: list[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _tables(hf: Any, tensors: Mapping[str, Tensor]) -> dict[int, int]:
    """The rows of whole embedding tables among ``tensors``, by which of the model's modules they are for."""
    found: dict[int, int] = {}
    for name, module in hf.named_modules():
        if any(module is one for one in (hf.get_input_embeddings(), hf.get_output_embeddings())):
            tables = [tensors.get(f"{_PREFIX}{name}.{inner}weight") for inner in _INSIDE]
            found |= {id(module): len(table) for table in tables if table is not None and table.ndim == 2}
    return found


def _resize(hf: Any, tensors: Mapping[str, Tensor]) -> None:
    """Give the model as many rows of embeddings as the adapter brings along for a grown vocabulary."""
    tables, tokens, answers = _tables(hf, tensors), hf.get_input_embeddings(), hf.get_output_embeddings()
    rows = max(tables.values(), default=0)
    if rows <= len(tokens.weight):
        return
    needed = {id(tokens)} if answers is None or answers.weight is tokens.weight else {id(tokens), id(answers)}
    if needed - set(tables) and (len(needed) == 2 or not tables):
        raise InputError(
            f"it was trained with {rows:,} tokens, the model has {len(tokens.weight):,}, and the file holds only one "
            "of the two tables of embeddings; grow the model as in training (resize_token_embeddings) and save it."
        )
    hf.resize_token_embeddings(rows, mean_resizing=False)


def _is_repeated(hf: Any, key: str, tensors: Mapping[str, Tensor]) -> bool:
    """Whether a tensor of the embeddings that has no place says again what another says (PEFT saves some twice)."""
    embeddings = [one for one in (hf.get_input_embeddings(), hf.get_output_embeddings()) if one is not None]
    inside = {id(part) for one in embeddings for part in one.modules()}
    names = tuple(f"{_PREFIX}{name}." for name, module in hf.named_modules() if id(module) in inside)
    others = [one for name, one in tensors.items() if name != key and name.split(".")[-1] == key.split(".")[-1]]
    return key.startswith(names) and any(torch.equal(tensors[key], one) for one in others)


@torch.no_grad()
def check_it_runs(model: Model, built: PeftWeights) -> None:
    """Let the model read a few tokens with ``built``: what PEFT has put in may only fail there, as PEFT fails."""
    ids = _some_ids(model)
    with evaluating(model.hf), base_weights(model.hf), built.weights(model):
        model.hf(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)


@torch.no_grad()
def _check_it_is_all_there(model: Model, read: PeftWeights) -> None:
    """Compare PEFT's own forward pass with the model's while the modules are in place: they must be the same bits."""
    ids = _some_ids(model)
    with evaluating(model.hf), read.weights(model):
        theirs = read.peft(input_ids=ids, use_cache=False).logits
        ours = model.hf(input_ids=ids, use_cache=False).logits
    if not torch.equal(theirs, ours):
        raise InputError("PEFT acts outside of the model's modules with this adapter, or draws anew at every call.")


def _some_ids(model: Model) -> Tensor:
    return torch.arange(3, device=model.device)[None] % model.anatomy.vocab


def _as_json(value: Any) -> Any:
    """``value`` with sets as sorted lists and enumerations as their values."""
    if isinstance(value, dict):
        return {str(key): _as_json(inner) for key, inner in value.items()}
    if isinstance(value, set):
        return sorted(map(_as_json, value))
    if isinstance(value, list | tuple):
        return [_as_json(inner) for inner in value]
    return getattr(value, "value", value)
