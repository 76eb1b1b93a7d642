"""What an adaptation is held to after its run: the score of that run, under the rule that decided there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from elicitable.errors import InputError
from elicitable.race.marking import Marking
from elicitable.scores.catalog import catalog
from elicitable.tasks.base import metric_of
from elicitable.training.decision_rules import BY_LENGTH, SUM, DecisionRule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elicitable.deploy.record import Record
    from elicitable.models.model import Model
    from elicitable.tasks.base import Task
    from elicitable.training.batches import Reading
    from elicitable.values import Item


@dataclass(frozen=True, eq=False)
class Standard:
    """Hold a score and the rule that decides between labels, both fixed, so that what is compared differs alone."""

    marking: Marking
    rule: DecisionRule

    @classmethod
    def of(cls, model: Model, task: Task, record: Record | None = None, score: Any = None) -> Standard:
        """Return what ``record`` says that its run was scored and decided by; ``score`` stands in its score's place.

        Where there is no record, it is the task's own score, or accuracy or exact match, and the rule of that score, or
        the plain likelihood.

        Raises:
            InputError: the run was scored by a person's own function, which no record holds; or the score does not fit
                the task.
        """
        if score is None and record is not None:
            score = _score_in(record, task)
        marking = Marking.of(model, task, score)
        plain = DecisionRule(marking.rule, (), ()) if marking.rule in BY_LENGTH else SUM
        return cls(marking, plain if record is None or record.rule is None else record.rule)

    def outcome(self, model: Model, task: Task, items: Sequence[Item], reading: Reading) -> Any:
        """Return the answers to ``items``, with whatever is in use, as the intervals take them."""
        marked = self.marking.mark(model, task, items, (), reading, self.rule)
        return self.marking.outcome((marked.score.correct,), (marked.written,), items)


def _score_in(record: Record, task: Task) -> str:
    name = record.result.score
    if metric_of(task, name) is None and name.partition(":")[0] not in {one.name for one in catalog()}:
        raise InputError(
            f"the run was scored by {name}, a function of your own, of which its folder holds the name alone; give it "
            "again: --score FILE.py:FUNCTION (score=)."
        )
    return name
