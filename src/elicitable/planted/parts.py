"""Say what the parts of the benchmark are: which cases each has, where its models come from, how they are raced.

``one-layer``: tiny models that come with the package, and cases whose planting was measured beforehand. ``deep``: the
same with two and four layers. ``smollm2``: a language model that is fine-tuned where it is raced, before its first
case.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from elicitable.errors import InputError, UnknownNameError
from elicitable.models.model import Model
from elicitable.planted import cases as digit_cases
from elicitable.planted import deep_cases, text_cases
from elicitable.planted.cases import State, Truth, plantings
from elicitable.planted.models import load_planted
from elicitable.tasks.base import Task


class AnyCase(Protocol):
    """A model, a task, and what is known by construction about the two."""

    @property
    def model(self) -> str:
        """Return the model's name."""
        ...

    @property
    def task_name(self) -> str:
        """Return the task's name."""
        ...

    @property
    def name(self) -> str:
        """Return both names."""
        ...

    @property
    def family(self) -> str:
        """Return the kind of task."""
        ...

    @property
    def state(self) -> State:
        """Return what was planted."""
        ...

    @property
    def truth(self) -> Truth:
        """Return the group of the right verdict."""
        ...

    def task(self) -> Task:
        """Return the task."""
        ...


class Part(ABC):
    """One part of the benchmark. ``asked`` are the options of its races, which its records keep."""

    name: str
    asked: Mapping[str, Any]

    @abstractmethod
    def planned(self) -> Sequence[AnyCase]:
        """List every case that was planned."""

    @abstractmethod
    def cases(self) -> Sequence[AnyCase]:
        """List the cases that are raced unless their planting turns out not to have taken."""

    @abstractmethod
    def load(self, model: str, models: Path, device: str) -> Model:
        """Load a model by name; those that are made lie in the folder ``models``."""

    @abstractmethod
    def planting(self, case: Any, model: Model) -> dict[str, Any]:
        """Return what was measured of the planting of ``case``; ``took`` says whether it is one."""

    def make(self, model: str, models: Path, device: str) -> None:
        """Make the model of that name, where the part's models are made and it is not there."""
        return None

    def lost(self, records: Sequence[Mapping[str, Any]]) -> list[str]:
        """Return the states of the planned cases whose planting did not take, as far as that is known."""
        return [record["state"] for record in records if not record["planting"]["took"]]

    def first(self, count: int | None) -> Sequence[AnyCase]:
        """Return the first ``count`` cases, all where None.

        Raises:
            InputError: ``count`` is no number of cases.
        """
        every = self.cases()
        if count is None:
            return every
        if not 1 <= count <= len(every):
            raise InputError(f"cases must be a whole number from 1 to {len(every)}, got {count}.")
        return every[:count]


class OfDigits(Part):
    """Models over digits that come with the package, on the processor."""

    asked: Mapping[str, Any] = {"seeds": 2, "test_items": 500}

    def load(self, model: str, models: Path, device: str) -> Model:
        if device not in ("auto", "cpu"):
            raise InputError(f"the part {self.name} runs on the processor, got --device {device}; leave it out.")
        return load_planted(model)

    def planting(self, case: Any, model: Model) -> dict[str, Any]:
        return plantings()[case.name]

    def lost(self, records: Sequence[Mapping[str, Any]]) -> list[str]:
        known = plantings()
        return [case.state for case in self.planned() if case.name in known and not known[case.name]["took"]]


class OneLayer(OfDigits):
    """Models of one layer."""

    name = "one-layer"

    def planned(self) -> Sequence[AnyCase]:
        return digit_cases.planned()

    def cases(self) -> Sequence[AnyCase]:
        return digit_cases.cases()


class Deep(OfDigits):
    """Models of two and of four layers."""

    name = "deep"

    def planned(self) -> Sequence[AnyCase]:
        return deep_cases.planned()

    def cases(self) -> Sequence[AnyCase]:
        return deep_cases.took()


class FineTuned(Part):
    """SmolLM2, fine-tuned on text tasks; raced against the clock, as a person would."""

    name = "smollm2"
    asked: Mapping[str, Any] = {"seeds": 2, "time_limit": 180.0}

    def planned(self) -> Sequence[AnyCase]:
        return text_cases.planned()

    def cases(self) -> Sequence[AnyCase]:
        return text_cases.planned()

    def make(self, model: str, models: Path, device: str) -> None:
        text_cases.make_model(model, models, device)

    def load(self, model: str, models: Path, device: str) -> Model:
        return text_cases.load_model(model, models, device)

    def planting(self, case: Any, model: Model) -> dict[str, Any]:
        return text_cases.measured(case, model)


PARTS: Final[Mapping[str, Part]] = {part.name: part for part in (OneLayer(), Deep(), FineTuned())}


def part_named(name: str) -> Part:
    """Return the part of that name.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in PARTS:
        raise UnknownNameError("part of planted truth", name, PARTS)
    return PARTS[name]


__all__ = ["PARTS", "AnyCase", "Deep", "FineTuned", "OfDigits", "OneLayer", "Part", "part_named"]
