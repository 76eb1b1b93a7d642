"""A transformers model together with its tokenizer and anatomy."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from elicitable.errors import InputError
from elicitable.glance import bars
from elicitable.models.anatomy import Anatomy, anatomy_of
from elicitable.models.dispatch import runs_on, settle_packed, state_of
from elicitable.models.speed.processor import has_fast_bfloat16
from elicitable.models.templates import written_by
from elicitable.untrusted import aligned, in_one_line, is_out_of_memory


@dataclass(eq=False, repr=False)
class Model:
    """A pretrained decoder, ready for contexts. Calls and attributes fall through to the transformers model.

    ``hf`` is the transformers model, ``tokenizer`` its tokenizer (None for the toys, whose vocabulary is the digits
    themselves), ``name`` what it was loaded as, ``source`` how to load it again. ``budget_tokens`` is how many residual
    vectors per layer the default budget pays for; ``how`` it was spread over devices, or packed, when it was loaded.
    """

    hf: PreTrainedModel
    tokenizer: Any = None
    name: str = "in-memory"
    source: str | None = None
    budget_tokens: int = 12
    how: dict[str, Any] = field(default_factory=dict)
    _fingerprint: tuple[Any, str] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        """Let every weight begin where it would in a worker: the digits hang on it (:func:`aligned`).

        Packed layers compute each row from its own tokens from now on (:mod:`elicitable.models.packed`).
        """
        for weight in itertools.chain(self.hf.parameters(), self.hf.buffers()):
            if type(weight.data) is Tensor and weight.layout is torch.strided:
                weight.data = aligned(weight.data)
        settle_packed(self.hf)

    def __repr__(self) -> str:
        """Return the model in a line: its kind, its size, its type and where it is."""
        numbers = sum(weight.numel() for weight in self.hf.parameters())
        kind, dtype = type(self.hf).__name__, str(self.dtype).removeprefix("torch.")
        return in_one_line(f"<Model {self.name}: {kind}, {numbers:,} numbers, {dtype} on {self.device}>")

    def _repr_html_(self) -> str:
        """Return where the model's numbers are, as a bar for each part, for a notebook."""
        attention, blocks = (
            {id(weight): weight.numel() for module in modules for weight in module.parameters()}
            for modules in (self.anatomy.attentions, self.anatomy.blocks)
        )
        whole = {id(weight): weight.numel() for weight in self.hf.parameters()}
        in_attention, in_blocks, every = (sum(part.values()) for part in (attention, blocks, whole))
        shares = {
            "attention": in_attention / every,
            "other parts of layers": (in_blocks - in_attention) / every,
            "embeddings and ends": (every - in_blocks) / every,
        }
        shape = f", {self.anatomy.depth} layers of {self.anatomy.layers[0].heads} heads"
        return bars(f"{repr(self).strip('<>')}{shape}", [(name, x, x, x, False) for name, x in shares.items()])

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.hf(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "hf":
            raise AttributeError(name)
        return getattr(self.hf, name)

    @cached_property
    def anatomy(self) -> Anatomy:
        """Facts of the architecture; read by running a few tokens, once, and held to what a context stands in for."""
        from elicitable.models.standing_in import settled  # which puts a context into a model

        found = settled(Model(self.hf, name=self.name), anatomy_of(self.hf))
        if self.dtype == torch.float32 and has_fast_bfloat16(self.device):
            _ = self.runs_in_bfloat16  # asked while nothing is in the model and nobody watches it
        return found

    @cached_property
    def runs_on_embeddings(self) -> bool:
        """Whether it runs on embeddings that no token has, and on tokens' own as on the tokens.

        Some models look at the ids again in their layers; without them they raise, or do without what it tells them.
        """
        ids = torch.arange(1, 4, device=self.device)[None] % self.vocabulary
        given = {"attention_mask": torch.ones_like(ids), "use_cache": False}
        try:
            with torch.no_grad():
                self.hf(inputs_embeds=0.5 * self.embed(ids), **given)
                # one of its own may be altered in place, as CTRL does
                embedded, read = self.hf(inputs_embeds=self.embed(ids), **given).logits, self.hf(ids, **given).logits
        except Exception as error:  # whatever a model's own code says where it misses the ids
            if is_out_of_memory(error):
                raise
            return False
        return torch.allclose(embedded, read, rtol=0.0, atol=1e-2 * float(read.abs().max()))  # bfloat16 has 3 digits

    @cached_property
    def runs_in_bfloat16(self) -> bool:
        """Whether it runs with its products in bfloat16; some sum what comes of them in another type, and cannot."""
        tokens = torch.zeros(1, 2, dtype=torch.long, device=self.device)
        try:
            with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16):
                self.hf(input_ids=tokens, attention_mask=tokens + 1, use_cache=False)
        except Exception as error:  # whatever a model's own code says of types that do not agree
            if is_out_of_memory(error):
                raise
            return False
        return True

    @torch.no_grad()
    def embed(self, ids: Tensor) -> Tensor:
        """Embed token ids as the model itself does: (row, token) to (row, token, d_model), in the model's type.

        The embedding module is asked, as its table alone would not do: some modules scale what they look up (Gemma's
        and BioGPT's by √d_model, MiniCPM3's by a factor of its configuration). Whatever a model does after its module
        it does to embeddings that it is given as well.
        """
        embedded: Tensor = self.hf.get_input_embeddings()(ids)
        return embedded

    @property
    def device(self) -> torch.device:
        """Where the model's input embeddings are computed, so where its input has to be."""
        return runs_on(self.hf.get_input_embeddings())

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
            InputError: a text without a tokenizer, ids that are no whole numbers, or ids outside the vocabulary.
        """
        if isinstance(text, str):
            if self.tokenizer is None:
                raise InputError(f"{self.name} has no tokenizer: give token ids instead of the text {text!r}.")
            encoded: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
            self.check_written(encoded)
            return torch.tensor(encoded, dtype=torch.long).reshape(1, -1).to(self.device)
        try:
            given = torch.as_tensor(text).reshape(1, -1)
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise InputError(f"token ids are whole numbers: {str(error).splitlines()[0]}.") from error
        if given.numel() and (given.is_floating_point() or given.is_complex() or given.dtype == torch.bool):
            raise InputError(f"token ids are whole numbers, got {given.dtype}.")
        ids = given.to(torch.long)
        if ids.numel() and (int(ids.min()) < 0 or int(ids.max()) >= self.vocabulary):
            raise InputError(
                f"token ids must be between 0 and {self.vocabulary - 1} for {self.name}, got {ids.flatten().tolist()}."
            )
        return ids.to(self.device)

    @property
    def vocabulary(self) -> int:
        """How many token ids the model has embeddings of."""
        return int(self.hf.get_input_embeddings().weight.shape[0])

    def check_written(self, ids: Sequence[int]) -> None:
        """Raise InputError where the tokenizer gave an id that the model has no embedding of."""
        if ids and max(ids) >= self.vocabulary:
            raise InputError(
                f"the tokenizer of {self.name} writes a text with the id {max(ids)}, and the model knows 0 to "
                f"{self.vocabulary - 1}: they do not belong together. Take the tokenizer that the model came with."
            )

    def start_ids(self) -> list[int]:
        """The ids that the tokenizer itself puts before a text, read off what it really gives; often none or one."""
        if self.tokenizer is None:
            return []
        plain: list[int] = self.tokenizer("a", add_special_tokens=False)["input_ids"]
        whole: list[int] = self.tokenizer("a")["input_ids"]
        places = range(len(whole) - len(plain) + 1)
        return next((whole[:at] for at in places if whole[at : at + len(plain)] == plain), [])

    @property
    def ends(self) -> tuple[int, ...]:
        """The ids at which it ends what it writes: the tokenizer's end of text, then those that stop its ``generate``.

        GLM 4 ends an answer with ``<|user|>``, say. Of the latter, those that are special tokens of the tokenizer:
        where nobody named an end, a configuration holds a default, which may be any token.
        """
        if self.tokenizer is None:
            return ()
        eos = getattr(self.tokenizer, "eos_token_id", None)
        own = getattr(getattr(self.hf, "generation_config", None), "eos_token_id", None)  # a bare decoder has none
        stops = (own,) if isinstance(own, int) else tuple(own or ())
        special = _special(self.tokenizer, len(self.tokenizer), stops)
        return tuple(dict.fromkeys([*([] if eos is None else [int(eos)]), *special]))

    @property
    def fingerprint(self) -> str:
        """SHA-256 (first 16 hex digits) over all that changes what the model answers.

        That is every weight's name, shape, type and bytes, the configuration, how the tokenizer reads, and the context
        that is in use right now. Kept as long as none of them changes, so that a model which its owner trains on is
        another model.
        """
        bare, context = self.bare_fingerprint, _context_in_use(self.hf)
        return _hash_of([bare], context) if context else bare

    @property
    def written(self) -> str:
        """Digest (8 hex digits) of how a conversation is written and what ends a text; empty without a tokenizer.

        That is no part of the :attr:`fingerprint`, which is over what answers; it tells what the answers are given to.
        """
        if self.tokenizer is None:
            return ""
        more = [str(id_) for id_ in self.ends if id_ != getattr(self.tokenizer, "eos_token_id", None)]
        return _hash_of([*written_by(self.tokenizer), *more], ())[:8]

    @property
    def identity(self) -> str:
        """The :attr:`fingerprint` with what is :attr:`written`: what is found out with one is of no other."""
        return " ".join(filter(None, (self.fingerprint, self.written)))

    @property
    def bare_fingerprint(self) -> str:
        """The fingerprint without the context that is in use."""
        state = sorted(self.hf.state_dict().items())
        settings = _configuration(self.hf)
        written = tuple((name, w.data_ptr(), 0 if w.is_inference() else w._version) for name, w in state)
        stamp = (written, settings, self.tokenizer)
        if self._fingerprint is None or self._fingerprint[0] != stamp:
            texts = (settings, _reading(self.tokenizer), *map(str, self.start_ids()))
            self._fingerprint = (stamp, _hash_of(texts, state_of(self.hf)))
        return self._fingerprint[1]


@lru_cache(maxsize=8)
def _special(tokenizer: Any, size: int, ids: tuple[int, ...]) -> tuple[int, ...]:
    """Those of ``ids`` that are special tokens of a tokenizer of ``size``, whose list of them may take long to make."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return tuple(id_ for id_ in ids if id_ in added and added[id_].special)


