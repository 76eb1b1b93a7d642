"""One record for every construction: a transformer, and the code that turns a target into virtual tokens.

A *target* is what the frozen transformer is made to do: an answer of n_Y symbols for each of the V^n_X user
inputs, that is a table (V^n_X, n_Y) of numbers 0..V−1. The prompt is [virtual tokens, user input, answer so far].
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from elicitable.constructions.precision import dtype_name
from elicitable.constructions.transformer import Transformer
from elicitable.errors import InputError
from elicitable.glance import table

Symbols = NDArray[np.int64]
Numbers = NDArray[np.float64]

Target = ArrayLike | Mapping[object, object]

#: Tables longer than this (V^n_X user inputs) are refused: one batch would not fit into memory.
MOST_INPUTS = 1_000_000


def has_too_many_inputs(vocab: int, n_input: int) -> bool:
    """Whether V^n_X is more than a table may hold, without working V^n_X out.

    >>> has_too_many_inputs(10, 6), has_too_many_inputs(10, 7), has_too_many_inputs(2, 10**18)
    (False, True, True)
    """
    # a power this high is beyond the limit for V = 2 already
    return int(vocab ** min(n_input, MOST_INPUTS.bit_length())) > MOST_INPUTS


def base_digits(numbers: Symbols, base: int, places: int) -> Symbols:
    """Base-``base`` digits, most significant first: (…,) to (…, places).

    >>> base_digits(np.array([6]), 2, 3).tolist()
    [[1, 1, 0]]
    """
    powers = [base**place for place in reversed(range(places))]
    return np.stack([numbers // power % base for power in powers], axis=-1)


@dataclass(frozen=True, eq=False, repr=False)
class Construction:
    """A built transformer and its code.

    ``to_virtual`` maps tables (batch, V^n_X, n_Y) to virtual tokens (batch, n_virtual, d_e), ``from_virtual``
    is its inverse. Above ``temperature_bound`` the softmax leak can change no answer (in exact arithmetic).
    """

    name: str
    vocab: int
    n_input: int
    n_answer: int
    n_virtual: int
    inverse_temperature: float
    temperature_bound: float
    model: Transformer
    to_virtual: Callable[[Symbols], Numbers]
    from_virtual: Callable[[Numbers], Symbols]

    def __repr__(self) -> str:
        """Return its sizes in a line: vocabulary, inputs, answer, virtual tokens, inverse temperature."""
        sizes = f"V = {self.vocab}, n_X = {self.n_input}, n_Y = {self.n_answer}, n_virtual = {self.n_virtual}"
        return f"<Construction {self.name}: {sizes}, T = {self.inverse_temperature:g}>"

    def _repr_html_(self) -> str:
        """Return what it is made of as a table, for a notebook."""
        shape = self.model.shape()
        rows = [
            ("targets", f"V^{self.n_answer * self.n_inputs}, each one virtual prompt"),
            ("inverse temperature", f"{self.inverse_temperature:g}; exact above {self.temperature_bound:.2f}"),
            ("type", dtype_name(self.dtype)),
            ("attention layers", f"{shape.attention_layers}, heads: {', '.join(map(str, shape.heads))}"),
            ("MLP depths", ", ".join(map(str, shape.mlp_depths))),
            ("embedding, stream", f"{shape.embedding}, {shape.stream}"),
            ("numbers", f"{shape.parameters:,}"),
        ]
        return table(repr(self).strip("<>"), rows)

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type of every weight."""
        return self.model.embedding.weight.dtype

    @property
    def n_inputs(self) -> int:
        """Number of user inputs, V^n_X."""
        return int(self.vocab**self.n_input)

    @property
    def target_shape(self) -> tuple[int, ...]:
        """(V,)·n_X followed by n_Y where it can exceed 1: (N,), (V,), (V, n_Y) or (V, …, V)."""
        answer = (self.n_answer,) if self.n_answer > 1 or self.n_input == 0 else ()
        return (self.vocab,) * self.n_input + answer

    @property
    def n_targets(self) -> int:
        """Number of targets, V^(n_Y · V^n_X)."""
        return int(self.vocab ** (self.n_answer * self.n_inputs))

    def at(self, inverse_temperature: float) -> Construction:
        """The same weights at another inverse temperature."""
        model = copy.deepcopy(self.model)
        model.set_inverse_temperature(inverse_temperature)
        return replace(self, model=model, inverse_temperature=inverse_temperature)

    def inputs(self) -> Symbols:
        """All user inputs in counting order, (V^n_X, n_X)."""
        return (
            base_digits(np.arange(self.n_inputs), self.vocab, self.n_input)
            if self.n_input
            else np.zeros((1, 0), dtype=np.int64)
        )

    def numbered_targets(self, start: int, stop: int) -> Symbols:
        """Targets number start..stop−1 in counting order, as tables (count, V^n_X, n_Y)."""
        digits = base_digits(np.arange(start, stop), self.vocab, self.n_inputs * self.n_answer)
        return digits.reshape(-1, self.n_inputs, self.n_answer)

    def random_targets(self, count: int, generator: np.random.Generator) -> Symbols:
        """Uniform targets, as tables (count, V^n_X, n_Y)."""
        return generator.integers(self.vocab, size=(count, self.n_inputs, self.n_answer))

    def table(self, target: Target) -> Symbols:
        """A target as its table (V^n_X, n_Y): from an array of ``target_shape`` or a mapping.

        A mapping takes a user input (a symbol or a tuple of them) to its answer (the same) and must be
        total. Raises InputError otherwise, or for symbols outside 0..V−1.
        """
        if isinstance(target, Mapping):
            target = _total(target, self)
        symbols = np.asarray(target)
        if symbols.shape not in {self.target_shape, (self.n_inputs, self.n_answer)}:
            raise InputError(f"{self.name} takes a target of shape {self.target_shape}, got shape {symbols.shape}.")
        if symbols.dtype.kind not in "iu" or symbols.min() < 0 or symbols.max() >= self.vocab:
            raise InputError(
                f"a target of {self.name} holds whole numbers from 0 to {self.vocab - 1}, got "
                f"{symbols.min()} to {symbols.max()} ({symbols.dtype})."
            )
        return symbols.astype(np.int64).reshape(self.n_inputs, self.n_answer)

    def virtual_token(self, target: Target) -> Tensor:
        """The virtual tokens (n_virtual, d_e) that make the transformer realise ``target``."""
        return self.virtual_tokens(self.table(target)[None])[0]

    def virtual_tokens(self, tables: Symbols) -> Tensor:
        """A batch of tables (batch, V^n_X, n_Y) to virtual tokens (batch, n_virtual, d_e)."""
        return torch.from_numpy(self.to_virtual(tables)).to(self.dtype)

    def decode(self, tokens: Tensor) -> Symbols:
        """The target that virtual tokens (n_virtual, d_e) stand for, in ``target_shape``.

        Raises InputError if they are not the virtual tokens of any target.
        """
        width = self.model.embedding.weight.shape[1]
        if tuple(tokens.shape) != (self.n_virtual, width):
            raise InputError(
                f"{self.name} has virtual tokens of shape {(self.n_virtual, width)}, got {tuple(tokens.shape)}."
            )
        table: Symbols = self.from_virtual(tokens.double().numpy()[None])[0]
        valid = table.min() >= 0 and table.max() < self.vocab
        if not valid or not torch.equal(self.virtual_token(table), tokens.to(self.dtype)):
            raise InputError(
                f"these are not virtual tokens of {self.name} in {dtype_name(self.dtype)}: "
                "they are not what any target is written as."
            )
        return table.reshape(self.target_shape)

    def greedy(self, start: Tensor, inputs: Tensor) -> Tensor:
        """Greedy continuation: start (batch, n, d_e), inputs (batch, n_X) to symbols (batch, n_Y)."""
        prompt = torch.cat([start, self.model.embed(inputs)], dim=1)
        emitted: list[Tensor] = []
        for _ in range(self.n_answer):
            emitted.append(self.model(prompt, last=1)[:, -1].argmax(dim=-1))
            prompt = torch.cat([prompt, self.model.embed(emitted[-1][:, None])], dim=1)
        return torch.stack(emitted, dim=1)

    def generate(self, tokens: Tensor, inputs: Sequence[int] = ()) -> tuple[int, ...]:
        """The greedy answer to one user input, conditioned on virtual tokens (n_virtual, d_e)."""
        user = torch.tensor(self.checked_input(inputs), dtype=torch.int64)
        answer = self.greedy(tokens[None].to(self.dtype), user[None])[0]
        return tuple(answer.tolist())

    def checked_input(self, inputs: Sequence[int]) -> tuple[int, ...]:
        """The user input as a tuple; raises InputError unless it is n_X symbols of the vocabulary."""
        symbols = tuple(int(symbol) for symbol in inputs)
        if len(symbols) != self.n_input or not all(0 <= x < self.vocab for x in symbols):
            raise InputError(
                f"{self.name} takes a user input of {self.n_input} symbols from 0 to {self.vocab - 1}, got {symbols}."
            )
        return symbols


