"""Make the tasks of the benchmark: five digits are read, five symbols are written, each behind a mark of its step.

A row of tokens, with the digits x and the answer y of a task:

    cue   x₀ x₁ x₂ x₃ x₄   m₀   y₀ m₁ y₁ m₂ y₂ m₃ y₃ m₄ y₄
    \\______ prompt ________/    \\________ target ________/

The mark mₛ is what stands before the answer of step s, so the query that has to know yₛ always knows s, wherever the
row begins. What yₛ is says a *rule*. A ``cue``, where a task has one, shows the model which rule is meant, so that the
bare model does the task if it has learned that cue.

The vocabulary: digits 0..7, marks 8..12, passwords 13..20. Inputs are handled as one 15-bit number and split by its
hash, as those of :mod:`elicitable.tasks.digit_inputs`: one half of the held-out quarter is validation, the other test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from elicitable.errors import InputError
from elicitable.rng import generator
from elicitable.tasks.base import HeldOut, checked_count, checked_split, fingerprint_of
from elicitable.tasks.digit_inputs import is_in_split
from elicitable.values import Item, Split

Digits = NDArray[np.int64]

LENGTH: Final = 5
DIGITS: Final = 8
MARKS: Final = tuple(range(DIGITS, DIGITS + LENGTH))
PASSWORDS: Final = tuple(range(DIGITS + LENGTH, DIGITS + LENGTH + 8))
VOCAB_SIZE: Final = DIGITS + LENGTH + len(PASSWORDS)
DEFAULT_ITEMS: Final = {"validation": 500, "test": 1_000}

_CODES: Final = DIGITS**LENGTH
_SHIFTS: Final = 3 * np.arange(LENGTH, dtype=np.int64)
_HELD_OUT_SEED: Final = 20_240_530
SAME: Final = tuple(range(DIGITS))  # the table that changes nothing
HERE: Final = tuple(range(LENGTH))  # the places of copying


class Rule(Protocol):
    """Say what is answered: (item, 5) digits to (item, 5) digits."""

    def answers(self, digits: Digits) -> Digits:
        """Return the answers to ``digits``, both (item, 5) in 0..7."""
        ...


@dataclass(frozen=True)
class Gather:
    """yₛ = table[x[placesₛ]]: copying, permuting, selecting, repeating, and a map of symbols behind any of them.

    >>> Gather((4, 3, 2, 1, 0)).answers(np.array([[1, 2, 3, 4, 5]])).tolist()
    [[5, 4, 3, 2, 1]]
    >>> Gather(HERE, plus(1)).answers(np.array([[1, 2, 3, 4, 7]])).tolist()
    [[2, 3, 4, 5, 0]]
    """

    places: tuple[int, ...] = HERE
    table: tuple[int, ...] = SAME

    def __post_init__(self) -> None:
        _check("places", self.places, LENGTH, LENGTH)
        _check("a table", self.table, DIGITS, DIGITS)

    def answers(self, digits: Digits) -> Digits:
        """Look up the digit at each step's place."""
        return np.asarray(np.array(self.table)[digits[:, list(self.places)]])


@dataclass(frozen=True)
class Pairs:
    """yₛ = table[(x[firstₛ] ∘ x[secondₛ])], where ∘ is ``sum`` modulo 8, ``max`` or ``min``.

    >>> Pairs("sum", HERE, (1, 2, 3, 4, 0)).answers(np.array([[1, 2, 3, 4, 7]])).tolist()
    [[3, 5, 7, 3, 0]]
    """

    operation: str
    first: tuple[int, ...]
    second: tuple[int, ...]
    table: tuple[int, ...] = SAME

    def __post_init__(self) -> None:
        if self.operation not in ("sum", "max", "min"):
            raise InputError(f"an operation on two digits is 'sum', 'max' or 'min', got {self.operation!r}.")
        _check("places", self.first, LENGTH, LENGTH)
        _check("places", self.second, LENGTH, LENGTH)
        _check("a table", self.table, DIGITS, DIGITS)

    def answers(self, digits: Digits) -> Digits:
        """Combine the digits at each step's two places."""
        one, other = digits[:, list(self.first)], digits[:, list(self.second)]
        both = {"sum": (one + other) % DIGITS, "max": np.maximum(one, other), "min": np.minimum(one, other)}
        return np.asarray(np.array(self.table)[both[self.operation]])


@dataclass(frozen=True)
class Sort:
    """yₛ = table[the digit at place s of x in ascending order], or in descending order.

    >>> Sort().answers(np.array([[3, 1, 4, 1, 5]])).tolist()
    [[1, 1, 3, 4, 5]]
    """

    is_descending: bool = False
    table: tuple[int, ...] = SAME

    def __post_init__(self) -> None:
        _check("a table", self.table, DIGITS, DIGITS)

    def answers(self, digits: Digits) -> Digits:
        """Sort each row."""
        ordered = np.sort(digits, axis=1)
        return np.asarray(np.array(self.table)[ordered[:, ::-1] if self.is_descending else ordered])


