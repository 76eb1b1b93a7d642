"""The rules of the benchmark by name, and the family that each belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from elicitable.planted.tasks import HERE, Count, Gather, Pairs, Rule, Sort, after, plus, times, turned

_BACK: Final = (4, 3, 2, 1, 0)
_COMPLEMENT: Final = (7, 6, 5, 4, 3, 2, 1, 0)
_LOOKUP: Final = (5, 2, 7, 0, 3, 6, 1, 4)
_OTHER_LOOKUP: Final = (3, 6, 0, 5, 7, 1, 4, 2)
_PARITY: Final = (0, 1, 0, 1, 0, 1, 0, 1)
_HALF: Final = (0, 0, 1, 1, 2, 2, 3, 3)
_SHUFFLE_A: Final = (2, 0, 4, 1, 3)
_SHUFFLE_B: Final = (1, 3, 0, 4, 2)
_SHUFFLE_C: Final = (3, 4, 1, 0, 2)
_LOW: Final = (0, 1, 2, 3, 4)
_HIGH: Final = (7, 6, 5, 4, 3)

FAMILIES: Final[Mapping[str, Mapping[str, Rule]]] = {
    "copying": {"copy": Gather()},
    "permuting": {
        "reverse": Gather(_BACK),
        "turn-1": Gather(turned(1)),
        "turn-2": Gather(turned(2)),
        "turn-3": Gather(turned(3)),
        "swap": Gather((1, 0, 3, 2, 4)),
        "shuffle-a": Gather(_SHUFFLE_A),
        "shuffle-b": Gather(_SHUFFLE_B),
        "shuffle-c": Gather(_SHUFFLE_C),
    },
    "selection": {
        "first": Gather((0, 0, 0, 0, 0)),
        "last": Gather((4, 4, 4, 4, 4)),
        "every-other": Gather((0, 2, 4, 0, 2)),
    },
    "pattern": {
        "palindrome": Gather((0, 1, 2, 1, 0)),
        "valley": Gather((4, 3, 2, 3, 4)),
        "frame": Gather((0, 1, 2, 3, 0)),
        "stutter": Gather((0, 0, 1, 1, 2)),
        "echo": Gather((0, 1, 0, 1, 0)),
    },
    "arithmetic": {
        "add-1": Gather(HERE, plus(1)),
        "add-3": Gather(HERE, plus(3)),
        "times-3": Gather(HERE, times(3)),
        "complement": Gather(HERE, _COMPLEMENT),
        "half": Gather(HERE, _HALF),
        "parity": Gather(HERE, _PARITY),
        "neighbour-sum": Pairs("sum", HERE, turned(1)),
        "neighbour-max": Pairs("max", HERE, turned(1)),
        "neighbour-min": Pairs("min", HERE, turned(1)),
        "mirror-sum": Pairs("sum", HERE, _BACK),
        "mirror-max": Pairs("max", HERE, _BACK),
    },
    "lookup": {"lookup": Gather(HERE, _LOOKUP), "other-lookup": Gather(HERE, _OTHER_LOOKUP)},
    "sorting": {"sort": Sort(), "sort-down": Sort(is_descending=True)},
    "counting": {"count-low": Count(_LOW), "count-high": Count(_HIGH)},
    "composition": {
        "reverse-add-1": Gather(_BACK, plus(1)),
        "reverse-lookup": Gather(_BACK, _LOOKUP),
        "reverse-complement": Gather(_BACK, _COMPLEMENT),
        "turn-1-lookup": Gather(turned(1), _LOOKUP),
        "turn-2-add-3": Gather(turned(2), plus(3)),
        "shuffle-a-times-3": Gather(_SHUFFLE_A, times(3)),
        "shuffle-b-complement": Gather(_SHUFFLE_B, _COMPLEMENT),
        "add-1-times-3": Gather(HERE, after(plus(1), times(3))),
        "shuffle-b-lookup": Gather(_SHUFFLE_B, _LOOKUP),
        "shuffle-b-half": Gather(_SHUFFLE_B, _HALF),
        "turn-2-times-3": Gather(turned(2), times(3)),
        "last-complement": Gather((4, 4, 4, 4, 4), _COMPLEMENT),
        "last-half": Gather((4, 4, 4, 4, 4), _HALF),
        "first-lookup": Gather((0, 0, 0, 0, 0), _LOOKUP),
        "first-add-1": Gather((0, 0, 0, 0, 0), plus(1)),
        "sort-add-1": Sort(table=plus(1)),
        "sort-complement": Sort(table=_COMPLEMENT),
        "sum-complement": Pairs("sum", HERE, turned(1), _COMPLEMENT),
    },
}
RULES: Final[Mapping[str, Rule]] = {name: rule for rules in FAMILIES.values() for name, rule in rules.items()}
FAMILY_OF: Final[Mapping[str, str]] = {name: family for family, rules in FAMILIES.items() for name in rules}
