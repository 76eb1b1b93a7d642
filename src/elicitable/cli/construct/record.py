"""Where the results of ``elicitable construct`` are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elicitable.cache import replace_file
from elicitable.report.verdict_json import plain_json

if TYPE_CHECKING:
    from rich.console import RenderableType

#: A record, and what to print of it.
Answer = tuple[dict[str, Any], list["RenderableType"]]

_ADVICE = "Give --out a folder that can be written to."


def keep(path: Path, record: dict[str, Any]) -> Path:
    """Write the record to ``path``, whole or not at all; returns ``path``."""
    replace_file(path, (json.dumps(plain_json(record), indent=1) + "\n").encode(), _ADVICE)
    return path


def keep_picture(path: Path, svg: bytes) -> Path:
    """Write the picture to ``path``, whole or not at all; returns ``path``."""
    replace_file(path, svg, _ADVICE)
    return path