def _configuration(hf: PreTrainedModel) -> str:
    """The class and its configuration as canonical JSON, without what only says where it came from."""
    plain = _without(hf.config.to_dict(), ("transformers_version", "architectures", "dtype", "torch_dtype"))
    return type(hf).__name__ + json.dumps(plain, sort_keys=True, default=str)


def _without(record: dict[Any, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    """``record`` and the records in it without ``keys`` and without private ones."""
    kept = {str(key): value for key, value in record.items() if key not in keys and not str(key).startswith("_")}
    return {key: _without(value, keys) if isinstance(value, dict) else value for key, value in kept.items()}


def _reading(tokenizer: Any) -> str:
    """How a tokenizer cuts texts, without how it was last asked to pad or cut them off."""
    if tokenizer is None:
        return ""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return json.dumps(tokenizer.get_vocab(), sort_keys=True)
    return json.dumps({**json.loads(backend.to_str()), "padding": None, "truncation": None}, sort_keys=True)


def _context_in_use(hf: PreTrainedModel) -> list[tuple[str, Tensor]]:
    """The keys and values that are installed right now (see :mod:`elicitable.models.inject`), by name."""
    seats = (module.__dict__.get("_elicitable_seat") for module in hf.modules())
    slot = next((seat.slot for seat in seats if seat is not None), None)
    if slot is None or slot.prefix is None:
        return []
    prefix, strength = slot.prefix, f"{slot.strength:g} of "
    if prefix.shift or prefix.pinned:
        strength += f"shift {prefix.shift}, pinned {prefix.pinned} "
    named = {"key": prefix.keys, "value": prefix.values, "bias": prefix.value_bias or (), "kept": prefix.kept or ()}
    named |= {"positions": (prefix.positions,), "visible": (prefix.visible,)}
    return [
        (f"{strength}{name}.{i}", x) for name, layers in named.items() for i, x in enumerate(layers) if x is not None
    ]


def _hash_of(texts: Iterable[str], tensors: Iterable[tuple[str, Tensor]]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(f"{len(text)} {text}".encode())
    for name, tensor in tensors:
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
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
