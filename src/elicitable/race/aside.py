"""Set the weights of a whole model aside while a race runs, so that its winner can be written.

A trial does not keep them: a copy of the model for every trial is too much. They stay until the race is decided.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elicitable.cache import replacing_file, write_tensors
from elicitable.errors import InputError, StoreError
from elicitable.records.store import Record, Store, identity
from elicitable.untrusted import read_tensors

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = "aside"


def set_aside(store: Store, spec: Record, state: dict[str, Tensor]) -> None:
    """Keep ``state`` until the race is decided; nothing happens where the store has no folder.

    Raises:
        StoreError: it cannot be written.
    """
    if (path := _place(store, spec)) is not None:
        with replacing_file(path, "Free the place, or choose another --out.") as partial:
            write_tensors(partial, state)


def set_aside_of(store: Store, spec: Record) -> dict[str, Tensor]:
    """Return what was set aside for ``spec``; nothing where nothing was.

    Raises:
        StoreError: it cannot be read.
    """
    path = _place(store, spec)
    if path is None or not path.is_file():
        return {}
    try:
        return read_tensors(path)
    except InputError as error:
        raise StoreError(f"{error} The weights that were set aside are lost.") from error


def clear_aside(store: Store) -> None:
    """Remove all that was set aside."""
    if store.folder is not None:
        shutil.rmtree(store.folder / FOLDER, ignore_errors=True)


def _place(store: Store, spec: dict[str, Any]) -> Path | None:
    return None if store.folder is None else store.folder / FOLDER / f"{identity(spec)}.safetensors"
