"""Tell how far a running job is, both to the display of its own run and to ``--status`` beside it.

    out/running/<identity>.json    written by the worker about once a second, removed when the record is there

Files work for processes on this machine and for the workers of a cluster alike. Nothing is decided by them: a file that
cannot be read or written is left alone.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from elicitable.cache import replace_file
from elicitable.errors import InputError, StoreError
from elicitable.records.schema import from_plain
from elicitable.untrusted import read_json

if TYPE_CHECKING:
    from elicitable.values import CurvePoint

EVERY_SECONDS = 1.0


@dataclass(frozen=True)
class Beat:
    """Hold ``share`` of the work in [0, 1] after ``seconds``; ``text`` says what was seen last."""

    share: float = 0.0
    seconds: float = 0.0
    steps: int = 0
    text: str = ""


class Heartbeat:
    """Tell how far the job is, from the worker's end. ``began`` is a reading of the monotonic clock."""

    def __init__(self, path: Path, began: float) -> None:
        self.path, self.began = path, began
        self._last = float("-inf")
        self._validation = ""

    def point(self, point: CurvePoint, share: float) -> None:
        """Tell the progress of a training."""
        if point.validation is not None:
            self._validation = f", validation {point.validation:.3f}"
        self.say(f"step {point.step:,}, loss {point.loss_nats:.3f}{self._validation}", share, point.step)

    def say(self, text: str, share: float, steps: int = 0) -> None:
        """Tell the progress of anything."""
        now = time.monotonic()
        if now - self._last < EVERY_SECONDS:
            return
        self._last = now
        beat = Beat(min(max(share, 0.0), 1.0), now - self.began, steps, text)
        with suppress(StoreError):
            replace_file(self.path, json.dumps(asdict(beat)).encode())

    def stop(self) -> None:
        """Remove the file, since the job is recorded."""
        self.path.unlink(missing_ok=True)


def heartbeat_path(folder: Path, identity: str) -> Path:
    """Return the path at which the job of that identity says how far it is."""
    return folder / "running" / f"{identity}.json"


def read_beat(folder: Path, identity: str) -> Beat | None:
    """Read what was said last; None where nothing readable was said."""
    try:
        return from_plain(Beat, read_json(heartbeat_path(folder, identity)))
    except InputError:
        return None
