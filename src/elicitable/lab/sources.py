"""Find what the trials of an experiment read, tasks, texts and models, and take the fingerprint of each.

The fingerprints go into the identity of a trial, so that a record is never taken for one that was made from other data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from elicitable.errors import ElicitableError, UnknownNameError
from elicitable.experiments.experiment import Adapt, Measure, Planned, Pretrain
from elicitable.experiments.sources import PINNED

if TYPE_CHECKING:
    from elicitable.models.model import Model
    from elicitable.tasks.base import Task

DIGITS = 16  # hexadecimal, of a fingerprint


class UntestableError(Exception):
    """Say that a model or data cannot be had on this machine, or are others than the experiment was defined on."""


def fingerprints(trial: Planned) -> dict[str, str | None]:
    """Return the fingerprint of everything that ``trial`` reads, by name; None where it cannot be had here.

    A base that is pretrained is not a source: it has a spec of its own.
    """
    found = {name: PINNED.get(name) or _of_task(name) for name in _tasks(trial)}
    if isinstance(trial, Measure):
        found |= {name: PINNED.get(name) or _of_texts(name) for name in trial.texts}
    return dict(sorted(found.items()))


def fingerprint_of_base(name: str) -> str | None:
    """Return the fingerprint of a model by name; None where it cannot be had here."""
    return PINNED.get(name) or _of_model(name)


def _tasks(trial: Planned) -> set[str]:
    if isinstance(trial, Pretrain):
        return {trial.toy.task, *trial.scored}
    return {trial.task, *trial.scored} if isinstance(trial, Adapt) else set()


@lru_cache(maxsize=64)
def _of_task(name: str) -> str | None:
    from elicitable.tasks.catalog import task_from

    try:
        return task_from(name).fingerprint()[:DIGITS]
    except ElicitableError:
        return None


@lru_cache(maxsize=8)
def _of_model(name: str) -> str | None:
    try:
        return model_named(name).fingerprint
    except UntestableError:
        return None


def task_named(name: str) -> Task:
    """Return the task of that name, with its data at hand.

    Raises:
        UntestableError: the data cannot be had, or are others than the experiments were defined on.
    """
    from elicitable.tasks.catalog import task_from

    try:
        task = task_from(name)
        task.held_out("validation", 1)  # fetches the data where they have to be fetched
    except ElicitableError as error:
        raise UntestableError(str(error)) from error
    _compare(name, lambda: task.fingerprint()[:DIGITS])
    return task


def model_named(name: str) -> Model:
    """Return the model of that name on the CPU in float32.

    Raises:
        UntestableError: it cannot be had, or has other weights than the experiments were defined on.
    """
    from elicitable.models.load import load

    try:
        model = load(name, device="cpu", dtype="float32")
    except ElicitableError as error:
        raise UntestableError(str(error)) from error
    _compare(name, lambda: weights_fingerprint(model))
    return model


def check_texts(names: Sequence[str]) -> None:
    """Raise UntestableError where texts are others than the experiments were defined on."""
    for name in names:
        _compare(name, partial(_of_texts, name))


def _of_texts(name: str) -> str:
    from elicitable.tasks.passages import FINGERPRINT

    known = {"passages": FINGERPRINT}
    if name not in known:
        raise UnknownNameError("texts", name, known)
    return known[name][:DIGITS]


def weights_fingerprint(model: Model) -> str:
    """Hash by SHA-256 (first 16 hex digits) every weight's name, shape, type and bytes."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.hf.state_dict().items()):
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}\n".encode())
        digest.update(weight.contiguous().numpy().tobytes())
    return digest.hexdigest()[:DIGITS]


def _compare(name: str, present: Callable[[], str]) -> None:
    if name in PINNED and (found := present()) != PINNED[name]:
        raise UntestableError(
            f"{name} is not what the experiments were defined on: its fingerprint here is {found}, "
            f"theirs {PINNED[name]}"
        )
