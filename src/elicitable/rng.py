"""One seed, many named generators. Nothing is ever seeded globally.

A stream is named by what it is for: ``generator(7, "data", "ascending")`` and ``generator(7, "init")`` are
independent, and neither changes when another stream is drawn from more often. Names enter through SHA-256, so a
stream is the same in every process, on every machine and in any order of creation.
"""

from __future__ import annotations

import hashlib
from numbers import Integral
from typing import TYPE_CHECKING

from elicitable.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import torch


def derive_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the stream ``names`` under ``seed``.

    >>> derive_seed(0, "data") == derive_seed(0, "data") != derive_seed(0, "init")
    True
    """
    if isinstance(seed, bool) or not isinstance(seed, Integral):
        raise InputError(f"a seed is a whole number, got {seed!r}.")
    text = "\x1f".join([str(int(seed)), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """The numpy generator of the stream ``names``."""
    import numpy as np

    return np.random.default_rng(derive_seed(seed, *names))


def torch_generator(seed: int, *names: str | int) -> torch.Generator:
    """The torch (CPU) generator of the stream ``names``."""
    import torch

    return torch.Generator().manual_seed(derive_seed(seed, *names))
