"""Write what a race or a training ends with as an artefact: the winner, and what a person wants to keep beside it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elicitable.cache import check_seal, replacing_folder
from elicitable.deploy.artefact import KEPT, WINNER, Artefact, folder_name, kept_in, write_artefact
from elicitable.deploy.making import base_of, completed
from elicitable.deploy.record import Form, Record, Result, Role
from elicitable.errors import InputError, StoreError, UnknownNameError
from elicitable.race.aside import clear_aside
from elicitable.race.deploying import deployment_card, serving_of
from elicitable.race.inside import again
from elicitable.records.store import identity
from elicitable.tasks.base import most_of
from elicitable.training.decision_rules import DecisionRule
from elicitable.training.loop import reading_of
from elicitable.values import ArmResult, Budget, DeploymentCard, Verdict

if TYPE_CHECKING:
    from elicitable.methods.base import Adaptation
    from elicitable.models.model import Model
    from elicitable.race.entry import Entry, Race
    from elicitable.tasks.base import Task
    from elicitable.training.loop import Plan

ADVICE = "Free the place, or choose another --out."


def check_keep(keep: Sequence[str], known: Sequence[str]) -> None:
    """Raise UnknownNameError for the first of ``keep`` that takes no part in the race."""
    if isinstance(keep, str) or not isinstance(keep, Iterable):
        raise InputError(f"methods to keep are a list of names, got {keep!r}.")
    for name in keep:
        if name not in known:
            raise UnknownNameError("method to keep", name, known, "It must take part in the race.")


def keep_winner(
    race: Race, entries: Sequence[Entry], answer: Verdict, keep: Sequence[str] = ()
) -> DeploymentCard | None:
    """Write the winner to ``winner/`` and each of ``keep`` to ``kept/METHOD/`` in the folder of the race.

    Where the verdict names no arm, the best one is written and said to be just that. Nothing is written without a
    folder, and nothing anew where the same trial was written before. Returns what deploying the first of them takes.

    Raises:
        StoreError: the folder cannot be written to.
    """
    folder, card = race.store.folder, None
    if folder is None:
        return None
    arms = {arm.method: arm for arm in answer.arms if arm.status == "ok" and arm.mean is not None}
    judged = [arm for arm in arms.values() if not arm.is_control]
    best = arms.get(answer.answer) or max(judged, key=lambda arm: arm.mean or 0.0, default=None)
    if best is None:
        shutil.rmtree(folder / WINNER, ignore_errors=True)
    else:
        role: Role = "winner" if best.method == answer.answer else "best"
        kept = _keep(race, _entry(entries, best), best, role, answer.label, folder / WINNER)
        device = str(race.model.device)
        card = None if kept is None else deployment_card(str(folder), kept, best, answer.arms, device)
    for name in dict.fromkeys(keep):
        if name in arms and (best is None or name != best.method):
            place = folder / KEPT / folder_name(name)
            _keep(race, _entry(entries, arms[name]), arms[name], "kept", answer.label, place)
    clear_aside(race.store)
    return card


def _entry(entries: Sequence[Entry], arm: ArmResult) -> Entry:
    return next(entry for entry in entries if entry.method.name == arm.method)


def _keep(race: Race, entry: Entry, arm: ArmResult, role: Role, label: str, place: Path) -> Record | None:
    """Write the artefact unless it is there, and return its record; None where its weights were not kept."""
    trial, own = entry.trial, entry.records[0]
    assert trial is not None
    assert own.budget is not None
    record = Record(
        method=arm.method,
        role=role,
        verdict=label,
        rung=arm.rung.label,
        deployment=arm.deployment,
        identity=identity(trial.spec(race.model, race.task)),
        size=trial.size,
        seed=trial.seed,
        setting=own.setting if not trial.method.is_trained else {**trial.options, **own.setting},
        form=Form.of(race.task, race.model.tokenizer is not None),
        rule=DecisionRule.of_record(own.rule) if own.rule else None,
        base=base_of(race.model),
        result=Result(race.marking.scorer.name, arm.mean or 0.0, arm.low or 0.0, arm.high or 0.0, arm.items, arm.seeds),
        budget=own.budget,
        task=race.task.name,
        data_hash=race.task.fingerprint(),
        most_answer=most_of(race.task),
        batch=max(16, trial.plan.batch),
        max_tokens=trial.plan.max_tokens,
    )
    if (known := _there(place, record)) is not None:
        return known
    try:
        adaptation = again(trial, own, race.model, race.task, race.store)
    except StoreError as error:
        former = _in(place)
        if former is None or former.record is None or former.record.identity != record.identity:
            race.warnings.append(f"{arm.method} is not written to {place}: {error}")
            shutil.rmtree(place, ignore_errors=True)  # it is of another trial than the verdict speaks of
            return None
        adaptation = former.adaptation(race.model, [trial.method])  # bit for bit what the trial ended with
    return _write(race, entry, record, adaptation, place)


def _in(place: Path) -> Artefact | None:
    """Return the artefact in ``place``; None where there is none, whole and as it was written."""
    try:
        return next(kept_in(place), None) if place.is_dir() and check_seal(place, ADVICE) else None
    except StoreError:
        return None


def _there(place: Path, record: Record) -> Record | None:
    """Return the record of the artefact in ``place`` where that is of the same trial with the same result."""
    former = _in(place)
    known = None if former is None else former.record
    return known if known is not None and known.serving is not None and known.is_of(record) else None


def _write(race: Race, entry: Entry, record: Record, adaptation: Adaptation, place: Path) -> Record:
    assert entry.trial is not None
    known = race.task.held_out("validation", entry.trial.plan.validation_items)
    adaptation.fit(race.model, [*race.test(), *known])
    reading = reading_of(entry.trial.plan, adaptation)
    whole = completed(record, race.model, adaptation, reading, race.test(), known)
    whole = replace(whole, serving=serving_of(race.model, adaptation, whole, reading, race.test()))
    with replacing_folder(place, ADVICE) as folder:
        write_artefact(race.model, adaptation, whole, folder)
    return whole


def artefact_alone(
    model: Model, task: Task, plan: Plan, adaptation: Adaptation, measured: Mapping[str, Any], **made: Any
) -> Record:
    """Return the record of an artefact that comes from no race.

    ``measured`` says what it scored, of which ``items`` were tested. ``made`` are the record's fields that say what
    made it and how it is built.
    """
    mean, low, high = (float(measured[name]) for name in ("mean", "low", "high"))
    record = Record(
        form=Form.of(task, model.tokenizer is not None),
        rule=DecisionRule.of_record(measured["rule"]) if measured["rule"] else None,
        base=base_of(model),
        result=Result(str(measured["score"]), mean, low, high, int(measured["items"])),
        budget=Budget(*(int(measured[name]) for name in ("numbers_trained", "bytes_stored", "keys_per_layer"))),
        task=task.name,
        data_hash=task.fingerprint(),
        most_answer=most_of(task),
        batch=max(16, plan.batch),
        max_tokens=plan.max_tokens,
        **made,
    )
    known, items = task.held_out("validation", plan.validation_items), task.held_out("test", int(measured["items"]))
    adaptation.fit(model, [*items, *known])
    return completed(record, model, adaptation, reading_of(plan, adaptation), items, known)
