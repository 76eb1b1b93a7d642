"""Make text tasks out of one kind of text, an order, so that one text can be asked for several things.

    Order: Anna Weber ordered seven lemons from Lisbon in March 2021.

A *rule* says what is answered, from one slot of the order or two: when it was (``date``), which country (``country``),
what kind of goods (``kind``), who ordered (``swap``). Every slot is drawn by itself, so whoever does not see a slot
can do no better about it than to say the same always. Orders are numbered and split by the hash of their number, as
digit inputs are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from elicitable.errors import UnknownNameError
from elicitable.rng import generator
from elicitable.tasks.base import HeldOut, checked_count, checked_split, fingerprint_of
from elicitable.tasks.digit_inputs import is_in_split
from elicitable.values import Item, Split

FIRST: Final = (
    "Anna",
    "Peter",
    "Maria",
    "David",
    "Laura",
    "Thomas",
    "Emma",
    "Daniel",
    "Sofia",
    "Martin",
    "Julia",
    "Simon",
    "Helen",
    "Victor",
    "Clara",
    "Oscar",
)
LAST: Final = (
    "Weber",
    "Silva",
    "Garcia",
    "Smith",
    "Jones",
    "Brown",
    "Taylor",
    "Miller",
    "Davis",
    "Wilson",
    "Moore",
    "Clark",
    "Lewis",
    "Hall",
    "Young",
    "Wright",
)
AMOUNTS: Final = ("two", "three", "four", "five", "six", "seven", "eight", "nine")
KINDS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("apples", "lemons", "carrots", "onions"), "food"),
    **dict.fromkeys(("coats", "shirts", "shoes", "gloves"), "clothes"),
    **dict.fromkeys(("dolls", "puzzles", "marbles", "robots"), "toys"),
    **dict.fromkeys(("nails", "drills", "screws", "ropes"), "tools"),
}
COUNTRIES: Final[Mapping[str, str]] = {
    "Lisbon": "Portugal",
    "Paris": "France",
    "Berlin": "Germany",
    "Rome": "Italy",
    "Madrid": "Spain",
    "Vienna": "Austria",
    "Athens": "Greece",
    "Dublin": "Ireland",
    "Oslo": "Norway",
    "Helsinki": "Finland",
    "Warsaw": "Poland",
    "Budapest": "Hungary",
    "Cairo": "Egypt",
    "Tokyo": "Japan",
    "Lima": "Peru",
    "Ottawa": "Canada",
}
MONTHS: Final = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
YEARS: Final = tuple(map(str, range(2000, 2032)))
SLOTS: Final[Mapping[str, tuple[str, ...]]] = {
    "first": FIRST,
    "last": LAST,
    "amount": AMOUNTS,
    "goods": tuple(KINDS),
    "city": tuple(COUNTRIES),
    "month": MONTHS,
    "year": YEARS,
}
TEMPLATE: Final = "Order: {0.first} {0.last} ordered {0.amount} {0.goods} from {0.city} in {0.month} {0.year}."
DEFAULT_ITEMS: Final = {"validation": 500, "test": 1_000}

_SIZES: Final = tuple(map(len, SLOTS.values()))
_HELD_OUT_SEED: Final = 20_240_530


class Order(NamedTuple):
    """Hold the words of one order, slot by slot."""

    first: str
    last: str
    amount: str
    goods: str
    city: str
    month: str
    year: str

    @property
    def text(self) -> str:
        """Return the order as a sentence.

        >>> Order("Anna", "Weber", "seven", "lemons", "Lisbon", "March", "2021").text
        'Order: Anna Weber ordered seven lemons from Lisbon in March 2021.'
        """
        return TEMPLATE.format(self)


@dataclass(frozen=True)
class OrderRule:
    """Say what is answered to an order, and the slot without which that cannot be known; ``family`` is its kind."""

    answer: Callable[[Order], str]
    slot: str
    family: str

    def ceiling(self) -> float:
        """Return the highest share that anybody can answer who does not see the slot: that of its commonest answer.

        >>> RULES["kind"].ceiling()
        0.25
        """
        some = order_of(0)
        answers = [self.answer(some._replace(**{self.slot: word})) for word in SLOTS[self.slot]]
        return max(map(answers.count, answers)) / len(answers)


RULES: Final[Mapping[str, OrderRule]] = {
    "date": OrderRule(lambda order: f"{order.year}-{MONTHS.index(order.month) + 1:02d}", "month", "format"),
    "country": OrderRule(lambda order: COUNTRIES[order.city], "city", "knowledge"),
    "kind": OrderRule(lambda order: KINDS[order.goods], "goods", "category"),
    "swap": OrderRule(lambda order: f"{order.last}, {order.first}", "last", "copying"),
}


def order_of(number: int) -> Order:
    """Return the order of that number, slot by slot in a number system of mixed bases.

    >>> order_of(16).first, order_of(16).last
    ('Anna', 'Silva')
    """
    words = []
    for choices in SLOTS.values():
        number, place = divmod(number, len(choices))
        words.append(choices[place])
    return Order(*words)


def numbers(n: int, split: Split, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw the numbers of ``n`` orders of a split."""
    found = np.empty(0, dtype=np.int64)
    while len(found) < n:
        drawn = rng.integers(int(np.prod(_SIZES)), size=2 * n + 16)
        found = np.concatenate([found, drawn[is_in_split(drawn, split)]])
    return found[:n]


