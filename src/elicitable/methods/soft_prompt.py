"""Soft prompting (prompt tuning): n trained input embeddings that flow through all layers.

Source: Lester, Al-Rfou, Constant, EMNLP 2021 (arXiv 2104.08691).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from elicitable.methods.base import Adaptation, Schedule, Trained
from elicitable.methods.initial import check_length, initial_embeddings
from elicitable.models.capture import capture_embeddings

if TYPE_CHECKING:
    from elicitable.models.model import Model
    from elicitable.values import PrefixKV


class SoftPromptContext(Adaptation):
    """``vectors`` (prefix, d_model), trained."""

    kind = "soft-prompt"

    def __init__(self, vectors: Tensor, **setting: Any) -> None:
        super().__init__(**setting)
        self.vectors = nn.Parameter(vectors)

    def prefix(self, model: Model, before: PrefixKV | None = None, end: int = 0) -> PrefixKV:
        """The embeddings run through the frozen model at batch 1."""
        return capture_embeddings(model, self.vectors[None], before, end)

    def parameters(self) -> list[nn.Parameter]:
        """The embeddings."""
        return [self.vectors]

    def keys_per_layer(self) -> int:
        """One key a virtual token."""
        return self.vectors.shape[0]


class SoftPrompt(Trained):
    """n·d_model numbers."""

    name = "soft-prompt"
    label = "soft-prompt"
    summary = "n trained input embeddings that flow through all layers"
    schedule = Schedule(learning_rates=(1e-2, 3e-2, 1e-1, 3e-1))

    def numbers(self, model: Model, size: int) -> int:
        """size · d_model."""
        return size * model.anatomy.d_model

    def build(
        self,
        model: Model,
        size: int,
        seed: int = 0,
        init: str = "vocabulary",
        text: str | None = None,
        **options: Any,
    ) -> SoftPromptContext:
        """``size`` virtual tokens started from ``init``."""
        check_length(size)
        vectors = initial_embeddings(model, size, init, seed, text)
        return SoftPromptContext(vectors, length=size, init=init, text=text, seed=seed)
