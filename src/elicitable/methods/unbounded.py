"""The unbounded context: more than any context of any length can do, as a control that is trained like a method.

Whatever its length, a context gives each head two functions of the query alone: the log-sum-exp of its keys' logits,
and the mean of its values under them. With content logits ℓ_j,

    L(q) = log Σ_{k∈context} exp(q·k · scaling),    b(q) = Σ_k softmax_k(q·k · scaling) v_k,
    o = α b(q) + (1 − α) t,    α = sigmoid(L(q) − log Σ_j exp ℓ_j),

and t is what the content gives by itself. Here L and b are free. In the first layer a query is known by its token and
its position, so a table of both holds every context exactly; where that would be too large, and in all deeper layers,
they are a small network of the query. Where even this falls short, no context will do; where the first layer has
a network too, that is no more than likely.

It may start at a context: then L and b are those of the context plus what is free, which begins at nothing. So before
it is trained it is the context, in every layer, and need not find again what a context has found.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from elicitable.attention.operands import content_logits, prefix_logits, weighted
from elicitable.errors import InputError
from elicitable.methods import rungs
from elicitable.methods.base import Adaptation, Method, Schedule
from elicitable.models.attend import Call, Slot
from elicitable.models.inject import installed, prefix_of, use
from elicitable.models.prefixes import prefix_length
from elicitable.rng import torch_generator
from elicitable.values import PrefixKV

if TYPE_CHECKING:
    from elicitable.models.anatomy import LayerShape
    from elicitable.models.model import Model

LARGEST_TABLE = 2**22  # numbers
Found = tuple[Tensor, Tensor]  # L (batch, head, query) and b (batch, head, query, d_value)


class Places:
    """Hold the tokens that a model is reading and the positions they stand at, (batch, query) each."""

    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        self.tokens: Tensor | None = None
        self.positions: Tensor | None = None

    def note(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Take both from a call of the decoder, whose positions are right by then."""
        self.tokens = kwargs.get("input_ids", args[0] if args else None)
        positions = kwargs.get("position_ids")
        if positions is None and self.slot.query_positions is not None:
            positions = self.slot.query_positions + (self.slot.prefix.shift if self.slot.prefix else 0)
        self.positions = positions

    def last(self, queries: int) -> tuple[Tensor, Tensor]:
        """Return the tokens and positions of the last ``queries``: others may have been left out unread."""
        if self.tokens is None or self.positions is None:
            raise InputError("an unbounded context looks tokens up in its first layer: give input_ids, not embeddings.")
        return self.tokens[:, -queries:], self.positions.expand(self.tokens.shape)[:, -queries:]


class Table:
    """L (head, position, token) and b (head, position, token, d_value), both free."""

    def __init__(self, shape: LayerShape, positions: int, vocab: int, like: dict[str, Any]) -> None:
        self.log_mass = nn.Parameter(torch.zeros(shape.heads, positions, vocab, **like))
        self.inside = nn.Parameter(torch.zeros(shape.heads, positions, vocab, shape.d_value, **like))

    def parameters(self) -> list[nn.Parameter]:
        """Both tables."""
        return [self.log_mass, self.inside]

    def __call__(self, call: Call, places: Places) -> Found:
        """Look up what the queries' tokens have at their positions."""
        tokens, positions = places.last(call.query.shape[2])
        if int(positions.max()) >= self.log_mass.shape[1]:
            raise InputError(
                f"the unbounded context's table has {self.log_mass.shape[1]} positions, the text reaches "
                f"{int(positions.max()) + 1}: build it with more `positions`."
            )
        found = self.log_mass[:, positions, tokens], self.inside[:, positions, tokens]
        return found[0].transpose(0, 1), found[1].transpose(0, 1)


