"""What a person asks for: will a context do, how sure is that, and what would scores be at so many labelled rows?"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from elicitable.cache import replace_file
from elicitable.forecasting.model import Prediction, shipped
from elicitable.forecasting.names import SIGNALS, in_figures
from elicitable.forecasting.signals import signals_of
from elicitable.forecasting.steps import arms
from elicitable.glance import table
from elicitable.models.layout import layout_for
from elicitable.models.load import load
from elicitable.models.speed.frozen_parts import keeping_parts
from elicitable.models.speed.precision import undisturbed
from elicitable.models.speed.processor import made_on
from elicitable.records.provenance import versions
from elicitable.records.schema import to_plain
from elicitable.records.store import Store
from elicitable.tasks.base import checked_count, has_turns, stops_of
from elicitable.tasks.catalog import task_from
from elicitable.untrusted import command_line, in_one_line

RECORD = "forecast.json"
BARE = "base_score"
SURE = 0.9  # from which probability on one arm is worth training by itself


@dataclass(frozen=True)
class Forecast:
    """Hold a forecast about ``task`` on ``model``.

    ``probability`` is that a context suffices (the model as it is included), in [0, 1]; where ``is_known`` is False the
    case lies outside of what was trained on, for the ``reasons`` that are given in words, and the probability is worth
    nothing. ``signals`` are what it rests on, measured in ``seconds``.
    """

    model: str
    task: str
    probability: float
    is_known: bool
    reasons: tuple[str, ...]
    signals: Mapping[str, float]
    seconds: Mapping[str, float]
    prediction: Prediction
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Return the answer in a line."""
        return in_one_line(f"<Forecast: {self.answer}>")

    def _repr_html_(self) -> str:
        """Return the answer, why it is not known, and the signals that push most, for a notebook."""
        rows = [
            (SIGNALS[name][1], self.figure(name), f"{self.prediction.pushes[name]:+.2f}") for name in self.strongest()
        ]
        return table(" ".join((self.answer, *self.reasons)), rows, ("signal", "here", "pushes towards a context"))

    def strongest(self, count: int = 8) -> list[str]:
        """Return the ``count`` signals that push most, the strongest first; on unknown ground the bare score first."""
        pushes = self.prediction.pushes
        return sorted(pushes, key=lambda name: (self.is_known or name != BARE, -abs(pushes[name])))[:count]

    @property
    def answer(self) -> str:
        """Say it in one sentence."""
        bare = f"{self.model} does {self.task} as it is ({self.signals[BARE]:.2f} on validation)"
        if not self.is_known and self.signals[BARE] >= SURE:
            return f"{bare}; I do not know whether a context will do better."
        if not self.is_known:
            return f"I do not know whether a context will do {self.task} on {self.model}."
        if self.signals[BARE] >= SURE and self.probability >= 0.5:
            return f"{bare}; that no weights are needed has probability {self.probability:.2f}."
        return f"A context will do {self.task} on {self.model} with probability {self.probability:.2f}."

    @property
    def arms(self) -> dict[str, str]:
        """Name the methods whose scores are foretold: the one that stands for contexts, and that for weights."""
        return {role: method.name for role, method in arms().items()}

    def figure(self, name: str) -> str:
        """Return a signal's value as a person reads it."""
        return in_figures(name, self.signals[name])

    def record(self) -> dict[str, Any]:
        """Return it as plain lists and numbers, which is what ``forecast.json`` holds."""
        said, growth = self.prediction, self.prediction.growth
        return {
            "answer": self.answer,
            "model": self.model,
            "task": self.task,
            "probability": self.probability,
            "is_known": self.is_known,
            "reasons": list(self.reasons),
            "distance": said.distance,
            "threshold": said.threshold,
            "signals": {
                name: {"value": value, "push": said.pushes.get(name, 0.0)} for name, value in self.signals.items()
            },
            "scores": {"context": to_plain(growth.context), "weights": to_plain(growth.weights)},
            "scored": {"arms": self.arms, "steps": growth.steps, "rates": 1},
            "overtaken": growth.overtaken,
            "crossing": list(growth.crossing),
            "seconds": dict(self.seconds),
            "provenance": dict(self.provenance),
        }

    def command(self, typed: Sequence[str]) -> str:
        """Return what to type next: one arm trained alone where the forecast is sure, else the race.

        Args:
            typed: what was typed of the model, the task, and how its items are read.
        """
        if self.is_known and not 1 - SURE < self.probability < SURE and self.signals[BARE] < SURE:
            arm = arms()["context" if self.probability >= SURE else "weights"]
            return command_line("elicitable", "tune", *typed, "--method", arm.name)
        return command_line("elicitable", "verdict", *typed)


