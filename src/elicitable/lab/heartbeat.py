"""How far a running job is, for whoever looks at the folder: this run's own display, or ``--status`` beside it.

    out/running/<identity>.json    written by the worker about once a second, gone with the record

A file works for processes here and for workers of a cluster alike. Nothing is decided by it: one that cannot be read
or written is left alone.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from elicitable.values import CurvePoint

EVERY_SECONDS = 1.0


@dataclass(frozen=True)
class Beat:
    """``share`` of the work in [0, 1] after ``seconds``; ``text`` says what was seen last."""

    share: float = 0.0
    seconds: float = 0.0
    steps: int = 0
    text: str = ""


class Heartbeat:
    """The worker's end. ``began`` is a reading of the monotonic clock."""

    def __init__(self, path: Path, began: float) -> None:
        self.path, self.began = path, began
        self._last = float("-inf")
        self._validation = ""

    def point(self, point: CurvePoint, share: float) -> None:
        """Progress of a training."""
        if point.validation is not None:
            self._validation = f", validation {point.validation:.3f}"
        self.say(f"step {point.step:,}, loss {point.loss_nats:.3f}{self._validation}", share, point.step)

    def say(self, text: str, share: float, steps: int = 0) -> None:
        """Progress of anything."""
        now = time.monotonic()
        if now - self._last < EVERY_SECONDS:
            return
        self._last = now
        beat = Beat(min(max(share, 0.0), 1.0), now - self.began, steps, text)
        partial = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(asdict(beat)), encoding="utf-8")
            partial.replace(self.path)
        except OSError:
            with suppress(OSError):
                partial.unlink()

    def stop(self) -> None:
        """The job is recorded."""
        self.path.unlink(missing_ok=True)


def heartbeat_path(folder: Path, identity: str) -> Path:
    """Where the job of that identity says how far it is."""
    return folder / "running" / f"{identity}.json"


def read_beat(folder: Path, identity: str) -> Beat | None:
    """What was said last; None where nothing readable was said."""
    try:
        return Beat(**json.loads(heartbeat_path(folder, identity).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
