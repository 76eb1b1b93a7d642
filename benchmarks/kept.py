"""Keep what a benchmark found as lines of JSON, so that one that was stopped goes on where it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from elicitable.models.speed.processor import made_on


def say_where(device: torch.device | None = None) -> None:
    """Print, as JSON, where what follows is computed: the kind of processor, and the device."""
    print(json.dumps(made_on(device)), flush=True)


class Kept(list[dict[str, Any]]):
    """The lines of a file, of which there need not be one; what is added is written at once.

    Each says where it was computed, on the CPU unless it brings that itself.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        super().__init__(map(json.loads, path.read_text(encoding="utf-8").splitlines()) if path.exists() else [])

    def has(self, **of: Any) -> bool:
        """Say whether there is a line with these values."""
        return any(all(one.get(key) == value for key, value in of.items()) for one in self)

    def add(self, line: dict[str, Any]) -> None:
        """Take note of one more line."""
        line = {**made_on(), **line}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.append(line)
