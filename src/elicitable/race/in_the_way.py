"""What stands in the folder that a tuning is to be written to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from elicitable.errors import InputError
from elicitable.records.folder import RECORD
from elicitable.records.store import Record
from elicitable.untrusted import read_object


def record_in(folder: Path) -> Record:
    """Return the record of the adapter in ``folder``, empty where none can be read."""
    try:
        return read_object(folder / RECORD)
    except InputError:
        return {}


def other_than(record: Record, spec: dict[str, Any]) -> str:
    """Which adapter it is that stands in the way, by the arguments in which it differs from ``spec``."""
    if not isinstance(theirs := record.get("spec"), dict):
        return "an adapter or a model that these arguments did not make"
    differing = [name for name in spec if theirs.get(name) != spec[name]]
    shown = [
        f"{name.replace('_', ' ')} {theirs.get(name)!r}, not {spec[name]!r}"
        for name in differing
        if name in ("method", "size", "learning_rates", "seed", "options")
    ]
    others = [name for name in differing if name in ("pace", "layout", "marking", "model", "task")]
    return f"the adapter of other arguments ({'; '.join([*shown, *(f'another {name}' for name in others)])})"
