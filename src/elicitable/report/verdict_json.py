"""Turn a verdict into a JSON object and back.

The object is strict JSON: numbers that are not finite become null, tuples become lists, keys become texts. What is
read is checked key by key, and a record that is not what it should be is refused with the key's name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, TypeVar, cast, get_args

from elicitable.errors import StoreError
from elicitable.values import ArmResult, Budget, CurvePoint, DeploymentCard, Effort, Group, Rung, Stretch, Verdict

T = TypeVar("T")
Read = Callable[[Any, str], T]


def verdict_to_json(verdict: Verdict) -> dict[str, Any]:
    """Return the verdict as plain dictionaries, lists, texts, finite numbers, booleans and nulls.

    Example:
        >>> record = verdict_to_json(Verdict("inconclusive", ("one seed",), (), "toy:mixed", "ascending", 0.02))
        >>> record["label"], record["arms"], record["margin"]
        ('inconclusive', [], 0.02)
    """
    return {
        "label": verdict.label,
        "reasons": list(verdict.reasons),
        "model": verdict.model,
        "task": verdict.task,
        "margin": plain_json(verdict.margin),
        "answer": verdict.answer,
        "arms": [_arm_to_json(arm) for arm in verdict.arms],
        "provenance": plain_json(verdict.provenance),
        "items": plain_json(verdict.items),
        "card": None if verdict.card is None else plain_json(asdict(verdict.card)),
        "margins": [plain_json(asdict(one)) for one in verdict.margins],
        "why": plain_json(verdict.why if isinstance(verdict.why, Mapping | None) else asdict(verdict.why)),
    }


def verdict_from_json(record: Mapping[str, Any]) -> Verdict:
    """Return the verdict that :func:`verdict_to_json` wrote.

    Raises:
        StoreError: a key is missing, unknown or holds the wrong kind of value; the message names it
            (``arms[2].mean``).

    Example:
        >>> verdict = Verdict("inconclusive", ("one seed",), (), "toy:mixed", "ascending", 0.02)
        >>> verdict_from_json(verdict_to_json(verdict)) == verdict
        True
    """
    fields = _Fields(record, "")
    verdict = Verdict(
        label=fields.take("label", _text),
        reasons=fields.take("reasons", _many(_text)),
        model=fields.take("model", _text),
        task=fields.take("task", _text),
        margin=fields.take("margin", _number),
        answer=fields.take("answer", _text),
        arms=fields.take("arms", _many(_arm_from_json)),
        provenance=fields.take("provenance", _mapping),
        items=fields.take("items", _many(_pair)),
        card=fields.take("card", _optional(_card_from_json)),
        margins=fields.take("margins", _many(_stretch_from_json)),
        why=fields.take("why", _optional(_mapping)),
    )
    fields.finish()
    return verdict


def plain_json(value: Any) -> Any:
    """Turn ``value`` into JSON's own kinds: tuples to lists, numpy scalars to numbers, not finite to None, else texts.

    >>> plain_json({"size": (1, 2.5), 3: float("nan")})
    {'size': [1, 2.5], '3': None}
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(inner) for inner in value]
    if isinstance(value, set | frozenset):
        return sorted((plain_json(inner) for inner in value), key=repr)
    if callable(unwrap := getattr(value, "tolist", None)):  # numpy and torch, without importing either
        return plain_json(unwrap())
    return str(value)


