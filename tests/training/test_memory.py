"""Training asks the system for memory once, not at every step."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
from elicitable.training.memory import keep_freed_memory

asked = keep_freed_memory() if sys.argv[1] == "kept" else None
for _ in range(5):
    step = [torch.ones(1 << 20) for _ in range(16)]
    del step
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step = [torch.ones(1 << 20) for _ in range(16)]
    del step
print(asked, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> tuple[str, int]:
    """Whether glibc was asked, and the page faults of 20 steps that free 16 blocks of 4 MB, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    asked, count = done.stdout.split()
    return asked, int(count)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be asked")
def test_freed_blocks_are_used_again() -> None:
    asked, kept = faults("kept")
    assert asked == "True"
    assert kept < 1_024  # fewer than the pages of a single block
    assert faults("given back")[1] >= 20 * 16  # the check can fail: of huge pages or small ones, at least one a block
