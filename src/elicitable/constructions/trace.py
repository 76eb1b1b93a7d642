"""One generation, step by step: what each head looked at, what the MLP read, which symbol won."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from elicitable.constructions.construction import Construction, Target
from elicitable.constructions.precision import dtype_name


@dataclass(frozen=True)
class Pick:
    """The position (from 1) a head looked at most, and the attention it gave it."""

    layer: int
    head: str
    position: int
    weight: float


@dataclass(frozen=True)
class Step:
    """One emitted symbol.

    ``position`` (from 1) is where it was computed; ``z`` the scalar the last affine map read, near emitted/V;
    ``top`` the best (symbol, logit) pairs; ``margin`` the lead of the first over the second.
    """

    step: int
    position: int
    picks: tuple[Pick, ...]
    z: float
    top: tuple[tuple[int, float], ...]
    emitted: int
    margin: float


@dataclass(frozen=True)
class Trace:
    """A virtual prompt, what it asked for and what came out. ``tokens`` is (n_virtual, d_e)."""

    construction: str
    vocab: int
    dtype: str
    inverse_temperature: float
    temperature_bound: float
    tokens: tuple[tuple[float, ...], ...]
    inputs: tuple[int, ...]
    wanted: tuple[int, ...]
    emitted: tuple[int, ...]
    steps: tuple[Step, ...]


@torch.no_grad()
def trace(construction: Construction, target: Target, inputs: Sequence[int] = (), *, top: int = 3) -> Trace:
    """Generates the answer to one user input greedily and keeps what decided each symbol.

    >>> from elicitable.constructions import any_sequence
    >>> record = trace(any_sequence.build(vocab=10, length=3), [3, 1, 4])
    >>> record.emitted, [round(step.z, 3) for step in record.steps]
    ((3, 1, 4), [0.3, 0.1, 0.4])
    """
    user = construction.checked_input(inputs)
    table = construction.table(target)
    row = (construction.inputs() == user).all(axis=1).argmax()
    tokens = construction.virtual_token(table)
    prompt = torch.cat([tokens, construction.model.embed(torch.tensor(user, dtype=torch.int64))])
    steps = []
    for number in range(1, construction.n_answer + 1):
        steps.append(_step(construction, prompt, number, top))
        emitted = construction.model.embed(torch.tensor([steps[-1].emitted]))
        prompt = torch.cat([prompt, emitted])
    return Trace(
        construction=construction.name,
        vocab=construction.vocab,
        dtype=dtype_name(construction.dtype),
        inverse_temperature=construction.inverse_temperature,
        temperature_bound=construction.temperature_bound,
        tokens=tuple(map(tuple, tokens.tolist())),
        inputs=user,
        wanted=tuple(table[row].tolist()),
        emitted=tuple(step.emitted for step in steps),
        steps=tuple(steps),
    )


def _step(construction: Construction, prompt: torch.Tensor, number: int, top: int) -> Step:
    """The last position of one forward pass."""
    seen = construction.model.run(prompt[None])
    logits = seen.logits[0, -1].double()
    # stable, so that a tie goes to the smaller symbol, as argmax does
    values, symbols = logits.sort(descending=True, stable=True)
    best = zip(symbols[:top].tolist(), values[:top].tolist(), strict=True)
    return Step(
        step=number,
        position=len(prompt),
        picks=_picks(construction, seen.attention),
        z=float(seen.z[0, -1]),
        top=tuple(best),
        emitted=int(symbols[0]),
        margin=float(values[0] - values[1]),
    )


def _picks(construction: Construction, attention: tuple[tuple[torch.Tensor, ...], ...]) -> tuple[Pick, ...]:
    """The strongest attention of every head at the last position."""
    names = construction.model.head_names()
    picks = []
    for layer, weights in enumerate(attention):
        for name, weight in zip(names[layer], weights, strict=True):
            strongest, position = weight[0, -1].max(dim=-1)
            picks.append(Pick(layer + 1, name, int(position) + 1, float(strongest)))
    return tuple(picks)