def _arm_to_json(arm: ArmResult) -> dict[str, Any]:
    return {
        "method": arm.method,
        "rung": plain_json(asdict(arm.rung)),
        "deployment": arm.deployment,
        "setting": plain_json(arm.setting),
        "numbers_trained": arm.budget.numbers_trained,
        "bytes_stored": arm.budget.bytes_stored,
        "keys_per_layer": arm.budget.keys_per_layer,
        "mean": plain_json(arm.mean),
        "low": plain_json(arm.low),
        "high": plain_json(arm.high),
        "items": arm.items,
        "seeds": arm.seeds,
        "learning_rate": plain_json(arm.learning_rate),
        "steps": arm.steps,
        "seconds": plain_json(arm.seconds),
        "side_effect_nats": plain_json(arm.side_effect_nats),
        "status": arm.status,
        "reason": arm.reason,
        "stopped": arm.stopped,
        "sweep": plain_json(arm.sweep),
        "curves": [[_point_to_json(point) for point in curve] for curve in arm.curves],
        "prefix_mass": plain_json(arm.prefix_mass),
        "samples": plain_json(arm.samples),
        "cut_items": arm.cut_items,
        "cut_tokens": arm.cut_tokens,
        "behind": plain_json(arm.behind),
        "correct": plain_json(arm.correct),
        "answers": plain_json(arm.answers),
        "rule": arm.rule,
        "raw_mean": plain_json(arm.raw_mean),
        "share_of_batch": arm.share_of_batch,
        "effort": None if arm.effort is None else plain_json(asdict(arm.effort)),
    }


def _point_to_json(point: CurvePoint) -> dict[str, Any]:
    return {
        "step": point.step,
        "loss_nats": plain_json(point.loss_nats),
        "validation": plain_json(point.validation),
    }


def _arm_from_json(record: Any, where: str) -> ArmResult:
    fields = _Fields(record, where)
    arm = ArmResult(
        method=fields.take("method", _text),
        rung=fields.take("rung", _rung_from_json),
        deployment=fields.take("deployment", _text),
        setting=fields.take("setting", _mapping),
        budget=Budget(
            numbers_trained=fields.take("numbers_trained", _count),
            bytes_stored=fields.take("bytes_stored", _count),
            keys_per_layer=fields.take("keys_per_layer", _count),
        ),
        status=fields.take("status", _text),
        reason=fields.take("reason", _text),
        stopped=fields.take("stopped", _text),
        mean=fields.take("mean", _optional(_number)),
        low=fields.take("low", _optional(_number)),
        high=fields.take("high", _optional(_number)),
        items=fields.take("items", _count),
        seeds=fields.take("seeds", _count),
        learning_rate=fields.take("learning_rate", _optional(_number)),
        steps=fields.take("steps", _count),
        seconds=fields.take("seconds", _number_or_nan),
        side_effect_nats=fields.take("side_effect_nats", _optional(_number)),
        correct=fields.take("correct", _many(_many(_count))),
        curves=fields.take("curves", _many(_many(_point_from_json))),
        sweep=fields.take("sweep", _many(_mapping)),
        prefix_mass=fields.take("prefix_mass", _many(_many(_number_or_nan))),
        samples=fields.take("samples", _many(_mapping)),
        cut_items=fields.take("cut_items", _count),
        cut_tokens=fields.take("cut_tokens", _count),
        behind=fields.take("behind", _many(_number)),
        answers=fields.take("answers", _many(_many(_text))),
        rule=fields.take("rule", _text),
        raw_mean=fields.take("raw_mean", _optional(_number)),
        effort=fields.take("effort", _optional(_effort_from_json)),
        share_of_batch=fields.take("share_of_batch", _number),
    )
    fields.finish()
    return arm


def _stretch_from_json(record: Any, where: str) -> Stretch:
    fields = _Fields(record, where)
    stretch = Stretch(
        start=fields.take("start", _number),
        label=fields.take("label", _text),
        answer=fields.take("answer", _text),
        reason=fields.take("reason", _text),
        standings=fields.take("standings", _mapping),
    )
    fields.finish()
    return stretch


def _effort_from_json(record: Any, where: str) -> Effort:
    fields = _Fields(record, where)
    effort = Effort(
        candidates=fields.take("candidates", _count),
        offered=fields.take("offered", _count),
        passes=fields.take("passes", _count),
        items=fields.take("items", _count),
        seconds=fields.take("seconds", _number),
        best=fields.take("best", _number),
        median=fields.take("median", _number),
        origins=fields.take("origins", _origins),
    )
    fields.finish()
    return effort


def _origins(value: Any, place: str) -> dict[str, tuple[float, ...]]:
    return {name: _many(_number)(pair, f"{place}.{name}") for name, pair in _mapping(value, place).items()}


