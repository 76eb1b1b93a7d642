"""What a reader is: what it is given, and how it reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st


@dataclass(frozen=True)
class Reader:
    """What is read, the inputs that it is tried with, given a folder for what they are made of, and how.

    ``read`` may return, or raise an error of this package. It gets a folder of its own to write its input to.
    """

    name: str
    inputs: Callable[[Path], st.SearchStrategy[Any]]
    read: Callable[[Path, Any], object]
