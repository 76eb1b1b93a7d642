"""Record what single tokens reach: hard tokens beside trained virtual tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from elicitable.diagnosis.distinct import Distinct


@dataclass(frozen=True, slots=True)
class ReachExample:
    """Hold one input and what the model wrote after it; ``target`` is what a virtual token was trained for, if any."""

    token: str
    continuation: str
    target: str = ""
    reached: bool = True
    steps: int = 0


@dataclass(frozen=True, slots=True)
class HardReach:
    """Record what single hard tokens reach: greedy continuations, distinct ones among those sampled.

    ``shared`` are the continuations that most tokens lead to, with how many do.
    """

    distinct: Distinct
    shared: tuple[tuple[str, int], ...]
    examples: tuple[ReachExample, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class VirtualReach:
    """Record what trained virtual tokens reach, free-running: ``reached`` of ``tried`` wrote their target exactly.

    ``low`` and ``high`` are Wilson's 95 % limits of the share. ``targets`` says how the targets were drawn, ``steps``
    how many were allowed, ``sweep`` what each learning rate did on other targets: rate, reached, tried, loss in nats.
    ``distinct`` counts the distinct continuations of all virtual tokens, reached or not. ``tokens_right`` is the mean
    share of a target's tokens written right before the first wrong one.
    """

    targets: str
    tried: int
    reached: int
    low: float
    high: float
    distinct: int
    tokens_right: float
    learning_rate: float
    steps: int
    sweep: tuple[Mapping[str, float], ...]
    examples: tuple[ReachExample, ...]
    seconds: float

    @property
    def share(self) -> float:
        """Return the hit rate, in [0, 1]."""
        return self.reached / self.tried


@dataclass(frozen=True, slots=True)
class TokenReach:
    """Record hard beside virtual tokens of one trained model; ``seconds`` were spent in all, over every sitting.

    ``start`` is what stands before the token in every input: the model's beginning-of-sequence token, or nothing.
    """

    model: str
    vocab: int
    d_model: int
    start: str
    length: int
    seed: int
    hard: HardReach
    virtual: VirtualReach
    seconds: float
    provenance: Mapping[str, Any] = field(default_factory=dict)
