"""The files of an adapter folder, in PEFT's layout: ``adapter_config.json`` and ``adapter_model.safetensors``.

What stands in them is each method's own business (:meth:`~elicitable.methods.base.Adaptation.folder_form`,
:meth:`~elicitable.methods.base.Method.read`); here they are only written and read, and tensors only as safetensors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elicitable import untrusted
from elicitable.cache import SEAL, replacing_file, said_of, seal, write_tensors
from elicitable.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

CONFIG, WEIGHTS, BIN = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
ADVICE = "Free the place, or choose another folder."
OWN_TYPE = "ELICITABLE"  # the peft_type of what PEFT has no type for


def of_base(base: str) -> dict[str, Any]:
    """Return the entries that every adapter configuration has."""
    return {"base_model_name_or_path": base, "task_type": "CAUSAL_LM", "inference_mode": True}


def write_adapter_files(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write the tensors and the configuration, so that a folder with a configuration is whole.

    Both are written beside their places first. An adapter that is there keeps both its files until then; afterwards
    its configuration goes first and the new one comes last, and behind it the seal of both.

    Raises:
        StoreError: the folder cannot be written to; an adapter in it is as it was.
    """
    with (
        replacing_file(folder / CONFIG, ADVICE) as new_config,
        replacing_file(folder / WEIGHTS, ADVICE) as new_weights,  # takes its place before the configuration does
    ):
        new_config.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        write_tensors(new_weights, tensors, {"format": "pt"})
        for former in (SEAL, CONFIG):
            (folder / former).unlink(missing_ok=True)
    with said_of(f"to {folder}", ADVICE):
        seal(folder, (CONFIG, WEIGHTS))


def read_config(folder: Path) -> dict[str, Any]:
    """Read the configuration. Raises InputError where there is none or it is no JSON object."""
    path = folder / CONFIG
    if not path.is_file():
        raise InputError(f"{folder} is no adapter folder: it has no {CONFIG}.")
    return untrusted.read_object(path)


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Read the tensors. Raises InputError where there are none, or only a pickle, which is never read."""
    path = folder / WEIGHTS
    if not path.is_file():
        pickled = (
            f" ({BIN} is a pickle and is never read; save it again as safetensors)" if (folder / BIN).exists() else ""
        )
        raise InputError(f"{folder} has no {WEIGHTS}{pickled}.")
    return untrusted.read_tensors(path, is_finite=True)


def prompt_embeddings(folder: Path, tensors: Mapping[str, Tensor], width: int, model: Any) -> Tensor:
    """Return the table (prefix, width) that PEFT's prompt and prefix adapters hold, in the model's trainable type.

    Raises:
        InputError: it is missing, or made for another model.
    """
    table = tensors.get("prompt_embeddings")
    if table is None or table.ndim != 2 or table.shape[1] != width:
        found = "none" if table is None else str(tuple(table.shape))
        raise InputError(f"{folder}: prompt_embeddings must be (prefix, {width}) for {model.name}, found {found}.")
    return table.to(model.device, model.trainable_dtype)
