"""A folder of results, written whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from elicitable.errors import StoreError

RECORD = "elicitable.json"  # what was measured
#: The files that make a folder an adapter or a model that others read.
CONFIGURATIONS = (RECORD, "adapter_config.json", "config.json")
_UNFINISHED = ".unfinished-"


@contextmanager
def written_whole(folder: Path, last: Sequence[str] = CONFIGURATIONS) -> Iterator[Path]:
    """Yield an empty folder to write to; its files move into ``folder`` when the ``with`` ends well.

    The files called ``last`` are what makes the folder one that others read. They are taken away before anything
    moves and move in at the end, in that order; so whenever the power goes, the folder is as it was, or has no
    configuration, or is the new one. Other files in ``folder`` stay.

    Raises:
        StoreError: ``folder`` cannot be written to; it is as it was.

    Example:
        >>> with tempfile.TemporaryDirectory() as place:
        ...     with written_whole(Path(place) / "adapter", ["config.json"]) as folder:
        ...         _ = (folder / "weights").write_text("1 2 3")
        ...         _ = (folder / "config.json").write_text("{}")
        ...     sorted(path.name for path in (Path(place) / "adapter").iterdir())
        ['config.json', 'weights']
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f"{_UNFINISHED}*"):  # of a run that was killed
            shutil.rmtree(left, ignore_errors=True)
        partial = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=folder))
    except OSError as error:
        raise StoreError(f"cannot write to {folder}: {error.strerror}; choose another --out.") from error
    try:
        yield partial
        _move(partial, folder, last)
    except OSError as error:
        raise StoreError(f"cannot write to {folder}: {error.strerror or error}; choose another --out.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _move(partial: Path, folder: Path, last: Sequence[str]) -> None:
    made = sorted(path.name for path in partial.iterdir())
    for name in reversed(last):
        (folder / name).unlink(missing_ok=True)
    for name in (*(name for name in made if name not in last), *(name for name in last if name in made)):
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
        os.replace(partial / name, folder / name)
