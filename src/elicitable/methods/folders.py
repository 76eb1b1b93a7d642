"""The files of an adapter folder, in PEFT's layout: ``adapter_config.json`` and ``adapter_model.safetensors``.

What stands in them is each method's own business (:meth:`~elicitable.methods.base.Adaptation.folder_form`,
:meth:`~elicitable.methods.base.Method.read`); here they are only written and read, and tensors only as safetensors.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elicitable import untrusted
from elicitable.cache import SEAL, replacing_file, said_of, seal, write_tensors
from elicitable.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

CONFIG, WEIGHTS, BIN = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
BASE = "elicitable_base"  # the key of the base model's fingerprint, where PEFT takes no notice of it
ADVICE = "Free the place, or choose another folder."
OWN_TYPE = "ELICITABLE"  # the peft_type of what PEFT has no type for


def of_base(base: str) -> dict[str, Any]:
    """Return the entries that every adapter configuration has."""
    return {"base_model_name_or_path": base, "task_type": "CAUSAL_LM", "inference_mode": True}


def write_adapter_files(
    folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], base: str | None = None
) -> None:
    """Write the tensors and the configuration, so that a folder with a configuration is whole.

    ``base`` is the fingerprint of the model that it is for, which is kept in the head of the file of tensors.

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
        write_tensors(new_weights, tensors, {"format": "pt"} | ({BASE: base} if base else {}))
        _sort_metadata(new_weights)
        for former in (SEAL, CONFIG):
            (folder / former).unlink(missing_ok=True)
    with said_of(f"to {folder}", ADVICE):
        seal(folder, (CONFIG, WEIGHTS))


def _sort_metadata(path: Path) -> None:
    """Put the metadata of a safetensors file in order, which safetensors does not, so that equal files are equal."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        head = json.loads(file.read(size))
        head["__metadata__"] = dict(sorted(head["__metadata__"].items()))
        file.seek(8)
        file.write(json.dumps(head, ensure_ascii=False, separators=(",", ":")).encode().ljust(size))


def read_config(folder: Path) -> dict[str, Any]:
    """Read the configuration. Raises InputError where there is none or it is no JSON object."""
    path = folder / CONFIG
    if not os.path.isfile(path):
        raise InputError(f"{folder} is no adapter folder: it has no {CONFIG}.")
    return untrusted.read_object(path)


def base_of(folder: Path) -> str | None:
    """Return the fingerprint of the model that an adapter was made for; None where none was kept."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / WEIGHTS, "pt") as held:
            metadata = held.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise InputError(f"{folder / WEIGHTS} cannot be read: {error}.") from error
    base: str | None = metadata.get(BASE)
    return base


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
