"""What is known of the cases that the forecast is trained on: their signals, the planted truth, and scores by rows.

records/forecast/signals/CASE.json   what ``collect`` measured: signals, seconds, where
records/forecast/rows/CASE.json      scores of both arms at a few numbers of rows (``collect --rows``)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elicitable.errors import InputError
from elicitable.records.schema import from_plain
from elicitable.untrusted import read_object

SIGNALS_FOLDER, ROWS_FOLDER = "signals", "rows"


@dataclass(frozen=True)
class Kept:
    """Hold one case as ``signals/CASE.json`` does. ``truth`` is the planted one."""

    case: str
    model: str
    family: str
    truth: str
    signals: Mapping[str, float]
    seconds: Mapping[str, float]
    seed: int
    processor: str
    versions: Mapping[str, str]
    fingerprints: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Grown:
    """Hold one case as ``rows/CASE.json`` does: at each number of rows the scores of the context and of the weights."""

    case: str
    scores: Mapping[str, tuple[float, ...]]
    steps: int
    items: int
    seed: int


@dataclass(frozen=True)
class Known:
    """Hold all that is known of a case; ``raced`` are the verdict's label and seconds where it was raced."""

    case: str
    model: str
    family: str
    truth: str
    signals: Mapping[str, float]
    seconds: Mapping[str, float]
    processor: str
    by_rows: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
    raced: Mapping[str, Any] | None = None

    @property
    def suffices(self) -> bool:
        """Say whether no weight has to change: a context does, or nothing is needed."""
        return self.truth != "weights"


def file_name(case: str) -> str:
    """Return the file that holds ``case``.

    >>> file_name("copyist/turn-1")
    'copyist~turn-1.json'
    """
    return f"{case.replace('/', '~')}.json"


def read_known(folder: Path) -> list[Known]:
    """Read every case under ``folder``, in the order of their names.

    Raises:
        InputError: there is none, or a file is no record; the message names it.
    """
    paths = sorted((folder / SIGNALS_FOLDER).glob("*.json"))
    if not paths:
        raise InputError(f"{folder} holds no cases: run python -m elicitable.forecasting.collect --out {folder} first.")
    return [_known(path, folder / ROWS_FOLDER / path.name) for path in paths]


def _known(path: Path, rows: Path) -> Known:
    try:
        kept = from_plain(Kept, read_object(path))
        grown = from_plain(Grown, read_object(rows)) if rows.exists() else None
    except InputError as error:
        raise InputError(f"{path} is no record of a case ({error})") from error
    by_rows = {int(n): pair for n, pair in grown.scores.items()} if grown else {}
    return Known(kept.case, kept.model, kept.family, kept.truth, kept.signals, kept.seconds, kept.processor, by_rows)
