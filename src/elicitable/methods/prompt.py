"""Prompting: discrete tokens before the content, given, chosen among candidates, or found by search."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from elicitable.errors import InputError
from elicitable.methods import rungs
from elicitable.methods.base import Adaptation, Method
from elicitable.models.capture import capture_tokens
from elicitable.models.layout import PLAIN, Layout
from elicitable.models.rows import common_context, context_ids

if TYPE_CHECKING:
    from elicitable.models.model import Model
    from elicitable.tasks.base import Task
    from elicitable.values import Item, PrefixKV

INSTRUCTIONS = (
    "Decide which label fits the text. The labels are: {labels}.\n\n",
    "Classify each text as {labels}.\n\n",
    "Read the text and answer with one of {labels}.\n\n",
)
GENERIC = ("Answer the question.\n\n", "Complete the task with the right answer only.\n\n")
SEARCH_VOCAB = 64  # every sequence of up to `size` tokens is tried only in vocabularies up to this size


class TokenContext(Adaptation):
    """Hard tokens as a context; nothing is trained and only the ids are stored.

    With a ``layout`` they are the first tokens of every text in that layout. A tokenizer may join the last characters
    before an item with its own first ones; :meth:`fit` then leaves those tokens to the texts.
    """

    kind = "prompt"

    def __init__(self, ids: Tensor, layout: Layout | None = None, **setting: Any) -> None:
        super().__init__(**setting, **(layout.setting() if layout else {}))
        self.ids, self.layout = ids, layout

    def prefix(self, model: Model, before: PrefixKV | None = None, end: int = 0) -> PrefixKV | None:
        """Keys and values of the tokens, run at batch 1 through the weights as they are right now."""
        return capture_tokens(model, self.ids.to(model.device), before, end) if self.ids.numel() else None

    def held(self) -> tuple[int, ...]:
        """The ids, where they are the beginning of a text."""
        return tuple(self.ids.flatten().tolist()) if self.layout else ()

    def embeddings(self, model: Model) -> Tensor | None:
        """The tokens' own embeddings."""
        return model.embed(self.ids.to(model.device))[0] if self.ids.numel() else None

    def fit(self, model: Model, items: Sequence[Item]) -> None:
        """Keep those first tokens that are the same whichever of ``items`` follows."""
        if self.layout is not None:
            self.ids = model.ids(common_context(model, items, self.layout, self.held()))

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


class ChosenTokens(Method):
    """A method whose result is hard tokens: what was kept of it is their ids and the layout that they stand in."""

    def again(
        self,
        model: Model,
        size: int,
        seed: int,
        setting: Mapping[str, Any],
        layout: Layout | None,
        state: dict[str, Tensor],
    ) -> TokenContext:
        """The same ids in the same layout.

        Raises:
            InputError: there are no ids, or the model has no such token.
        """
        if "token_ids" not in state:
            raise InputError(f"{self.name} is kept by its token_ids, and there are none.")
        found = TokenContext(model.ids(state["token_ids"]), layout)
        found.setting = dict(setting)
        return found


class Prompt(ChosenTokens):
    """The best of: the prompts given, instructions that name the task's labels, every short token sequence (toys)."""

    name = "prompt"
    rung = rungs.PROMPT
    summary = "a text or token sequence before the content; the best of several on validation"
    deployment = "Any server. It is text; its keys are paid in every request unless the server caches them."
    turn, is_seeded = 10, False
    options, searched = ("text", "token_ids", "layout"), ("prompts",)

    def build(
        self,
        model: Model,
        size: int = 0,
        seed: int = 0,
        text: str | None = None,
        token_ids: Sequence[int] | None = None,
        layout: Layout | None = None,
        **options: Any,
    ) -> TokenContext:
        """The prompt ``text`` (the head of ``layout``), or ``token_ids`` as they are.

        Raises:
            InputError: neither or both were given, the prompt is empty, or ids are outside the vocabulary.
        """
        if (text is None) == (token_ids is None):
            raise InputError("a prompt needs either text= or token_ids=.")
        if text is None:
            ids = model.ids(torch.as_tensor(token_ids))
            context = TokenContext(ids, token_ids=ids.flatten().tolist())
        else:
            own = replace(layout or PLAIN, head=text)
            model.ids(text)  # a model without a tokenizer refuses the text
            context = TokenContext(model.ids(context_ids(model, own)), own, text=text)
        if context.ids.numel() == 0 or text == "":
            raise InputError("the prompt is empty: give at least one token.")
        return context

    def candidates(
        self,
        model: Model,
        task: Task,
        seed: int,
        size: int = 2,
        prompts: Sequence[str] = (),
        layouts: Sequence[Layout] = (),
        **options: Any,
    ) -> Iterator[TokenContext]:
        """Prompts to choose from on the validation split, each in every one of ``layouts``.

        ``size`` bounds the search in a toy vocabulary.
        """
        if model.tokenizer is None:
            if model.anatomy.vocab <= SEARCH_VOCAB:
                for length in range(1, size + 1):
                    for ids in product(range(model.anatomy.vocab), repeat=length):
                        yield self.build(model, token_ids=ids)
            return
        for text in prompts:
            for layout in readable(task, layouts):
                yield self.build(model, text=text, layout=layout)
        for text in instructions(task):
            for layout in readable(task, layouts):
                context = self.build(model, text=text, layout=layout)
                if context.keys_per_layer() <= room_of(model):
                    yield context


def readable(task: Task, layouts: Sequence[Layout]) -> list[Layout]:
    """Those of ``layouts`` (the plain one where there is none) that the task's items can stand in."""
    item = task.held_out("validation", 1)[0]
    is_conversation = item.is_text and not isinstance(item.prompt, str)
    return [layout for layout in layouts or (PLAIN,) if layout.chat or not is_conversation]


def room_of(model: Model) -> int:
    """Positions that a context may take so that as many are left to the content."""
    return (model.anatomy.trained_positions or 2048) // 2


def instructions(task: Task) -> Iterator[str]:
    """Plain instructions for a task: its labels by name, where it has them."""
    labels = task.labels()
    if not labels:
        yield from GENERIC
        return
    named = [label.strip() for label in labels]
    spoken = ", ".join(named[:-1]) + " or " + named[-1]
    for template in INSTRUCTIONS:
        yield template.format(labels=spoken)
