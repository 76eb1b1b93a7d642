"""Adapter folders: any adaptation written, any folder that a known method understands read again.

    soft-prompt   PROMPT_TUNING   prompt_embeddings (prefix, d_model)
    kv-prefix     PREFIX_TUNING   prompt_embeddings (prefix, layer · 2 · kv_head · d_head), keys before values
    layer-prefix  PREFIX_TUNING   its keys and values, computed with the prefix at positions 0 … n−1 as PEFT has it
    lora          LORA            base_model.model.<layer>.lora_{A,B}.weight

Of what PEFT saves, contexts become prefixes (:mod:`elicitable.methods.peft_contexts`), and weights of whatever type are
put in by PEFT itself (:mod:`elicitable.methods.peft_weights`).

What PEFT has no type for (value biases, pruned prefixes, methods of your own) has the same two files under a type of
elicitable's own; full fine-tuning is written as a model folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elicitable.cache import check_seal
from elicitable.errors import ElicitableError, InputError
from elicitable.methods.base import Adaptation, Method
from elicitable.methods.catalog import catalog
from elicitable.methods.folders import OWN_TYPE, read_config, read_tensors
from elicitable.methods.peft_config import REFUSED_TYPES, peft_types
from elicitable.methods.peft_contexts import CONTEXT_TYPES, understood
from elicitable.methods.peft_weights import read_weights
from elicitable.methods.pruned_prefix import PrunedPrefix
from elicitable.untrusted import is_out_of_memory

if TYPE_CHECKING:
    from torch import Tensor

    from elicitable.models.model import Model

READERS: tuple[Method | PrunedPrefix, ...] = (*catalog(), PrunedPrefix())


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
    try:
        return _read(model, folder, config, tensors, methods)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError, ArithmeticError) as error:
        if isinstance(error, ElicitableError) or is_out_of_memory(error):
            raise
        kind = config.get("peft_type")
        raise InputError(f"{folder} is no whole adapter of type {kind} ({type(error).__name__}: {error}).") from error


def _read(
    model: Model, folder: Path, config: dict[str, Any], tensors: dict[str, Tensor], methods: Sequence[Method]
) -> Adaptation:
    kind = str(config.get("peft_type", ""))
    if kind == OWN_TYPE:
        return _own(folder, config, methods).read(model, folder, config, tensors)
    if kind in CONTEXT_TYPES:
        tensors = understood(model, folder, config, tensors)
    readers = [one for one in (*methods, *READERS) if kind in one.peft_types]
    if readers:
        return readers[0].read(model, folder, config, tensors)
    if kind not in peft_types():
        known = ", ".join(one for one in peft_types() if one not in REFUSED_TYPES)
        raise InputError(f"{folder} is an adapter of type {kind or 'unknown'}; elicitable reads {known}.")
    return read_weights(model, folder, config, tensors)


def _own(folder: Path, config: dict[str, Any], methods: Sequence[Method]) -> Method | PrunedPrefix:
    """Return the method that wrote a folder in elicitable's own form."""
    for one in (*methods, *READERS):
        if one.name == config.get("method"):
            return one
    known = ", ".join(one.name for one in READERS)
    raise InputError(f"{folder} is an adapter of type {config.get('method')}; of its own, elicitable reads {known}.")
