"""Hard tokens beside virtual tokens: how many of the possible behaviours each can ask for.

The same frozen transformer is started with hard tokens (rows of its embedding matrix) and with virtual tokens
(anything), and left to run. A prompt of n hard tokens can take V^n values and so reach at most V^n behaviours, whatever
the weights. (Paper: section 3.)
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from elicitable.constructions.construction import Construction, chunks
from elicitable.constructions.precision import dtype_name
from elicitable.constructions.verify import rows_at_once
from elicitable.errors import InputError

#: At most this many behaviours, and this many symbols, are enumerated by running them.
MOST_ENUMERATED = 1_000_000
MOST_SYMBOLS = 20_000_000

#: Digits in which ``possible`` is written out.
MOST_DIGITS = 4000


@dataclass(frozen=True)
class Reach:
    """Behaviours reached, of ``possible`` = V^(n_Y·V^n_X) ones.

    ``hard_reached`` of ``hard_prompts`` = V^n prompts of n hard tokens, each run; ``hard_bound`` what no choice of
    embeddings could exceed, min(V^n, possible). ``virtual_reached`` is counted by running one virtual prompt for each
    behaviour, or None where there are too many to run; the theorem says all.
    """

    construction: str
    vocab: int
    n_input: int
    n_answer: int
    n_virtual: int
    dtype: str
    possible: int
    hard_prompts: int
    hard_reached: int
    hard_bound: int
    virtual_reached: int | None
    examples: tuple[tuple[int, ...], ...]
    seconds: float


def reach(construction: Construction, told: Callable[[float], None] | None = None) -> Reach:
    """Runs all hard prompts, and all virtual prompts where they can be enumerated.

    ``examples`` are the first few behaviours the hard prompts reach; ``told`` hears the share that is done, from 0 to
    1. Raises InputError for more hard prompts than can be run.

    >>> from elicitable.constructions import any_sequence
    >>> result = reach(any_sequence.build(vocab=4, length=3))
    >>> result.possible, result.hard_reached, result.virtual_reached
    (64, 4, 64)
    """
    began = time.perf_counter()
    hard_prompts = construction.vocab**construction.n_virtual
    each = construction.n_inputs * construction.n_answer
    if hard_prompts * each > MOST_SYMBOLS or hard_prompts > MOST_ENUMERATED:
        raise InputError(
            f"{construction.name} has {construction.vocab}^{construction.n_virtual} prompts of hard tokens here, too "
            "many to run them all; use a smaller vocabulary or fewer virtual tokens."
        )
    if each * math.log10(construction.vocab) > MOST_DIGITS:
        raise InputError(
            f"the number of behaviours, {construction.vocab}^{each}, has over {MOST_DIGITS} digits; use smaller sizes."
        )
    possible = construction.n_targets
    enumerable = possible <= MOST_ENUMERATED and possible * each <= MOST_SYMBOLS
    done, all_rows = 0, (hard_prompts + possible * enumerable) * construction.n_inputs

    def ran(rows: int) -> None:
        nonlocal done
        done += rows
        if told is not None:
            told(done / all_rows)

    hard = behaviours(construction, _hard_prompts(construction), ran)
    virtual = behaviours(construction, _virtual_prompts(construction), ran) if enumerable else None
    return Reach(
        construction=construction.name,
        vocab=construction.vocab,
        n_input=construction.n_input,
        n_answer=construction.n_answer,
        n_virtual=construction.n_virtual,
        dtype=dtype_name(construction.dtype),
        possible=possible,
        hard_prompts=hard_prompts,
        hard_reached=len(hard),
        hard_bound=min(hard_prompts, possible),
        virtual_reached=None if virtual is None else len(virtual),
        examples=tuple(itertools.islice(sorted(hard), 5)),
        seconds=time.perf_counter() - began,
    )


def _hard_prompts(construction: Construction) -> Iterator[Tensor]:
    """All prompts of n_virtual hard tokens, embedded: batches (batch, n_virtual, d_e)."""
    total, places = construction.vocab**construction.n_virtual, construction.n_virtual
    powers = np.array([construction.vocab**place for place in reversed(range(places))])
    for start, stop in _batches(construction, total):
        symbols = np.arange(start, stop)[:, None] // powers % construction.vocab
        yield construction.model.embed(torch.from_numpy(symbols))


def _virtual_prompts(construction: Construction) -> Iterator[Tensor]:
    """The virtual tokens of every behaviour: batches (batch, n_virtual, d_e)."""
    for start, stop in _batches(construction, construction.n_targets):
        yield construction.virtual_tokens(construction.numbered_targets(start, stop))


def _batches(construction: Construction, count: int) -> Iterator[tuple[int, int]]:
    """As many prompts at a time as are run together, but no more than a fiftieth: what is done is told after each."""
    return chunks(count, max(1, min(rows_at_once(construction), count // 50)))


@torch.no_grad()
def behaviours(
    construction: Construction, prompts: Iterable[Tensor], ran: Callable[[int], None] | None = None
) -> set[tuple[int, ...]]:
    """The distinct tables (flattened) that prompts lead to, by greedy generation on every user input.

    ``ran`` hears of so many rows each time that they were run.
    """
    inputs = torch.from_numpy(construction.inputs())
    found: set[tuple[int, ...]] = set()
    for batch in prompts:
        rows = []
        for row in inputs:
            rows.append(construction.greedy(batch, row.expand(len(batch), construction.n_input)))
            if ran is not None:
                ran(len(batch))
        found.update(map(tuple, torch.cat(rows, dim=1).tolist()))
    return found
