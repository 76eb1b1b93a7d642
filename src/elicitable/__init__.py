"""elicitable: can it be elicited by context, or must the weights change?

Names are resolved on first use, so that importing the package loads neither torch nor transformers. This file itself
imports nothing: it stands before the command line's first line, which is where Ctrl-C begins to be answered.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from elicitable import errors

__version__ = "0.1.0"

_HOMES = {
    "check": "elicitable.race.check",
    "compile_context": "elicitable.compiling.compile",
    "context": "elicitable.methods.catalog",
    "export": "elicitable.deploy.export",
    "forecast": "elicitable.forecasting.forecast",
    "load": "elicitable.models.load",
    "predictor": "elicitable.deploy.predict",
    "read": "elicitable.deploy.artefact",
    "tune": "elicitable.race.tune",
    "use": "elicitable.deploy.use",
    "verdict": "elicitable.race.contest",
    "watch": "elicitable.deploy.use",
}

__all__ = [
    "__version__",
    "check",
    "compile_context",
    "context",
    "errors",
    "export",
    "forecast",
    "load",
    "predictor",
    "read",
    "tune",
    "use",
    "verdict",
    "watch",
]


def __getattr__(name: str) -> Any:
    import importlib

    if name == "errors":
        return importlib.import_module("elicitable.errors")
    if name not in _HOMES:
        raise AttributeError(f"module 'elicitable' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
