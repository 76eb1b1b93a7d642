"""What tuning one method gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from elicitable.glance import bars
from elicitable.methods.base import Adaptation
from elicitable.untrusted import in_one_line


@dataclass(frozen=True, eq=False, repr=False)
class Tuned:
    """A trained adaptation, ready for :func:`elicitable.use`, and what was measured."""

    adaptation: Adaptation
    record: dict[str, Any]

    def __repr__(self) -> str:
        """Return what was tuned in a line."""
        kept = self.record
        scored = f"{kept['score']} {kept['mean']:.3f} [{kept['low']:.3f}, {kept['high']:.3f}]"
        told = f"{kept['method']} on {kept['task']}: {scored}, {kept['numbers_trained']:,} numbers trained"
        return in_one_line(f"<Tuned {told}>")

    def _repr_html_(self) -> str:
        """Return its score as a bar, for a notebook."""
        kept = self.record
        return bars(repr(self).strip("<>"), [(kept["method"], kept["mean"], kept["low"], kept["high"], True)])
