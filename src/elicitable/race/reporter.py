"""Tell whoever listens how a race goes on: a terminal, a notebook, nobody."""

from __future__ import annotations

from typing import Protocol

from elicitable.values import ArmResult, CurvePoint


class Reporter(Protocol):
    """Hear of progress while a race runs."""

    def begin(self, arm: str, what: str, arms_done: int, arms: int) -> None:
        """Hear that an arm starts something: a sweep at a rate, a seed."""

    def point(self, point: CurvePoint, share: float) -> None:
        """Hear a new point of the current run's curve, and the share of the run that is done."""

    def end(self, arm: ArmResult) -> None:
        """Hear that an arm is finished."""

    def expect(self, least: float, most: float) -> None:
        """Hear how many seconds all of it may take, where no limit says so."""

    def say(self, text: str) -> None:
        """Hear a sentence that a person should read at once: the price, the number of threads."""


class Silent:
    """Say nothing."""

    def begin(self, arm: str, what: str, arms_done: int, arms: int) -> None:
        """Say nothing."""

    def point(self, point: CurvePoint, share: float) -> None:
        """Say nothing."""

    def end(self, arm: ArmResult) -> None:
        """Say nothing."""

    def expect(self, least: float, most: float) -> None:
        """Say nothing."""

    def say(self, text: str) -> None:
        """Say nothing."""
