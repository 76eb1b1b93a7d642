"""Freed memory is kept for the next step, not given back to the system and asked for again."""

from __future__ import annotations

import ctypes
import platform
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of glibc's malloc.h
_LARGEST = 32 << 20  # bytes: glibc takes no larger threshold


@cache
def keep_freed_memory() -> bool:
    """Let glibc reuse freed blocks of up to 32 MB; whether it could be asked (once a process, nothing elsewhere).

    By default a block of more than 128 KB is mapped afresh and every page of it faults in at first touch, at each
    operation of each step: 5,000 faults and 9.5 of 120 ms in a prefix step of toy:mixed at batch 64, and a fifth of the
    time in which SmolLM2 reads 48 texts of 65 tokens.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST) and mallopt(_TRIM_THRESHOLD, 2**31 - 1))
