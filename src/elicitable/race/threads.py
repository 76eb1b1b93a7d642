"""How many threads a race computes with: those that are quickest on this machine as busy as it is.

On an idle machine all of them are. Where other work has the cores, threads wait for each other at every product, and
one alone can be several times as quick. So a race tries before its start, and again from time to time: every number by
turns, so that what disturbs for a moment disturbs them alike, and twice where it would change something. A number that
a person has set (``OMP_NUM_THREADS``) is left alone. Sums in another order can differ in their last digits, so every
record says how many threads it was made with.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from elicitable.executors.processes import is_free
from elicitable.methods.base import Adaptation
from elicitable.training.batches import Reading
from elicitable.training.evaluate import evaluate
from elicitable.training.loop import prepared

if TYPE_CHECKING:
    from collections.abc import Iterator

    from elicitable.race.entry import Race

GAIN = 1.2  # times as quick as now, or the number stays as it is
HOPELESS = 3.0  # times as slow as another number
EVERY_SECONDS, SHARE = 60.0, 0.02  # between two tries, which take so much of the time at most
SHARE_IN_DOUBT = 0.05  # the same while fewer threads than there could be are in use, as other work may end
ITEMS, TEXTS, TRIES = 32, 4, 3


@dataclass
class Threads:
    """Choose the number of threads. ``work`` is a piece of what the race does, run to compare numbers.

    ``left`` tells how many seconds a race against the clock still has: a try that would take more than
    :data:`SHARE_IN_DOUBT` of them, by what the one before it took, brings nothing any more.
    """

    work: Callable[[], None]
    say: Callable[[str], None]
    most: int
    left: Callable[[], float | None] = lambda: None
    tried: float = 0.0
    took: float = 0.0
    pause: float = 0.0

    @classmethod
    @contextmanager
    def chosen(cls, race: Race) -> Iterator[Threads]:
        """Choose the number for the length of a ``with``; afterwards it is what it was."""
        before = torch.get_num_threads()
        may_try = race.model.device.type == "cpu" and is_free()
        threads = cls(lambda: _read(race), race.reporter.say, before if may_try else 1, race.left)
        try:
            threads.look_again()
            yield threads
        finally:
            torch.set_num_threads(before)

    def look_again(self) -> None:
        """Try every number again, if the last try is a while ago, and say so where the number changes."""
        left = self.left()
        is_ending = left is not None and SHARE_IN_DOUBT * left < self.took
        if self.most < 2 or is_ending or time.monotonic() < self.tried + self.pause:
            return
        started, now = time.monotonic(), torch.get_num_threads()
        numbers = sorted({1, (self.most + 1) // 2, self.most, now})
        seconds = self._seconds(numbers)
        chosen = _chosen(seconds, now)
        if chosen != now:  # is it so a moment later?
            seconds = self._seconds(numbers)
            chosen = _chosen(seconds, now)
        torch.set_num_threads(chosen)
        if chosen != now:
            self.say(
                f"Threads: {chosen} instead of {now}, {seconds[now] / seconds[chosen]:.1f} times as quick on this "
                "machine as busy as it is."
            )
        self.tried = time.monotonic()
        self.took = self.tried - started
        share = SHARE if chosen == self.most else SHARE_IN_DOUBT
        self.pause = max(EVERY_SECONDS, self.took / share)

    def _seconds(self, numbers: Sequence[int]) -> dict[int, float]:
        """Return the median seconds of the work by number of threads.

        A number at which it takes :data:`HOPELESS` times as long as at another is not tried again: on a busy machine
        threads that wait for each other would take a minute to say the same thrice.
        """
        times: dict[int, list[float]] = {number: [] for number in numbers}
        for _ in range(TRIES):
            quickest = min((min(taken) for taken in times.values() if taken), default=0.0)
            for number in numbers:
                if times[number] and min(times[number]) > HOPELESS * quickest:
                    continue
                torch.set_num_threads(number)
                started = time.monotonic()
                self.work()
                times[number].append(time.monotonic() - started)
        return {number: sorted(taken)[len(taken) // 2] for number, taken in times.items()}


def _chosen(seconds: Mapping[int, float], now: int) -> int:
    best = min(seconds, key=lambda number: seconds[number])
    return best if seconds[now] > GAIN * seconds[best] else now


def _read(race: Race) -> None:
    items = race.task.held_out("validation", ITEMS if race.model.tokenizer is None else TEXTS)
    with torch.no_grad(), prepared(race.model, Adaptation()) as refresh:
        refresh()
        evaluate(race.model, items, race.task.labels(), Reading(ITEMS, race.pace.max_tokens, race.layouts[0]))
