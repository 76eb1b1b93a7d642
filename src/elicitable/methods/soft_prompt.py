"""Soft prompting (prompt tuning): n trained input embeddings that flow through all layers.

Source: Lester, Al-Rfou, Constant, EMNLP 2021 (arXiv 2104.08691).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from elicitable.methods import folders, rungs
from elicitable.methods.base import Adaptation, Method, Schedule
from elicitable.methods.initial import check_length, initial_embeddings, other_starts
from elicitable.methods.started import START, StartedContext, start_at
from elicitable.models.capture import capture_embeddings

if TYPE_CHECKING:
    from elicitable.methods.examples import Pair
    from elicitable.models.model import Model
    from elicitable.values import PrefixKV


class SoftPromptContext(StartedContext):
    """``vectors`` (prefix, d_model), trained."""

    kind = "soft-prompt"

    def __init__(self, vectors: Tensor, **setting: Any) -> None:
        super().__init__(**setting)
        self.vectors = nn.Parameter(vectors)

    def prefix(self, model: Model, before: PrefixKV | None = None, end: int = 0) -> PrefixKV:
        """The embeddings run through the frozen model at batch 1."""
        return capture_embeddings(model, self.vectors[None], before, end)

    def embeddings(self, model: Model) -> Tensor:
        """The vectors themselves."""
        return self.vectors.detach()

    def parameters(self) -> list[nn.Parameter]:
        """The embeddings."""
        return [self.vectors]

    def keys_per_layer(self) -> int:
        """One key a virtual token."""
        return self.vectors.shape[0]

    def folder_form(self, model: Model) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return PEFT's PROMPT_TUNING."""
        return {
            "peft_type": "PROMPT_TUNING",
            "num_virtual_tokens": self.keys_per_layer(),
            "token_dim": self.vectors.shape[1],
            "num_layers": model.anatomy.depth,
            "num_attention_heads": model.anatomy.layers[0].heads,
            "num_transformer_submodules": 1,
        }, {"prompt_embeddings": self.vectors}


class SoftPrompt(Method):
    """n·d_embedding numbers."""

    name = "soft-prompt"
    rung = rungs.SOFT_PROMPT
    summary = "n trained input embeddings that flow through all layers"
    deployment = "Needs a server that accepts input embeddings. Cannot be merged into the weights."
    turn = 70
    options = START
    peft_types = ("PROMPT_TUNING", "P_TUNING", "MULTITASK_PROMPT_TUNING", "CPT")
    schedule = Schedule(learning_rates=(3e-2, 3e-1, 1.0, 3.0))  # on a toy still better at 3 than at 1 (docs/log.md)

    def numbers(self, model: Model, size: int) -> int:
        """size · d_embedding."""
        return size * model.anatomy.d_embedding

    def starts(self, model: Model) -> tuple[dict[str, Any], ...]:
        """Start from the others that need no text."""
        return other_starts("vocabulary")

    def start_at(self, model: Model, size: int, chosen: Adaptation) -> dict[str, Any]:
        """Start at the last tokens of a prompt or of worked examples."""
        return start_at(model, size, chosen)

    def build(
        self,
        model: Model,
        size: int,
        seed: int = 0,
        init: str = "vocabulary",
        origin: str | None = None,
        text: str | Sequence[int] | None = None,
        items: Sequence[Pair] | None = None,
        **options: Any,
    ) -> SoftPromptContext:
        """``size`` virtual tokens started from ``init``.

        ``items`` are worked examples that stand in its text; training leaves them out.
        """
        check_length(size)
        vectors = initial_embeddings(model, size, init, seed, text)
        return SoftPromptContext(vectors, length=size, init=init, origin=origin, text=text, items=items, seed=seed)

    def read(self, model: Model, folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> SoftPromptContext:
        """Read the table of PEFT's prompt tuning types, which all store the finished embeddings."""
        table = folders.prompt_embeddings(folder, tensors, model.anatomy.d_embedding, model)
        return SoftPromptContext(table.clone(), length=len(table), adapter=str(folder))
