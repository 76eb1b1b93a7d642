"""A file system that is soon full."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk_at(place: Path, kilobytes: int) -> Iterator[Path]:
    """Mount a disk of so many kilobytes at ``place`` for the length of the ``with``; skip where that is not allowed."""
    place.mkdir()
    size = f"size={kilobytes}k"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(place)], capture_output=True).returncode:
        pytest.skip("runs where a tmpfs may be mounted (as root)")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)
