"""Runs a construction on targets and counts where it is wrong.

Greedy generation emits Y exactly if at every step, fed Y so far, the largest logit is the right one. So one causal
forward pass per (target, input) decides all n_Y steps at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from elicitable.constructions.construction import MOST_INPUTS, Construction, Symbols, chunks
from elicitable.constructions.precision import dtype_name
from elicitable.errors import InputError
from elicitable.rng import generator

#: Exhaustive verification is refused above this many forward passes.
MOST_PASSES = 20_000_000

#: Numbers held at a time in one activation.
BATCH_NUMBERS = 2_000_000


@dataclass(frozen=True)
class Counterexample:
    """A target, an input and a step where another symbol's logit is at least as large."""

    target: tuple[int, ...]
    inputs: tuple[int, ...]
    step: int
    wanted: int
    emitted: int
    margin: float


@dataclass(frozen=True)
class Verification:
    """What was run and what went wrong.

    ``checked`` targets, each on all of its inputs (``passes`` forward passes, ``decisions`` symbols);
    ``failures`` wrong symbols, the first few as ``counterexamples``; ``smallest_margin`` the smallest lead of
    a right logit over the rest (1/V² in exact arithmetic). A tie is a failure.
    """

    construction: str
    vocab: int
    n_input: int
    n_answer: int
    dtype: str
    inverse_temperature: float
    temperature_bound: float
    exhaustive: bool
    seed: int | None
    checked: int
    passes: int
    decisions: int
    failures: int
    counterexamples: tuple[Counterexample, ...]
    smallest_margin: float
    ideal_margin: float
    seconds: float


def verify(
    construction: Construction,
    how: Literal["exhaustive"] | int = "exhaustive",
    *,
    seed: int = 0,
    most_counterexamples: int = 10,
    told: Callable[[float], None] | None = None,
) -> Verification:
    """Every target (``"exhaustive"``) or ``how`` random ones, always on every input.

    ``told`` hears the share that is done, from 0 to 1. Raises InputError when exhaustion would take more than 2·10^7
    forward passes.

    >>> from elicitable.constructions import any_map
    >>> result = verify(any_map.build(vocab=3))
    >>> result.checked, result.failures, result.exhaustive
    (27, 0, True)
    """
    exhaustive = how == "exhaustive"
    count = _target_count(construction, how)
    groups = _numbered(construction, count) if exhaustive else _random(construction, count, seed)
    tell = None if told is None else lambda passes: told(passes / (count * construction.n_inputs))
    return _verify(construction, groups, exhaustive, None if exhaustive else seed, most_counterexamples, tell)


def verify_targets(construction: Construction, tables: Symbols, *, most_counterexamples: int = 10) -> Verification:
    """The given targets, as tables (count, V^n_X, n_Y), on every input."""
    return _verify(construction, iter([tables]), False, None, most_counterexamples)


def holds(construction: Construction, tables: Symbols, inputs: Symbols | None = None) -> bool:
    """Whether targets, as tables (count, V^n_X, n_Y), come out right; ends at the first that does not.

    On every user input, or on those with the given numbers (in counting order).
    """
    return all(bool((leads > 0).all()) for _, leads in _leads(construction, tables, inputs))


def _target_count(construction: Construction, how: str | int) -> int:
    """How many targets to run; raises InputError for a count that is no count or too many to exhaust."""
    if how == "exhaustive":
        passes = construction.n_targets * construction.n_inputs
        if passes > MOST_PASSES:
            raise InputError(
                f"{construction.name} has {construction.vocab}^"
                f"{construction.n_inputs * construction.n_answer} targets here, too many to exhaust "
                f"(at most {MOST_PASSES:,} forward passes); give a number of random ones."
            )
        return construction.n_targets
    if isinstance(how, str) or how < 1:
        raise InputError(f"verify takes 'exhaustive' or a positive count, got {how!r}.")
    return how


