"""Nothing added: what the model does already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from elicitable.methods import rungs
from elicitable.methods.base import Adaptation, Method
from elicitable.methods.prompt import layout_of, readable

if TYPE_CHECKING:
    from elicitable.models.layout import Layout
    from elicitable.models.model import Model
    from elicitable.tasks.base import Task


class ZeroShot(Method):
    """The pretrained model as it is."""

    name = "zero-shot"
    rung = rungs.ALREADY_THERE
    summary = "nothing added; what the model does already"
    deployment = "Nothing to deploy: the model as it is, on any server."
    turn, is_seeded, reads_rows = 0, False, False

    def build(
        self, model: Model, size: int = 0, seed: int = 0, layout: Layout | None = None, **options: Any
    ) -> Adaptation:
        """The adaptation that changes nothing; items may have a ``layout`` of their own."""
        adaptation = Adaptation(**(layout.setting() if layout else {}))
        adaptation.layout = layout
        return adaptation

    def from_setting(self, model: Model, setting: Mapping[str, Any], layout: Layout) -> Adaptation:
        """Lay items out again as a record's setting says."""
        return self.build(model, layout=layout_of(setting, layout) if model.tokenizer is not None else None)

    def candidates(
        self, model: Model, task: Task, seed: int, layouts: Sequence[Layout] = (), **options: Any
    ) -> Iterator[Adaptation]:
        """The model as it is, asked in every one of ``layouts``: with and without its template, a start token."""
        if model.tokenizer is None:
            yield Adaptation()
            return
        for layout in readable(task, layouts):
            yield self.build(model, layout=layout)