def _as_tuple(value: object) -> tuple[int, ...]:
    """A symbol or a sequence of symbols as a tuple."""
    if isinstance(value, Sequence | np.ndarray):
        return tuple(int(symbol) for symbol in value)
    return (int(value),)  # type: ignore[call-overload]


def _total(mapping: Mapping[object, object], construction: Construction) -> list[tuple[int, ...]]:
    """The rows of a mapping in counting order; raises InputError for missing or foreign inputs."""
    given = {_as_tuple(key): _as_tuple(value) for key, value in mapping.items()}
    wanted = [tuple(row) for row in construction.inputs().tolist()]
    missing = [row for row in wanted if row not in given]
    if missing:
        raise InputError(
            f"the map is not total: {len(missing)} of {len(wanted)} inputs have no answer, the first "
            f"is {missing[0]}; give every input one."
        )
    foreign = sorted(set(given) - set(wanted))
    if foreign:
        raise InputError(f"the map has an answer for {foreign[0]}, which is not an input.")
    lengths = {len(answer) for answer in given.values()}
    if lengths != {construction.n_answer}:
        raise InputError(
            f"every answer needs {construction.n_answer} symbols, got lengths {sorted(lengths)}; "
            "fill shorter ones up with a padding symbol."
        )
    return [given[row] for row in wanted]


def chunks(count: int, size: int) -> Iterator[tuple[int, int]]:
    """(start, stop) pairs that cover 0..count−1 in steps of ``size``."""
    for start in range(0, count, size):
        yield start, min(start + size, count)
