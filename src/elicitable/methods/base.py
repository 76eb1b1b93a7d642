"""The contract: what every way to adapt a model can do, whatever it is.

An *adaptation* is one concrete thing put into a model: a prompt, a trained prefix, a LoRA. A *method* is the recipe
that makes adaptations of one kind at a given size. Nothing outside this room asks which method it holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from elicitable.values import Budget, PrefixKV

if TYPE_CHECKING:
    from torch import Tensor, nn

    from elicitable.models.model import Model
    from elicitable.tasks.base import Task


class Adaptation:
    """One thing put into a model. The default is to change nothing, which is the zero-shot arm.

    A subclass overrides :meth:`prefix` (a context), :meth:`weights` (a weight method) and, where it is trained,
    :meth:`parameters`. ``setting`` is what a record keeps to build it again.
    """

    kind: ClassVar[str] = "zero-shot"
    moves_content: bool = False  # the content's positions move up by the context's length even on rotary models
    starts_text: bool = False  # the context brings the tokenizer's first token along, so the content has none

    def __init__(self, **setting: Any) -> None:
        self.setting = {name: value for name, value in setting.items() if value is not None}

    def prefix(self, model: Model, before: PrefixKV | None = None, end: int = 0) -> PrefixKV | None:
        """The context's keys and values, computed with ``before`` in place; None where there is no context.

        ``end`` positions right before the content are left to later contexts.
        """
        return None

    def weights(self, model: Model) -> AbstractContextManager[None]:
        """Install changed weights for the length of a ``with``; the base weights are bit-equal afterwards."""
        return nullcontext()

    def parameters(self) -> list[nn.Parameter]:
        """The numbers that training changes; gradients flow to nothing else."""
        return []

    def state(self) -> dict[str, Tensor]:
        """Every tensor needed to build this adaptation again, by name (detached copies)."""
        return {str(i): p.detach().clone() for i, p in enumerate(self.parameters())}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over what :meth:`state` gave."""
        import torch

        with torch.no_grad():
            for i, parameter in enumerate(self.parameters()):
                parameter.copy_(state[str(i)])

    def keys_per_layer(self) -> int:
        """Keys that every content query pays attention to in each layer at inference."""
        return 0

    def bytes_stored(self) -> int:
        """Bytes that must be kept to use the adaptation again."""
        return sum(p.numel() * p.element_size() for p in self.parameters())

    def budget(self) -> Budget:
        """The three budgets: numbers trained, bytes stored, keys paid per layer."""
        return Budget(
            numbers_trained=sum(p.numel() for p in self.parameters()),
            bytes_stored=self.bytes_stored(),
            keys_per_layer=self.keys_per_layer(),
        )

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={value!r}" for name, value in self.setting.items())
        return f"{self.kind}({inside})"


@dataclass(frozen=True)
class Schedule:
    """How a method wants to be trained: learning rates to sweep (low to high), and its weight decay."""

    learning_rates: tuple[float, ...]
    weight_decay: float = 0.0


class Method(Protocol):
    """A recipe for adaptations of one kind. ``label`` is the verdict when it is the least invasive that suffices."""

    name: str
    label: str
    summary: str

    @property
    def schedule(self) -> Schedule | None:
        """How it is trained; None for a method that is chosen."""

    def numbers(self, model: Model, size: int) -> int:
        """Numbers trained at ``size`` (virtual tokens, rank); closed form, read off the live model's shapes."""

    def build(self, model: Model, size: int, seed: int, **options: Any) -> Adaptation:
        """A fresh adaptation; the same arguments give the same bytes."""

    def candidates(self, model: Model, task: Task, seed: int, **options: Any) -> Iterator[Adaptation]:
        """For a method that is chosen, not trained: what to choose from, on the validation split."""


class Trained:
    """Shared by the methods that are trained: nothing to choose from."""

    def candidates(self, model: Model, task: Task, seed: int, **options: Any) -> Iterator[Adaptation]:
        """None: a trained method is built and trained."""
        return iter(())


class Chosen:
    """Shared by the methods that are chosen: nothing to train."""

    schedule: Schedule | None = None

    def numbers(self, model: Model, size: int) -> int:
        """0: nothing is trained."""
        return 0