class Network:
    """L and b of a head as one hidden layer of its query: (L, b) = W₂ gelu(W₁ q √scaling + c₁) + c₂."""

    def __init__(self, shape: LayerShape, width: int, generator: torch.Generator, like: dict[str, Any]) -> None:
        drawn = torch.randn(shape.heads, shape.d_head, width, generator=generator, dtype=torch.float64)
        self.first = nn.Parameter((drawn / shape.d_head**0.5).to(**like))
        self.first_bias = nn.Parameter(torch.zeros(shape.heads, 1, width, **like))
        self.second = nn.Parameter(torch.zeros(shape.heads, width, 1 + shape.d_value, **like))
        self.second_bias = nn.Parameter(torch.zeros(shape.heads, 1, 1 + shape.d_value, **like))

    def parameters(self) -> list[nn.Parameter]:
        """Both layers' weights and biases."""
        return [self.first, self.first_bias, self.second, self.second_bias]

    def __call__(self, call: Call, places: Places) -> Found:
        """Compute both from the queries of a call."""
        query = call.query.to(self.first.dtype) * call.scaling**0.5
        hidden = nn.functional.gelu(query @ self.first + self.first_bias)
        found = hidden @ self.second + self.second_bias
        return found[..., 0], found[..., 1:]


def attend_with(call: Call, found: Found, started: int = 0) -> Tensor:
    """Attend to the content, to a context in use, and to one key whose logit is L and whose value is b.

    The last ``started`` keys of the context in use are those that it starts at: their log-sum-exp is added to L, the
    mean of their values under them to b.

    Returns:
        (batch, head, query, d_value), in the queries' type; gradients flow to ``found`` and to the content.
    """
    log_mass, inside = (x.to(call.dtype) for x in found)
    content, around = content_logits(call), call.prefix_length
    prefix = None if call.prefix_key is None else prefix_logits(call)
    if prefix is None or call.prefix_value is None:
        log_mass, others = log_mass + call.log_strength, []
    else:
        around -= started
        own_mass, own_inside = mass_and_mean(prefix[..., around:], call.prefix_value[:, :, around:])
        log_mass, inside = log_mass + (own_mass if started else call.log_strength), inside + own_inside
        others = [prefix[..., :around]]
    weights = torch.softmax(torch.cat([log_mass[..., None], *others, content], dim=-1), dim=-1)
    before, keys = 1 + around, call.key.shape[2]
    output = weights[..., :1] * inside + weighted(weights[..., before : before + keys], call.value.to(call.dtype))
    if call.prefix_value is not None:
        output = output + weighted(weights[..., 1:before], call.prefix_value[:, :, :around].to(call.dtype))
    return output.to(call.query.dtype)


def mass_and_mean(logits: Tensor, value: Tensor) -> Found:
    """Return log Σ exp ℓ and Σ softmax(ℓ) v over the keys of a context; the lowest number and 0 where none is seen."""
    log_mass = torch.logsumexp(logits, dim=-1).clamp(min=torch.finfo(logits.dtype).min)
    return log_mass, weighted(torch.exp(logits - log_mass[..., None]), value.to(logits.dtype))


class Unbounded(Adaptation):
    """L and b for every layer; the content stands ``shift`` positions further on, as behind a context that long."""

    kind = "unbounded-context"

    def __init__(self, layers: list[Table | Network], width: int, started: PrefixKV | None = None, **setting: Any):
        super().__init__(**setting)
        self.layers, self.width, self.started = layers, width, started

    @property
    def shift(self) -> int:
        """How far the content's positions move up."""
        return int(self.setting.get("shift", 0))

    def prefix(self, model: Model, before: PrefixKV | None = None, end: int = 0) -> PrefixKV | None:
        """Those of the context that it starts at; else no keys, only the positions that a context would have taken."""
        if self.started is not None:
            return self.started
        nothing = (None,) * len(self.layers)
        return PrefixKV(nothing, nothing, shift=self.shift) if self.shift else None

    @contextmanager
    def weights(self, model: Model) -> Iterator[None]:
        """Let every layer attend to one key more, with its own L and b."""
        with ExitStack() as stack:
            slot = stack.enter_context(installed(model))
            places, started = Places(slot), 0 if self.started is None else prefix_length(self.started)

            def see(call: Call) -> Tensor:
                with torch.autocast(call.query.device.type, enabled=False):
                    return attend_with(call, self.layers[call.layer](call, places), started)

            stack.enter_context(model.anatomy.decoder.register_forward_pre_hook(places.note, with_kwargs=True))
            stack.enter_context(slot.watched_by(see, first=True))
            yield

    def parameters(self) -> list[nn.Parameter]:
        """Those of all layers."""
        return [parameter for layer in self.layers for parameter in layer.parameters()]

    def size(self) -> int:
        """The width of the networks."""
        return self.width

    @torch.no_grad()
    def follow(self, model: Model, prefix: PrefixKV) -> None:
        """Fill the first layer's table with L and b of ``prefix``, for every token at every position behind it.

        Raises:
            InputError: the first layer has a network and no table, or other positions than behind ``prefix``.
        """
        table = self.layers[0]
        if not isinstance(table, Table) or prefix.shift != self.shift:
            raise InputError(
                f"only a table of shift={prefix.shift} can hold this context's first layer, this one has "
                f"{'a table' if isinstance(table, Table) else 'a network'} and shift={self.shift}."
            )
        _, positions, vocab = table.log_mass.shape
        ids = torch.arange(vocab, device=model.device)[:, None].expand(vocab, positions - self.shift)
        calls: list[Call] = []
        with use(model, prefix), installed(model) as slot, slot.watched_by(calls.append):  # type: ignore[arg-type]
            model(input_ids=ids, use_cache=False, logits_to_keep=1)
        assert calls[0].prefix_value is not None
        log_mass, inside = mass_and_mean(prefix_logits(calls[0]), calls[0].prefix_value)
        table.log_mass[:, self.shift :] = log_mass.permute(1, 2, 0)
        table.inside[:, self.shift :] = inside.permute(1, 2, 0, 3)


