"""Say what deploying an arm takes: the tokens and keys of a request, the forms of export, and the time that it adds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from elicitable.deploy.export import forms_of
from elicitable.deploy.forms.form import Winner
from elicitable.deploy.record import Record, Serving
from elicitable.models.inject import differs_by_item, room_in, use
from elicitable.models.rows import Row, rows_of
from elicitable.training.evaluate import answers
from elicitable.training.loop import prepared
from elicitable.values import ArmResult, DeploymentCard

if TYPE_CHECKING:
    from elicitable.methods.base import Adaptation
    from elicitable.models.model import Model
    from elicitable.training.batches import Reading
    from elicitable.values import Item

ITEMS = 32  # over which tokens are averaged
TIMED, ROUNDS = 4, 4  # requests, each timed without and with the arm so often


def deployment_card(run: str, record: Record, arm: ArmResult, arms: Sequence[ArmResult], device: str) -> DeploymentCard:
    """Return the card of the arm that was written to ``winner/`` with ``record``."""
    assert record.serving is not None
    rival = _rival(arm, arms)
    return DeploymentCard(
        method=arm.method,
        run=run,
        context_tokens=arm.budget.keys_per_layer if _is_text(arm) or arm.rung.group == "weights" else 0,
        keys_per_layer=arm.budget.keys_per_layer,
        training_seconds=arm.seconds,
        rival="" if rival is None else rival.method,
        rival_tokens=0 if rival is None else rival.budget.keys_per_layer,
        rival_mean=None if rival is None else rival.mean,
        device=device,
        **asdict(record.serving),
    )


def _is_text(arm: ArmResult) -> bool:
    """Say whether the arm's context is a text: a context for which no learning rate was needed."""
    return arm.rung.group == "context" and arm.learning_rate is None


def _rival(arm: ArmResult, arms: Sequence[ArmResult]) -> ArmResult | None:
    texts = [one for one in arms if one.mean is not None and _is_text(one) and one.method != arm.method]
    return max(texts, key=lambda one: one.mean or 0.0, default=None)


def serving_of(
    model: Model, adaptation: Adaptation, record: Record, reading: Reading, items: Sequence[Item]
) -> Serving:
    """Measure what a request takes: tokens over the first items, and time over a few of them."""
    room = room_in(model, reading.max_tokens, adaptation.keys_per_layer())
    plain, asked = items[:ITEMS], reading.items(model, items[:ITEMS])
    rows, own = (rows_of(model, some, reading.layout, held=reading.held, limit=room) for some in (plain, asked))
    beside = 0 if differs_by_item(adaptation) else adaptation.budget().keys_per_layer - adaptation.keys_per_layer()
    thought = _thought(model, adaptation, reading, plain[:TIMED]) if reading.marker else ()
    return Serving(
        forms=forms_of(Winner(model, adaptation, record)),
        row_tokens=statistics.fmean(len(row.content) for row in (rows if differs_by_item(adaptation) else own))
        - beside,
        answer_tokens=statistics.fmean(thought or [len(row.answer) for row in rows]),
        **timed(model, adaptation, rows[:TIMED], own[:TIMED]),
    )


@torch.no_grad()
def _thought(model: Model, adaptation: Adaptation, reading: Reading, items: Sequence[Item]) -> list[int]:
    """Count the tokens that are written before and with each answer where the model thinks first."""
    with prepared(model, adaptation) as refresh:
        refresh()
        return [len(answer.ids) for answer in answers(model, items, None, reading)]


@torch.no_grad()
def timed(model: Model, adaptation: Adaptation, rows: Sequence[Row], asked: Sequence[Row]) -> dict[str, Any]:
    """Time how long the model takes to read each row alone, without and with ``adaptation``, in turns.

    ``asked`` are the rows as they are asked with it; a context that differs from item to item stands in them.

    The context is computed before the clock starts, as a server that caches it would have it.
    """
    pairs: list[tuple[float, float]] = []
    for nth in range(ROUNDS + 1):
        plain = [_seconds(model, row) for row in rows]
        with nullcontext() if differs_by_item(adaptation) else use(model, adaptation):
            own = [_seconds(model, row) for row in asked]
        pairs += zip(plain, own, strict=True) if nth else ()  # the first round warms up
    ratios = sorted(own / plain - 1 for plain, own in pairs)
    return {
        "plain_seconds": statistics.median(plain for plain, _ in pairs),
        "with_seconds": statistics.median(own for _, own in pairs),
        "overhead": tuple(statistics.quantiles(ratios, n=4)),
        "requests_timed": len(pairs),
    }


def _seconds(model: Model, row: Row) -> float:
    ids = torch.tensor([row.content], device=model.device)
    _wait(model)
    began = time.perf_counter()
    model.hf(input_ids=ids, use_cache=False, logits_to_keep=1)
    _wait(model)
    return time.perf_counter() - began


def _wait(model: Model) -> None:
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
