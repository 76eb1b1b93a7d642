"""A race and its arms while they run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from elicitable.methods.base import Method, Sized
from elicitable.models.layout import PLAIN, Layout
from elicitable.models.speed.processor import made_on
from elicitable.race.line import Line, Shelf
from elicitable.race.marking import Marking
from elicitable.race.pace import Pace
from elicitable.race.pieces import Piece
from elicitable.race.reporter import Reporter
from elicitable.race.trial import Trial, known_record
from elicitable.records.store import Store, identity
from elicitable.records.trial import TrialRecord
from elicitable.tasks.base import groups_of, identity_of
from elicitable.values import Item

if TYPE_CHECKING:
    from elicitable.models.model import Model
    from elicitable.race.workers import Workers
    from elicitable.tasks.base import HeldOut, Task

CLOSING_SHARE = 0.1  # of the limit, at most, kept back for the winner


@dataclass
class Race:
    """One race and the state it runs with."""

    model: Model
    task: Task
    store: Store
    pace: Pace
    budget: int
    seeds: int
    seed: int
    margin: float
    time_limit: float | None
    started: float
    reporter: Reporter
    marking: Marking
    prompts: tuple[str, ...] = ()  # texts of the person's own, for whichever method looks for texts
    proposer: str | None = None  # a model that proposes prompts in the place of the raced one
    search_passes: int | None = None  # that each method which is chosen may make
    layouts: tuple[Layout, ...] = (PLAIN,)  # how items are laid out: the first; the others are tried as well
    asked_best: tuple[float, float, Layout] | None = None  # validation score, −loss and layout of the best chosen arm
    is_test_free: bool = True  # whether a race against the clock may cut the test items down
    quickest: int | None = None  # steps at the constant rate of the quickest arm that solved the task
    item_seconds: float = 0.0  # of one item read by the bare model, as it was measured before the start
    item_seconds_now: float = 0.0  # the same, by the latest test
    closing_reads: int = 0  # items read, about, to keep the winner and to look at it
    writing_seconds: float = 0.0  # of the winner, about
    tested: list[float] = field(default_factory=list)  # seconds of the tests of trained arms, the latest last
    looks: int = 0  # at the test items, after which more was added
    price: dict[str, Any] = field(default_factory=dict)  # what was said before the start
    cohort: set[str] = field(default_factory=set)  # against the clock: the arms that are still trained
    compared_at: int = 0  # the steps after which these were last compared with each other
    look_seconds: float = math.inf  # against the clock: what the first look at an arm may take
    share_of_batch: float = 1.0  # of the usual rows that a step reads
    methods: tuple[str, ...] = ()  # identities of those that take part
    warnings: list[str] = field(default_factory=list)
    was_interrupted: bool = False
    processors: list[str] = field(default_factory=list)  # the kinds that its records were made on
    workers: Workers | None = None  # that run its trials; None: this process does
    is_on_a_worker: bool = False

    def __post_init__(self) -> None:
        """Put up the shelf for what goes on."""
        self.shelf = Shelf(self.store.folder, self.is_on_a_worker)
        self.known: dict[tuple[Any, ...], Any] = {}  # results and decisions that were computed already

    def options_of(self, method: Method) -> dict[str, Any]:
        """Return the settings that ``method`` gets in this race."""
        asked = {"prompts": list(self.prompts), "proposer": self.proposer}
        own = {name: given for name, given in asked.items() if given and name in method.searched}
        return method.start(self.model) | own

    @property
    def layout(self) -> Layout:
        """Return how trained arms read items: as did best for the arms that were chosen among layouts."""
        return self.asked_best[2] if self.asked_best else self.layouts[0]

    def learn(self, record: TrialRecord) -> None:
        """Take note of the layout of an arm that was chosen on validation, where it is the best so far."""
        if not record.is_ok or record.validation is None:
            return
        loss = record.validation_loss_nats
        worth = (record.validation, float("-inf") if loss is None else -loss)
        own = {name: value for name, value in record.setting.items() if name in ("start", "chat", "system")}
        layout = next((one for one in self.layouts if one.setting() == own), None)
        if layout is not None and (self.asked_best is None or worth > self.asked_best[:2]):
            self.asked_best = (*worth, layout)

    def test(self) -> list[Item]:
        """Return the test items of this race."""
        return self.task.held_out("test", self.pace.test_items)

    def items_looked_at(self) -> int:
        """Count the validation items of a look at the end of a leg: fewer than asked for where the task has fewer."""
        return max(1, self.held_out("validation", self.pace.look_items))

    def held_out(self, split: HeldOut, most: int) -> int:
        """Count the items of a split of which ``most`` are asked for."""
        if (split, most) not in self.known:
            self.known[split, most] = len(self.task.held_out(split, most))
        count: int = self.known[split, most]
        return count

    def groups(self) -> tuple[int | str, ...]:
        """Return what an interval draws together; nothing where every test item stands for itself."""
        if self.model.tokenizer is None:
            return ()
        groups = groups_of(self.task, "test", self.pace.test_items)
        return () if len(set(groups)) == len(groups) else groups

    def left(self) -> float | None:
        """Seconds left of the time limit, without what the decision, the winner and the report will take."""
        if self.time_limit is None:
            return None
        closing = self.closing_reads * self.item_seconds_now + self.writing_seconds
        kept_back = reserve(self.time_limit) + min(closing, CLOSING_SHARE * self.time_limit)
        return self.time_limit - kept_back - (time.monotonic() - self.started)

    @property
    def hands(self) -> int:
        """How many trials can run at a time."""
        return 1 if self.workers is None else self.workers.hands

    def ahead(self, pieces: Callable[[], Sequence[Piece]]) -> None:
        """Let workers begin what will be asked for, or may be, in that order; without workers nothing happens."""
        if self.workers is not None:
            self.workers.ahead(pieces())

    def record(
        self,
        trial: Trial,
        piece: Callable[[], Piece],
        here: Callable[[], TrialRecord],
        task: Task | None = None,
    ) -> TrialRecord:
        """Return the trial's record: from the store, from a worker that runs ``piece``, or by running it ``here``."""
        if self.workers is None:
            found = here()
        else:
            known = known_record(trial, self.model, task or self.task, self.store)
            self.workers.asked(identity(trial.spec(self.model, task or self.task)))
            found = self.workers.record(piece()) if known is None else known
        self.processors += [one for one in found.processor.split(", ") if one and one not in self.processors]
        return found

    def kept(self, what: str, decide_now: Callable[[], Any], holds_for_all: bool = False) -> Any:
        """A decision that hangs on the clock, kept with the trials: the same arguments find the same trials again.

        Items that are read otherwise decide anew. So do another time limit, and whatever else a race may ask, unless
        the decision ``holds_for_all``.
        """
        spec = {"decision": what, **self.read(), **({} if holds_for_all else self._asked())}
        known = self.store.get(spec)
        if known is None:
            known = self.store.put(spec, {"status": "ok", "decision": decide_now(), **made_on(self.model.device)})
        return known["decision"]

    def read(self) -> dict[str, Any]:
        """Return all that says which items are read, by what and how: the price of each hangs on it."""
        laid_out = [asdict(layout) for layout in self.layouts]
        reading = {"max_tokens": self.pace.max_tokens, "layouts": laid_out}
        return {"model": self.model.identity, "task": identity_of(self.task), **reading}

    def _asked(self) -> dict[str, Any]:
        """Return what else time is spent on: all that was asked for, and nothing that the race cuts down by itself."""
        return {
            "time_limit": self.time_limit,
            "budget": self.budget,
            "seeds": self.seeds,
            "seed": self.seed,
            "margin": self.margin,
            "methods": self.methods,
            "steps": self.pace.steps,
            "test_items": None if self.is_test_free else self.pace.test_items,
            "search_passes": self.search_passes,
            "prompts": self.prompts,
            "proposer": self.proposer,
            **self.marking.setting(),
        }