class UnboundedContext(Method):
    """A table of (1 + d_value) numbers a head, token and position in the first layer where it fits; else networks."""

    name = "unbounded-context"
    rung = rungs.CONTROL
    summary = "control: a mass and a bias for every query, more than any context of any length"
    deployment = "A control: it shows what no context could go beyond. No server runs it."
    turn, is_bound, probe = 95, False, "unbounded"
    options = ("positions", "shift")
    schedule = Schedule(learning_rates=(3e-3, 1e-2, 3e-2, 1e-1))

    def __init__(self, started: PrefixKV | None = None, origin: str = "") -> None:
        self.started, self.origin = started, origin

    @property
    def identity(self) -> str:
        """Its name, and where it starts."""
        return f"{super().identity} from {self.origin}" if self.origin else super().identity

    @torch.no_grad()
    def starting_at(self, model: Model, context: Adaptation, origin: str) -> UnboundedContext:
        """Return the method that starts at ``context``, which records call ``origin``."""
        return type(self)(prefix_of(model, [context]), origin)

    @staticmethod
    def most_positions(model: Model) -> int:
        """Return how many positions a table of the first layer may have at most; 0 where not one fits."""
        return LARGEST_TABLE // _in_table(model, 1)

    @staticmethod
    def is_exact(model: Model, positions: int | None = None) -> bool:
        """Say whether the first layer gets a table, which holds every context exactly, if built with ``positions``."""
        return _positions_in_table(model, positions) is not None

    def numbers(self, model: Model, size: int = 16) -> int:
        """Σ_layers heads · (size · (d_head + 2 + d_value) + 1 + d_value), with the table in place of the first."""
        own = [at.heads * (size * (at.d_head + 2 + at.d_value) + 1 + at.d_value) for at in model.anatomy.layers]
        positions = _positions_in_table(model, None)
        return sum(own) if positions is None else _in_table(model, positions) + sum(own[1:])

    def build(
        self, model: Model, size: int = 16, seed: int = 0, positions: int | None = None, shift: int = 0, **options: Any
    ) -> Unbounded:
        """Start as one key of logit 0 and a value of 0.

        Args:
            model: whose layers it is for.
            size: the hidden units of each head's network.
            seed: of the networks' first layers.
            positions: how many positions the table has; by default all of a model with a fixed number of them.
            shift: how far the content moves up, as behind a context of that length.
        """
        generator = torch_generator(seed, self.name)
        like = {"dtype": model.trainable_dtype, "device": model.device}
        layers: list[Table | Network] = [Network(at, size, generator, like) for at in model.anatomy.layers]
        held = _positions_in_table(model, positions)
        if held is not None:
            layers[0] = Table(model.anatomy.layers[0], held, model.anatomy.vocab, like)
        return Unbounded(layers, size, self.started, positions=positions, shift=shift or None, seed=seed)


def _positions_in_table(model: Model, asked: int | None) -> int | None:
    positions = model.anatomy.position_limit if asked is None else asked
    return positions if positions is not None and _in_table(model, positions) <= LARGEST_TABLE else None


def _in_table(model: Model, positions: int) -> int:
    shape = model.anatomy.layers[0]
    return shape.heads * positions * model.anatomy.vocab * (1 + shape.d_value)