def _card_from_json(record: Any, where: str) -> DeploymentCard:
    fields = _Fields(record, where)
    card = DeploymentCard(
        method=fields.take("method", _text),
        run=fields.take("run", _text),
        forms=fields.take("forms", _many(_text)),
        row_tokens=fields.take("row_tokens", _number),
        answer_tokens=fields.take("answer_tokens", _number),
        context_tokens=fields.take("context_tokens", _count),
        keys_per_layer=fields.take("keys_per_layer", _count),
        training_seconds=fields.take("training_seconds", _number),
        rival=fields.take("rival", _text),
        rival_tokens=fields.take("rival_tokens", _count),
        rival_mean=fields.take("rival_mean", _optional(_number)),
        plain_seconds=fields.take("plain_seconds", _number),
        with_seconds=fields.take("with_seconds", _number),
        overhead=fields.take("overhead", _many(_number)),
        requests_timed=fields.take("requests_timed", _count),
        device=fields.take("device", _text),
    )
    fields.finish()
    return card


def _rung_from_json(record: Any, where: str) -> Rung:
    fields = _Fields(record, where)
    rung = Rung(
        depth=fields.take("depth", _number),
        label=fields.take("label", _text),
        group=fields.take("group", _group),
        answer=fields.take("answer", _text),
        advice=fields.take("advice", _many(_text)),
    )
    fields.finish()
    return rung


def _group(value: Any, place: str) -> Group:
    for group in get_args(Group):
        if value == group:
            return cast("Group", group)
    raise _refuse(place, f"one of {', '.join(get_args(Group))}", value)


def _point_from_json(record: Any, where: str) -> CurvePoint:
    fields = _Fields(record, where)
    point = CurvePoint(
        step=fields.take("step", _count),
        loss_nats=fields.take("loss_nats", _number_or_nan),
        validation=fields.take("validation", _optional(_number)),
    )
    fields.finish()
    return point


class _Fields:
    """Take each key of one object exactly once, so that missing and unknown ones are both seen."""

    def __init__(self, record: Any, where: str) -> None:
        self.left = dict(_mapping(record, where or "the verdict"))
        self.where = where

    def take(self, key: str, read: Read[T]) -> T:
        place = f"{self.where}.{key}" if self.where else key
        if key not in self.left:
            raise StoreError(f"not a verdict: the key {place!r} is missing.")
        return read(self.left.pop(key), place)

    def finish(self) -> None:
        if self.left:
            key = next(iter(self.left))
            place = f"{self.where}.{key}" if self.where else key
            raise StoreError(f"unknown key {place!r} in a verdict; was it written by a newer version?")


def _refuse(place: str, expected: str, value: Any) -> StoreError:
    shown = repr(value)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    return StoreError(f"not a verdict: {place!r} should be {expected}, got {shown}.")


def _text(value: Any, place: str) -> str:
    if not isinstance(value, str):
        raise _refuse(place, "a text", value)
    return value


def _pair(value: Any, place: str) -> tuple[str, str]:
    texts = _many(_text)(value, place)
    if len(texts) != 2:
        raise _refuse(place, "a prompt and a target", value)
    return texts[0], texts[1]


def _count(value: Any, place: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise _refuse(place, "a whole number of at least 0", value)
    return value


def _number(value: Any, place: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise _refuse(place, "a finite number", value)
    return float(value)


def _number_or_nan(value: Any, place: str) -> float:
    """Read a number, of which one that was not finite was written as null."""
    return math.nan if value is None else _number(value, place)


def _mapping(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _refuse(place, "an object", value)
    return dict(value)


def _optional(read: Read[T]) -> Read[T | None]:
    return lambda value, place: None if value is None else read(value, place)


def _many(read: Read[T]) -> Read[tuple[T, ...]]:
    def read_all(value: Any, place: str) -> tuple[T, ...]:
        if not isinstance(value, list | tuple):
            raise _refuse(place, "a list", value)
        return tuple(read(inner, f"{place}[{i}]") for i, inner in enumerate(value))

    return read_all
