"""Write a folder of results whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from elicitable.cache import filling_folder

RECORD = "elicitable.json"  # what was measured
#: The files that make a folder an adapter or a model that others read.
CONFIGURATIONS = (RECORD, "adapter_config.json", "config.json")


@contextmanager
def written_whole(folder: Path, last: Sequence[str] = CONFIGURATIONS) -> Iterator[Path]:
    """Yield an empty folder to write to; its files move into ``folder`` when the ``with`` ends well.

    The files called ``last`` move in last (:func:`elicitable.cache.filling_folder`). Other files in ``folder`` stay.

    Raises:
        StoreError: ``folder`` cannot be written to; it is as it was.
    """
    with filling_folder(folder, last, "Choose another --out.") as partial:
        yield partial
