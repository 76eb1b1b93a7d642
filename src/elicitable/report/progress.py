"""Tell how a race goes on while it runs: one live line on a terminal, a line now and then where there is none."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.text import Text

from elicitable.report.table import print_hanging
from elicitable.untrusted import in_one_line
from elicitable.values import ArmResult, CurvePoint

if TYPE_CHECKING:
    from typing import Self

QUIET_SECONDS = 15.0  # without a terminal: a line at least so often, so that logs stay readable
FRAMES = 4  # a second on a terminal


class LiveReporter:
    """Show progress on standard error. Use it as a context manager around the race."""

    def __init__(self, console: Console, time_limit: float | None = None) -> None:
        self.console = console
        self.time_limit = time_limit
        self.started = self._round_started = self._said = time.monotonic()
        self._live: Live | None = None
        self._arm, self._what, self._done, self._arms = "", "", 0, 0
        self._arm_started = self.started
        self._free = 0  # of the arms that are done, as many as took no time in this round
        self._last: CurvePoint | None = None
        self._validation: float | None = None
        self._share = 0.0
        self._expected: tuple[float, float] | None = None

    def __enter__(self) -> Self:
        self.started = self._round_started = self._said = time.monotonic()
        if self.console.is_terminal:
            self._live = Live(console=self.console, transient=True, refresh_per_second=FRAMES)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def expect(self, least: float, most: float) -> None:
        """Show beside the seconds that have passed those that all of it may take; a round's own estimate no more."""
        self._expected = min(least, most), most

    def begin(self, arm: str, what: str, arms_done: int, arms: int) -> None:
        """Show what starts. Where fewer arms are done, or of others, a round begins, and the estimate of its time.

        Arms that were done before the round say nothing about its pace, nor do those that were over before a line could
        be drawn, such as one that is kept from an earlier run.
        """
        now = time.monotonic()
        is_new_round = arms != self._arms or arms_done < self._done
        if is_new_round:
            self._round_started, self._free = now, arms_done
        elif arms_done > self._done and now - self._arm_started < 1 / FRAMES:
            self._free += arms_done - self._done
        if is_new_round or arms_done > self._done:
            self._arm_started = now
        self._arm, self._what, self._done, self._arms = arm, what, arms_done, arms
        self._last, self._validation, self._share = None, None, 0.0
        self._show(is_new=True)

    def point(self, point: CurvePoint, share: float) -> None:
        """Show the newest loss and the newest validation score."""
        self._last, self._share = point, share
        self._validation = point.validation if point.validation is not None else self._validation
        self._show()

    def end(self, arm: ArmResult) -> None:
        """Leave one line behind for a finished arm."""
        score = f"{arm.mean:.3f} [{arm.low:.3f}, {arm.high:.3f}]" if arm.mean is not None else arm.status
        line = f"{in_one_line(arm.method):<13} {score:<22} {arm.steps:>6} steps {arm.seconds:>7.1f} s"
        note = arm.reason or ("" if arm.stopped == "all candidates tried" else arm.stopped)
        print_hanging(f"{line}  {in_one_line(note)}".rstrip(), self.console)

    def say(self, text: str) -> None:
        """Leave a sentence behind."""
        self.console.print(text, highlight=False, markup=False)

    def line(self) -> str:
        """Return the current state as one line; where it is too long, what is done is shortened and never the time."""
        doing = in_one_line(f"[{min(self._done + 1, self._arms)}/{self._arms}] {self._arm}: {self._what}")
        parts = [self._time()]
        if self._validation is not None:
            parts.insert(0, f"validation {self._validation:.3f}")
        if self._last is not None:
            parts.insert(0, f"step {self._last.step} loss {self._last.loss_nats:.3f}")
        while len(parts) > 1 and len(doing) + len(rest := "".join(f"  {part}" for part in parts)) > self.console.width:
            if len(rest) + 24 <= self.console.width:
                break
            parts.pop(0)
        rest = "".join(f"  {part}" for part in parts)
        room = max(8, self.console.width - len(rest))
        return (doing if len(doing) <= room else f"{doing[: room - 1]}…") + rest

    def _time(self) -> str:
        spent = time.monotonic() - self.started
        if self.time_limit is not None:
            return f"{clock(max(0.0, self.time_limit - spent))} left"
        if self._expected is not None:
            return _of_expected(spent, *self._expected)
        done, arms = self._done + 0.9 * self._share - self._free, self._arms - self._free
        if done <= 0.02 * arms:
            return f"{clock(spent)} so far"
        return f"about {clock((time.monotonic() - self._round_started) * (arms / done - 1))} left"

    def _show(self, is_new: bool = False) -> None:
        if self._live is not None:
            self._live.update(Text(self.line(), overflow="ellipsis", no_wrap=True))
        elif is_new or time.monotonic() - self._said > QUIET_SECONDS:
            self._said = time.monotonic()
            self.console.print(self.line(), highlight=False, markup=False)


def _of_expected(spent: float, least: float, most: float) -> str:
    """Say how long it has taken, and how long it may take.

    >>> _of_expected(47, 104, 400), _of_expected(120, 104, 400), _of_expected(500, 104, 400)
    ('0:47 of 1:44 to 6:40', '2:00 of up to 6:40', '8:20 so far')
    """
    if spent > most:
        return f"{clock(spent)} so far"
    bound = f"{clock(least)} to" if spent < least else "up to"
    return f"{clock(spent)} of {bound} {clock(most)}"


def clock(seconds: float) -> str:
    """Write minutes and seconds, with hours where there are any.

    >>> clock(75.2), clock(3_700)
    ('1:15', '1:01:40')
    """
    whole = int(seconds)
    return (
        f"{whole // 3600}:{whole % 3600 // 60:02}:{whole % 60:02}"
        if whole >= 3600
        else f"{whole // 60}:{whole % 60:02}"
    )
