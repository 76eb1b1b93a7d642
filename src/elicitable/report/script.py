"""Hold the page's one script (``templates/report.js``), the hash that allows it, and how data are handed to it."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SCRIPT = (Path(__file__).parent / "templates" / "report.js").read_text(encoding="utf-8")
SCRIPT_HASH = "sha256-" + base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()


def script_data(record: Mapping[str, Any]) -> str:
    r"""Return ``record`` as JSON for a script element: "<" never stands as itself, so no text can end the element.

    >>> script_data({"text": "</script>"})
    '{"text": "\\u003c/script>"}'
    """
    return json.dumps(record).replace("<", "\\u003c")
