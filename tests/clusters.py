"""The executors that take processes of their own, as parameters of tests: slow, and Ray only where it is installed."""

from __future__ import annotations

import importlib.util

import pytest

LOCAL = pytest.param("local", marks=pytest.mark.slow)
RAY = pytest.param(
    "ray",
    marks=[
        pytest.mark.slow,
        pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="runs where `pip install elicitable[ray]`"),
        # Ray's own processes outlive the objects that started them until the interpreter collects those
        pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning"),
        pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    ],
)
