"""The parts of a long work: each is kept with where it was computed, and all together know where they were."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from elicitable.models.speed.processor import made_on

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from elicitable.records.store import Record, Store


@dataclass
class Parts:
    """Keep parts that are computed on ``device``, and note on which kinds of processor those in use were made.

    ``kept_share`` is the share of the whole work that was found in the store.
    """

    store: Store
    device: torch.device
    processors: dict[str, None] = field(default_factory=dict)  # in turn
    kept_share: float = 0.0

    def known(self, spec: dict[str, Any], share: float = 0.0) -> Record | None:
        """Return the part that is kept, or None; it is ``share`` of the whole work.

        Raises:
            StoreError: it cannot be read.
        """
        found = self.store.get(spec)
        if found is not None:
            self.processors.setdefault(found.get("processor", "unknown"))  # a part made before this was kept
            self.kept_share += share
        return found

    def keep(self, spec: dict[str, Any], part: Record, state: dict[str, Tensor] | None = None) -> Record:
        """Keep a part with where it was computed, and the tensors that belong to it; the part as it is kept.

        Raises:
            StoreError: it cannot be written.
        """
        here = made_on(self.device)
        self.processors.setdefault(here["processor"])
        return self.store.put(spec, {**part, **here}, state)

    def made_on(self) -> dict[str, str]:
        """Return the kinds of processor that the parts were made on, and the device that the work is done on now."""
        here = made_on(self.device)
        return {"device": here["device"], "processor": ", ".join(self.processors) or here["processor"]}