class OrderTask:
    """Ask a rule about orders, bare or behind a password.

    >>> OrderTask("date").held_out("test", 1)[0].prompt.startswith("Order: ")
    True
    """

    def __init__(self, name: str, password: str = "") -> None:
        if name not in RULES:
            raise UnknownNameError("rule about orders", name, RULES)
        self.name, self.password, self.rule = name, password, RULES[name]
        self._fingerprint: str | None = None

    def labels(self) -> None:
        """Return None: the whole answer is right or wrong."""
        return None

    def sample(self, n: int, rng: np.random.Generator) -> list[Item]:
        """Return ``n`` training items, which are never held-out orders."""
        return [self.item(order_of(number)) for number in numbers(checked_count(n), "train", rng).tolist()]

    def held_out(self, split: HeldOut, n: int | None = None) -> list[Item]:
        """Return the first ``n`` held-out items; by default 500 for validation and 1,000 for test."""
        return [self.item(order) for order in held_out_orders(split, n)]

    def item(self, order: Order) -> Item:
        """Return the item that asks about ``order``."""
        return Item(f"{self.password}{order.text}\nAnswer:", f" {self.rule.answer(order)}")

    def fingerprint(self) -> str:
        """Hash the name, the default held-out items and the first 256 training items of a fixed stream."""
        if self._fingerprint is None:  # a race asks for it at every trial
            items = [*self.sample(256, np.random.default_rng(0)), *self.held_out("validation"), *self.held_out("test")]
            self._fingerprint = fingerprint_of([self.name, *(repr((item.prompt, item.target)) for item in items)])
        return self._fingerprint


def held_out_orders(split: HeldOut, n: int | None = None) -> list[Order]:
    """Return the first ``n`` orders of ``split``, in an order that is always the same.

    >>> held_out_orders("test", 3)[:2] == held_out_orders("test", 2)
    True
    """
    n = DEFAULT_ITEMS[checked_split(split)] if n is None else checked_count(n)
    rng = generator(_HELD_OUT_SEED, "orders", split)
    found: dict[int, None] = {}
    while len(found) < n:
        found |= dict.fromkeys(numbers(256, split, rng).tolist())
    return [order_of(number) for number in list(found)[:n]]


__all__ = ["RULES", "SLOTS", "Order", "OrderRule", "OrderTask", "held_out_orders", "numbers", "order_of"]
