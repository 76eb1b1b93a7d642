"""A transformers model together with its tokenizer and anatomy."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from elicitable.errors import InputError
from elicitable.models.anatomy import Anatomy, anatomy_of


@dataclass(eq=False)
class Model:
    """A pretrained decoder, ready for contexts. Calls and attributes fall through to the transformers model.

    ``hf`` is the transformers model, ``tokenizer`` its tokenizer (None for the toys, whose vocabulary is the digits
    themselves), ``name`` what it was loaded as, ``source`` how to load it again.
    """

    hf: PreTrainedModel
    tokenizer: Any = None
    name: str = "in-memory"
    source: str | None = None
    _fingerprint: tuple[Any, str] | None = field(default=None, init=False, repr=False)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.hf(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "hf":
            raise AttributeError(name)
        return getattr(self.hf, name)

    @cached_property
    def anatomy(self) -> Anatomy:
        """Facts of the architecture; read by running three tokens, once."""
        return anatomy_of(self.hf)

    @property
    def device(self) -> torch.device:
        """Where the model's input embeddings are."""
        device: torch.device = self.hf.get_input_embeddings().weight.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the model's input embeddings."""
        dtype: torch.dtype = self.hf.get_input_embeddings().weight.dtype
        return dtype

    @property
    def trainable_dtype(self) -> torch.dtype:
        """Type of trained numbers: never below float32."""
        return torch.promote_types(self.dtype, torch.float32)

    def ids(self, text: str | Sequence[int] | Tensor) -> Tensor:
        """(1, token) ids of a text, or of token ids as they are.

        Raises:
            InputError: a text without a tokenizer, or ids outside the vocabulary.
        """
        if isinstance(text, str):
            if self.tokenizer is None:
                raise InputError(f"{self.name} has no tokenizer: give token ids instead of the text {text!r}.")
            encoded: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
            return torch.tensor(encoded, dtype=torch.long).reshape(1, -1).to(self.device)
        ids = torch.as_tensor(text, dtype=torch.long).reshape(1, -1)
        vocab = self.hf.get_input_embeddings().weight.shape[0]
        if ids.numel() and (int(ids.min()) < 0 or int(ids.max()) >= vocab):
            raise InputError(
                f"token ids must be between 0 and {vocab - 1} for {self.name}, got {ids.flatten().tolist()}."
            )
        return ids.to(self.device)

    def start_ids(self) -> list[int]:
        """What the tokenizer itself puts before a text: a beginning-of-sequence token, or nothing."""
        if self.tokenizer is None or self.tokenizer.bos_token_id is None:
            return []
        bos: int = self.tokenizer.bos_token_id
        return [bos] if self.tokenizer("a")["input_ids"][:1] == [bos] else []

    @property
    def fingerprint(self) -> str:
        """SHA-256 (first 16 hex digits) over every weight's name, shape and bytes.

        Kept as long as no weight is written to, so that a model which its owner trains on is another model.
        """
        state = sorted(self.hf.state_dict().items())
        stamp = tuple((name, w.data_ptr(), 0 if w.is_inference() else w._version) for name, w in state)
        if self._fingerprint is None or self._fingerprint[0] != stamp:
            self._fingerprint = (stamp, _hash_of(state))
        return self._fingerprint[1]


def _hash_of(state: list[tuple[str, Tensor]]) -> str:
    digest = hashlib.sha256()
    for name, weight in state:
        digest.update(f"{name}{tuple(weight.shape)}{weight.dtype}".encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def as_model(model: Any) -> Model:
    """A :class:`Model` as it is; a transformers model wrapped, once.

    Raises:
        InputError: it is neither.
    """
    if isinstance(model, Model):
        return model
    if not isinstance(model, PreTrainedModel):
        raise InputError(f"expected a model from el.load or a transformers model, got {type(model).__name__}.")
    wrapped: Model | None = model.__dict__.get("_elicitable_model")
    if wrapped is None:
        wrapped = Model(model, name=getattr(model.config, "_name_or_path", "") or type(model).__name__)
        model.__dict__["_elicitable_model"] = wrapped
    return wrapped
