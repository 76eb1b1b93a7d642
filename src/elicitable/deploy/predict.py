"""Answer new rows with what a race ended with: the same items, the same rule, the same answers."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch

from elicitable.deploy.artefact import Artefact, read
from elicitable.deploy.asked import item_of
from elicitable.deploy.record import Record
from elicitable.errors import InputError
from elicitable.models.inject import room_in
from elicitable.models.load import load
from elicitable.models.rows import Row, rows_of
from elicitable.models.speed.frozen_parts import keep_parts
from elicitable.models.speed.precision import undisturbed
from elicitable.tasks.memory import rows_of_data
from elicitable.training.batches import Reading
from elicitable.training.calibration import probabilities
from elicitable.training.evaluate import answer_limit, answers, read_labels
from elicitable.training.generate import generate
from elicitable.training.loop import prepared
from elicitable.untrusted import in_one_line
from elicitable.values import Item

if TYPE_CHECKING:
    from elicitable.methods.base import Adaptation, Method
    from elicitable.models.model import Model

CHUNK = 1_000  # rows answered together, so that memory does not grow with their number


@dataclass(frozen=True, slots=True)
class Prediction:
    """Hold the answer to one row.

    Attributes:
        answer: the label, or what was written; None where the row is broken.
        probability: of the label, calibrated on the race's validation split; None for free answers.
        probabilities: of every label.
        has_ended: whether a free answer ended by itself; None for labels.
        cut: tokens of a text that is longer than the model reads, which were left out.
        fault: what is wrong with the row; empty where nothing is.
    """

    answer: str | None
    probability: float | None = None
    probabilities: Mapping[str, float] = field(default_factory=dict)
    has_ended: bool | None = None
    cut: int = 0
    fault: str = ""


class Predictor:
    """Answer rows: call it with many, or with :meth:`one`.

    ``record`` says what answers. Rows are dictionaries by the column names of the race's data; where one column is
    read, a text (or token ids, or messages) will do.
    """

    def __init__(self, model: Model, adaptation: Adaptation, record: Record, max_answer: int | None = None) -> None:
        self.model, self.adaptation, self.record = model, adaptation, record
        self.limit = max_answer
        self.most = max_answer or record.most_answer or answer_limit(model, record.longest_answer)
        keep_parts(model)  # a row by itself takes less time than laying the model out

    def __repr__(self) -> str:
        """Return what answers in a line."""
        return in_one_line(f"<Predictor: {self.record.told}>")

    def _repr_html_(self) -> str:
        """Return the score of what answers as a bar, for a notebook."""
        return self.record.picture()

    def __call__(self, rows: Iterable[Any]) -> Iterator[Prediction]:
        """Yield the prediction of every row, in their order, a chunk of rows at a time.

        A frame of pandas or polars, an Arrow table or a data set is taken row by row. A broken row is answered by a
        prediction that says what is wrong with it.
        """
        if isinstance(rows, str | bytes | Mapping):
            raise InputError("give a list of rows, or one row to predictor.one(row).")
        left = rows_of_data(rows)
        while chunk := list(islice(left, CHUNK)):
            yield from self._chunk(chunk)

    def one(self, row: Any) -> Prediction:
        """Return the prediction of one row.

        Raises:
            InputError: the row is broken.
        """
        [found] = self._chunk([row])
        if found.fault:
            raise InputError(f"the row cannot be answered: {found.fault}.")
        return found

    def _chunk(self, rows: Sequence[Any]) -> list[Prediction]:
        found: dict[int, Prediction] = {}
        asked: dict[int, Item] = {}
        for place, row in enumerate(rows):
            try:
                asked[place] = item_of(self.record.form, row, self.model)
            except InputError as error:
                found[place] = Prediction(None, fault=str(error))
        found |= dict(zip(asked, self._answered(list(asked.values())), strict=True))
        return [found[place] for place in range(len(rows))]

    def _answered(self, items: list[Item]) -> list[Prediction]:
        """Answer ``items``; where the model refuses them, find the one that it refuses, and answer the others."""
        if not items:
            return []
        try:
            return self._together(items)
        except InputError as error:
            if len(items) == 1:
                return [Prediction(None, fault=str(error).rstrip("."))]
            half = len(items) // 2
            return [*self._answered(items[:half]), *self._answered(items[half:])]

    @undisturbed()
    @torch.no_grad()
    def _together(self, items: list[Item]) -> list[Prediction]:
        own = copy.copy(self.adaptation)
        own.fit(self.model, items)
        layout = own.layout or self.record.layout.layout()
        asked = own.asked if own.asks_otherwise else None
        reading = Reading(self.record.batch, self.record.max_tokens, layout, own.held(), asked, own.marker)
        with prepared(self.model, own) as refresh:
            refresh()
            if self.record.form.labels is None:
                return self._written(items, reading)
            return self._chosen(items, reading, self.record.form.labels)

    def _chosen(self, items: list[Item], reading: Reading, labels: tuple[str, ...]) -> list[Prediction]:
        costs = read_labels(self.model, items, labels, reading)
        rule = self.record.rule
        settled = costs.nats.numpy() if rule is None else costs.under(rule)
        places = settled.argmin(axis=1).tolist()
        shares = probabilities(settled, self.record.slope or 1.0)
        found = []
        for item, place, own, cut in zip(items, places, shares.tolist(), costs.cut_of_each, strict=True):
            names = [label.strip() for label in item.choices or labels]
            found.append(Prediction(names[place], own[place], dict(zip(names, own, strict=False)), cut=cut))
        return found

    def _written(self, items: list[Item], reading: Reading) -> list[Prediction]:
        rows = self._rows(items, reading)
        if reading.marker:
            found = answers(self.model, items, None, replace(reading, longest=self.limit or reading.longest))
        else:
            found = generate(self.model, rows, reading.layout, self.most, reading.batch)
        has_end = self.model.tokenizer is not None
        return [
            Prediction(answer.text.strip(), has_ended=answer.has_ended or not has_end, cut=row.cut)
            for row, answer in zip(rows, found, strict=True)
        ]

    def _rows(self, items: list[Item], reading: Reading) -> list[Row]:
        """Return the rows of ``items``, with room for the longest right answer behind each."""
        room, layout, held = room_in(self.model, reading.max_tokens), reading.layout, reading.held
        items = list(reading.items(self.model, items))
        return rows_of(self.model, items, layout, held=held, limit=room, room=self.record.longest_answer)


def predictor(
    run: str | os.PathLike[str] | Artefact,
    method: str | None = None,
    *,
    model: Any = None,
    device: str = "auto",
    methods: Sequence[Method] = (),
    any_base: bool = False,
    max_answer: int | None = None,
) -> Predictor:
    """Return what answers new rows as the race's winner did.

    Args:
        run: the folder of a race or a tuning, or an artefact.
        method: what was kept of a run, instead of its winner.
        model: the base model, where it cannot be found as it was named then. One that is named is loaded in the type,
            and packed and spread, as it was then.
        device: where it runs, as for :func:`elicitable.load`.
        methods: methods of your own, one of which may have made it.
        any_base: take another base model as well.
        max_answer: tokens after which a free answer is cut off; by default as in the race.

    Raises:
        InputError: there is no artefact, its base model is not found, or another one is given; or answers that are
            labels have a ``max_answer``.

    Example:
        >>> import tempfile
        >>> import elicitable as el
        >>> with tempfile.TemporaryDirectory() as run:
        ...     _ = el.verdict("toy:ascending", "ascending", methods=["zero-shot"], seeds=1, test_items=50, out=run)
        ...     el.predictor(run).one("3 1 4 1 5 7 2 6 5 3").answer
        '1 1 2 3 3 4 5 5 6 7'
    """
    artefact = run if isinstance(run, Artefact) else read(run, method)
    record = artefact.record
    if record is None:
        raise InputError(
            f"{artefact.folder} is an adapter without a record of how rows are read; tune or race it first."
        )
    if max_answer is not None and record.form.labels is not None:
        raise InputError(
            "max_answer (--max-answer) limits free answers, and labels are compared by their likelihood: leave it out."
        )
    base = base_model(record, device, model)
    return Predictor(base, artefact.adaptation(base, methods, any_base), record, max_answer)


def base_model(record: Record, device: str = "auto", model: Any = None) -> Model:
    """Load the base model of an artefact as it was loaded then: ``model``, or where it was, or as it was named.

    A ``model`` in memory is taken as it is.

    Raises:
        InputError: it was only ever in memory, or is in neither place.
    """
    base = record.base
    if model is not None:
        is_named = isinstance(model, str | os.PathLike)
        return load(model, **base.how(device)) if is_named else load(model, device=device)
    names = [base.source, base.path] if str(base.source).startswith("toy:") else [base.path, base.source]
    known = [name for name in names if name is not None]
    if not known:
        raise InputError(
            f"the base model {base.name} was in memory and has no place to load it from; give it: --model."
        )
    try:
        return load(known[0], **base.how(device))
    except InputError:
        if len(known) == 1:
            raise
    return load(known[1], **base.how(device))
