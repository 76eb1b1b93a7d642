"""What is known of the cases that the forecast is trained on: their signals, the planted truth, and scores by rows.

records/forecast/signals/CASE.json   what ``collect`` measured: signals, seconds, where
records/forecast/rows/CASE.json      scores of both arms at a few numbers of rows (``collect --rows``)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from elicitable.errors import InputError
from elicitable.records.digested import read_digested
from elicitable.records.schema import from_plain

AGAIN = "Move it away to measure the case again."
SIGNALS_FOLDER, ROWS_FOLDER = "signals", "rows"
RACES_FOLDER, DEEP = "planted-truth", "deep"  # beside the forecast's own records; in it the part with more layers
RESULTS = "results.json"  # the counts beside the races


@dataclass(frozen=True)
class Kept:
    """Hold one case as ``signals/CASE.json`` does.

    ``truth`` is the planted one. ``seconds`` are those of each group of signals, ``cpu_seconds`` of all together.
    """

    case: str
    model: str
    family: str
    truth: str
    signals: Mapping[str, float]
    seconds: Mapping[str, float]
    cpu_seconds: float
    seed: int
    processor: str
    versions: Mapping[str, str]
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    device: str = ""


@dataclass(frozen=True)
class Grown:
    """Hold one case as ``rows/CASE.json`` does: at each number of rows the scores of the context and of the weights.

    ``processor`` and ``device``, which older records do not say, are empty there.
    """

    case: str
    scores: Mapping[str, tuple[float, ...]]
    steps: int
    items: int
    seed: int
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    processor: str = ""
    device: str = ""

    def __post_init__(self) -> None:
        """Check that scores stand at numbers of rows.

        Raises:
            InputError: one does not.
        """
        for name in self.scores:
            if not (name.isascii() and name.isdecimal() and len(name) <= 12):
                raise InputError(f"scores stand at numbers of rows, not at {name!r}")


Case = TypeVar("Case", Kept, Grown)


@dataclass(frozen=True)
class Race:
    """Hold what a race of the case came to: the verdict's group, its processor seconds, the mean score of each arm."""

    group: str
    cpu_seconds: float
    means: Mapping[str, float]


@dataclass(frozen=True)
class Known:
    """Hold all that is known of a case; ``race`` is None where it was not raced."""

    case: str
    model: str
    family: str
    truth: str
    signals: Mapping[str, float]
    cpu_seconds: float
    processor: str
    by_rows: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
    race: Race | None = None
    steps: int = 0  # after which the scores by rows were measured

    @property
    def task(self) -> str:
        """Return the task's name, which other models may have too."""
        return self.case.rpartition("/")[2]

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
    """Read every case under ``folder``, in the order of their names; races from ``planted-truth`` beside it.

    Raises:
        InputError: there is none, or a file is no record of its case; the message names it.
        StoreError: a file was altered.
    """
    paths = sorted((folder / SIGNALS_FOLDER).glob("*.json"))
    if not paths:
        raise InputError(f"{folder} holds no cases: run python -m elicitable.forecasting.collect --out {folder} first.")
    _check_pairs(folder, [path.name for path in paths])
    races = races_in(folder.parent / RACES_FOLDER)
    return [_known(path, folder / ROWS_FOLDER / path.name, races) for path in paths]


def _check_pairs(folder: Path, names: list[str]) -> None:
    """Refuse a folder in which one of the two files of a case is gone; there may be no scores by rows at all."""
    rows = [path.name for path in sorted((folder / ROWS_FOLDER).glob("*.json"))]
    if rows and (lacking := sorted({*rows} ^ {*names})):
        part = SIGNALS_FOLDER if lacking[0] in rows else ROWS_FOLDER
        raise InputError(f"{folder / part / lacking[0]} is not there: measure the case again (collect).")


def _known(path: Path, rows: Path, races: Mapping[str, Race]) -> Known:
    kept = _of_case(Kept, path)
    grown = _of_case(Grown, rows) if rows.exists() else None
    return Known(
        case=kept.case,
        model=kept.model,
        family=kept.family,
        truth=kept.truth,
        signals=kept.signals,
        cpu_seconds=kept.cpu_seconds,
        processor=kept.processor,
        by_rows={int(n): pair for n, pair in grown.scores.items()} if grown else {},
        race=races.get(kept.case),
        steps=grown.steps if grown else 0,
    )


def _of_case(kind: type[Case], path: Path) -> Case:
    try:
        found = from_plain(kind, read_digested(path, AGAIN))
    except InputError as error:
        raise InputError(f"{path} is no record of a case ({error}). {AGAIN}") from error
    if file_name(found.case) != path.name:
        raise InputError(f"{path} is the record of another case, {found.case}. {AGAIN}")
    return found


def races_in(folder: Path) -> dict[str, Race]:
    """Read the races of the planted cases that are there, by the case's name.

    Raises:
        StoreError: a record cannot be read or was altered.
    """
    found = {}
    for path in sorted([*folder.glob("*.json"), *(folder / DEEP).glob("*.json")]):
        record = read_digested(path, AGAIN) if path.name != RESULTS else {}
        if "case" in record and "arms" in record:
            means = {name: arm["mean"] for name, arm in record["arms"].items() if arm["mean"] is not None}
            found[record["case"]] = Race(record["group"], record["cpu_seconds"], means)
    return found
