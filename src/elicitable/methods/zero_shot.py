"""Nothing added: what the model does already."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from elicitable.methods import rungs
from elicitable.methods.base import Adaptation, Method

if TYPE_CHECKING:
    from elicitable.models.model import Model
    from elicitable.tasks.base import Task


class ZeroShot(Method):
    """The pretrained model as it is."""

    name = "zero-shot"
    rung = rungs.ALREADY_THERE
    summary = "nothing added; what the model does already"
    deployment = "Nothing to deploy: the model as it is, on any server."
    turn, is_seeded = 0, False

    def build(self, model: Model, size: int = 0, seed: int = 0, **options: Any) -> Adaptation:
        """The adaptation that changes nothing."""
        return Adaptation()

    def candidates(self, model: Model, task: Task, seed: int, **options: Any) -> Iterator[Adaptation]:
        """The one there is."""
        yield Adaptation()
