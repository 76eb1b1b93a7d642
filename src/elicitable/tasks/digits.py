"""Make the synthetic tasks of section 5 of the paper: read 10 digits, write 10 digits.

Prompts are digits 0..7, targets symbols 0..9, and the vocabulary has 10 symbols. :mod:`elicitable.tasks.digit_rules`
says what each task answers. :mod:`elicitable.tasks.digit_inputs` says which inputs there are, how they are split and
how they are drawn, which is the same for every task here.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from elicitable.errors import UnknownNameError
from elicitable.tasks.base import HeldOut, checked_count, checked_split, fingerprint_of, picture_of
from elicitable.tasks.digit_inputs import Digits, decode, draw_codes, held_out_codes
from elicitable.tasks.digit_rules import MIXED, RULES
from elicitable.values import Item

VOCAB_SIZE: Final = 10
DEFAULT_ITEMS: Final = {"validation": 500, "test": 1_000}


class DigitTask:
    """Ask one synthetic task by name, or ``mixed``.

    ``mixed`` answers each input by one of ascending, descending, add-1 and add-2, drawn uniformly and not shown to
    the reader, so that no reader can be right in much more than a quarter of the items: it is there to pretrain on.

    >>> task = DigitTask("descending")
    >>> item = task.held_out("test", 1)[0]
    >>> item.target == tuple(sorted(item.prompt, reverse=True))
    True
    """

    vocab_size = VOCAB_SIZE
    warnings: tuple[str, ...] = ()

    def __init__(self, name: str) -> None:
        known = [*RULES, "mixed"]
        if name not in known:
            raise UnknownNameError("synthetic task", name, known)
        self.name = name
        self._rules = [RULES[part] for part in (MIXED if name == "mixed" else (name,))]

    def labels(self) -> None:
        """Return None: the whole answer is right or wrong."""
        return None

    def arrays(self, n: int, rng: np.random.Generator) -> tuple[Digits, Digits]:
        """Return ``n`` training items as prompts (n, 10) and targets (n, 10), int64; what :meth:`sample` wraps.

        >>> prompts, targets = DigitTask("add-2").arrays(64, np.random.default_rng(0))
        >>> prompts.shape, targets.dtype, bool((targets == prompts + 2).all())
        ((64, 10), dtype('int64'), True)
        """
        prompts = decode(draw_codes(checked_count(n), "train", rng))
        return prompts, self._targets(prompts, rng.random(n) if len(self._rules) > 1 else None)

    def held_out_arrays(self, split: HeldOut, n: int | None = None) -> tuple[Digits, Digits]:
        """Return :meth:`held_out` as prompts (n, 10) and targets (n, 10), int64."""
        n = DEFAULT_ITEMS[checked_split(split)] if n is None else checked_count(n)
        codes, lots = held_out_codes(split, n)
        prompts = decode(codes)
        return prompts, self._targets(prompts, lots)

    def sample(self, n: int, rng: np.random.Generator) -> list[Item]:
        """Return ``n`` training items, which are never held-out inputs."""
        return _items(*self.arrays(n, rng))

    def held_out(self, split: HeldOut, n: int | None = None) -> list[Item]:
        """Return the first ``n`` held-out items; by default 500 for validation, 1,000 for test; at most 20,000."""
        return _items(*self.held_out_arrays(split, n))

    def fingerprint(self) -> str:
        """Hash the name, the default held-out items and the first 256 training items of a fixed stream."""
        parts = [self.arrays(256, np.random.default_rng(0))]
        parts += [self.held_out_arrays("validation"), self.held_out_arrays("test")]
        return fingerprint_of(["digits", self.name, *(_bytes(array) for pair in parts for array in pair)])

    def _targets(self, prompts: Digits, lots: NDArray[np.float64] | None) -> Digits:
        if len(self._rules) == 1 or lots is None:
            return np.ascontiguousarray(self._rules[0](prompts))
        chosen = (lots * len(self._rules)).astype(np.int64)
        answers = np.stack([rule(prompts) for rule in self._rules])
        return answers[chosen, np.arange(len(prompts))]

    def __repr__(self) -> str:
        return f"DigitTask({self.name!r})"

    def _repr_html_(self) -> str:
        """Return a few of its items as a table, for a notebook."""
        return picture_of(self)


def _items(prompts: Digits, targets: Digits) -> list[Item]:
    pairs = zip(prompts.tolist(), targets.tolist(), strict=True)
    return [Item(tuple(prompt), tuple(target)) for prompt, target in pairs]


def _bytes(array: Digits) -> bytes:
    return array.astype("<i8").tobytes()
