"""Prompting: discrete tokens before the content, given, chosen among candidates, or found by search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from elicitable.errors import InputError
from elicitable.methods import rungs
from elicitable.methods.base import Adaptation, Method
from elicitable.models.capture import capture_tokens

if TYPE_CHECKING:
    from elicitable.models.model import Model
    from elicitable.tasks.base import Task
    from elicitable.values import PrefixKV

INSTRUCTIONS = (
    "Decide which label fits the text. The labels are: {labels}.\n\n",
    "Classify each text as {labels}.\n\n",
    "Read the text and answer with one of {labels}.\n\n",
)
GENERIC = ("Answer the question.\n\n", "Complete the task with the right answer only.\n\n")
SEARCH_VOCAB = 64  # every sequence of up to `size` tokens is tried only in vocabularies up to this size


class TokenContext(Adaptation):
    """Hard tokens as a context; nothing is trained and only the ids are stored."""

    kind = "prompt"

    def __init__(self, ids: Tensor, **setting: Any) -> None:
        super().__init__(**setting)
        self.ids = ids

    def prefix(self, model: Model, before: PrefixKV | None = None, end: int = 0) -> PrefixKV:
        """Keys and values of the tokens, run at batch 1 through the weights as they are right now."""
        return capture_tokens(model, self.ids.to(model.device), before, end)

    def state(self) -> dict[str, Tensor]:
        """The token ids."""
        return {"token_ids": self.ids.clone()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over the token ids."""
        self.ids = state["token_ids"].clone()

    def keys_per_layer(self) -> int:
        """One key a token."""
        return self.ids.shape[1]

    def bytes_stored(self) -> int:
        """Four bytes a token id."""
        return 4 * self.ids.numel()


class Prompt(Method):
    """The best of: the prompts given, instructions that name the task's labels, every short token sequence (toys)."""

    name = "prompt"
    rung = rungs.PROMPT
    summary = "a text or token sequence before the content; the best of several on validation"
    deployment = "Any server. It is text; its keys are paid in every request unless the server caches them."
    turn, is_seeded = 10, False
    options, searched = ("text", "token_ids"), ("prompts",)

    def build(
        self,
        model: Model,
        size: int = 0,
        seed: int = 0,
        text: str | None = None,
        token_ids: Sequence[int] | None = None,
        **options: Any,
    ) -> TokenContext:
        """The prompt ``text`` or ``token_ids``.

        Raises:
            InputError: neither or both were given, the prompt is empty, or ids are outside the vocabulary.
        """
        if (text is None) == (token_ids is None):
            raise InputError("a prompt needs either text= or token_ids=.")
        ids = model.ids(text if text is not None else torch.as_tensor(token_ids))
        if ids.numel() == 0:
            raise InputError("the prompt is empty: give at least one token.")
        shown = text if text is not None else ids.flatten().tolist()
        return TokenContext(ids, **({"text": shown} if text is not None else {"token_ids": shown}))

    def candidates(
        self, model: Model, task: Task, seed: int, size: int = 2, prompts: Sequence[str] = (), **options: Any
    ) -> Iterator[TokenContext]:
        """Prompts to choose from on the validation split; ``size`` bounds the search in a toy vocabulary."""
        if model.tokenizer is None:
            if model.anatomy.vocab <= SEARCH_VOCAB:
                for length in range(1, size + 1):
                    for ids in product(range(model.anatomy.vocab), repeat=length):
                        yield self.build(model, token_ids=ids)
            return
        for text in prompts:
            yield with_start(model, self.build(model, text=text))
        for text in instructions(task):
            context = with_start(model, self.build(model, text=text))
            if context.keys_per_layer() <= room_of(model):
                yield context


def room_of(model: Model) -> int:
    """Positions that a context may take so that as many are left to the content."""
    return int(getattr(model.hf.config.get_text_config(), "max_position_embeddings", 2048) or 2048) // 2


def with_start(model: Model, context: TokenContext) -> TokenContext:
    """Move the tokenizer's own first token (where it has one) from the content to the front of the context."""
    start = model.start_ids()
    if start:
        context.ids = torch.cat([model.ids(start), context.ids], dim=1)
    context.starts_text = True
    return context


def instructions(task: Task) -> Iterator[str]:
    """Plain instructions for a task: its labels by name, where it has them."""
    labels = task.labels()
    if labels is None:
        yield from GENERIC
        return
    named = [label.strip() for label in labels]
    spoken = ", ".join(named[:-1]) + " or " + named[-1]
    for template in INSTRUCTIONS:
        yield template.format(labels=spoken)
