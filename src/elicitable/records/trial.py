"""Record one finished trial: how it ended, what it learned, what it scored, what was seen in it.

The race and the laboratory keep the same record, made from a fit by the same function, :func:`record_of_fit`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from elicitable.errors import InputError, StoreError
from elicitable.glance import bars
from elicitable.records.digested import DIGEST
from elicitable.records.schema import from_plain, to_plain
from elicitable.records.store import STATE_DIGEST, Store
from elicitable.untrusted import in_one_line
from elicitable.values import Budget, CurvePoint, Effort, Score

if TYPE_CHECKING:
    from torch import Tensor

Status = Literal["ok", "diverged", "failed", "skipped", "untestable"]
_OF_THE_STORE = ("version", "spec", DIGEST, STATE_DIGEST)  # keys that the store adds to a record and checks itself
_HEXADECIMAL = re.compile(r"[0-9a-f]+")
MOST_ITEMS = 10_000_000  # of one split: outcomes that claim more are no outcomes


@dataclass(frozen=True, slots=True)
class Times:
    """Record the seconds that a trial took: in all, over every sitting, and for its training and its test alone."""

    seconds: float
    train_seconds: float | None = None
    test_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Record which of ``of`` items are right: how many, and one bit per item in hexadecimal, the first highest.

    >>> Outcomes.of_items((1, 0, 1, 1))
    Outcomes(right=3, of=4, bits='b')
    """

    right: int
    of: int
    bits: str

    def __post_init__(self) -> None:
        """Raise InputError where the three numbers contradict one another."""
        if not _HEXADECIMAL.fullmatch(self.bits):
            raise InputError(f"bits must be a hexadecimal number, not {self.bits[:40]!r}")
        number = int(self.bits, 16)
        if not 1 <= self.of <= MOST_ITEMS or number.bit_length() > self.of or number.bit_count() != self.right:
            raise InputError(f"bits do not say that {self.right} of {self.of} items are right")

    @classmethod
    def of_items(cls, correct: Sequence[int]) -> Outcomes:
        """Pack one 0 or 1 per item, in the order of the split."""
        bits = int("".join(map(str, correct)), 2)
        return cls(sum(correct), len(correct), f"{bits:x}")

    @property
    def items(self) -> tuple[int, ...]:
        """Return one 0 or 1 per item.

        >>> Outcomes.of_items((0, 0, 1)).items
        (0, 0, 1)
        """
        return tuple(int(bit) for bit in f"{int(self.bits, 16):0{self.of}b}")

    @property
    def share(self) -> float:
        """Return the share of the items that were answered right, in [0, 1]."""
        return self.right / self.of