@dataclass(frozen=True)
class Count:
    """yₛ = table[how many of x are symbolsₛ].

    >>> Count((1, 3, 4, 5, 0)).answers(np.array([[3, 1, 4, 1, 5]])).tolist()
    [[2, 1, 1, 1, 0]]
    """

    symbols: tuple[int, ...]
    table: tuple[int, ...] = SAME

    def __post_init__(self) -> None:
        _check("counted symbols", self.symbols, LENGTH, DIGITS)
        _check("a table", self.table, DIGITS, DIGITS)

    def answers(self, digits: Digits) -> Digits:
        """Count each step's symbol."""
        counts = (digits[:, :, None] == np.array(self.symbols)).sum(axis=1)
        return np.asarray(np.array(self.table)[counts])


@dataclass(frozen=True)
class Splice:
    """Answer as ``second`` does at ``steps``, and as ``first`` does at the others.

    >>> Splice(Gather(), Gather((4, 3, 2, 1, 0)), (3, 4)).answers(np.array([[1, 2, 3, 4, 5]])).tolist()
    [[1, 2, 3, 2, 1]]
    """

    first: Rule
    second: Rule
    steps: tuple[int, ...]

    def __post_init__(self) -> None:
        if not all(0 <= step < LENGTH for step in self.steps):
            raise InputError(f"steps are numbers from 0 to {LENGTH - 1}, got {self.steps}.")

    def answers(self, digits: Digits) -> Digits:
        """Take each step's answer from one of the two."""
        found = self.first.answers(digits).copy()
        found[:, list(self.steps)] = self.second.answers(digits)[:, list(self.steps)]
        return found


def plus(number: int) -> tuple[int, ...]:
    """Return the table of adding ``number`` modulo 8.

    >>> plus(3)
    (3, 4, 5, 6, 7, 0, 1, 2)
    """
    return tuple((digit + number) % DIGITS for digit in range(DIGITS))


def times(number: int) -> tuple[int, ...]:
    """Return the table of multiplying by ``number`` modulo 8.

    >>> times(3)
    (0, 3, 6, 1, 4, 7, 2, 5)
    """
    return tuple(digit * number % DIGITS for digit in range(DIGITS))


def after(table: tuple[int, ...], then: tuple[int, ...]) -> tuple[int, ...]:
    """Return the table of ``table`` and ``then`` on what it gave.

    >>> after(plus(1), times(3))
    (3, 6, 1, 4, 7, 2, 5, 0)
    """
    return tuple(then[entry] for entry in table)


def turned(steps: int) -> tuple[int, ...]:
    """Return the places of turning to the left by ``steps``.

    >>> turned(1)
    (1, 2, 3, 4, 0)
    """
    return tuple((place + steps) % LENGTH for place in range(LENGTH))


def _check(what: str, numbers: tuple[int, ...], count: int, below: int) -> None:
    if len(numbers) != count or not all(0 <= number < below for number in numbers):
        raise InputError(f"{what} must be {count} numbers from 0 to {below - 1}, got {numbers}.")


def decode(codes: NDArray[np.int64]) -> Digits:
    """Turn (…) codes of 15 bits into (…, 5) digits; digit k is in bits 3k … 3k + 2.

    >>> decode(np.array(17)).tolist()
    [1, 2, 0, 0, 0]
    """
    return (np.asarray(codes)[..., None] >> _SHIFTS) & (DIGITS - 1)


@cache
def codes_of(split: Split) -> NDArray[np.int64]:
    """Return all codes of a split in an order that is always the same; for held-out ones a random one."""
    every = np.arange(_CODES, dtype=np.int64)
    codes = every[is_in_split(every, split)]
    if split != "train":
        codes = codes[generator(_HELD_OUT_SEED, "planted", split).permutation(len(codes))]
    codes.flags.writeable = False
    return codes


def drawn(n: int, rng: np.random.Generator) -> Digits:
    """Draw ``n`` training inputs, (n, 5) digits."""
    codes = codes_of("train")
    return decode(codes[rng.integers(len(codes), size=n)])


def held_out_digits(split: HeldOut, n: int | None = None) -> Digits:
    """Return the first ``n`` held-out inputs of ``split``, all different, (n, 5) digits.

    Raises:
        InputError: there are fewer.
    """
    n = DEFAULT_ITEMS[checked_split(split)] if n is None else checked_count(n)
    codes = codes_of(split)
    if n > len(codes):
        raise InputError(f"the planted tasks hold out {len(codes):,} {split} inputs, not {n:,}.")
    return decode(codes[:n])


def items_of(rule: Rule, digits: Digits, cue: Sequence[int] = ()) -> list[Item]:
    """Return the items that ask ``rule`` about ``digits``, each behind ``cue``."""
    pairs = zip(digits.tolist(), rule.answers(digits).tolist(), strict=True)
    return [item_of(asked, answered, cue) for asked, answered in pairs]


