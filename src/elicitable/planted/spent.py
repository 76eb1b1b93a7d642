"""Add up what a race takes over all its sittings: one that is stopped, or killed, has taken its seconds too."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

from elicitable.errors import StoreError
from elicitable.records.digested import read_digested, write_digested

EVERY = 30.0  # seconds: what a killed process can lose
ADVICE = "Move its folder away to race the case again."
Seconds = dict[str, float]


@contextmanager
def adding_up(path: Path) -> Iterator[Callable[[], Seconds]]:
    """Yield what gives ``seconds`` and ``cpu_seconds`` so far, those of earlier sittings included.

    They are kept at ``path`` every :data:`EVERY` seconds, and when the ``with`` ends, however it does.

    Raises:
        StoreError: what was kept there is not what was written.
    """
    former: Seconds = read_digested(path, ADVICE) if path.is_file() else {"seconds": 0.0, "cpu_seconds": 0.0}
    began, used = time.monotonic(), time.process_time()

    def so_far() -> Seconds:
        return {
            "seconds": round(former["seconds"] + time.monotonic() - began, 1),
            "cpu_seconds": round(former["cpu_seconds"] + time.process_time() - used, 1),
        }

    def keep() -> None:
        with suppress(StoreError):  # a full disk stops the race itself
            write_digested(path, so_far(), ADVICE)

    def keep_on() -> None:
        while not is_over.wait(EVERY):
            keep()

    is_over, keeper = Event(), Thread(target=keep_on, daemon=True)
    keeper.start()
    try:
        yield so_far
    finally:
        is_over.set()
        keeper.join()
        keep()
