"""How another process comes by the same model: by how it is loaded again, never by its bytes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elicitable.cache import passing_folder, said_of
from elicitable.errors import InputError
from elicitable.models.load import load, save_model
from elicitable.models.model import Model
from elicitable.models.speed.checkpointing import is_checkpointed


@dataclass(frozen=True)
class Whereabouts:
    """Say how another process loads the same model: from where, in which type, to which device."""

    source: str
    name: str
    dtype: str
    device: str
    budget_tokens: int
    identity: str
    how: dict[str, Any]

    def load(self) -> Model:
        """Load the model.

        Raises:
            InputError: what is loaded here has other weights, another configuration, tokenizer or chat template.
        """
        device = "auto" if "device_map" in self.how else self.device
        model = load(self.source, device=device, dtype=self.dtype, **self.how)
        model.name, model.budget_tokens = self.name, self.budget_tokens
        if model.identity != self.identity:
            raise InputError(
                f"{self.source} is another model here than where it was first loaded (or was changed since, or has "
                "another tokenizer, chat template or a context in use); save it in a folder and name that."
            )
        return model


@contextmanager
def whereabouts(model: Model, folder: Path) -> Iterator[Whereabouts]:
    """Tell where the model is found; one made in memory is kept in ``folder`` for the length of the ``with``."""
    with ExitStack() as stack:
        source = model.source
        if source is None:
            with said_of(f"to {folder}", "Free the place, or choose another --out."):
                held = passing_folder(folder / "model")
            stack.callback(shutil.rmtree, held, ignore_errors=True)
            save_model(model, held)
            source = str(held)
        dtype = str(model.dtype).removeprefix("torch.")
        device = model.device.type
        is_on = any(map(is_checkpointed, model.anatomy.blocks))
        how = model.how | ({"gradient_checkpointing": True} if is_on else {})
        yield Whereabouts(source, model.name, dtype, device, model.budget_tokens, model.identity, how)
