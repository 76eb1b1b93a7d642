"""Whoever is told how a race goes on: a terminal, a notebook, nobody."""

from __future__ import annotations

from typing import Protocol

from elicitable.values import ArmResult, CurvePoint


class Reporter(Protocol):
    """Told of progress while a race runs."""

    def begin(self, arm: str, what: str, arms_done: int, arms: int) -> None:
        """An arm starts something: a sweep at a rate, a seed."""

    def point(self, point: CurvePoint, share: float) -> None:
        """A new point of the current run's curve, and the share of the run that is done."""

    def end(self, arm: ArmResult) -> None:
        """An arm is finished."""


class Silent:
    """A reporter that says nothing."""

    def begin(self, arm: str, what: str, arms_done: int, arms: int) -> None:
        """Say nothing."""

    def point(self, point: CurvePoint, share: float) -> None:
        """Say nothing."""

    def end(self, arm: ArmResult) -> None:
        """Say nothing."""