@undisturbed()
def forecast(
    model: Any,
    task: Any,
    *,
    seed: int = 0,
    chat: str = "auto",
    system: str | None = None,
    stop: str | None = None,
    max_tokens: int | None = None,
    truncate: str = "left",
    out: str | os.PathLike[str] | None = None,
    **task_options: Any,
) -> Forecast:
    """Foretell whether a context suffices, from what is read off the model, with nothing trained.

    No item of the test split is read.

    Args:
        model: a name for, or a model from, :func:`elicitable.load`, or a transformers model.
        task: as for :func:`elicitable.verdict`, with its ``task_options``.
        seed: of everything that is drawn.
        chat, system, stop, max_tokens, truncate: how items are read, as for :func:`elicitable.verdict`.
        out: a folder for ``forecast.json``; nothing is written when None.

    Raises:
        InputError: an argument, the model or the task is not as expected; the message names it.
        StoreError: the file of the shipped forecast was altered, or ``out`` cannot be written to.

    Example:
        >>> import elicitable as el
        >>> found = el.forecast("toy:ascending", "ascending")
        >>> found.is_known, found.signals["base_score"] > 0.9
        (False, True)
    """
    began = time.monotonic()
    if max_tokens is not None:
        checked_count(max_tokens, "max tokens")
    forecaster, store = shipped(), Store(out)
    model, task = load(model), task_from(task, **task_options)
    layout = layout_for(model, chat, system, stop, truncate, stops_of(task), has_turns(task))
    names = {*forecaster.signals, *forecaster.border.constant}
    with keeping_parts(model):
        measured = signals_of(model, task, names=names, seed=seed, layout=layout, max_tokens=max_tokens)
    found = forecaster.predict(measured.values)
    made = Forecast(
        model=model.name,
        task=task.name,
        probability=found.probability,
        is_known=found.is_known,
        reasons=tuple(in_words(forecaster.border.constant, name, measured.values[name]) for name in found.reasons),
        signals=measured.values,
        seconds={**measured.seconds, "all": time.monotonic() - began},
        prediction=found,
        provenance={
            "trained_on": {name: forecaster.provenance[name] for name in ("kind", "models", "families")},
            "cases": len(forecaster.provenance["cases"]),
            "refused": forecaster.border.refused,
            "seed": seed,
            **made_on(model.device),
            "versions": versions(),
        },
    )
    if store.folder is not None:
        data = (json.dumps(made.record(), indent=1, allow_nan=False) + "\n").encode()
        replace_file(store.folder / RECORD, data, "Free the place, or choose another --out.")
    return made


def in_words(constant: Mapping[str, float], name: str, value: float) -> str:
    """Say why a signal puts a case outside.

    >>> in_words({"is_text": 0.0}, "is_text", 1.0)
    'it is a text model, and the forecast was trained on synthetic tasks of token ids alone'
    >>> in_words({"layers": 0.0}, "layers", 2.0)
    'layers: 4 here, and 1 in every case of the training'
    """
    if name == "is_text" and value:
        return "it is a text model, and the forecast was trained on synthetic tasks of token ids alone"
    _, words = SIGNALS[name]
    if name in constant:
        known = in_figures(name, constant[name])
        return f"{words}: {in_figures(name, value)} here, and {known} in every case of the training"
    return f"its signals lie far from those of the training, most of all: {words} ({in_figures(name, value)})"
