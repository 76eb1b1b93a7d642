"""Say of an adaptation what its artefact records: its layout, its probabilities, its base model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, get_args

import numpy as np
import torch

from elicitable.deploy.record import Base, Laid, Record, Spread
from elicitable.models.load import home_of
from elicitable.models.speed.processor import made_on
from elicitable.records.provenance import versions
from elicitable.training.calibration import slope_of
from elicitable.training.evaluate import longest_answer, read_labels
from elicitable.training.loop import prepared

if TYPE_CHECKING:
    from elicitable.methods.base import Adaptation
    from elicitable.models.model import Model
    from elicitable.training.batches import Reading
    from elicitable.values import Item


def base_of(model: Model) -> Base:
    """Return what an artefact says of its base model.

    A map of a person's own names the devices of this machine; on another one ``auto`` spreads the model.
    """
    spread = model.how.get("device_map")
    return Base(
        name=model.name,
        hash=model.fingerprint,
        dtype=str(model.dtype).removeprefix("torch."),
        source=model.source,
        path=home_of(model),
        load_in=model.how.get("load_in"),
        written=model.written,
        device_map=spread if spread is None or spread in get_args(Spread) else "auto",
    )


def completed(
    record: Record, model: Model, adaptation: Adaptation, reading: Reading, items: Sequence[Item], known: Sequence[Item]
) -> Record:
    """Return ``record`` with what is read off ``adaptation`` on ``model``.

    ``items`` say how long a free answer may be; ``known`` are validation items, on which probabilities are calibrated.
    """
    labels = record.form.labels
    return replace(
        record,
        layout=Laid.of(reading.layout),
        chose_layout=adaptation.layout is not None,
        held=reading.held,
        slope=None if labels is None else _slope(record, model, adaptation, reading, known, labels),
        longest_answer=longest_answer(model, items, reading) if labels is None else 0,
        versions=versions(),
        **made_on(model.device),
    )


@torch.no_grad()
def _slope(
    record: Record,
    model: Model,
    adaptation: Adaptation,
    reading: Reading,
    known: Sequence[Item],
    labels: tuple[str, ...],
) -> float:
    with prepared(model, adaptation) as refresh:
        refresh()
        read = read_labels(model, known, labels, reading)
    costs = read.nats.numpy() if record.rule is None else read.under(record.rule)
    truth = np.array([(item.choices or labels).index(str(item.target)) for item in known])
    return slope_of(costs, truth)
