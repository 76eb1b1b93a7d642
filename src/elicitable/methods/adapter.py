"""Adapter folders: any adaptation written, any folder that a known method understands read again.

    soft-prompt   PROMPT_TUNING   prompt_embeddings (prefix, d_model)
    kv-prefix     PREFIX_TUNING   prompt_embeddings (prefix, layer · 2 · kv_head · d_head), keys before values
    layer-prefix  PREFIX_TUNING   its keys and values, computed with the prefix at positions 0 … n−1 as PEFT has it
    lora          LORA            base_model.model.<layer>.lora_{A,B}.weight

What PEFT has no type for (value biases, pruned prefixes, methods of your own) has the same two files under a type of
elicitable's own; full fine-tuning is written as a model folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from elicitable.cache import check_seal
from elicitable.errors import ElicitableError, InputError
from elicitable.methods.base import Adaptation, Method
from elicitable.methods.catalog import METHODS
from elicitable.methods.folders import OWN_TYPE, read_config, read_tensors
from elicitable.methods.pruned_prefix import PrunedPrefix

if TYPE_CHECKING:
    from elicitable.models.model import Model

READERS: tuple[Method | PrunedPrefix, ...] = (*METHODS, PrunedPrefix())


def write_adapter(model: Model, adaptation: Adaptation, folder: Path) -> Path:
    """Write ``adaptation`` so that PEFT loads it on the same base model; the configuration is written last.

    Raises:
        InputError: a context that is chosen, not trained, has nothing to write; or the layers of the model have
            different shapes, which PEFT's prefix layout cannot hold.
        StoreError: the folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    adaptation.write(model, folder)
    return folder


def read_adapter(model: Model, folder: str | Path, methods: Sequence[Method] = ()) -> Adaptation:
    """Read an adapter folder as an adaptation of ``model``; ``methods`` are your own ones that may have written it.

    Prefix adapters (and cartridges) keep PEFT's behaviour: keys as stored, the content n positions further on.

    Raises:
        InputError: no adapter folder, a pickle, a type that is not known, or shapes of another model; each named.
    """
    folder = Path(folder)
    check_seal(folder, "Write the adapter again, or take another one.")
    config, tensors = read_config(folder), read_tensors(folder)
    kind = str(config.get("peft_type", ""))
    readers = (*methods, *READERS)
    if kind == OWN_TYPE:
        readers, kind = tuple(one for one in readers if one.name == config.get("method")), str(config.get("method"))
    else:
        readers = tuple(one for one in readers if kind in one.peft_types)
    if not readers:
        known = ", ".join(dict.fromkeys(name for one in READERS for name in one.peft_types))
        raise InputError(f"{folder} is an adapter of type {kind or 'unknown'}; elicitable reads {known}.")
    try:
        return readers[0].read(model, folder, config, tensors)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError, ArithmeticError) as error:
        if isinstance(error, ElicitableError):
            raise
        raise InputError(f"{folder} is no whole adapter of type {kind} ({type(error).__name__}: {error}).") from error
