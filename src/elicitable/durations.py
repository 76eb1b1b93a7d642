"""Read durations as people write them: ``90``, ``"90s"``, ``"30m"``, ``"1.5h"``."""

from __future__ import annotations

import re
from typing import Final

from elicitable.errors import InputError

_WRITTEN: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,12})?)\s*(s|m|h)?")
_SECONDS: Final = {None: 1, "s": 1, "m": 60, "h": 3600}


def seconds_of(limit: float | str | None) -> float | None:
    """Return a time limit in seconds: a number as it is, a text such as ``90``, ``90s``, ``30m`` or ``1.5h`` read.

    >>> seconds_of("30m"), seconds_of(90), seconds_of(None)
    (1800.0, 90.0, None)

    Raises :class:`InputError` for anything else.
    """
    if limit is None:
        return None
    if isinstance(limit, int | float) and not isinstance(limit, bool):
        return float(limit)
    match = _WRITTEN.fullmatch(limit.strip()) if isinstance(limit, str) else None
    if match is None:
        raise InputError(f"a time limit is a number of seconds, or one with s, m or h (90s, 30m, 2h); got {limit!r}.")
    return float(match[1]) * _SECONDS[match[2]]
