"""Training asks the system for memory once, not at every step."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
from elicitable.models.speed.memory import keep_freed_memory

asked = keep_freed_memory() if sys.argv[1] == "kept" else None
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for megabytes in range(1, 21):  # each larger than any before: by default each is mapped afresh
    torch.ones(megabytes << 18)
print(asked, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> tuple[str, int]:
    """Whether glibc was asked, and the page faults of blocks of 1, 2 … 20 MB, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    asked, count = done.stdout.split()
    return asked, int(count)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be asked")
def test_freed_blocks_are_used_again() -> None:
    """20 MB are touched for the first time, in place of 210, unless something small comes to lie behind a freed block.

    Where that lies is chance (5,000 to 28,000 pages), so the least of three counts; those given back are always 54,000.
    """
    tries = [faults("kept") for _ in range(3)]
    assert {asked for asked, _ in tries} == {"True"}
    assert 2 * min(count for _, count in tries) < faults("given back")[1]
