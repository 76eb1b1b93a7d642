"""What every form of export is given, and what it promises."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from elicitable.errors import InputError
from elicitable.models.inject import installed, use
from elicitable.models.prefixes import prefix_length
from elicitable.models.rounding import rounding
from elicitable.rng import torch_generator
from elicitable.values import PrefixKV

if TYPE_CHECKING:
    from elicitable.deploy.record import Record
    from elicitable.methods.base import Adaptation
    from elicitable.models.model import Model

TOKENS = 12  # of the texts that a self-test reads
#: How far logits may be apart, as a share of the largest: some hundred roundings of the type that they were made in.
TOLERANCE = 128


@dataclass(frozen=True)
class Winner:
    """Hold what is exported: the base model, what goes into it, and its record."""

    model: Model
    adaptation: Adaptation
    record: Record

    @property
    def trained(self) -> Winner:
        """What of it is trained, without a text that it is used behind."""
        return self._part(lambda part: bool(part.parameters())) or self

    @property
    def text(self) -> Winner | None:
        """The text that what is trained is used behind; None where there is none."""
        return self._part(lambda part: not part.parameters()) if self.trained is not self else None

    def _part(self, is_meant: Callable[[Adaptation], bool]) -> Winner | None:
        parts = self.adaptation.parts
        found = next((part for part in parts if is_meant(part)), None) if len(parts) > 1 else None
        return None if found is None else replace(self, adaptation=found)

    def changes_weights(self) -> bool:
        """Say whether weights are all that it changes."""
        return bool(self.adaptation.parameters()) and self._prefix() is None

    def prefix(self, end: int = 0) -> PrefixKV | None:
        """Return its keys and values, run through the base model; None where there are no keys."""
        found = self._prefix(end)
        return found if found is not None and prefix_length(found) else None

    @torch.no_grad()
    def _prefix(self, end: int = 0) -> PrefixKV | None:
        with installed(self.model):
            return self.adaptation.prefix(self.model, None, end)

    @torch.no_grad()
    def logits(self, ids: Tensor) -> Tensor:
        """(row, token, vocab): what the base model answers to ``ids`` with the adaptation in use."""
        with use(self.model, self.adaptation):
            return self.model.hf(input_ids=ids, use_cache=False).logits  # type: ignore[no-any-return]

    def sample(self) -> Tensor:
        """(2, token) ids for a self-test, always the same."""
        drawn = torch.randint(self.model.anatomy.vocab, (2, TOKENS), generator=torch_generator(0, "self-test"))
        return drawn.to(self.model.device)

    def whole_prefix(self) -> PrefixKV | None:
        """Return its keys and values as an ordinary cache holds them: the context at 0 … n−1, the content behind it."""
        found = self.prefix()
        if found is None or self.adaptation.moves_content or not self.model.anatomy.has_relative_positions:
            return found
        return self.prefix(end=-prefix_length(found))

    def check_close(self, found: Tensor, wanted: Tensor, what: str, is_moved: bool = False) -> str:
        """Return by how much ``found`` differs from ``wanted``, in words.

        Where the content ``is_moved`` to other positions, its rotary angles are others too, and transformers computes
        these in float32 whatever the model's type.

        Raises:
            InputError: that is more than rounding explains.
        """
        largest = float(wanted.abs().max())
        apart = float((found.to(wanted) - wanted).abs().max())
        least = float(torch.finfo(torch.float32).eps) if is_moved else 0.0
        allowed = TOLERANCE * max(rounding(self.model), least) * max(largest, 1.0)
        if not apart <= allowed:
            raise InputError(
                f"the self-test failed: {what} gives logits that differ by {apart:.2g} from those of the race, and "
                f"rounding explains {allowed:.2g}. Nothing was written."
            )
        return f"{what} gives the race's logits to {apart:.1e} (the largest is {largest:.1f})"


@dataclass(frozen=True)
class Form:
    """Say what a form is called and for, why a winner cannot take it (None where it can), and how it is written.

    ``write`` fills a folder, reads it again, and returns what the self-test found, one line each; ``usage`` is what a
    model card says of it, in Markdown.
    """

    name: str
    summary: str
    refusal: Callable[[Winner], str | None]
    write: Callable[[Winner, Path], list[str]]
    usage: Callable[[Winner], str]


def dumped(record: Mapping[str, Any]) -> str:
    """Return a JSON object as a file holds it."""
    return json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def whole_or_none(winner: Winner) -> str | None:
    """Say why a winner's context is no plain set of keys and values that every head sees; None where it is."""
    if winner.text is not None:
        return "the weights that read its context are changed too"
    prefix = winner.prefix()
    if prefix is None:
        return "there are no keys and values: nothing stands before the content"
    if prefix.kept is not None or prefix.visible is not None or prefix.pinned:
        return "some of its heads do without some of its keys, which no cache can say"
    if any(key is None for key in prefix.keys):
        return "some layers have no keys, which no cache can say"
    return None
