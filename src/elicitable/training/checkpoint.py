"""Keep a running training in a file, so that a killed run can go on as if nothing had happened.

The file holds everything that decides the coming steps: the trained numbers, the optimiser's numbers, the states of the
generators, the place in the schedule, and the best state so far. A run that goes on from here takes the same steps, bit
for bit, as one that was never stopped. Tensors are kept as safetensors, with the rest as JSON in its header; nothing is
pickled.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elicitable.cache import replacing_file, write_tensors
from elicitable.errors import StoreError

if TYPE_CHECKING:
    from torch import Tensor

VERSION = 1


@dataclass(frozen=True, eq=False)
class Frozen:
    """Hold the state of a run between two steps: tensors by dotted name, and plain data."""

    tensors: dict[str, Tensor]
    plain: dict[str, Any]

    def part(self, name: str) -> dict[str, Tensor]:
        """Return the tensors under ``name``, without it."""
        return {key[len(name) + 1 :]: t for key, t in self.tensors.items() if key.startswith(f"{name}/")}


class Checkpoint:
    """Keep one run in a file, every so often. ``owner`` is the identity of the trial that is running."""

    def __init__(self, path: Path, owner: str, every_seconds: float = 60.0) -> None:
        self.path, self.owner, self.every_seconds = path, owner, every_seconds
        self._last = time.monotonic()

    def is_due(self) -> bool:
        """Say whether so many seconds have passed since the last one."""
        return time.monotonic() - self._last >= self.every_seconds

    def read(self) -> Frozen | None:
        """Read what was kept, or None.

        Raises:
            StoreError: the file is corrupt, of another trial, or from a newer version; it is left as it is.
        """
        if not self.path.exists():
            return None
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path, framework="pt") as file:
                head = json.loads((file.metadata() or {}).get("run", "{}"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        except (OSError, ValueError, SafetensorError) as error:
            raise StoreError(f"{self.path} cannot be read ({error}); move it away to start the trial again.") from error
        if not isinstance(head.get("version"), int) or head["version"] > VERSION:
            raise StoreError(
                f"{self.path} has checkpoint version {head.get('version')!r}, this elicitable reads {VERSION}; update "
                "the package or move the file away. Nothing was changed."
            )
        if head.get("owner") != self.owner:
            raise StoreError(f"{self.path} belongs to another trial; move it away to start this one again.")
        return Frozen(tensors, head["plain"])

    def write(self, state: Frozen) -> None:
        """Keep ``state`` in the place of what was there, by rename.

        Raises:
            StoreError: it cannot be written; the one before is still there.
        """
        head = json.dumps({"version": VERSION, "owner": self.owner, "plain": state.plain})
        advice = "The one before is still there."
        with replacing_file(self.path, advice, f"the checkpoint {self.path}") as partial:
            write_tensors(partial, {name: tensor.clone() for name, tensor in state.tensors.items()}, {"run": head})
        self._last = time.monotonic()

    def remove(self) -> None:
        """Remove the file, since the run is over and recorded."""
        self.path.unlink(missing_ok=True)
