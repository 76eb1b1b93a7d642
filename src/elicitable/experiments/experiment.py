"""Define an experiment: trials to run, claims to hold them against, a figure to draw. It is data; nothing runs here.

A *trial* is named within its experiment. Each seed of a preset runs it once; an adaptation also once per learning
rate and restart, of which the one with the best validation score counts. Seed 0 sweeps every rate; the seeds after it
may keep to those that did best there. A *claim* names one cell (a trial and one of its measurements), what the source
reports there, and the inequality or tolerance that makes it reproduced.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from elicitable.errors import InputError
from elicitable.values import ToySpec

Outcome = Literal["reproduced", "differs", "not settled", "not testable here", "not run yet"]
Relation = Literal["at most", "at least", "within"]
Options = tuple[tuple[str, Any], ...]

# Frozen like the rest: a digit task that is added to the package later is not part of these experiments.
DIGIT_TASKS = ("ascending", "descending", "add-1", "add-2", "ascending-add-1", "double-histogram")


@dataclass(frozen=True, slots=True)
class Training:
    """Say how an adaptation is trained, all but its learning rate; the fields of the training room's plan."""

    steps: int
    batch: int = 64
    warmup: int = 20
    cooldown: float = 0.2
    evaluate_every: int = 50
    validation_items: int = 256
    weight_decay: float = 0.0
    patience_steps: int = 1_000
    max_tokens: int = 128


@dataclass(frozen=True, slots=True)
class Pretrain:
    """Train a toy from fresh weights and score it on ``scored``; its weights are shared by the trials built on it.

    ``measures`` name what is looked at besides (:mod:`elicitable.lab.measures`).
    """

    name: str
    toy: ToySpec
    scored: tuple[str, ...] = DIGIT_TASKS
    measures: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Adapt:
    """Adapt ``base`` (a pretraining trial of this experiment, or a model by name) to ``task``.

    ``size`` is the number of virtual tokens or the rank. ``scored`` are the tasks whose test split is scored, and
    ``measures`` name what is looked at besides (:mod:`elicitable.lab.measures`). ``later_rates`` are those that seeds
    after seed 0 run, all of ``rates`` where it is empty.
    """

    name: str
    base: str
    task: str
    method: str
    size: int
    rates: tuple[float, ...]
    training: Training
    scored: tuple[str, ...]
    restarts: int = 1
    options: Options = ()
    measures: tuple[str, ...] = ()
    test_items: int = 1_000
    later_rates: tuple[float, ...] = ()

    def rates_at(self, seed: int) -> tuple[float, ...]:
        """Return the learning rates that are run at ``seed``: seed 0 sweeps them all."""
        return self.later_rates if seed and self.later_rates else self.rates


@dataclass(frozen=True, slots=True)
class Measure:
    """Ask one question of a model by name: ``what`` names a question of :mod:`elicitable.lab.measures`.

    ``texts`` are the texts that the question is asked on, by name, as in :mod:`elicitable.lab.sources`.
    """

    name: str
    base: str
    what: str
    settings: Options = ()
    texts: tuple[str, ...] = ()


Planned = Pretrain | Adapt | Measure  # a trial as an experiment plans it, before seeds and rates are chosen


@dataclass(frozen=True, slots=True)
class Bound:
    """State what a value must satisfy: at most or at least ``value``, or within ``value`` of what the source reports.

    >>> Bound("at most", 1.0).holds(0.3, source=None), Bound("within", 2.0).holds(5.0, source=8.0)
    (True, False)
    """

    relation: Relation
    value: float

    def holds(self, found: float, source: float | None) -> bool:
        """Say whether ``found`` satisfies it.

        Raises:
            InputError: "within" needs a value in the source to be within of.
        """
        if self.relation == "at most":
            return found <= self.value
        if self.relation == "at least":
            return found >= self.value
        if source is None:
            raise InputError("a bound 'within' needs a value in the source.")
        return abs(found - source) <= self.value

    def outcome(self, low: float, high: float, source: float | None) -> Outcome:
        """Return ``reproduced`` where all of an interval satisfies it, ``differs`` where nothing of it does.

        >>> Bound("at most", 1.0).outcome(0.0, 0.9, None), Bound("at most", 1.0).outcome(0.5, 1.5, None)
        ('reproduced', 'not settled')
        >>> Bound("within", 2.0).outcome(4.0, 12.0, source=8.0)
        'not settled'
        """
        ends = [self.holds(low, source), self.holds(high, source)]
        if all(ends):
            return "reproduced"
        spans_it = self.relation == "within" and source is not None and low <= source <= high
        return "not settled" if any(ends) or spans_it else "differs"


@dataclass(frozen=True, slots=True)
class Cell:
    """Name one number of an experiment: a trial, and one of its measurements (a task's name is its score, in %)."""

    trial: str
    measurement: str


@dataclass(frozen=True, slots=True)
class Claim:
    """State what the source says about one cell (or about ``cell`` − ``minus``), and what would count as the same.

    ``source`` is the printed figure in ``unit``; None where the source says it in words only, or not at all.
    ``refuted`` says what would refute the paper's point: the claim differs where the 95 % interval is all of that, and
    is reproduced where none of it is. ``beside`` is a cell worth looking at where the claim differs.
    """

    text: str
    cell: Cell
    source: float | None
    bound: Bound
    unit: str = "%"
    minus: Cell | None = None
    beside: Cell | None = None
    refuted: str = field(kw_only=True)

    def outcome(self, low: float, high: float) -> Outcome:
        """Return the outcome for an interval of what was found; its ends are equal where there is one value."""
        return self.bound.outcome(low, high, self.source)


@dataclass(frozen=True, slots=True)
class Figure:
    """Say what is drawn: ``kind`` names a figure of :mod:`elicitable.report.experiment_figures`, for these trials."""

    kind: str
    trials: tuple[str, ...]
    caption: str


@dataclass(frozen=True, slots=True)
class Experiment:
    """State one paper object.

    ``deviations`` say how ours differs from the companion code where that could matter. ``companion_seconds`` is what
    one seed of it takes there on two cores: its iterations times the seconds that one was measured to take.
    """

    name: str
    title: str
    source: str
    trials: tuple[Planned, ...]
    claims: tuple[Claim, ...]
    figures: tuple[Figure, ...]
    deviations: tuple[str, ...] = field(default=())
    companion_seconds: float | None = None

    def trial(self, name: str) -> Planned:
        """Return the trial of that name.

        Raises:
            InputError: there is none.
        """
        for trial in self.trials:
            if trial.name == name:
                return trial
        raise InputError(f"experiment {self.name} has no trial named {name!r}.")


@dataclass(frozen=True, slots=True)
class Preset:
    """Say how much is run: every trial at seeds 0 … ``seeds`` − 1."""

    name: str
    seeds: int
    description: str


PRESETS = (
    Preset("quick", 1, "one seed, every claim checked"),
    Preset("paper", 10, "ten seeds, mean ± standard deviation and interval; run it in pieces, it resumes"),
)
