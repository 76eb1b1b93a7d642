"""A race and its arms while they run."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from elicitable.methods.base import Method, Sized
from elicitable.models.layout import PLAIN, Layout
from elicitable.race.marking import Marking
from elicitable.race.pace import Pace
from elicitable.race.reporter import Reporter
from elicitable.race.timing import reserve
from elicitable.race.trial import Trial
from elicitable.records.store import Record, Store
from elicitable.records.trial import TrialRecord
from elicitable.tasks.base import groups_of
from elicitable.values import Item

if TYPE_CHECKING:
    from elicitable.models.model import Model
    from elicitable.tasks.base import Task


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
    quickest: int | None = None  # steps of the quickest arm that solved the task
    test_seconds: float = 0.0  # what the latest test took
    warnings: list[str] = field(default_factory=list)
    paces: dict[str, Record] = field(default_factory=dict)  # speeds measured in this sitting

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

    def groups(self) -> tuple[int | str, ...]:
        """Return what an interval draws together; nothing where every test item stands for itself."""
        if self.model.tokenizer is None:
            return ()
        groups = groups_of(self.task, "test", self.pace.test_items)
        return () if len(set(groups)) == len(groups) else groups

    def left(self) -> float | None:
        """Seconds left of the time limit, without what the decision and the report will take."""
        if self.time_limit is None:
            return None
        return self.time_limit - reserve(self.time_limit) - (time.monotonic() - self.started)


@dataclass
class Entry:
    """One arm while the race runs."""

    sized: Sized
    records: list[TrialRecord] = field(default_factory=list)
    swept: list[dict[str, Any]] = field(default_factory=list)
    rate: float | None = None
    refusal: str = ""
    last: TrialRecord | None = None  # of the sweep: what is shown when every rate diverged
    trial: Trial | None = None  # the first of ``records``

    @property
    def method(self) -> Method:
        """The method that the arm tries."""
        return self.sized.method

    @property
    def is_running(self) -> bool:
        """Whether there is something to rerun: not refused, not diverged, and seeds can change it."""
        is_fine = bool(self.records) and self.records[-1].is_ok
        return is_fine and self.method.is_seeded and not self.method.is_control