@dataclass(frozen=True, slots=True, repr=False)
class TrialRecord:
    """Record one finished trial.

    Attributes:
        status: ``ok``; ``diverged`` (a loss that is not a number); ``failed`` (``traceback`` says where); ``skipped``
            (the method cannot do it with this model and task); ``untestable`` (a model or data that are not here).
        stopped: why it ended, in words.
        steps: of training. ``curve`` is the learning curve, to six digits.
        validation: best score on the validation split, in [0, 1], and its mean loss per token in nats.
        scores: outcomes on the test split by the task's name; ``test_loss_nats`` is the loss on it per token.
        measurements: further numbers by name. ``pictures``: plain data of what was looked at, by the measure's name.
        fingerprint: of the model, where it was loaded by name.
        processor: the kind that it ran on, since last digits differ between kinds; empty in older records.
        device: that its model was on at the end; empty in older records.
        threads: that it was computed with, on which last digits can depend as well; 0 in older records.
        setting, budget: of the adaptation that was trained or chosen; ``tried`` are the best of ``tried_count``
            candidates, with their validation scores, and ``effort`` is what the search for them took.
        elsewhere_nats: loss per token on texts of another kind, with the adaptation in place.
        prefix_mass: (layer, head) share of attention that the context takes, in [0, 1]; empty without a context.
        samples: prompt, target and answer of a few test items.
        answers: what was answered to each test item, where a score or a report needs more than right or wrong.
        rule: the rule that decided between labels, and ``raw`` what the plain likelihood would have had right.
        cut_items: test texts that were longer than the model reads; ``cut_tokens`` is what they lost in all.
    """

    status: Status
    stopped: str
    timing: Times
    steps: int = 0
    curve: tuple[CurvePoint, ...] = ()
    validation: float | None = None
    validation_loss_nats: float | None = None
    scores: Mapping[str, Outcomes] = field(default_factory=dict)
    measurements: Mapping[str, float] = field(default_factory=dict)
    pictures: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    processor: str = ""
    device: str = ""
    threads: int = 0
    traceback: str = ""
    setting: Mapping[str, Any] = field(default_factory=dict)
    budget: Budget | None = None
    tried: tuple[Mapping[str, Any], ...] = ()
    tried_count: int = 0
    effort: Effort | None = None
    test_loss_nats: float | None = None
    elsewhere_nats: float | None = None
    prefix_mass: tuple[tuple[float, ...], ...] = ()
    samples: tuple[Mapping[str, str], ...] = ()
    answers: tuple[str, ...] = ()
    rule: Mapping[str, Any] = field(default_factory=dict)
    raw: Outcomes | None = None
    cut_items: int = 0
    cut_tokens: int = 0

    def __repr__(self) -> str:
        """Return in a line how it ended and what it scored."""
        scored = "".join(f", {name} {outcomes.share:.3f}" for name, outcomes in self.scores.items())
        return in_one_line(f"<TrialRecord {self.status}: {self.stopped} after {self.steps:,} steps{scored}>")

    def _repr_html_(self) -> str:
        """Return its score on every task as a bar, for a notebook."""
        shares = ((name, outcomes.share) for name, outcomes in self.scores.items())
        return bars(repr(self).strip("<>"), [(name, share, share, share, False) for name, share in shares])

    @property
    def is_ok(self) -> bool:
        """Say whether it ran through, so that there is something to read from it."""
        return self.status == "ok"

    def to_json(self) -> dict[str, Any]:
        """Return the record as what JSON can hold; what has its default is left out."""
        found: dict[str, Any] = to_plain(self)
        return found

    @classmethod
    def from_json(cls, plain: Mapping[str, Any], where: str) -> TrialRecord:
        """Read the record from what JSON held; the keys that the store adds to a record are passed over.

        Records of older versions say less, and nothing else, so they are read in the same way. ``where`` names the
        file in the message.

        Raises:
            StoreError: a key is unknown, missing or of the wrong type; it is named.

        >>> TrialRecord.from_json({"status": "ok", "stopped": "steps", "timing": {"seconds": "2"}}, "record.json")
        Traceback (most recent call last):
        elicitable.errors.StoreError: record.json is no record of a trial (timing.seconds must be a number, not '2'); \
move it away to run the trial again.
        """
        try:
            return from_plain(cls, {key: held for key, held in plain.items() if key not in _OF_THE_STORE})
        except InputError as error:
            raise StoreError(
                f"{where} is no record of a trial ({error}); move it away to run the trial again."
            ) from error


class Fitted(Protocol):
    """Say what a training gave, as :class:`elicitable.training.loop.Fit` says it."""

    curve: list[CurvePoint]
    best: Score | None
    steps: int
    seconds: float
    stopped: str

    @property
    def processor(self) -> str:
        """Return the kind of processor it ran on."""

    @property
    def is_usable(self) -> bool:
        """Say whether there is a state to evaluate."""


def record_of_fit(fit: Fitted) -> TrialRecord:
    """Make the record of a training: how it ended, its curve and its best validation score.

    Whoever runs the trial adds what was scored and measured, and how long the whole took
    (:func:`dataclasses.replace`).
    """
    is_fine = fit.is_usable and fit.stopped != "diverged"
    return TrialRecord(
        status="ok" if is_fine else "diverged",
        stopped=fit.stopped,
        timing=Times(0.0, train_seconds=round(fit.seconds, 3)),
        steps=fit.steps,
        curve=tuple(
            CurvePoint(point.step, six_digits(point.loss_nats), _perhaps(point.validation)) for point in fit.curve
        ),
        validation=fit.best.mean if fit.best else None,
        validation_loss_nats=_perhaps(fit.best.loss_nats) if fit.best else None,
        processor=fit.processor,
    )


def six_digits(value: float) -> float:
    """Round ``value`` to six significant digits, enough for any curve.

    >>> six_digits(0.123456789)
    0.123457
    """
    return float(f"{value:.6g}")


def _perhaps(value: float | None) -> float | None:
    return None if value is None or value in (float("inf"), float("-inf")) or value != value else six_digits(value)


def kept_trial(store: Store, spec: Mapping[str, Any]) -> TrialRecord | None:
    """Read the record of the trial that ``spec`` describes, or None where none is kept.

    Raises:
        StoreError: there is one, but it cannot be read; the message names the file and the key.
    """
    found = store.get(dict(spec))
    return None if found is None else TrialRecord.from_json(found, store.where(dict(spec)))


def keep_trial(
    store: Store, spec: Mapping[str, Any], record: TrialRecord, state: dict[str, Tensor] | None = None
) -> TrialRecord:
    """Keep ``record`` and the tensors that belong to it; the record as it will be read again.

    Raises:
        StoreError: it cannot be written.
    """
    whole = store.put(dict(spec), record.to_json(), state)
    return TrialRecord.from_json(whole, store.where(dict(spec)))