def _group(construction: Construction) -> int:
    """Targets drawn at a time."""
    return max(1, min(65_536, MOST_INPUTS // (construction.n_inputs * construction.n_answer)))


def _numbered(construction: Construction, count: int) -> Iterator[Symbols]:
    for start, stop in chunks(count, _group(construction)):
        yield construction.numbered_targets(start, stop)


def _random(construction: Construction, count: int, seed: int) -> Iterator[Symbols]:
    draws = generator(seed, "constructions", "verify", construction.name)
    for start, stop in chunks(count, _group(construction)):
        yield construction.random_targets(stop - start, draws)


def _verify(
    construction: Construction,
    groups: Iterator[Symbols],
    exhaustive: bool,
    seed: int | None,
    most_counterexamples: int,
    told: Callable[[int], None] | None = None,
) -> Verification:
    """The loop over groups of targets; ``told`` hears how many passes were made."""
    began = time.perf_counter()
    checked = failures = passes = 0
    smallest = float("inf")
    found: list[Counterexample] = []
    for tables in groups:
        checked += len(tables)
        for rows, leads in _leads(construction, tables):
            smallest = min(smallest, float(leads.min()))
            wrong = (leads <= 0).nonzero()
            failures += len(wrong)
            for row, step in wrong[: most_counterexamples - len(found)].tolist():
                found.append(_counterexample(construction, tables, int(rows[row]), step))
            passes += len(rows)
            if told is not None:
                told(passes)
    return Verification(
        construction=construction.name,
        vocab=construction.vocab,
        n_input=construction.n_input,
        n_answer=construction.n_answer,
        dtype=dtype_name(construction.dtype),
        inverse_temperature=construction.inverse_temperature,
        temperature_bound=construction.temperature_bound,
        exhaustive=exhaustive,
        seed=seed,
        checked=checked,
        passes=passes,
        decisions=passes * construction.n_answer,
        failures=failures,
        counterexamples=tuple(found),
        smallest_margin=smallest,
        ideal_margin=construction.vocab**-2.0,
        seconds=time.perf_counter() - began,
    )


def prompts(construction: Construction, tables: Symbols, rows: Symbols) -> tuple[Tensor, Tensor]:
    """Teacher-forced prompts and the symbols they should be answered with.

    Row r is input r mod V^n_X of target r // V^n_X. Returns embeddings (rows, position, d_e) of
    [virtual tokens, input, all but the last answer symbol] and answers (rows, n_Y).
    """
    target, index = np.divmod(rows, construction.n_inputs)
    answers = torch.from_numpy(tables[target, index])
    inputs = torch.from_numpy(construction.inputs()[index])
    # few targets, many inputs: each target's virtual tokens are made once
    used, where = np.unique(target, return_inverse=True)
    virtual = construction.virtual_tokens(tables[used])[torch.from_numpy(where)]
    known = construction.model.embed(torch.cat([inputs, answers[:, :-1]], dim=1))
    return torch.cat([virtual, known], dim=1), answers


def rows_at_once(construction: Construction) -> int:
    """Return how many rows are run together, so that no activation of theirs holds more than :data:`BATCH_NUMBERS`."""
    shape = construction.model.shape()
    widest = max(shape.stream, shape.context, *(max(widths) for widths in shape.mlp_widths))
    return max(1, BATCH_NUMBERS // (shape.context * widest))


@torch.no_grad()
def _leads(
    construction: Construction, tables: Symbols, inputs: Symbols | None = None
) -> Iterator[tuple[Symbols, Tensor]]:
    """(rows, lead of the right logit over the best other one (rows, n_Y)), batch by batch."""
    batch = rows_at_once(construction)
    used = np.arange(construction.n_inputs) if inputs is None else inputs
    every = (np.arange(len(tables))[:, None] * construction.n_inputs + used).ravel()
    for rows in (every[start:stop] for start, stop in chunks(len(every), batch)):
        embeddings, answers = prompts(construction, tables, rows)
        logits = construction.model(embeddings, last=construction.n_answer)
        right = logits.gather(-1, answers[..., None])
        logits.scatter_(-1, answers[..., None], -torch.inf)
        yield rows, (right[..., 0] - logits.amax(dim=-1)).nan_to_num(nan=-torch.inf)


@torch.no_grad()
def _counterexample(construction: Construction, tables: Symbols, row: int, step: int) -> Counterexample:
    """Runs one row again and says what it emitted."""
    embeddings, answers = prompts(construction, tables, np.array([row]))
    logits = construction.model(embeddings)[0, step - construction.n_answer].double()
    wanted = int(answers[0, step])
    others = logits.clone()
    others[wanted] = -torch.inf
    target, index = divmod(row, construction.n_inputs)
    margin = float(logits[wanted] - others.max())
    return Counterexample(
        target=tuple(tables[target].ravel().tolist()),
        inputs=tuple(construction.inputs()[index].tolist()),
        step=step + 1,
        wanted=wanted,
        emitted=int(others.argmax()) if margin <= 0 else wanted,
        margin=margin,
    )
