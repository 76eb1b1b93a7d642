"""elicitable: can it be elicited by context, or must the weights change?

Names are resolved on first use, so that importing the package loads neither torch nor transformers.
"""

from __future__ import annotations

import importlib
from typing import Any

from elicitable import errors

__version__ = "0.1.0"

_HOMES = {
    "context": "elicitable.methods.catalog",
    "export": "elicitable.deploy.export",
    "load": "elicitable.models.load",
    "predictor": "elicitable.deploy.predict",
    "read": "elicitable.deploy.artefact",
    "tune": "elicitable.race.tune",
    "use": "elicitable.deploy.use",
    "verdict": "elicitable.race.contest",
    "watch": "elicitable.deploy.use",
}

__all__ = ["__version__", "context", "errors", "export", "load", "predictor", "read", "tune", "use", "verdict", "watch"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'elicitable' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
