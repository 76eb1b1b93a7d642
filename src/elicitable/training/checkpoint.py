"""Keep a running training in a file, so that a killed run can go on as if nothing had happened.

The file holds everything that decides the coming steps: the trained numbers, the optimiser's numbers, the states of the
generators, the place in the schedule, and the best state so far. A run that goes on from here takes the same steps, bit
for bit, as one that was never stopped. Tensors are kept as safetensors, with the rest as JSON in its header; nothing is
pickled. A digest over all of it says whether what is read is what was written.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from elicitable.cache import replacing_file, write_tensors
from elicitable.errors import InputError, StoreError
from elicitable.untrusted import aligned, parse_json, shapes_of

if TYPE_CHECKING:
    from torch import Tensor

VERSION = 1
ROOM = 8  # times its size that must be free on a GPU for a state to be kept there


@dataclass(frozen=True, eq=False)
class Frozen:
    """Hold the state of a run between two steps: tensors by dotted name, and plain data."""

    tensors: dict[str, Tensor]
    plain: dict[str, Any]

    def part(self, name: str) -> dict[str, Tensor]:
        """Return the tensors under ``name``, without it."""
        return {key[len(name) + 1 :]: t for key, t in self.tensors.items() if key.startswith(f"{name}/")}

    @property
    def bytes(self) -> int:
        """Count the bytes of all tensors."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values())

    def put_by(self) -> Frozen:
        """Return the same state where there is room for it: where it is, or in the processor's memory.

        A GPU's memory is left to what computes: a state stays there while at least :data:`ROOM` times as much is free.
        """
        devices = {tensor.device for tensor in self.tensors.values() if tensor.device.type == "cuda"}
        if all(ROOM * self.bytes <= free_bytes(device) for device in devices):
            return self
        return Frozen({name: tensor.cpu() for name, tensor in self.tensors.items()}, self.plain)


def free_bytes(device: torch.device) -> int:
    """Return how many bytes are free on a GPU."""
    free, _ = torch.cuda.mem_get_info(device)
    return free


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
        head, tensors = self._parts()
        if head.get("version") != VERSION:
            raise StoreError(
                f"{self.path} has checkpoint version {head.get('version')!r}, this elicitable reads {VERSION}; update "
                "the package or move the file away. Nothing was changed."
            )
        if head.get("owner") != self.owner:
            raise StoreError(f"{self.path} belongs to another trial; move it away to start this one again.")
        plain = head.get("plain")
        if not isinstance(plain, dict) or head.get("digest") != _digest(plain, tensors):
            raise self.refused("it is not what was written there")
        return Frozen(tensors, plain)

    def _parts(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        from safetensors import SafetensorError, safe_open

        try:
            shapes_of(self.path)
        except InputError as error:
            raise StoreError(f"{error}; move it away to start the trial again.") from error
        try:
            with safe_open(self.path, framework="pt") as file:
                head = parse_json((file.metadata() or {}).get("run", "{}"), is_finite=False)
                tensors = {name: aligned(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118 (no mapping)
        except (OSError, ValueError, SafetensorError) as error:
            raise self.refused(str(error)) from error
        return (head if isinstance(head, dict) else {}), tensors

    def refused(self, reason: str) -> StoreError:
        """Return the error for a checkpoint that cannot be taken up, for ``reason``."""
        return StoreError(f"{self.path} cannot be read ({reason}); move it away to start the trial again.")

    def write(self, state: Frozen) -> None:
        """Keep ``state`` in the place of what was there, by rename.

        Raises:
            StoreError: it cannot be written; the one before is still there.
        """
        told = {"version": VERSION, "owner": self.owner, "digest": _digest(state.plain, state.tensors)}
        head = json.dumps({**told, "plain": state.plain})
        advice = "The one before is still there."
        with replacing_file(self.path, advice, f"the checkpoint {self.path}") as partial:
            write_tensors(partial, {name: tensor.clone() for name, tensor in state.tensors.items()}, {"run": head})
        self._last = time.monotonic()

    def remove(self) -> None:
        """Remove the file, since the run is over and recorded."""
        self.path.unlink(missing_ok=True)


def _digest(plain: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    """SHA-256 over the plain data and over name, type, shape and bytes of every tensor."""
    digest = hashlib.sha256(json.dumps(json.loads(json.dumps(plain)), sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