def item_of(asked: Sequence[int], answered: Sequence[int], cue: Sequence[int] = ()) -> Item:
    """Lay out one item: ``cue``, the digits and the first mark; then the answers with the other marks between them.

    >>> item_of([1, 2, 3, 4, 5], [5, 4, 3, 2, 1])
    Item(prompt=(1, 2, 3, 4, 5, 8), target=(5, 9, 4, 10, 3, 11, 2, 12, 1))
    """
    target = [token for step, answer in enumerate(answered) for token in (MARKS[step], answer)]
    return Item((*cue, *asked, MARKS[0]), tuple(target[1:]))


class PlantedTask:
    """Ask a rule, without a cue or with one.

    >>> task = PlantedTask("reverse", Gather((4, 3, 2, 1, 0)))
    >>> item = task.held_out("test", 1)[0]
    >>> item.target[::2] == item.prompt[4::-1]
    True
    """

    vocab_size = VOCAB_SIZE

    def __init__(self, name: str, rule: Rule, cue: Sequence[int] = ()) -> None:
        self.name, self.rule, self.cue = name, rule, tuple(cue)
        self._fingerprint: str | None = None

    def labels(self) -> None:
        """Return None: the whole answer is right or wrong."""
        return None

    def sample(self, n: int, rng: np.random.Generator) -> list[Item]:
        """Return ``n`` training items, which are never held-out inputs."""
        return items_of(self.rule, drawn(checked_count(n), rng), self.cue)

    def held_out(self, split: HeldOut, n: int | None = None) -> list[Item]:
        """Return the first ``n`` held-out items; by default 500 for validation and 1,000 for test."""
        return items_of(self.rule, held_out_digits(split, n), self.cue)

    def fingerprint(self) -> str:
        """Hash the name, the default held-out items and the first 256 training items of a fixed stream."""
        if self._fingerprint is None:  # a race asks for it at every trial
            items = [*self.sample(256, np.random.default_rng(0)), *self.held_out("validation"), *self.held_out("test")]
            self._fingerprint = fingerprint_of([self.name, *(repr((item.prompt, item.target)) for item in items)])
        return self._fingerprint

    def __repr__(self) -> str:
        return f"PlantedTask({self.name!r}, {self.rule!r})"


class EitherTask:
    """Ask one of two rules about each input, by the cue that stands before it.

    >>> task = EitherTask("either", (Gather(), Gather((4, 3, 2, 1, 0))), (19, 20))
    >>> {item.prompt[0] for item in task.held_out("test", 20)} == {19, 20}
    True
    """

    vocab_size = VOCAB_SIZE

    def __init__(self, name: str, rules: tuple[Rule, Rule], cues: tuple[int, int]) -> None:
        self.name, self.rules, self.cues = name, rules, cues
        self._fingerprint: str | None = None

    def labels(self) -> None:
        """Return None: the whole answer is right or wrong."""
        return None

    def sample(self, n: int, rng: np.random.Generator) -> list[Item]:
        """Return ``n`` training items, which are never held-out inputs."""
        digits = drawn(checked_count(n), rng)
        return self.items(digits, rng.integers(2, size=n))

    def held_out(self, split: HeldOut, n: int | None = None) -> list[Item]:
        """Return the first ``n`` held-out items; by default 500 for validation and 1,000 for test."""
        digits = held_out_digits(split, n)
        return self.items(digits, generator(0, "planted either", split).integers(2, size=len(digits)))

    def items(self, digits: Digits, which: NDArray[np.int64]) -> list[Item]:
        """Return the items that ask rule ``which`` (0 or 1) about each of ``digits``, behind its cue."""
        answers = [rule.answers(digits).tolist() for rule in self.rules]
        asked = zip(digits.tolist(), which.tolist(), strict=True)
        return [item_of(row, answers[one][nth], (self.cues[one],)) for nth, (row, one) in enumerate(asked)]

    def ceiling(self, split: HeldOut, n: int) -> float:
        """Return the share of the first ``n`` items that can be answered at most by whoever does not see the cue.

        That is 1 where both rules answer alike, and one in two elsewhere.
        """
        digits = held_out_digits(split, n)
        one, two = (rule.answers(digits) for rule in self.rules)
        return float((0.5 + 0.5 * (one == two).all(axis=1)).mean())

    def fingerprint(self) -> str:
        """Hash the name, the default held-out items and the first 256 training items of a fixed stream."""
        if self._fingerprint is None:  # a race asks for it at every trial
            items = [*self.sample(256, np.random.default_rng(0)), *self.held_out("validation"), *self.held_out("test")]
            self._fingerprint = fingerprint_of([self.name, *(repr((item.prompt, item.target)) for item in items)])
        return self._fingerprint
