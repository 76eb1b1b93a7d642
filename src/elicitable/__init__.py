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

_HOMES = {  # where a name stands, and what it is called there if it is called otherwise
    "check": "elicitable.race.check",
    "compile_context": "elicitable.compiling.compile",
    "construct": "elicitable.constructions.catalog:build",
    "context": "elicitable.methods.catalog",
    "export": "elicitable.deploy.export",
    "file_task": "elicitable.tasks.local_file",
    "forecast": "elicitable.forecasting.forecast",
    "inspect": "elicitable.deploy.use",
    "list_methods": "elicitable.methods.catalog:catalog",
    "list_models": "elicitable.models.load:catalog",
    "list_scores": "elicitable.scores.catalog:catalog",
    "list_tasks": "elicitable.tasks.catalog:catalog",
    "load": "elicitable.models.load",
    "predictor": "elicitable.deploy.predict",
    "pretrain": "elicitable.lab.pretrain",
    "prune": "elicitable.race.pruning:prune_adapter",
    "read": "elicitable.deploy.artefact",
    "reproduce": "elicitable.lab.reproduce",
    "tune": "elicitable.race.tune",
    "use": "elicitable.deploy.use",
    "verdict": "elicitable.race.contest",
    "watch": "elicitable.deploy.use",
}

__all__ = [
    "__version__",
    "check",
    "compile_context",
    "construct",
    "context",
    "errors",
    "export",
    "file_task",
    "forecast",
    "inspect",
    "list_methods",
    "list_models",
    "list_scores",
    "list_tasks",
    "load",
    "predictor",
    "pretrain",
    "prune",
    "read",
    "reproduce",
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
    home, _, there = _HOMES[name].partition(":")
    return getattr(importlib.import_module(home), there or name)


def __dir__() -> list[str]:
    return sorted(__all__)