def reserve(limit: float) -> float:
    """Return the seconds kept back for the decision and the report.

    >>> reserve(1800)
    19.5
    """
    return 1.5 + 0.01 * limit


@dataclass(eq=False)
class Entry:
    """One arm while the race runs.

    ``line`` is its run of the first seed at the rate that was chosen.
    ``records`` are the tested ones, one a seed.
    """

    sized: Sized
    records: list[TrialRecord] = field(default_factory=list)
    swept: dict[float, dict[str, Any]] = field(default_factory=dict)
    line: Line | None = None
    refusal: str = ""
    last: TrialRecord | None = None  # of the first look, where every rate diverged
    trial: Trial | None = None  # the first of ``records``
    tested_at: int = -1  # steps of ``line`` when it was brought down and tested
    stopped: str = ""  # why it was: solved, plateau, steps, time, settled
    seconds: float = 0.0  # of all its trials
    stuck: int = 0  # other seeds that did not solve the task on validation where the first did, and were left
    is_spent: bool = False  # there is no time to train it further
    spare: float = 0.0  # steps that its part of the limit pays for beside the first look
    is_begun: bool = False  # its other starts were tried

    @property
    def method(self) -> Method:
        """The method that the arm tries."""
        return self.sized.method

    @property
    def rate(self) -> float | None:
        """The learning rate that was chosen; None before, and where all diverged."""
        return None if self.line is None else self.line.rate

    @property
    def is_racing(self) -> bool:
        """Whether it is trained, takes part in the verdict, and has a run that can go on."""
        return self.line is not None and self.line.is_fine and not self.method.is_control

    @property
    def is_tested(self) -> bool:
        """Whether it has a test of its run as it is now, or of what was chosen."""
        return bool(self.records) and (self.line is None or self.tested_at == self.line.steps)
